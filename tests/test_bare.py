"""With NumPy, Pillow and ONNX Runtime alone: pictures are enhanced, limits are planned, and what lacks is one line."""

import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image
from test_project import with_what_they_need

from udnet.__main__ import main
from udnet.network import prepared
from udnet.pictures import reference
from udnet.system import guard
from udnet.system.memory import MIB
from udnet.tiled import scratch
from udnet.variants import enhancer

INSTALLED = ("numpy", "pillow", "onnxruntime")
WITHOUT = ("torch", "onnx", "pandas", "matplotlib", "scipy", "psutil", "tqdm", "platformdirs", "memory_profiler")
LIMIT, SIZE = ["--limit", "512MiB"], ["--size", "2160x3840"]
ASKED = [["plan", *words] for words in (LIMIT, SIZE, LIMIT + SIZE, ["--limit", "80MiB", *SIZE], [])]
RUN = """
import contextlib, importlib.util, io, json, sys
found = [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)]
from udnet.__main__ import main
said = []
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    said.append((code, out.getvalue(), err.getvalue()))
print(json.dumps([found, said]))
"""
LOAD = """
import sys, udnet
for path in sys.argv[1:]:
    try:
        udnet.load(weights=path)
    except udnet.Error as error:
        print(error)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment with what `pip install numpy pillow onnxruntime` brings: links to what is here."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    for name in with_what_they_need(INSTALLED):
        distribution = metadata.distribution(name)
        for top in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(distribution.locate_file(top))
    return python


@pytest.fixture
def run(bare, tmp_path):
    """A function that runs Python in that environment, in an empty folder and with an empty cache."""

    def run(*words, **more):
        environment = {name: value for name, value in os.environ.items() if name != "UDNET_CACHE"}
        environment |= {"PYTHONPATH": str(REPO), "HOME": str(tmp_path / "home"), **more}
        return subprocess.run([bare, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_program(run, tmp_path):
    """From the embedded weights a photograph, where nothing has ever been made and there is no cache folder."""
    Image.fromarray(reference.picture(40, 56)).save(tmp_path / "in.png")
    done = run("-m", "udnet", "enhance", "in.png", "out.png", "--weights", "default")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out.png: onnx-tiled, weights: the embedded default (sha256 ")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("in.png: 40x56, onnx-tiled in 1 strip, ")
    expected = enhancer.load("onnx-tiled", "default")(reference.picture(40, 56))
    np.testing.assert_array_equal(Image.open(tmp_path / "out.png"), expected)
    assert not list(tmp_path.rglob("*udnet*")), "no cache"


@pytest.mark.slow
def test_a_frame_of_4k_in_256_mib(bare, tmp_path):
    """README's command in a container of 256 MiB: the kernel's own limit, and nothing else installed."""
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    if not scratch.find():
        pytest.skip("the folder for temporary files lies in memory")
    pixels = reference.picture(2160, 3840)
    Image.fromarray(pixels).save(tmp_path / "in.png", compress_level=1)
    with guard.limit(256 * MIB) as group:
        enhance = [str(bare), "-m", "udnet", "enhance", "in.png", "out.png", "--memory-limit", "256MiB"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "HOME": str(tmp_path / "home")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(group.command(enhance), cwd=tmp_path, env=environment, **pipes) as it:
            group.watch(it)
            _, said = it.communicate()
    assert it.returncode == 0, said
    assert "on a scratch file of" in said
    assert Image.open(tmp_path / "out.png").size == (3840, 2160)


def test_every_answer(run, tmp_path, exported, capsys):
    """An ONNX file, a folder of pictures, plans, lists and help, one after another, as in the whole environment."""
    pixels = reference.picture(40, 56)
    (tmp_path / "in").mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    torch.save({}, tmp_path / "w.pth")
    enhance = ["enhance", "in", "out", "--weights"]
    words = [
        [*enhance, str(exported)],
        [*enhance, "w.pth"],
        *(["plan", *one] for one in ASKED),
        ["variants"],
        ["--help"],
    ]
    done = run("-c", RUN, json.dumps(WITHOUT), json.dumps(words), UDNET_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    found, ((made, *_), refused, *said) = json.loads(done.stdout)
    assert found == [], "the environment is bare"

    assert made == 0
    expected = enhancer.load("onnx-tiled", exported)(pixels)
    for name in ("one.png", "two.png"):
        np.testing.assert_array_equal(Image.open(tmp_path / "out" / name), expected)
    (arrays,) = (tmp_path / "cache").rglob("*.npz")
    assert arrays.read_bytes() == prepared.prepared(prepared.find(exported), "arrays").read_bytes()

    line = f"{tmp_path / 'w.pth'}: takes PyTorch to read, which is not installed; install it, or give an .onnx"
    assert refused == [2, "", f"udnet: error: {line}\n"]

    for asked, (code, out, err) in zip(words[2:-1], said, strict=False):
        assert (main(asked), *capsys.readouterr()) == (code, out, err)
    code, out, err = said[-1]
    assert (code, err) == (0, "") and "usage: udnet" in out


def test_what_lacks_is_one_line_in_python(run, tmp_path):
    torch.save({}, tmp_path / "w.pth")
    (tmp_path / "w.onnx").write_bytes(b"\x08\x0a")
    done = run("-c", LOAD, "w.pth", "w.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'w.pth'}: takes PyTorch to read, which is not installed; install it, or give an .onnx",
        "no cache folder: name one in UDNET_CACHE, or install platformdirs",
    ]
