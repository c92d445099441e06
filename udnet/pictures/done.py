"""What is done in a folder of enhanced pictures: a small table in it, by which the same command goes on.

A row is written when the enhanced picture is whole in a file beside its target, with that file's size and time, and
only then does the file take the target's place. So whatever moment a process is killed at, the table tells what is
done: a target that is as its row says, and one whose file still waits beside it.
"""

import csv
import errno
import io
import os
from contextlib import suppress

from udnet import Error, __version__
from udnet.system import files

FILE = "enhanced.csv"
BY = ("variant", "weights", "version")  # what made it
COLUMNS = ("picture", "bytes", "modified_ns", "sha256", *BY, "out_bytes", "out_modified_ns")
DAMAGED = "remove it: its pictures are then enhanced anew"
CODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # of names, as the system has them


def is_table(path):
    """Whether a file is the table of a folder of enhanced pictures."""
    if path.name != FILE or not path.is_file():
        return False
    with suppress(OSError), open(path, **CODING) as file:
        return file.read(len(_text(None))) == _text(None)
    return False


class Done:
    """The table of a folder, a row a picture by its path within the folder; for one process at a time.

    `variant`: the name of what enhances; `weights`: the SHA-256 of its weights.
    """

    def __init__(self, folder, variant, weights):
        self.folder, self.path = folder, folder / FILE
        self.by = dict(zip(BY, (variant, weights, __version__), strict=True))
        self.rows = {row["picture"]: row for row in self._read()}
        waiting = {name: row for name, row in self.rows.items() if not _is(folder / name, row)}
        for name, row in waiting.items():
            for part in files.left_behind((folder / name).parent):
                if _is(part, row):
                    part.replace(folder / name)
        files.write_text(self.path, _text(None, *self.rows.values()), CODING["errors"])

    def _read(self):
        with files.reading(self.path, DAMAGED):
            text = _text(None)
            if self.path.exists():
                with open(self.path, newline="", **CODING) as file:  # a name may hold the end of a line, of any kind
                    text = file.read()
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not text.startswith(_text(None)):
            raise Error(f"{self.path}: no table of enhanced pictures: give that file another name, or name another OUT")
        return [row for row in rows if None not in row.values()]  # a last one that was cut short is none

    def has(self, name, source):
        """Whether a picture was enhanced by the same as here from what its file is now, and is as it was left."""
        row = self.rows.get(name)
        if row is None or not self.by.items() <= row.items() or not _is(self.folder / name, row):
            return False
        size, modified = _state(source)
        return size == row["bytes"] and (modified == row["modified_ns"] or _sha256(source) == row["sha256"])

    def noting(self, name, source):
        """A function for `files.replacing` that notes the picture as done; from a source that is the same all along."""
        before = _state(source)

        def note(part):
            sha256 = _sha256(source)
            if _state(source) != before:  # what was enhanced is not what is there
                return
            about = dict(zip(COLUMNS, (name, *before, sha256, *self.by.values(), *_state(part)), strict=True))
            self._append(_text(about).encode(**CODING))
            self.rows[name] = about

        return note

    def _append(self, line):
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                if os.write(file.fileno(), line) != len(line):  # on a disk that is nearly full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise


def _text(*rows):
    """Rows as the lines of the file; None for the names of the columns."""
    lines = []
    for row in rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")  # so a name with either of the two is quoted
        writer.writerow(row or dict(zip(COLUMNS, COLUMNS, strict=True)))
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _state(path):
    """A file's size and time, as the table has them; none of it where there is no file."""
    with suppress(OSError):
        about = os.stat(path)
        return str(about.st_size), str(about.st_mtime_ns)
    return "", ""


def _is(path, row):
    return _state(path) == (row["out_bytes"], row["out_modified_ns"])


def _sha256(path):
    with suppress(OSError):
        return files.sha256(path)
    return ""
