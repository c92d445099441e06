"""Files that are there whole or as they were before."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

from . import Error

PARTS = ".udnet-*"  # what `replacing` names a file that is not whole yet


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
