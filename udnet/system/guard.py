"""A hard memory limit for a child process, so that no trial can take the machine down.

Where a memory control group can be made (version 1 or 2; it takes the right to do so), the kernel enforces the
limit: nothing slips through. Elsewhere a watchdog reads the child's resident memory every few milliseconds and
kills it: enough to protect a machine, not a proof.
"""

import os
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from udnet.system import files, machine
from udnet.system.memory import MIB, mib

WATCH_SECONDS = 0.005


@contextmanager
def limit(size):
    """Yield a guard that holds one child process to `size` bytes: a `ControlGroup`, else a `Watchdog`.

    Start the child with `guard.command(argv)`, then call `guard.watch(process)`; afterwards `guard.killed` says
    whether the limit ended it.
    """
    size = min(size, sys.maxsize)  # of what is more the kernel would read some digits
    guard = ControlGroup.make(size) or Watchdog(size)
    try:
        yield guard
    finally:
        guard.close()


def safe_limit():
    """What a trial may take without endangering this machine: nine tenths of the memory that is free now, in bytes."""
    return int(free() * 0.9)


def free():
    """The memory that is free now, in bytes: the machine's, or what this process's own group leaves it if that is less.

    A container has the machine's memory in view and a smaller limit. What the kernel keeps of files that were read is
    free, too: it drops that as soon as memory is needed.
    """
    return min([machine.memory()[1], *(max(0, most - used) for most, used in _limits())])


def _limits():
    """The limit of each group that this process is in, and what of it is in use and not of files, in bytes."""
    for folder, version in machine.groups("memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        with suppress(OSError, ValueError):  # "max": no limit
            most, used = (int((folder / name).read_text()) for name in names)
            yield most, used - _droppable(folder, "" if version == 2 else "total_")


def _droppable(folder, prefix):
    """The bytes of files that a group holds and the kernel would drop."""
    wanted = {f"{prefix}inactive_file", f"{prefix}active_file"}
    with suppress(OSError):
        words = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return sum(int(size) for name, size in words if name in wanted)
    return 0


def ending(code, kills):
    """How a child process ended that said nothing of it, in words, by its exit code.

    `kills`: what `kernel_kills` gave before it began.
    """
    if code >= 0:
        return f"ended early, with code {code}"
    if starved(code, kills):
        most = min([machine.memory()[0], *(most for most, _ in _limits())])
        return f"out of memory: killed by the kernel, where {mib(most)} is the most that this process may have"
    return f"ended by {signal.Signals(-code).name}"


def starved(code, kills):
    """Whether it was the kernel that ended a child process, for want of memory; `code` and `kills` as for `ending`."""
    return code < 0 and code == -signal.SIGKILL and kernel_kills() > kills


def kernel_kills():
    """How many processes the kernel of this machine has killed for want of memory, in a group or in all; 0: unknown."""
    with suppress(OSError):
        words = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return sum(int(count) for name, count in words if name == "oom_kill")
    return 0


def uncounted():
    """Why a process may have a peak above the limit that it was held to, in words."""
    if ControlGroup.possible():
        return "it does not count what is mapped from files, such as libraries, which the kernel can drop"
    return "a watchdog looks every few milliseconds, and has missed it"


class ControlGroup:
    """A memory control group of its own for one child; the kernel kills what goes over."""

    kind = "cgroup"

    def __init__(self, folder, version):
        self.folder, self.version = folder, version

    @classmethod
    def make(cls, size):
        """A group with a limit of `size` bytes, swap included, or None where this process may not make one."""
        for folder, version in machine.groups("memory"):
            _sweep(folder)
            group = folder / f"udnet-{os.getpid()}-{threading.get_ident()}"
            try:
                group.mkdir()
            except OSError:
                continue
            made = cls(group, version)
            try:
                made._set(size)
                return made
            except OSError:  # the memory controller is not handed down to here
                made.close()
        return None

    @classmethod
    def possible(cls):
        """Whether this process may make one."""
        made = cls.make(64 * MIB)
        if made:
            made.close()
        return made is not None

    def _set(self, size):
        if self.version == 2:
            memory, swap, most_swap = "memory.max", "memory.swap.max", 0
        else:
            memory, swap, most_swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", size
        with open(self.folder / memory, "r+") as file:  # "r+": never makes a plain file where the kernel has none
            file.write(str(size))
        if (self.folder / swap).exists():
            (self.folder / swap).write_text(str(most_swap))

    def command(self, argv):
        """`argv` started inside the group: a shell moves itself in and becomes the command, so all of it is counted."""
        return ["sh", "-c", f"echo $$ > {shlex.quote(str(self.folder / 'cgroup.procs'))} && exec {shlex.join(argv)}"]

    def watch(self, process):
        """Nothing to do: the kernel watches."""

    @property
    def killed(self):
        """Whether the kernel has killed a process of the group at its limit."""
        events = self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")
        return any(line.split() != ["oom_kill", "0"] for line in events.read_text().splitlines() if "oom_kill " in line)

    def close(self):
        """Remove the group, and kill what its process may have left running in it, such as a compiler's helpers."""
        for _ in range(100):
            with suppress(OSError):  # those that were killed take a moment to leave
                self.folder.rmdir()
                return
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)


class Watchdog:
    """Reads one child's resident memory every few milliseconds and kills it above the limit."""

    kind = "watchdog"

    def __init__(self, size):
        self.size, self.killed = size, False
        self._stop = threading.Event()
        self._thread = None

    def command(self, argv):
        """`argv` as it is."""
        return argv

    def watch(self, process):
        """Begin to watch a started child."""
        import psutil

        self._thread = threading.Thread(target=self._run, args=(psutil.Process(process.pid), psutil.Error), daemon=True)
        self._thread.start()

    def _run(self, process, ended):
        while not self._stop.wait(WATCH_SECONDS):
            try:
                if process.memory_info().rss > self.size:
                    self.killed = True  # first: whoever waits for the process reads it as soon as that has ended
                    process.kill()
                    return
            except ended:
                return

    def close(self):
        """Stop watching."""
        self._stop.set()
        if self._thread:
            self._thread.join()


def _sweep(folder):
    """Remove the groups of processes that were killed before they could do so."""
    for group in folder.glob("udnet-*-*"):
        if not files.runs(int(group.name.split("-")[1])):
            with suppress(OSError):
                group.rmdir()
