"""What this machine and this copy of the code are, and how much of the machine this process may use."""

import operator
import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from udnet import Error
from udnet.system import files

GROUPS = Path("/sys/fs/cgroup")
MOST_THREADS = 32  # a core of the machine: a request for more is a slip, and may bring the machine down


# --- what this process may use ---


def cores():
    """The cores that this process may use, at least 1: by its affinity, and by its groups' quotas of processor time."""
    # only some systems have affinity
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas()]))


def threads(count=None):
    """The threads to run on: `count`, or every core where it is None; `Error` where it is no sensible number."""
    if count is None:
        return cores()
    most = MOST_THREADS * (os.cpu_count() or 1)
    with suppress(TypeError):
        if not isinstance(count, bool) and 1 <= operator.index(count) <= most:
            return operator.index(count)
    raise Error(f"no number of threads: {count!r}; give a whole number from 1 to {most}")


def memory():
    """The machine's memory, and what of it is available now, in bytes: (total, available)."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):  # another system, or a sandbox
        import psutil

        about = psutil.virtual_memory()
        return about.total, about.available
    return total, min(total, available)  # a container may be told its own total and the machine's rest


def groups(controller):
    """The control groups of this process that may limit it in `memory` or `cpu`: yields (folder, version).

    Its own comes first, then those around it, as far as they are in view.
    """
    if sys.platform != "linux":
        return
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # a sandbox without them
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (GROUPS / controller, 1) if controllers else (GROUPS, 2)
        if not (root / "cgroup.procs").exists():
            continue
        folder = root / path.lstrip("/")
        while folder != root.parent:
            if folder.is_dir():
                yield folder, version
            folder = folder.parent


def _quotas():
    """The whole cores' worth of time that each group of this process has, where it has a quota."""
    for folder, version in groups("cpu"):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with suppress(OSError, ValueError):  # "max": no quota
            quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
            if quota > 0:  # -1: none
                yield quota // period


# --- what they are ---


def processor():
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def huge_pages():
    """The kernel's setting for transparent huge pages: always, madvise, never, or unknown."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        return text[text.index("[") + 1 : text.index("]")]
    except (OSError, ValueError):
        return "unknown"


def commit():
    """The commit of the code that measures, marked where this package has been changed since."""

    def git(*words):
        asked = ["git", "-C", str(files.REPO / "udnet"), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("-changed" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
