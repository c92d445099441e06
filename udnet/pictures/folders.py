"""Enhancing files: one photograph to another, or a folder with its subfolders into a folder."""

import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from udnet import Error
from udnet.pictures import photographs
from udnet.pictures.images import PictureError
from udnet.pictures.photographs import KINDS, RAW
from udnet.system.progress import bar, say

REFERENCE = "_reference"  # after the name of a picture that another one is scored against
OTHERS = RAW | {".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".tga"}  # pictures that are not read


def enhance_file(enhancer, source, out, begin=None):
    """Read a photograph, enhance it and write it; `PictureError` when any of the three fails.

    `enhancer` takes and returns a `Picture`; `begin(source, header)` is called before the photograph is decoded, and
    what it raises refuses it. Returns how many of the camera's notes the target has no room for.
    """
    header = photographs.header(source, out)
    if begin:
        with _naming(source, header):
            begin(source, header)
    picture = photographs.read(source)
    with _naming(source, header):
        picture = enhancer(picture)
    return photographs.write(picture, out)


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


def enhance_path(enhancer, source, out, progress=True, begin=None):
    """Enhance a photograph to a file (or into a folder), or a folder with its subfolders into a folder, file by file.

    A folder's hidden files and those without a picture's suffix are left alone, and so is `out` where it lies inside;
    pictures of kinds that are not read are counted in one line. What fails is one line on stderr, the others are done.
    Returns the failures as (path, message); `PictureError`, before any work, when the request itself is wrong.
    `progress`: a bar on stderr, for a folder; `begin`: see `enhance_file`.
    """
    source, out = Path(source), Path(out)
    pairs, others = _pairs(source, out)
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        _say(f"{source}: left out {counts}: convert them to a {photographs.format_names()} first")
    failures = []
    with bar(pairs, progress and source.is_dir(), desc="enhance", unit="picture") as todo:
        for path, target in todo:
            try:
                left_out = enhance_file(enhancer, path, target, begin)
            except Error as error:
                failures.append((path, str(error)))
                _say(error)
            else:
                if left_out:
                    _say(f"{target}: without {left_out} of the camera's notes: {target.suffix} has no room for them")
    if failures and source.is_dir():
        _say(f"{source}: {len(failures)} of {len(pairs)} failed, the others are in {out}")
    return failures


def _say(line):
    say(f"udnet: {line}")


def _pairs(source, out):
    """Which file is enhanced into which, checked as far as can be before any work; and what else is there.

    A list of (source, target), and by suffix how many pictures are of a kind that is not read.
    """
    if not os.path.exists(source):  # os.path: a name too long for the system is no such file either
        raise PictureError(f"{source}: no such file or folder: name a picture or a folder of pictures")
    others = Counter()
    if not source.is_dir():
        pairs = [(source, out / source.name if os.path.isdir(out) else out)]
        folder = pairs[0][1].parent
    else:
        root, folder = source.resolve(), out
        if root.is_relative_to(out.resolve()):
            raise PictureError(f"{out}: holds the pictures to enhance: name another folder to write into")
        found = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
        found = [
            path
            for path in found
            if not any(part.startswith(".") for part in path.parts) and not (root / path).is_relative_to(out.resolve())
        ]
        pairs = [
            (source / path, out / path)
            for path in found
            if path.suffix.lower() in KINDS and not _is_reference(path, found)
        ]
        others.update(path.suffix.lower() for path in found if path.suffix.lower() in OTHERS)
        if not pairs:
            raise PictureError(f"{source}: no pictures in it: name a folder with {photographs.format_names()} files")
    for path, target in pairs:
        photographs.target(target, path)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PictureError(f"{nearest}: not a folder that can be written into: name another")
    return pairs, others


def _is_reference(path, found):
    """Whether a picture is what another one is scored against: NAME_reference, where NAME is there too."""
    name = path.stem.removesuffix(REFERENCE)
    return name != path.stem and any((one.parent, one.stem) == (path.parent, name) for one in found)
