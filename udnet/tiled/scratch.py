"""A scratch file: the third place for a map, besides memory and computing it again.

The file has no name, so that nothing is left however the process ends. One thread reads and writes it, in the order
that it is asked to: ahead of a stream that reads a map, behind one that writes it. Where the system allows, that goes
past the page cache, which would count as the process's in a control group.
"""

import math
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from udnet import Error
from udnet.system import memory
from udnet.tiled.streams import inside

NONE = "none"  # in place of a folder: no scratch file
PAGE = 4096  # what addresses and sizes are multiples of, past the page cache
AHEAD = 2  # pieces of a map in memory, of which one is read or written while the other is used
FREE = 0.1  # of the disk's free space, left alone
TRIED = 32 * memory.MIB, 0.25  # bytes and seconds at the most, to learn the disk's rate
IN_MEMORY = ("tmpfs", "ramfs")  # file systems that are no disk


@dataclass(frozen=True)
class Disk:
    """A folder for a scratch file: its bytes a second, written and read, and how many may be used."""

    folder: Path
    rate: float
    room: int


def find(folder=None):
    """The folder for scratch files: a given one, or the system's for temporary files (None); None if there is none.

    `Error` where the given one is none, may not be written, or lies in memory.
    """
    if str(folder) == NONE:
        return None
    found = Path(tempfile.gettempdir() if folder is None else folder)
    fault = _fault(found)
    if fault and folder is not None:
        raise Error(f"{found}: no folder for a scratch file ({fault}): name one on a disk, or give {NONE}")
    return None if fault else found.absolute()


def _fault(folder):
    if not folder.is_dir():
        return "it is no folder" if folder.exists() else "there is no such folder"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return "it cannot be written"
    return "it lies in memory" if _lies_in_memory(folder) else ""


def _lies_in_memory(folder):
    """Whether what is written there stays in memory, by the list of mounts that Linux has."""
    with suppress(OSError):
        about = folder.stat().st_dev
        device = f"{os.major(about)}:{os.minor(about)}"
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == device:
                return kind.split()[0] in IN_MEMORY
    return False


@cache
def _rate(folder):
    """Bytes a second, written and read in turn, of a file like those that maps wait in."""
    piece, (most, seconds) = memory.MIB, TRIED
    with Scratch(folder, most) as file:
        buffer, moved, start = memory.fresh((piece,), np.uint8), 0, time.perf_counter()
        buffer[:] = np.arange(piece, dtype=np.uint8)  # not zeros, which some disks do not write
        while moved < 2 * most and time.perf_counter() - start < seconds:
            file.move(file.write, moved // 2, buffer).result()
            file.move(file.read, moved // 2, buffer).result()
            moved += 2 * piece
        return moved / (time.perf_counter() - start)


def measured(folder):
    """The `Disk` of a folder, tried once a process; None where a scratch file cannot be made there."""
    try:
        return Disk(folder, _rate(folder), int((1 - FREE) * shutil.disk_usage(folder).free))
    except (Error, OSError):
        return None


class Scratch:
    """A file of so many bytes without a name, in a folder; to be used in a `with`."""

    def __init__(self, folder, size):
        self.folder, self.size, self.used = folder, size, 0
        self.one_by_one = threading.Lock()

    def __enter__(self):
        try:
            with ExitStack() as undo:
                self.file = undo.enter_context(tempfile.TemporaryFile(dir=self.folder, buffering=0))
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self.file.fileno(), 0, self.size)  # a full disk is found here, not half-way
                undo.pop_all()
        except OSError as error:
            raise self.refused(error) from error
        _past_the_page_cache(self.file.fileno())
        self.thread = ThreadPoolExecutor(1, "scratch")
        return self

    def __exit__(self, *_):
        self.thread.shutdown(cancel_futures=True)
        self.file.close()

    def refused(self, error):
        """The system's error as one line."""
        reason = error.strerror or error
        return Error(f"{self.folder}: no scratch file ({reason}): free some space, name another folder, or give {NONE}")

    def map(self, name, channels, height, window, rows):
        """Room for a `ScratchMap` of a window, in pieces of so many rows."""
        step = piece_bytes(channels, rows, window[1] - window[0])
        with self.one_by_one:  # strips that run at once ask for theirs
            place, self.used = self.used, self.used + step * math.ceil(height / rows)
        return ScratchMap(self, name, place, step, (channels, height, rows), window)

    def move(self, how, place, buffer):
        """Have the thread `read` or `write` a buffer; its `Future`, which has the error if there is one."""
        return self.thread.submit(how, place, memoryview(buffer).cast("B"))

    def write(self, place, view):
        self._each(self.file.write, place, view)

    def read(self, place, view):
        self._each(self.file.readinto, place, view)

    def _each(self, move, place, view):
        try:
            self.file.seek(place)
            while view:
                done = move(view)
                if not done:
                    raise OSError("it was cut short")
                view = view[done:]
        except OSError as error:
            raise self.refused(error) from error


def _past_the_page_cache(handle):
    if sys.platform == "win32":
        return
    import fcntl

    with suppress(OSError):  # some file systems have no such way
        if hasattr(os, "O_DIRECT"):
            fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)
        elif hasattr(fcntl, "F_NOCACHE"):
            fcntl.fcntl(handle, fcntl.F_NOCACHE, 1)


def piece_bytes(channels, rows, columns):
    """The bytes of so many rows of a map, on the file and in memory, where a stream holds `AHEAD` of them."""
    return -(-4 * channels * rows * columns // PAGE) * PAGE


class ScratchMap:
    """A window of a map on the scratch file: read as a stream, and written by one, also in place behind the reader.

    `name`: of the map, by which the streams of a strip have their pieces in its `Workspace`.
    """

    def __init__(self, file, name, place, step, shape, window):
        self.file, self.name, self.place, self.step = file, name, place, step
        self.channels, self.height, self.rows = shape  # rows of a piece
        self.window = window  # of what was written last

    def read(self, window, rows, workspace):
        """The columns of a window within its own, so many rows at a time; good until the stream goes on."""
        own = self.window
        pieces = self._pieces("read", own, workspace)
        tops = range(0, self.height, self.rows)
        waiting = [self._ask(self.file.read, top, pieces[n % AHEAD]) for n, top in enumerate(tops[:AHEAD])]
        for n, top in enumerate(tops):
            waiting[n % AHEAD].result()
            values = inside(self._values(pieces[n % AHEAD], own, top, workspace), window, own)
            for start in range(0, values.shape[1], rows):
                yield values[:, start : start + rows]
            if n + AHEAD < len(tops):
                waiting[n % AHEAD] = self._ask(self.file.read, tops[n + AHEAD], pieces[n % AHEAD])

    def write(self, own, window, workspace):
        """A step that writes the columns `own` of a stream with this window, and gives the rows on."""
        pieces, waiting = self._pieces("write", own, workspace), [None] * AHEAD
        place = 0

        def put(rows):
            nonlocal place
            given = inside(rows, own, window)
            while given.shape[1]:
                n, at = divmod(place, self.rows)
                top, n = place - at, n % AHEAD
                if at == 0 and waiting[n]:
                    waiting[n].result()
                values = self._values(pieces[n], own, top, workspace)
                taken = min(given.shape[1], values.shape[1] - at)
                values[:, at : at + taken] = given[:, :taken]
                given, place = given[:, taken:], place + taken
                if at + taken == values.shape[1]:
                    waiting[n] = self._ask(self.file.write, top, pieces[n])
            if place == self.height:  # what fails is known before anything rests on it
                for one in filter(None, waiting):
                    one.result()
                self.window = own
            return rows

        return put

    def _pieces(self, use, window, workspace):
        size = piece_bytes(self.channels, self.rows, window[1] - window[0]) // 4
        return [workspace.flat_array((self.name, use, n), size) for n in range(AHEAD)]

    def _values(self, piece, window, top, workspace):
        shape = self.channels, min(self.rows, self.height - top), window[1] - window[0]
        return workspace.arranged(piece[: math.prod(shape)], *shape)

    def _ask(self, how, top, piece):
        return self.file.move(how, self.place + top // self.rows * self.step, piece)
