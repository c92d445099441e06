"""Enhancing files: one photograph to another, or a folder with its subfolders into a folder."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from udnet import Error
from udnet.pictures import photographs, video
from udnet.pictures.done import Done, is_table
from udnet.pictures.images import PictureError
from udnet.pictures.photographs import KINDS, RAW
from udnet.system import files
from udnet.system.progress import bar, say

REFERENCE = "_reference"  # after the name of a picture that another one is scored against
OTHERS = RAW | {".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".tga"}  # pictures that are not read


BAR = "{desc} {n_fmt} of {total_fmt} |{bar}| {a_minute} pictures a minute, {remaining} left"


class Pair(NamedTuple):
    """A photograph and the file that it is enhanced into."""

    source: Path
    target: Path
    note: Callable | None = None  # see `files.replacing`


class Outcome(NamedTuple):
    """What came of a photograph, or of a folder of them: each is one of these."""

    done: int
    kept: int  # done before
    failures: list  # of (path, message)
    missing: int  # neither done nor failed: what enhances them ended before


def enhance_file(enhancer, source, out, begin=None, note=None):
    """Read a photograph, enhance it and write it; `PictureError` when any of the three fails.

    `enhancer` takes and returns a `Picture`; `begin(source, header)` is called before the photograph is decoded, and
    what it raises refuses it; `note`: see `files.replacing`. Returns how many of the camera's notes the target has no
    room for.
    """
    header = photographs.header(source, out)
    if begin:
        with _naming(source, header):
            begin(source, header)
    picture = photographs.read(source)
    with _naming(source, header):
        picture = enhancer(picture)
    return photographs.write(picture, out, note)


def one_by_one(enhancer, begin=None):
    """For `enhance_path`: what enhances photographs in this process; `begin`: see `enhance_file`."""

    def each(pairs):
        for pair in pairs:
            try:
                outcome = enhance_file(enhancer, pair.source, pair.target, begin, pair.note)
            except Error as error:
                outcome = error
            yield pair, outcome

    return each


@contextmanager
def _naming(source, header):
    """Whatever a runtime raises is the failure of this picture, not of the others."""
    try:
        yield
    except MemoryError as error:
        size = f"{header.height}x{header.width}"
        raise PictureError(f"{source}: not enough memory for {size}: set a memory limit or make it smaller") from error
    except Exception as error:
        raise PictureError(f"{source}: cannot be enhanced: {photographs.line(error)}") from error


def enhance_path(each, source, out, by, again=False, progress=True):
    """Enhance a photograph to a file (or into a folder), or a folder with its subfolders into a folder; an `Outcome`.

    `each` takes `Pair`s and yields them, in any order, each with what `enhance_file` returns, or the `Error` of its
    failure: a line on stderr, the others are done. An `Error` that it raises ends it, in a line too. `by`: the name of
    the variant that enhances, and the SHA-256 of its weights. A folder's pictures that are done already, by the same,
    are kept, or done `again`. Its hidden files and those without a picture's suffix are left alone, and so is `out`
    where it lies inside; pictures of kinds that are not read, videos, and folders within that were an `out` before, are
    told in a line. `PictureError`, before any work, when the request itself is wrong. `progress`: a bar on stderr, for
    a folder.
    """
    source, out = Path(source), Path(out)
    pairs, closed = _pairs(source, out)
    if not source.is_dir():
        count, failures = _enhance(each(pairs))
        return Outcome(count, 0, failures, len(pairs) - count - len(failures))
    with files.alone(out):
        done = Done(out, *by)
        names = {pair: pair.source.relative_to(source).as_posix() for pair in pairs}
        todo = [pair for pair, name in names.items() if again or not done.has(name, pair.source)]
        noted = (pair._replace(note=done.noting(names[pair], pair.source)) for pair in todo)
        with bar(
            each(noted), progress, total=len(pairs), initial=len(pairs) - len(todo), desc="enhance", bar_format=BAR
        ) as outcomes:
            count, failures = _enhance(outcomes)
    for failure in closed:
        _say(failure[1])
    missing = len(todo) - count - len(failures)
    if failures or missing:
        _say(f"{source}: {_summary(len(pairs), len(failures), missing, out)}")
    return Outcome(count, len(pairs) - len(todo), failures + closed, missing)


def _summary(count, failed, missing, out):
    """What became of the pictures of a folder, not all of which are done."""
    parts = [f"{size} of {count} {what}" for size, what in ((failed, "failed"), (missing, "missing")) if size]
    if failed + missing < count:
        parts.append(f"the rest is in {out}")
    return ", ".join(parts) + (": the same command goes on" if missing else "")


def _enhance(outcomes):
    """How many pictures are done, and the failures of the others, each of which is said."""
    count, failures = 0, []
    try:
        for pair, outcome in outcomes:
            if isinstance(outcome, Error):
                failures.append((pair.source, str(outcome)))
                _say(outcome)
                continue
            count += 1
            if outcome:
                suffix = pair.target.suffix
                _say(f"{pair.target}: without {outcome} of the camera's notes: {suffix} has no room")
    except Error as error:
        _say(error)
    return count, failures


def _say(line):
    say(f"udnet: {line}")


def _pairs(source, out):
    """Which file is enhanced into which, a list of `Pair`, checked as far as can be before any work.

    And the folders within that cannot be read, as failures.
    """
    if not os.path.exists(source):  # os.path: a name too long for the system is no such file either
        raise PictureError(f"{source}: no such file or folder: name a picture or a folder of pictures")
    if not source.is_dir():
        pairs, closed = [Pair(source, out / source.name if os.path.isdir(out) else out)], []
        folder = pairs[0].target.parent
    else:
        root, folder = source.resolve(), out
        if root.is_relative_to(out.resolve()):
            raise PictureError(f"{out}: holds the pictures to enhance: name another folder to write into")
        found, links, closed = _found(source)
        found = [
            path
            for path in found
            if not any(part.startswith(".") for part in path.parts) and not (root / path).is_relative_to(out.resolve())
        ]
        written = {path.parent for path in found if path.parent.parts and is_table(source / path)}
        found = [path for path in found if written.isdisjoint(path.parents)]
        pairs = [
            Pair(source / path, out / path)
            for path in found
            if path.suffix.lower() in KINDS and not _is_reference(path, found)
        ]
        for line in _left_out((path.suffix.lower() for path in found), written, links):
            _say(f"{source}: left out {line}")
        if not pairs and closed:
            raise PictureError(closed[0][1])
        if not pairs:
            raise PictureError(f"{source}: no pictures in it: name a folder with {photographs.format_names()} files")
    for pair in pairs:
        photographs.target(pair.target, pair.source)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PictureError(f"{nearest}: not a folder that can be written into: name another")
    return pairs, closed


def _found(source):
    """The files of a folder and of those within, their links to folders, and failures: folders that cannot be read."""
    found, links, closed = [], [], []

    def failed(error):
        said = f"{error.filename}: cannot be opened ({error.strerror}): check its permissions"
        closed.append((Path(error.filename), said))

    for folder, within, names in os.walk(source, onerror=failed):
        place = Path(folder).relative_to(source)
        found += [place / name for name in names]
        links += [place / name for name in within if os.path.islink(os.path.join(folder, name))]
    return sorted(found), sorted(links), closed


def _left_out(suffixes, written, links):
    """What a folder holds beside its pictures, a line each.

    `written`: folders in it that earlier runs wrote; `links`: those to folders elsewhere.
    """
    counts = Counter(suffixes)

    def told(kinds):
        return ", ".join(f"{counts[suffix]} {suffix}" for suffix in sorted(kinds & counts.keys()))

    if pictures := told(OTHERS):
        yield f"{pictures}: convert to a {photographs.format_names()} first"
    if videos := told(video.SOURCES):
        yield f"{videos}: a video is enhanced by itself: enhance VIDEO.mp4 OUT.mp4"
    if folders := ", ".join(sorted(str(one) for one in written if written.isdisjoint(one.parents))):
        yield f"{folders}: enhanced by an earlier run: name such a folder itself to enhance it again"
    if links:
        yield f"{', '.join(map(str, links))}: a link to a folder: name that folder itself"


def _is_reference(path, found):
    """Whether a picture is what another one is scored against: NAME_reference, where NAME is there too."""
    name = path.stem.removesuffix(REFERENCE)
    return name != path.stem and any((one.parent, one.stem) == (path.parent, name) for one in found)
