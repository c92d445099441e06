"""The named ways to run a model: found, loaded, called with pictures; and what importing costs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from own_variants import own
from PIL import Image

import udnet
from udnet import Error
from udnet.network import prepared
from udnet.pictures import photographs, reference
from udnet.system import guard, memory
from udnet.trials import trial
from udnet.variants import catalogue, compared, enhancer

HEAVY = {"torch", "onnxruntime", "onnx", "pandas", "matplotlib", "PIL", "psutil", "tqdm", "memory_profiler"}
HEAVY |= {"openvino", "MNN", "ncnn"}


def imported_by(code):
    """The top-level modules that a fresh interpreter holds after some code."""
    run = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", run], cwd=REPO, capture_output=True, check=True, text=True).stdout.split()
    )


# Importing


@pytest.mark.parametrize(
    "module", ["system.memory", "variants.catalogue", "variants.compared", "variants.runtimes", "trials.trial"]
)
def test_importing_is_light(module):
    assert not imported_by(f"import udnet.{module}") & HEAVY


def test_the_package_itself_imports_nothing():
    assert not imported_by("import udnet") & {*HEAVY, "numpy"}


def test_the_package_offers_what_it_says():
    assert {name for name in udnet._FACE if not callable(getattr(udnet, name))} == set()
    assert set(udnet._FACE) <= set(dir(udnet))
    assert udnet.load is enhancer.load
    with pytest.raises(AttributeError, match="nothing"):
        _ = udnet.nothing


# Finding


def test_names():
    for name, one in compared.VARIANTS.items():
        assert catalogue.find(name) is one
        assert (one.name, one.runtime) == (name, name.partition("-")[0])
        assert one.summary
        assert one.schedule in ("whole", "tiled")


def test_a_variant_of_ones_own():
    assert catalogue.find(own("SAME")).name == "same"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("onxx", "no variant 'onxx': did you mean onnx, "),
        ("", "no variant ''"),
        (3, "3 is no variant's name: give one that `udnet variants` lists"),
        (b"onnx", "is no variant's name"),
        ("absent.py:NAME", "no Python file absent.py"),
        (f"{REPO}:NAME", "no Python file"),
        (f"{REPO / 'Makefile'}:NAME", "no Python file"),
        (own("ABSENT"), "gives no variant 'ABSENT'"),
        (own(""), "gives no variant ''"),
        (own("NOT_A_VARIANT"), "'NOT_A_VARIANT' in"),
        (own("NAMED_AS_ANOTHER"), "is named 'onnx-lean', as one of udnet's own: give it another name"),
    ],
)
def test_no_variant(name, said):
    with pytest.raises(Error) as caught:
        catalogue.find(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["import no_such_module", "def broken(:", "1 / 0"])
def test_a_file_that_does_not_run(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(Error, match=r"mine\.py gives no variant 'NAME': \w+Error: ") as caught:
        catalogue.find(f"{path}:NAME")
    assert "\n" not in str(caught.value)


# Calling


@pytest.fixture(scope="module")
def same():
    return enhancer.load(own("SAME"))


@pytest.mark.parametrize("threads", [0, -1, "2", True, 100_000])
def test_no_such_threads_is_one_line(threads):
    with pytest.raises(Error, match="no number of threads"):
        enhancer.load(own("SAME"), threads=threads)


@pytest.mark.parametrize("size", [(16, 16), (64, 72), (17, 31), (100, 3), (1, 1), (1, 40)])
def test_any_size_comes_back(same, size):
    pixels = reference.picture(*size)
    enhanced = same(pixels)
    assert (enhanced.shape, enhanced.dtype) == ((*size, 3), np.uint8)
    np.testing.assert_array_equal(enhanced, pixels)
    assert enhanced is not pixels

    image = same(Image.fromarray(pixels))
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", size[::-1])
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_grey_image_comes_back_in_colour(same):
    image = same(Image.new("L", (20, 30), 128))
    assert (image.mode, image.size) == ("RGB", (20, 30))
    assert image.getpixel((5, 5)) == (128, 128, 128)


def test_an_image_is_turned_and_keeps_its_alpha(same, tmp_path):
    stored = np.dstack([reference.picture(20, 30), np.arange(600, dtype=np.uint8).reshape(20, 30)])
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(stored).save(tmp_path / "in.png", exif=exif)
    with Image.open(tmp_path / "in.png") as image:
        np.testing.assert_array_equal(np.asarray(same(image)), np.rot90(stored, -1))
    enhanced = same(photographs.read(tmp_path / "in.png"))
    assert isinstance(enhanced, photographs.Picture)
    np.testing.assert_array_equal(enhanced.pixels, np.rot90(stored[..., :3], -1))
    np.testing.assert_array_equal(enhanced.alpha, np.rot90(stored[..., 3], -1))


@pytest.fixture(scope="module")
def tiled():
    return enhancer.load("onnx-tiled", "seeded", threads=1)


@pytest.mark.parametrize("schedule", ["same", "tiled"])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        *(np.zeros((8, 8, 3), kind) for kind in ("float32", "uint16", "int8", "bool", "object")),
        np.ma.zeros((8, 8, 3), np.uint8),
        [[[1, 2, 3]]],
        None,
        "photo.jpg",
    ],
    ids=lambda wrong: f"{type(wrong).__name__} {getattr(wrong, 'dtype', '')}",
)
def test_no_picture(schedule, wrong, request):
    with pytest.raises(Error, match="uint8"):
        request.getfixturevalue(schedule)(wrong)


def test_an_enhancer_says_what_it_is(same):
    assert repr(same).startswith("<Enhancer same, weights: ")
    assert same.variant is catalogue.find(own("SAME")) or same.variant.name == "same"
    batch = np.full((2, 3, 16, 8), 1.5, np.float32)
    np.testing.assert_array_equal(same.network(batch), batch)


@pytest.mark.parametrize("name", ["pytorch", "pytorch-lean", "onnx", "onnx-no-pattern", "onnx-no-arena", "onnx-lean"])
def test_variants_agree_on_a_picture(name, published):
    pixels = reference.picture(61, 45)
    expected = enhancer.load("onnx", published, threads=1)(pixels).astype(int)
    enhanced = enhancer.load(name, published, threads=1)(pixels)
    assert abs(enhanced - expected).max() <= 1, "at most a rounding apart"
    assert abs(expected - pixels).mean() > 5, "and it is enhanced"


def test_the_default_is_onnxruntime(published, monkeypatch):
    assert enhancer.load(weights=published).variant.name == "onnx-tiled"
    find = enhancer.importlib.util.find_spec
    monkeypatch.setattr(enhancer.importlib.util, "find_spec", lambda name: name != "onnxruntime" and find(name))
    assert enhancer.load(weights=published).variant.name == "pytorch-tiled"


def test_the_default_takes_no_more_than_half_of_what_is_free(published, monkeypatch):
    monkeypatch.setattr(guard, "free", lambda: 800 * memory.MIB)
    assert enhancer.load(weights=published).network.limit == 400 * memory.MIB
    assert enhancer.load(weights=published, memory_limit=10**9).network.limit == 10**9
    assert enhancer.load("onnx-tiled", published).network.limit is None
    with pytest.raises(Error, match="onnx has no plan for a memory limit"):
        enhancer.load("onnx", published, memory_limit=10**9)


@pytest.mark.parametrize("limit", ["512MiB", "512 mib", str(2**29), 2**29, 2.0**29])
def test_a_memory_limit_is_what_the_command_takes(limit, published):
    assert udnet.load("onnx-tiled", published, memory_limit=limit).network.limit == 2**29


@pytest.mark.parametrize("limit", ["x", "5", 5, -1, 0, "-1MiB", float("nan"), [1]])
def test_no_memory_limit_is_one_line(limit):
    with pytest.raises(Error, match="512MiB") as caught:
        udnet.load("onnx-tiled", memory_limit=limit)
    assert "\n" not in str(caught.value)


def test_a_memory_limit_is_given_once():
    for name, limit in (("onnx-tiled@512MiB", "512MiB"), ("onnx-tiled@512MiB@1GiB", None)):
        with pytest.raises(Error, match="onnx-tiled@512MiB names a memory limit already"):
            udnet.load(name, memory_limit=limit)


@pytest.mark.parametrize("name", ["load.stripped", "load.mmap", "load.meta"])
def test_a_rung_is_not_loaded_with_a_tensor_missing(tmp_path, name):
    import torch

    state = torch.load(prepared.DEFAULT, weights_only=True)
    del state["decoder.conv_u.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(KeyError, match=r"decoder\.conv_u\.bias"):
        catalogue.find(name).load(1, tmp_path / "w.pth")


def test_weights_that_are_not_there():
    with pytest.raises(Error, match=r"absent\.onnx"):
        enhancer.load(weights="absent.onnx")


def test_an_own_file_is_found_from_where_one_is(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from own_variants import SAME as mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO / "tests"), os.environ.get("PYTHONPATH", "")]))
    assert trial.run(trial.Trial("mine.py:mine", 16, 16, 1)).status == "ok"


@pytest.mark.parametrize("name", ["onnx-lean/4", "onnx-no-arena/0.5", "onnx/x"])
def test_what_has_no_scale_is_refused(name):
    with pytest.raises(Error, match=r"no allocator to scale: choose onnx, .* or onnx-no-arena|no scale '.*': give a "):
        catalogue.find(name)
