"""Files that are there whole or as they were before, temporary folders, and where this project's own files lie."""

import errno
import json
import os
import re
import sys
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from udnet import Error

REPO = Path(__file__).resolve().parents[2]
DATA = REPO / "data"
PUBLISHED = DATA / "results" / "published"  # the study behind the notebooks
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}  # as network folders answer that have none
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def python_path():
    """The search path with which another Python imports this very package."""
    return os.pathsep.join([os.fspath(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])


def sha256(path):
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    import hashlib  # not in every trial

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- written whole ---


@contextmanager
def replacing(out, source=None, note=None):
    """A path beside `out` to write to: it takes the place of `out` at the end, or is removed if anything goes wrong.

    `source`: the file that what is written is made from; `note(part)`: called when the part is whole, just before it
    takes that place. `Error` where `out` is the source itself, or the system refuses.
    """
    out = Path(out)
    if source is not None:
        not_itself(out, source)
    part = out.with_name(f".{_name()}{out.suffix}")
    try:
        if not out.parent.is_dir():
            raise Error(f"{out}: there is no folder {out.parent}; make it first")
        if out.is_dir():
            raise Error(f"{out}: is a folder; name a file")
        _sweep_once(out.parent.absolute())
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())  # some systems tell only here that the disk is full
        if note:
            note(part)
        part.replace(out)
    except Error:
        raise
    except Exception as error:
        if not (refusal := _refusal(error)):
            raise
        reason = refusal.strerror or refusal
        raise Error(f"{out}: cannot be written ({reason}): name another file, or free some space") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _refusal(error):
    """The system's own error behind an exception, or None: on a full disk a library may raise another in its place."""
    if isinstance(error, OSError):
        return error
    while error := error.__context__:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return error
    return None


def not_itself(out, *sources):
    """`Error` where the file `out` is one of its `sources`: by the same name, through a link, or by a hard link."""
    for source in sources:
        with suppress(OSError):  # one of them is not there
            if os.path.samefile(out, source):
                raise Error(f"{out}: is the file that it would be made from; name another")


def sweep(folder):
    """Remove what processes of this machine that were killed have left in a folder: parts, and temporary folders."""
    import shutil

    with suppress(OSError):  # another process sweeps it, too
        for path in left_behind(folder):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def left_behind(folder):
    """What processes of this machine that were killed have left in a folder, as a list of paths."""
    pattern = re.compile(rf"\.?udnet-{_host()}-(\d+)-[0-9a-f]{{12}}(\..*)?")
    with suppress(OSError):  # it cannot be listed
        ours = [(pattern.fullmatch(name), name) for name in os.listdir(folder)]
        return [Path(folder, name) for match, name in ours if match and not runs(int(match[1]))]
    return []


def runs(pid):
    """Whether there is a process of that number on this machine."""
    if sys.platform == "win32":  # where no signal asks without harm
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no system counts that far
        return False
    except PermissionError:  # another user's
        return True
    return True


_sweep_once = cache(sweep)  # a folder may be large, and much be written into it


def _name():
    """A name that nothing else has, and that tells whose it is: the machine and the process."""
    return f"udnet-{_host()}-{os.getpid()}-{os.urandom(6).hex()}"


@cache
def _host():
    """Eight digits for this machine: in a shared folder, another one's processes are not to be taken for dead."""
    import platform
    import zlib

    return f"{zlib.crc32(platform.node().encode()):08x}"


@contextmanager
def temporary_folder(room=0):
    """A temporary folder, gone at the end; what killed processes have left of theirs goes at the start.

    `room`: bytes that have to be free there. `Error` where they are not, and where the disk is found full inside.
    """
    import shutil
    import tempfile

    parent = Path(tempfile.gettempdir())
    sweep(parent)
    folder = parent / _name()
    try:
        folder.mkdir(mode=0o700)
        disk = shutil.disk_usage(folder)
        if disk.total and disk.free < room:  # some systems tell neither
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield folder
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Error(f"{parent}: {error.strerror}: free some space, or name another folder in TMPDIR") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- this project's own ---


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


def write_text(path, text, errors="strict"):
    """Write a whole text file, UTF-8, in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def write_csv(path, frame):
    """Write a table as CSV, in one step: it is there whole, or as it was before."""
    write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


# --- folders ---


def make_folder(folder):
    """Make a folder, and those that it lies in; `Error` where the system refuses, or would refuse a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Error(f"cannot write into the folder {folder}: {error.strerror}; give another") from error


@contextmanager
def alone(folder):
    """Hold the folder, so that two runs never write into one; what a killed one was writing is gone at the end."""
    make_folder(folder)
    with _locked(folder):
        try:
            yield
        finally:
            sweep(folder)


@contextmanager
def _locked(folder):
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise Error(f"cannot open the folder {folder}: {error.strerror}; give another") from error
    try:
        _lock(fcntl, handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(fcntl, handle, folder):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Error(f"another run is writing into {folder}: wait for it, or give another folder") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise Error(f"cannot lock the folder {folder}: {error.strerror}; give another") from error
        print(f"udnet: {folder} has no locks ({error.strerror}): let no other run write into it", file=sys.stderr)
