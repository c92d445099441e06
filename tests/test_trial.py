"""One measurement in a fresh process: what it reports, and how it ends."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

import numpy as np
import psutil
import pytest
from conftest import REPO, soon
from own_variants import SPIKE, own

import udnet
from udnet import Error
from udnet.experiments import instruments
from udnet.network import prepared
from udnet.pictures import images, reference
from udnet.system import guard, machine
from udnet.system.memory import MIB
from udnet.trials import trial
from udnet.trials.tables import COLUMNS
from udnet.trials.trial import PHASES, Trial

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark can be reset on Linux alone")
with_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def run(name, repeat=0, runs=1, timeline=False, **options):
    return trial.run(Trial(own(name), 64, 72, 1, repeat, runs, timeline=timeline), **options)


def phases(result):
    return {row["phase"]: row for row in result.rows}


# What a trial reports


def test_phases_in_order():
    result = run("SAME", runs=3)
    assert (result.status, result.error) == ("ok", "")
    assert [row["phase"] for row in result.rows] == list(PHASES)
    assert [row["runs"] for row in result.rows] == [1, 1, 1, 1, 3]
    assert (result.samples, result.stages, result.outputs) == ([], [], [])
    starts, ends = ([row[f"{edge}_seconds"] for row in result.rows] for edge in ("start", "end"))
    assert starts[0] == 0
    assert all(a <= b for pair in zip(starts, ends, strict=True) for a, b in [pair])
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    for row in result.rows:
        assert row.keys() <= set(COLUMNS) - {"study"}
        assert (row["height"], row["width"], row["threads"], row["runtime"]) == (64, 72, 1, "none")
        assert all(type(row[name]) is int for name in row if name.endswith("_bytes"))
        assert row["peak_bytes"] >= max(row["rss_start_bytes"], row["rss_end_bytes"])
        assert row["private_end_bytes"] + row["file_end_bytes"] == row["rss_end_bytes"]
        assert row["seconds"] > 0


@on_linux
def test_a_spike_is_in_its_phases_alone():
    rows = phases(run("SPIKES"))
    for name, row in rows.items():
        assert row["peak_is_exact"]
        grown = row["peak_bytes"] - max(row["rss_start_bytes"], row["rss_end_bytes"])
        planted = SPIKE if name in ("first", "steady") else 0
        assert grown == pytest.approx(planted, abs=MIB), name


@on_linux
def test_equal_trials_agree():
    peaks = [[row["peak_bytes"] for row in run("SPIKES", repeat).rows] for repeat in range(2)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.02)


@pytest.fixture
def large_blocks_mapped(monkeypatch):
    """Workers whose glibc maps every large block. Left alone it decides anew in each, by what was freed before."""
    if "glibc" not in platform.libc_ver():
        pytest.skip("another C library")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536")


@on_linux
@pytest.mark.usefixtures("large_blocks_mapped")
def test_repeats_of_onnx_agree_where_large_blocks_are_mapped(published):
    """Left alone, the published file at 64x64 has one of two peaks, 3 MiB apart. One threshold changes that."""
    trials = [Trial("onnx", 64, 64, 1, repeat, weights=str(published)) for repeat in range(5)]
    assert np.ptp([trial.run(one).rows[-1]["peak_bytes"] for one in trials]) < MIB


@pytest.mark.slow
@on_linux
@pytest.mark.usefixtures("large_blocks_mapped")
def test_repeats_of_pytorch_agree_where_large_blocks_are_mapped():
    """Left alone, `pytorch` at 256x256 peaks anywhere within 6%. One threshold changes that."""
    trials = [Trial("pytorch", 256, 256, 2, repeat, runs=1) for repeat in range(2)]
    assert np.ptp([trial.run(one).rows[-1]["peak_bytes"] for one in trials]) < MIB


def test_output_is_kept_when_asked_for():
    result = run("SAME", keep_output=True)
    expected = reference.picture(64, 72).transpose(2, 0, 1)[None] / np.float32(255)
    (output,) = result.outputs
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, expected.astype(np.float32))


def test_timeline_has_samples_and_no_times():
    result = run("STAGED", timeline=True)
    assert result.status == "ok"
    assert all("seconds" not in row for row in result.rows)
    at, resident = np.array(result.samples).T
    assert (np.diff(at) > 0).all()
    ends = [row["end_seconds"] for row in result.rows]
    assert 0 <= at[0] < at[-1] < ends[-1] + 10
    rows = phases(result)
    for name in ("first", "steady"):  # a spike of 200 ms: no sampler misses it
        row = rows[name]
        assert row["sampled_peak_bytes"] - row["rss_end_bytes"] == pytest.approx(SPIKE, abs=2 * MIB)
        assert row["sampled_peak_bytes"] <= row["peak_bytes"] + MIB
        assert row["sampled_peak_bytes"] in resident


def test_a_process_that_is_gone_has_no_samples():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert trial._sample(process) == []


def test_timeline_has_the_stages_of_a_network():
    result = run("STAGED", timeline=True)
    assert [stage["stage"] for stage in result.stages] == ["before", "spike"] * 2
    for before, spike in zip(result.stages[::2], result.stages[1::2], strict=True):
        assert spike["peak_bytes"] - before["peak_bytes"] == pytest.approx(SPIKE, abs=MIB)
    rows = phases(result)
    assert rows["first"]["peak_bytes"] == pytest.approx(result.stages[1]["peak_bytes"], abs=MIB)
    times = [seconds for stage in result.stages for seconds in (stage["start"], stage["end"])]
    assert times == sorted(times)
    assert rows["first"]["start_seconds"] <= times[0] <= times[3] <= rows["first"]["end_seconds"]


# As a notebook measures


def test_measuring_gives_a_tidy_frame():
    frame = udnet.measure(own("SAME"), "16x24", repeats=2, threads=1, weights=prepared.DEFAULT)
    assert list(frame.columns) == COLUMNS
    assert list(frame.phase) == list(PHASES) * 2
    assert list(frame.repeat) == [0] * 5 + [1] * 5
    assert set(zip(frame.variant, frame.height, frame.width, frame.threads, strict=True)) == {("same", 16, 24, 1)}
    assert frame.status.eq("ok").all() and frame.seconds.gt(0).all()
    assert str(frame.peak_bytes.dtype) == "Int64" and frame.sampled_peak_bytes.isna().all()


def test_measuring_with_samples_leaves_the_seconds_out():
    frame = udnet.measure(own("STAGED"), (16, 16), timeline=True)
    assert frame.seconds.isna().all() and frame.sampled_peak_bytes.gt(SPIKE)[frame.phase.eq("first")].all()


def test_measuring_under_a_limit_is_a_row_that_says_so():
    frame = udnet.measure(own("HOGS"), (16, 16), limit="200MiB")
    assert (frame.status.iloc[-1], frame.phase.iloc[-1]) == ("oom", "first")
    assert frame.peak_bytes.isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("limit", ["x", 5, -1, float("nan"), float("inf"), True])
def test_measuring_under_no_such_limit_is_one_line(limit):
    with pytest.raises(Error, match="512MiB") as caught:
        udnet.measure(own("SAME"), (16, 16), limit=limit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1, "2", 100_000])
def test_measuring_on_no_such_threads_is_one_line(threads):
    with pytest.raises(Error, match="no number of threads"):
        udnet.measure(own("SAME"), (16, 16), threads=threads)


# How a trial ends


@pytest.mark.parametrize(
    ("name", "phase", "error"),
    [
        ("NO_MODULE", "import", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("FAILS_TO_LOAD", "load", "RuntimeError: the first line"),
        ("FAILS", "first", "RuntimeError: the first line"),
        pytest.param("CRASHES", "first", "ended by SIGSEGV", marks=with_signals),
        ("LEAVES", "first", "ended early, with code 0"),
    ],
)
def test_a_failure_is_a_row(name, phase, error):
    result = run(name, keep_output=True)
    assert (result.status, result.error, result.outputs) == ("error", error, [])
    assert result.rows[-1]["phase"] == phase
    assert [row["status"] for row in result.rows[:-1]] == ["ok"] * PHASES.index(phase)
    assert [row["phase"] for row in result.rows] == list(PHASES[: PHASES.index(phase) + 1])
    assert result.rows[-1]["variant"] == name.lower().replace("_", "-")


def test_no_output_is_an_error_where_it_was_asked_for():
    assert run("LEAVES_LATE").status == "ok"
    result = run("LEAVES_LATE", keep_output=True)
    assert (result.status, result.error, result.outputs) == ("error", "ended early, with code 3", [])


def test_no_memory_is_oom():
    result = run("NO_MEMORY")
    assert (result.status, result.rows[-1]["phase"]) == ("oom", "first")
    assert result.error.startswith("MemoryError")


@pytest.mark.parametrize("kind", ["cgroup", "watchdog"])
def test_killed_at_the_limit(kind, monkeypatch):
    if kind == "watchdog":
        monkeypatch.setattr(machine, "groups", lambda _: iter(()))
    with guard.limit(200 * MIB) as held:
        if held.kind != kind:
            pytest.skip("this process may not make a memory control group")
    result = run("HOGS", limit=200 * MIB)
    assert (result.status, result.error) == ("oom", f"killed at its memory limit by the {kind}")
    assert [row["phase"] for row in result.rows] == ["interpreter", "import", "load", "first"]
    assert [row["status"] for row in result.rows] == ["ok", "ok", "ok", "oom"]
    assert "peak_bytes" not in result.rows[-1]


def test_killed_by_the_kernel_though_no_limit_of_ours(monkeypatch):
    """As in a group whose own limit is less than what seemed to be free."""
    kills = iter(range(9))
    monkeypatch.setattr(guard, "kernel_kills", lambda: next(kills))
    result = run("KILLED")
    assert (result.status, result.rows[-1]["phase"]) == ("oom", "first")
    assert result.error.startswith("out of memory: killed by the kernel")


def test_no_room_for_a_trial_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 2**20))
    with pytest.raises(Error, match="No space left on device: free some space"):
        run("SAME")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_below_the_interpreter():
    result = run("SAME", limit=4 * MIB)
    assert (result.status, result.rows[-1]["phase"]) == ("oom", "interpreter")


def test_too_long():
    result = run("SLEEPS", timeout=2)
    assert (result.status, result.error) == ("timeout", "no end within 2 s")
    assert result.rows[-1]["phase"] in PHASES  # a slow machine may not have come to the inference


def test_too_long_while_sampled():
    assert run("SLEEPS", timeout=2, timeline=True).status == "timeout"


def test_what_a_model_prints_does_no_harm():
    result = run("CHATTERS", runs=2)
    assert result.status == "ok"
    assert [row["phase"] for row in result.rows] == list(PHASES)


@with_signals
def test_what_a_model_leaves_running_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("BREED_PID", str(tmp_path / "pid"))
    with guard.limit(guard.safe_limit()) as held:
        kind = held.kind
    assert run("BREEDS").status == "ok"
    left = int((tmp_path / "pid").read_text())
    if kind == "cgroup":
        assert soon(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)
    else:  # without a group nobody ends it
        os.kill(left, signal.SIGKILL)


PARENT = f"""
from udnet.trials.trial import Trial, run
run(Trial({own("SLEEPS")!r}, 64, 64, 1))
"""


@with_signals
def test_worker_ends_with_its_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=REPO, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        about = psutil.Process(parent.pid)
        assert soon(lambda: any("udnet.trials.trial" in child.cmdline() for child in about.children()))
        (worker,) = about.children()
        assert soon(lambda: any(path.stat().st_size for path in tmp_path.glob("*/phases"))), "it runs"
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert soon(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    run("SAME")
    assert not [group for folder, _ in machine.groups("memory") for group in folder.glob(f"udnet-{parent.pid}-*")]


@with_signals
def test_worker_whose_parent_is_gone_before_it_begins(tmp_path):
    job = json.dumps({"folder": str(tmp_path), "started": time.time()})
    worker = subprocess.run([sys.executable, "-m", "udnet.trials.trial", job], input=b"", cwd=REPO, capture_output=True)
    assert worker.stderr.decode().strip() == "the parent was gone before the worker began"
    assert list(tmp_path.iterdir()) == []


# What a trial pays for


@on_linux
def test_worker_holds_little_more_than_python_and_numpy():
    worker, bare = (row["seen_bytes"] for row in instruments.floor(0, 0))
    assert 0 <= worker - bare <= 3 * MIB


def test_pytorch_never_imports_onnxruntime():
    result = trial.run(Trial(own("PYTORCH_ALONE"), 64, 64, 1, runs=1))
    assert (result.status, result.error) == ("ok", "")
    assert result.rows[0]["runtime"] == "pytorch"


def test_onnxruntime_never_imports_pytorch(published):
    result = trial.run(Trial(own("ONNX_ALONE"), 64, 64, 1, runs=1, weights=str(published)))
    assert (result.status, result.error) == ("ok", "")
    assert result.rows[0]["weights"] == "UDnet_dynamic.onnx"


# Names, sizes, pictures


def test_names_tell_trials_apart():
    assert Trial("onnx", 256, 512, 2).name == "onnx/256x512/t2/r0"
    assert Trial("some/where/mine.py:net", 8, 9, 1, 3).name == "mine.py:net/8x9/t1/r3"
    assert Trial("onnx", 8, 8, 1, weights="a/b.onnx", timeline=True).name == "onnx/8x8/t1/r0/b.onnx/timeline"


@pytest.mark.parametrize(("text", "size"), [("64x128", (64, 128)), ("1080X1920", (1080, 1920)), (" 8 x 9 ", (8, 9))])
def test_size(text, size):
    assert images.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64", "64x", "64x64x3", "0x64", "-8x8", "8.5x8", "axb", "100000x100000"])
def test_no_size(text):
    with pytest.raises(Error, match="size") as caught:
        images.parse_size(text)
    assert "\n" not in str(caught.value)


def test_picture_is_the_same_every_time():
    picture = reference.picture(40, 56)
    assert (picture.shape, picture.dtype) == ((40, 56, 3), np.uint8)
    np.testing.assert_array_equal(picture, reference.picture(40, 56))
    assert (picture != reference.picture(40, 56, seed=1)).any()
    red, green, blue = picture.reshape(-1, 3).mean(axis=0)
    assert red < green < blue, "blue-green, as under water"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes do not fit"), False),
    ],
)
def test_words_for_no_memory(error, expected):
    assert trial.out_of_memory(error) == expected


def test_outputs_of_any_kind_are_arrays():
    kept = [[{"a": 0.5, "b": 1.5}], [np.zeros(2), np.ones(3)], np.array(["x"], object), 3.0]
    names, values, zeros, ones, text, number = trial._flat(kept)
    assert names.tolist() == ["a", "b"] and values.tolist() == [0.5, 1.5]
    assert (zeros.shape, ones.shape, number.tolist()) == ((2,), (3,), 3)
    assert text.dtype.kind == "U"
