"""One process's memory: resident, private and file-backed, peak, and a timeline of another process.

The truth is the kernel's own high-water mark of resident memory. It is read from `VmHWM`, which belongs to one
address space, and not from `ru_maxrss`, which a process inherits from whoever started it. Samples miss what
happens between two of them, so memory-profiler draws timelines here and never gives a peak.

This module is imported by every trial, before anything is measured: it imports next to nothing.
"""

import math
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from udnet import Error

MIB = 1024 * 1024

_open = []  # the `track()` blocks that are running, outermost first: each record, and the mark where it began


@dataclass
class Record:
    """What a block of code did to this process's memory; filled when the block ends. Bytes and seconds."""

    seconds: float = 0.0
    rss_start_bytes: int = 0
    rss_end_bytes: int = 0
    private_end_bytes: int = 0  # anonymous: no file behind it, only swap could take it back
    file_end_bytes: int = 0  # mapped from files, libraries above all: shared, and droppable by the kernel
    peak_bytes: int = 0  # the highest resident memory within the block
    peak_is_exact: bool = False  # whether `peak_bytes` is the kernel's mark of this block alone


@contextmanager
def track():
    """Measure the block: yields a `Record`, filled at the block's end, also when the block fails.

    Blocks nest: the kernel's one mark is reset at the start of each, so an inner block first hands what the mark
    has seen so far to the blocks around it. Reading and resetting stand outside the timed stretch. Not for blocks
    that overlap in several threads: the mark is the process's.
    """
    record = Record()
    _fold()
    record.peak_is_exact = reset_peak() and peak_is_kept()
    block = record, lifetime_peak()
    _open.append(block)
    record.rss_start_bytes = resident()
    start = time.perf_counter()
    try:
        yield record
    finally:
        record.seconds = time.perf_counter() - start
        _fold()
        _open.remove(block)
        record.rss_end_bytes, record.private_end_bytes = resident_and_private()
        record.file_end_bytes = record.rss_end_bytes - record.private_end_bytes
        record.peak_bytes = max(record.peak_bytes, record.rss_start_bytes, record.rss_end_bytes)


def _fold():
    """Hand the mark to the blocks that have raised it: where it was never reset, it may be older than a block."""
    peak = lifetime_peak()
    for record, before in _open:
        if peak > before:
            record.peak_bytes = max(record.peak_bytes, peak)


def resident():
    """Resident memory of this process now, in bytes."""
    if sys.platform == "linux" and (size := _status("VmRSS")) is not None:
        return size
    return _psutil().memory_info().rss


def resident_and_private():
    """Resident and private memory of this process now, in bytes, in one reading.

    Private is anonymous memory on Linux (`smaps_rollup`; what is not shared, in a sandbox that does not tell),
    committed private memory on Windows and the unique set size on macOS.
    """
    if sys.platform == "linux":
        try:
            with open("/proc/self/smaps_rollup") as file:
                lines = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
            return _kilobytes(lines["Rss"]), _kilobytes(lines["Anonymous"])
        except OSError:  # a kernel before 4.14, or a sandbox without smaps
            sizes = _status("VmRSS"), _status("RssAnon")
            if None not in sizes:
                return sizes
            about = _psutil().memory_info()
            return about.rss, about.rss - about.shared
    process = _psutil()
    if sys.platform == "win32":
        counters = process.memory_info()
        return counters.rss, min(counters.private, counters.rss)
    counters = process.memory_full_info()
    return counters.rss, counters.uss


def lifetime_peak():
    """The system's highest reading of this process's resident memory since its start or the last reset, in bytes.

    On Linux without `VmHWM`, as in a sandbox, it may be that of whoever started the process: only a rise is its own.
    """
    if sys.platform == "linux" and (size := _status("VmHWM")) is not None:
        return size
    if sys.platform == "win32":
        return _psutil().memory_info().peak_wset
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_is_kept():
    """Whether the kernel keeps a mark of this very process: elsewhere a peak is the best that is known, not exact."""
    return sys.platform == "linux" and _status("VmHWM") is not None


def reset_peak():
    """Set the high-water mark back to what is resident now; False where the system has no way to do that."""
    if sys.platform != "linux":
        return False
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # a read-only /proc, as in some containers
        return False
    return True


def return_freed_memory():
    """Make glibc hand every freed block of 64 KiB and more back to the system at once; no effect elsewhere.

    Left alone, glibc raises that threshold to the largest block freed so far (up to 32 MiB), and keeps what is smaller.
    """
    _set_thresholds(64 * 1024, 64 * 1024)


KEPT = 32 * MIB  # below which glibc comes to keep freed blocks by itself, at the most


def keep_freed_memory(largest=KEPT):
    """Make glibc keep freed blocks of less than so many bytes; no effect elsewhere."""
    _set_thresholds(largest, 2 * largest)


def _set_thresholds(mapped, trimmed):
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # mallopt's names for them, from malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # macOS, Windows, musl
        return
    mallopt(mmap_threshold, mapped)
    mallopt(trim_threshold, trimmed)


def trim_heaps():
    """Give back to the system what is free in glibc's heaps, of which each thread may have one; no effect elsewhere."""
    import ctypes

    with suppress(AttributeError, TypeError):  # macOS, musl; Windows
        ctypes.CDLL(None).malloc_trim(0)


def mib(size):
    """Bytes as a person reads them: MiB, or GiB from 10 GiB."""
    return f"{size / MIB:,.0f} MiB" if size < 10 * 1024 * MIB else f"{size / MIB / 1024:,.1f} GiB"


def parse_bytes(text):
    """Bytes from a size such as 512MiB, 2GiB or 1073741824; `Error` where it is none."""
    units = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
    number = text.rstrip("aAbBgGiIkKmM ")
    try:
        size = int(float(number) * units[text[len(number) :].strip().lower()])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise Error(f"no memory limit {text!r}: give one above zero, in bytes or with a unit, as in 512MiB")
    return size


def limit_bytes(limit):
    """Bytes of a memory limit, from a number or a size such as 512MiB; `Error` where it is none, or below 1 MiB."""
    size = parse_bytes(limit) if isinstance(limit, str) else limit
    if not isinstance(size, int | float) or not MIB <= size < math.inf:
        raise Error(f"a memory limit of {limit!r} is less than 1 MiB, or none: give a size such as 512MiB")
    return int(size)


def plant(size, seconds):
    """Hold `size` bytes of touched memory for `seconds`, then give them back: a known answer for any instrument.

    The pages come straight from the system and return to it, so that no allocator keeps some and blurs the answer.
    They are private, as a program's own memory is.
    """
    import mmap

    import numpy as np

    with _pages(size) as block:
        pages = np.frombuffer(block, np.uint8)[:: mmap.PAGESIZE]
        pages[:] = 1
        time.sleep(seconds)
        del pages  # or the block cannot be closed


def fresh(shape, dtype="float32"):
    """An array of zeros in pages of its own: it leaves no hole in the heap, and goes back to the system at once.

    And it does not teach glibc to keep blocks of its size, as a large block does that is freed.
    """
    import numpy as np

    count = math.prod(shape)
    return np.frombuffer(_pages(max(1, count * np.dtype(dtype).itemsize)), dtype, count).reshape(shape)


def _pages(size):
    import mmap

    private = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    return mmap.mmap(-1, size, **private)


def _status(name):
    """A size that the kernel tells of this process, in bytes; None where it does not, as in some sandboxes."""
    try:
        with open("/proc/self/status") as file:
            return next((_kilobytes(line.split(":", 1)[1]) for line in file if line.startswith(name)), None)
    except OSError:
        return None


def _kilobytes(text):
    return int(text.split()[0]) * 1024


def _psutil():
    import psutil

    return psutil.Process()
