"""Files that are there whole or as they were before, and where this project's own lie."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from udnet import Error

REPO = Path(__file__).resolve().parents[2]
DATA = REPO / "data"
PARTS = ".udnet-*"  # what `replacing` names a file that is not whole yet


def python_path():
    """The search path with which another Python imports this very package."""
    return os.pathsep.join([os.fspath(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def replacing(out):
    """A path beside `out` to write to: it takes the place of `out` at the end, or is removed if anything goes wrong.

    `Error` where the system refuses.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise Error(f"{out}: there is no folder {out.parent}; make it first")
    part = out.with_name(f".udnet-{os.urandom(6).hex()}{out.suffix}")
    try:
        yield part
        part.replace(out)
    except OSError as error:
        reason = error.strerror or error
        raise Error(f"{out}: cannot be written ({reason}): name another file, or free some space") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def reading(path, remedy):
    """What reads a file of this project's own: whatever a damaged one raises is an `Error` that says what to do."""
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        raise Error(f"{path}: damaged ({type(error).__name__}): {remedy}") from error


def read_json(path, remedy):
    """An object from a JSON file of this project's own; `Error` for a damaged one."""
    with reading(path, remedy):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def write_text(path, text):
    """Write a whole text file, UTF-8, in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path, frame):
    """Write a table as CSV, in one step: it is there whole, or as it was before."""
    write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


@contextmanager
def alone(folder):
    """Hold the folder, so that two runs never write into one, and remove what a killed one was writing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make the folder {folder}: {error.strerror}; give another") from error
    with _locked(folder):
        for part in folder.glob(PARTS):
            part.unlink()
        yield


@contextmanager
def _locked(folder):
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Error(f"another run is writing into {folder}: wait for it, or give another folder") from error
    try:
        yield
    finally:
        os.close(handle)
