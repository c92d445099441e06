"""What this machine and this copy of the code are, as plain values."""

import platform
import subprocess
from pathlib import Path

from udnet.system import files


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
