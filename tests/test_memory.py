"""Known amounts of memory, read back."""

import builtins
import io
import json
import mmap
import os
import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from udnet.system import memory
from udnet.system.memory import MIB

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark can be reset on Linux alone")


def grown(record):
    """How far a block's peak was above its start, in MiB."""
    return (record.peak_bytes - record.rss_start_bytes) / MIB


@pytest.fixture
def without(monkeypatch):
    """Make files under /proc impossible to open, as in some containers."""
    really = builtins.open

    def forbid(*names):
        def opened(path, *arguments, **options):
            if path in names:
                raise PermissionError(13, "Permission denied", path)
            return really(path, *arguments, **options)

        monkeypatch.setattr(builtins, "open", opened)

    return forbid


# Spikes


@on_linux
@pytest.mark.parametrize("size", [16, 64, 256, 1024])
def test_planted_spike_is_read_back(size):
    with memory.track() as record:
        memory.plant(size * MIB, 0.015)
    assert record.peak_is_exact
    assert grown(record) == pytest.approx(size, abs=max(1, size / 100))
    assert record.rss_end_bytes == pytest.approx(record.rss_start_bytes, abs=MIB), "plant gives all of it back"


def test_plant_holds_private_memory(monkeypatch):
    before = memory.resident_and_private()
    held = []
    monkeypatch.setattr(memory.time, "sleep", lambda _: held.append(memory.resident_and_private()))
    memory.plant(64 * MIB, 0)
    (during,) = held
    assert [(b - a) / MIB for a, b in zip(before, during, strict=True)] == pytest.approx([64, 64], abs=1)


@on_linux
def test_nested_blocks():
    with memory.track() as outer:
        memory.plant(32 * MIB, 0)
        with memory.track() as high:
            memory.plant(128 * MIB, 0)
        with memory.track() as low:
            with memory.track() as lowest:
                pass
            memory.plant(16 * MIB, 0)
        memory.plant(64 * MIB, 0)
    assert [grown(one) for one in (outer, high, low, lowest)] == pytest.approx([128, 128, 16, 0], abs=1)


@on_linux
def test_outer_block_keeps_what_it_saw_before_an_inner_one():
    with memory.track() as outer:
        memory.plant(64 * MIB, 0)
        with memory.track() as inner:
            pass
    assert [grown(outer), grown(inner)] == pytest.approx([64, 0], abs=1)


@on_linux
def test_a_block_that_fails_is_recorded():
    with pytest.raises(KeyError, match="planted"), memory.track() as record:
        memory.plant(32 * MIB, 0)
        raise KeyError("planted")
    assert grown(record) == pytest.approx(32, abs=1)
    assert record.seconds > 0
    assert memory._open == []


@on_linux
def test_an_earlier_peak_is_forgotten():
    memory.plant(128 * MIB, 0)
    with memory.track() as record:
        pass
    assert grown(record) == pytest.approx(0, abs=1)


# What is held at the end


@on_linux
def test_private_and_file_backed_memory_are_told_apart(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(bytes(32 * MIB))
    with memory.track() as nothing:
        pass
    with path.open("rb") as file, memory.track() as record:
        block = np.ones(64 * MIB, np.uint8)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].max() == 0
    del block
    mapped.close()
    assert (record.private_end_bytes - nothing.private_end_bytes) / MIB == pytest.approx(64, abs=1)
    assert (record.file_end_bytes - nothing.file_end_bytes) / MIB == pytest.approx(32, abs=1)
    assert record.private_end_bytes + record.file_end_bytes == record.rss_end_bytes


@on_linux
def test_without_smaps_the_status_file_answers(without):
    exact = memory.resident_and_private()
    without("/proc/self/smaps_rollup")
    assert memory.resident_and_private() == pytest.approx(exact, abs=MIB)


@pytest.fixture
def sandbox(monkeypatch, without):
    """A kernel that tells little: no mark, no private memory, no reset, as in gVisor."""
    really = builtins.open
    without("/proc/self/smaps_rollup", "/proc/self/clear_refs")
    refusing = builtins.open

    def opened(path, *arguments, **options):
        if path != "/proc/self/status":
            return refusing(path, *arguments, **options)
        with really(path) as file:
            return io.StringIO("".join(line for line in file if not line.startswith(("VmHWM", "RssAnon"))))

    monkeypatch.setattr(builtins, "open", opened)


@on_linux
def test_in_a_sandbox_private_memory_is_what_is_not_shared(sandbox):
    with memory.track() as nothing:
        pass
    with memory.track() as record:
        block = np.ones(64 * MIB, np.uint8)
    assert (record.private_end_bytes - nothing.private_end_bytes) / MIB == pytest.approx(64, abs=1)
    assert 0 < record.file_end_bytes == record.rss_end_bytes - record.private_end_bytes
    assert (record.peak_bytes - record.rss_start_bytes) / MIB == pytest.approx(64, abs=1) and not record.peak_is_exact
    del block


SPARSE = """
import json, sys
from udnet.system import memory
memory._status = lambda name: None  # a kernel that tells nothing in /proc/self/status
with memory.track() as low:
    pass
print(json.dumps([low.peak_bytes, low.rss_end_bytes, low.peak_is_exact]))
"""


@on_linux
def test_the_mark_of_the_parent_is_never_taken_for_ones_own():
    with memory._pages(400 * MIB) as block:
        block[:] = bytes(400 * MIB)  # `ru_maxrss` of a child begins with what its parent held
        run = subprocess.run([sys.executable, "-c", SPARSE], capture_output=True, check=True, text=True)
    peak, end, exact = json.loads(run.stdout)
    assert peak == pytest.approx(end, abs=MIB) and not exact


@on_linux
def test_a_rise_of_the_old_mark_is_the_block_s_own(sandbox, monkeypatch):
    import resource

    usage = SimpleNamespace(ru_maxrss=3 << 20)
    monkeypatch.setattr(resource, "getrusage", lambda _: usage)
    with memory.track() as record:
        usage.ru_maxrss = 4 << 20  # kilobytes
    assert (record.peak_bytes, record.peak_is_exact) == (4 << 30, False)


# Where the mark cannot be reset


@on_linux
def test_without_a_reset_the_peak_is_sound_and_marked(without):
    memory.reset_peak()  # whatever ran before in this process
    without("/proc/self/clear_refs")
    with memory.track() as first:
        memory.plant(128 * MIB, 0)
    assert not first.peak_is_exact
    assert grown(first) == pytest.approx(128, abs=1), "it raised the mark, so the mark is its own"

    with memory.track() as outer, memory.track() as lower:
        memory.plant(32 * MIB, 0)
    for record in (outer, lower):
        assert not record.peak_is_exact
        assert grown(record) == pytest.approx(0, abs=1), "the mark is another block's: what was seen here counts"

    with memory.track() as outer, memory.track() as inner:
        memory.plant(256 * MIB, 0)
    assert [grown(outer), grown(inner)] == pytest.approx([256, 256], abs=1)


# Other systems, by their own counters


@pytest.fixture
def counters(monkeypatch):
    """What a faked system says about this process, in bytes; a test changes it."""
    said = SimpleNamespace(rss=100 * MIB, private=70 * MIB, uss=60 * MIB, peak_wset=150 * MIB, ru_maxrss=150 * MIB)
    process = SimpleNamespace(memory_info=lambda: said, memory_full_info=lambda: said)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    return said


def test_macos(counters, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda _: counters)
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory.track() as record:
        counters.ru_maxrss, counters.rss = 300 * MIB, 120 * MIB
    assert (record.rss_start_bytes, record.rss_end_bytes) == (100 * MIB, 120 * MIB)
    assert (record.private_end_bytes, record.file_end_bytes) == (60 * MIB, 60 * MIB)
    assert (record.peak_bytes, record.peak_is_exact) == (300 * MIB, False)  # ru_maxrss is in bytes there


def test_windows(counters, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with memory.track() as record:
        counters.peak_wset = 200 * MIB
    assert (record.rss_start_bytes, record.private_end_bytes) == (100 * MIB, 70 * MIB)
    assert (record.peak_bytes, record.peak_is_exact) == (200 * MIB, False)
    with memory.track() as record:
        counters.rss, counters.private = 120 * MIB, 900 * MIB  # committed, not all of it resident
    assert (record.private_end_bytes, record.file_end_bytes) == (120 * MIB, 0)
    assert record.peak_bytes == 120 * MIB, "an older mark of 200 MiB is not this block's"


# The allocator

FREE = """
import sys
from udnet.system import memory
if sys.argv[1] == "return":
    memory.return_freed_memory()
bytearray(1 << 20)  # glibc now keeps blocks up to this size to itself, unless told otherwise
before = memory.resident()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(256)]
last = [bytearray(b"x") * 5000 for _ in range(10_000)]  # at the top of the heap, so that it cannot shrink
del blocks
if sys.argv[1] == "trim":
    memory.trim_heaps()
print((memory.resident() - before) // (1 << 20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_freed_memory_goes_back_to_the_system():
    kept, returned, trimmed = (
        int(subprocess.run([sys.executable, "-c", FREE, how], capture_output=True, check=True, text=True).stdout)
        for how in ("keep", "return", "trim")
    )
    assert kept > 250, "left alone, the allocator keeps the blocks: the test can fail"
    assert max(returned, trimmed) < 70, "the small blocks alone, 48 MiB, are still held"


AGAIN = """
import resource, sys
from udnet.system import memory
if sys.argv[1] == "keep":
    memory.keep_freed_memory(*map(int, sys.argv[2:]))
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"x" * (8 << 20)
before = pages()
for _ in range(50):
    block = block[:-1]  # a copy: the one before is freed
print(pages() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_freed_memory_is_kept_also_where_the_environment_has_it_handed_back():
    dask = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    left, kept, larger = (
        int(subprocess.run([sys.executable, "-c", AGAIN, *how], capture_output=True, check=True, env=dask).stdout)
        for how in (["leave"], ["keep"], ["keep", str(4 * MIB)])
    )
    pages = 8 * MIB // resource.getpagesize()
    assert min(left, larger) >= 50 * pages, "left alone, every copy asks for its pages again: the test can fail"
    assert kept < 4 * pages


def test_a_fresh_array_goes_back_to_the_system():
    before = memory.resident()
    array = memory.fresh((64, 1024, 1024), "uint8")
    assert array.shape == (64, 1024, 1024) and not array[::7, ::13].any()
    array[:] = 1
    assert memory.resident() - before == pytest.approx(64 * MIB, abs=2 * MIB)
    del array
    assert memory.resident() - before == pytest.approx(0, abs=2 * MIB)
    assert memory.fresh((0, 3)).shape == (0, 3)
