"""The commands, as a user gives them: answers, exit codes, and one line for what is wrong."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from conftest import REPO
from own_variants import own
from PIL import Image

from udnet import Error
from udnet.__main__ import main
from udnet.pages import notebooks, publish
from udnet.system import guard
from udnet.system.memory import MIB, parse_bytes
from udnet.trials import trial
from udnet.trials.tables import PHASE_COLUMNS
from udnet.trials.trial import PHASES
from udnet.variants import catalogue
from udnet.variants.compared import VARIANTS

with_shell = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
with_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

# Wrong requests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place to be in, save for a picture and a grid."""
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    (tmp_path / "grid.toml").write_text(
        f"seed = 1\n[[trials]]\nvariants = [{own('SAME')!r}]\nsizes = ['16x16']\nthreads = [1]\nrepeats = 1\n"
    )
    (tmp_path / "wrong.toml").write_text("seed = 1\n")
    (tmp_path / "not.pth").write_text("words")
    (tmp_path / "not.ipynb").write_text("words")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "request_",
    [
        "enhnace photo.png out.png",
        "enhance photo.png",
        "enhance absent.png out.png",
        "enhance photo.png out.png --variant absent",
        "enhance photo.png out.png --weights absent.pth",
        "enhance photo.png out.png --weights not.pth",
        "enhance photo.png out.png --threads 0",
        "enhance photo.png out.png --memory-limit 0",
        "enhance photo.png out.png --memory-limit 5",
        "enhance photo.png out.png --variant onnx --memory-limit 512MiB",
        "enhance photo.png out.png --variant onnx-tiled@512MiB --memory-limit 512MiB",
        "measure",
        "measure --size 64",
        "measure --size 64x64x64",
        "measure --size 0x64",
        "measure --size 999999x999999",
        "measure --size 64x64 --variant absent",
        "measure --size 64x64 --variant absent.py:NAME",
        "measure --size 64x64 --weights absent.pth",
        "measure --size 64x64 --repeats 0",
        "measure --size 64x64 --repeats two",
        "measure --size 64x64 --threads -1",
        "measure --size 64x64 --memory-limit much",
        "measure --size 64x64 --memory-limit 0",
        "measure --size 64x64 --memory-limit -5MiB",
        "measure --size 64x64 --cores 2",
        "study --grid absent",
        "study --grid absent.toml",
        "study --grid wrong.toml",
        "study --grid grid.toml --weights absent.pth",
        "study --grid grid.toml --out photo.png",
        "study --grid grid.toml extra",
        "export absent.pth out.onnx",
        "export not.pth out.onnx",
        "export",
        "check absent.pth",
        "check not.pth",
        "check",
        "strip absent.pth out.pth",
        "strip not.pth out.pth",
        "strip not.pth",
        "fetch now",
        "clean everything",
        "variants all",
        "plan",
        "plan --limit 512MiB --study absent",
        "claims --study absent",
        "figures --study absent --out here",
        "notebook",
        "notebook 99",
        "notebook absent.ipynb",
        "notebook not.ipynb",
        "notebook 1 -p study",
        "notebook 1 -p absent=1",
        "reproduce --grid absent --out here",
        "publish now",
    ],
)
def test_a_wrong_request_is_one_line(folder, capfd, request_):
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    assert main(request_.split()) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("udnet: error: ")
    assert said.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before


def test_a_wrong_request_to_the_program():
    command = [sys.executable, "-m", "udnet", "measure", "--size", "sixty"]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "udnet: error: no size 'sixty': give HEIGHTxWIDTH in pixels, for example 512x768\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["measure", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out


def test_no_command_is_the_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr()
    assert "usage: udnet" in said.out and "reproduce" in said.out and said.err == ""


def test_a_missing_module_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["measure", "--size", "16x16"]) == 2
    assert capsys.readouterr().err == "udnet: error: this Python has no tqdm: use .venv/bin/udnet, after `make env`\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1073741824", 2**30),
        ("512MiB", 512 * 2**20),
        ("512 MiB", 512 * 2**20),
        ("2GiB", 2**31),
        ("1.5gib", 3 * 2**29),
        ("64KiB", 2**16),
        ("10MB", 10**7),
        ("1gb", 10**9),
        ("100b", 100),
    ],
)
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "0", "0.5", "-1MiB", "12 apples", "5M", "1TiB", "nan", "inf", "1e999"])
def test_no_bytes(text):
    with pytest.raises(Error, match="512MiB"):
        parse_bytes(text)


# Answers


def test_variants_are_listed(capsys):
    assert main(["variants"]) == 0
    said = capsys.readouterr().out
    heads = re.findall(
        r"^(\S+): (PyTorch|ONNX Runtime|OpenVINO|MNN|ncnn), (the whole image at once|strip by strip)\n {4}\w",
        said,
        re.M,
    )
    named = [name for name, _, _ in heads]
    assert named == [name for family in catalogue.FAMILIES for name in catalogue.family(family)]
    assert named[: len(VARIANTS)] == list(VARIANTS)
    assert {"load.no-vgg", "lever.onnx-together"} < set(named)
    assert ("onnx-tiled", "ONNX Runtime", "strip by strip") in heads
    assert "NAME@512MiB" in said and "FILE.py:NAME" in said
    assert max(map(len, said.splitlines())) <= 100


@with_shell
def test_a_reader_that_goes_away():
    with subprocess.Popen(
        [sys.executable, "-m", "udnet", "variants"], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 1


# Streams and signals


def shell(command, **options):
    """A command of the program under a shell that closes or fills its streams."""
    line = f"exec {shlex.quote(sys.executable)} -m udnet {command}"
    return subprocess.run(["sh", "-c", line], cwd=REPO, capture_output=True, text=True, **options)


@with_shell
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(folder, closed):
    """The photograph is then not the file that complaints go to."""
    Image.new("RGB", (16, 16)).save(folder / "photo.tif")
    done = shell(f"enhance {folder / 'photo.tif'} {folder / 'out.png'} --variant {own('SAME')} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(folder / "out.png").size == (16, 16)
    assert shell(f"enhance {folder / 'absent.tif'} {folder / 'no.png'} {closed}").returncode == 2


@with_shell
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "variants"])
def test_output_that_cannot_be_written_is_one_line(command, unbuffered):
    done = shell(f"{command} >/dev/full", env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert (done.returncode, done.stderr) == (1, "udnet: error: No space left on device\n")


def test_a_closed_stream_of_python_is_opened_again(monkeypatch, tmp_path):
    for name in ("stdout", "stderr"):
        closed = (tmp_path / name).open("w")
        closed.close()
        monkeypatch.setattr(sys, name, closed)
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["enhnace"]) == 2
    assert not (sys.stdout.closed or sys.stderr.closed) and sys.stdin is not None


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_a_name_that_output_cannot_encode_is_printed_all_the_same(monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(publish, "draw", lambda study, out: [os.fsdecode(b"\xffa.svg"), "\u6d77.svg"])
    assert main(["figures"]) == 0
    assert out.buffer.getvalue().startswith(b"\\udcffa.svg")
    assert main(["check", os.fsdecode(b"\xff\nb.pth")]) == 2
    err.flush()
    assert err.buffer.getvalue() == b"udnet: error: \\udcff\\nb.pth: there is no such file; name a .pth or an .onnx\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(36, "File name too long", "some/file"), 2, "some/file: File name too long"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError("words"), 1, "words"),
        (MemoryError(), 1, "out of memory: free some, or ask for less, as with --memory-limit"),
    ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch, capsys, error, code, said):
    def draw(*_):
        raise error

    monkeypatch.setattr(publish, "draw", draw)
    assert main(["figures"]) == code
    assert capsys.readouterr().err == f"udnet: error: {said}\n"


@with_signals
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_program_as_an_exception_does(monkeypatch, name, code):
    number, put_away = getattr(signal, name), []

    def draw(*_):
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # a second one is too late
            put_away.append(True)

    monkeypatch.setattr(publish, "draw", draw)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["figures"])
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert ended.value.code == code and put_away == [True]


@with_signals
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_a_library_makes_another_error_of(monkeypatch, name):
    number = getattr(signal, name)

    def draw(*_):
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(publish, "draw", draw)
    before = signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    try:
        if name == "SIGINT":
            assert main(["figures"]) == 130
        else:
            with pytest.raises(SystemExit, match=str(128 + number)):
                main(["figures"])
    finally:
        signal.signal(number, before)


@with_signals
def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    monkeypatch.setattr(publish, "draw", lambda *_: signal.raise_signal(signal.SIGHUP) or [])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert main(["figures"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def measured(capsys, *arguments):
    """Exit code and the objects that `measure --json` prints."""
    code = main(["measure", "--json", *map(str, arguments)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def check(one):
    """That one object is as documented."""
    assert list(one) == ["variant", "model", "height", "width", "threads", "repeat", "status", "error", "phases"]
    for phase in one["phases"]:
        assert list(phase) == PHASE_COLUMNS
        if phase["status"] == "ok":
            assert phase["peak_bytes"] >= phase["rss_end_bytes"] > MIB
            assert phase["seconds"] > 0


def test_measure_prints_an_object_a_trial(capsys):
    code, said = measured(capsys, "--variant", own("SAME"), "--size", "16x24", "--threads", "1", "--repeats", "2")
    assert code == 0
    assert [one["repeat"] for one in said] == [0, 1]
    for one in said:
        check(one)
        assert (one["variant"], one["height"], one["width"], one["threads"]) == (own("SAME"), 16, 24, 1)
        assert (one["status"], one["error"]) == ("ok", "")
        assert [phase["phase"] for phase in one["phases"]] == list(PHASES)


def test_measure_under_a_limit(capsys):
    code, (one,) = measured(capsys, "--variant", own("HOGS"), "--size", "16x16", "--memory-limit", "200MiB")
    check(one)
    assert (code, one["status"], one["phases"][-1]["phase"]) == (1, "oom", "first")


def test_measure_for_a_person(capsys):
    assert main(["measure", "--variant", own("SPIKES"), "--size", "16x16", "--threads", "1"]) == 0
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == f"{own('SPIKES')} 16x16, 1 threads, repeat 0: ok"
    assert columns.split() == ["phase", "seconds", "end", "MiB", "private", "peak", "MiB"]
    rows = {line.split()[0]: [float(number) for number in line.split()[1:]] for line in lines}
    assert list(rows) == list(PHASES)
    _, end, _, peak = rows["first"]
    assert peak - end == pytest.approx(64, abs=1)


@pytest.mark.parametrize(("group", "why"), [(True, "what is mapped from files"), (False, "a watchdog")])
def test_a_peak_above_the_limit_that_it_kept_to_is_explained(capsys, monkeypatch, group, why):
    monkeypatch.setattr(guard.ControlGroup, "possible", lambda: group)
    row = {"phase": "first", "status": "ok", "error": "", "seconds": 1.0, "runs": 1, "peak_bytes": 98 * MIB}
    row |= {"rss_end_bytes": 90 * MIB, "private_end_bytes": 50 * MIB}
    monkeypatch.setattr(trial, "run", lambda *_, **__: trial.Result([row]))
    for limit, told in (("80MiB", 1), ("99MiB", 0)):
        assert main(["measure", "--variant", own("SAME"), "--size", "16x16", "--memory-limit", limit]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("a peak above 80 MiB, the limit: ") and why in line for line in lines) == told


def test_measure_for_a_person_who_is_told_of_a_failure(capsys):
    assert main(["measure", "--variant", own("FAILS"), "--size", "16x16"]) == 1
    said = capsys.readouterr().out
    assert "repeat 0: error" in said.splitlines()[0]
    assert said.splitlines()[1] == "RuntimeError: the first line"


SLOW = {"pytorch-published": "makes VGG16's checkpoint", "pytorch-compiled": "compiles"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in VARIANTS]
)
def test_measure_answers_for(name, capsys, any_weights, monkeypatch):
    if missing := catalogue.find(name).missing:
        pytest.skip(missing)
    # glibc maps every large block: left alone it decides anew in each process, and the peaks of two are 4 MiB apart.
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536")
    repeats = 2 if name in ("pytorch", "onnx") else 1
    weights = ["--weights", any_weights] if any_weights else []
    code, said = measured(capsys, "--variant", name, "--size", "64x64", "--threads", 2, "--repeats", repeats, *weights)
    assert (code, [one["status"] for one in said]) == (0, ["ok"] * repeats), said[-1]["error"]
    for one in said:
        check(one)
    peaks = [[phase["peak_bytes"] for phase in one["phases"]] for one in said]
    assert peaks[0] == pytest.approx(peaks[-1], rel=0.02)


def test_study(folder, capsys):
    assert main(["study", "--grid", "grid.toml", "--out", "out"]) == 0
    assert capsys.readouterr().out == "out: 1 trials, 0 ended otherwise than ok\n"
    text = (folder / "grid.toml").read_text()
    (folder / "grid.toml").write_text(text.replace("SAME", "FAILS").replace("repeats = 1", "repeats = 2"))
    assert main(["study", "--grid", "grid.toml", "--out", "failed"]) == 1
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line == "  own_variants.py:FAILS/16x16/t1/r0 and 1 more: error, RuntimeError: the first line"


def test_stopping(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "run", stop)
    assert main(["measure", "--variant", own("SAME"), "--size", "16x16"]) == 130
    assert capsys.readouterr().err == "udnet: stopped; what was finished is kept\n"


def test_figures_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "draw", lambda study, out: [out / "one.svg", out / "one.png"])
    assert main(["figures", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'one.svg'}\n{tmp_path / 'one.png'}\n"


def test_enhancing_a_folder_leaves_out_what_others_are_scored_against(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("reef.png", "reef_reference.png", "lone_reference.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / "in" / name)
    assert main(["enhance", str(tmp_path / "in"), str(tmp_path / "out"), "--variant", own("SAME")]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"reef.png", "lone_reference.png"}
    assert ": 2 enhanced, 0 kept, 0 failed; same, weights: " in capsys.readouterr().out


@pytest.mark.parametrize("which", ["4", "04", str(publish.sources()[3])])
def test_a_notebook_is_named_by_its_number_or_its_path(which, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(notebooks, "run", lambda *given: ran.append(given))
    wanted = ["-p", "variants=['onnx']", "-p", f"study={tmp_path}", "-p", "live=False"]
    assert main(["notebook", which, *wanted, "--out", str(tmp_path)]) == 0
    about = {"variants": ["onnx"], "study": str(tmp_path), "live": False}
    assert ran == [(publish.sources()[3], tmp_path, about)]
    assert capsys.readouterr().out == f"{tmp_path / publish.sources()[3].name}\n"


@pytest.mark.parametrize("words", [["enhance", "", "out.png"], ["enhance", "in.png", ""], ["claims", "--study", ""]])
def test_no_name_is_not_the_current_folder(words, capsys):
    assert main(words) == 2
    assert "no name is given" in capsys.readouterr().err
