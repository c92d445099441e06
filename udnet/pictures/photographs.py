"""Photographs in and out: a file, or a Pillow image of any mode, becomes upright 8-bit sRGB; and back.

There is one way in. A file that is read and a Pillow image in memory give the same picture, and the header of a file
tells what reading it will hold, before anything is decoded. A picture is turned and converted some rows at a time: at
no moment is it there more often than as its decoder leaves it and as the network takes it.
"""

import errno
import io
import logging
import stat
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from udnet import Error
from udnet.pictures import decoding, exif
from udnet.pictures.images import MAX_PIXELS, PictureError, need_pixels
from udnet.system.files import not_itself, replacing
from udnet.system.memory import MIB

KINDS = {  # what a suffix stands for
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
RAW = {  # what cameras leave to be developed
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"),
    *(".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
BESIDE = 9 * MIB  # what Pillow takes for good: 3 MiB, and with the first picture 4 to 5 of decoders (measured)

_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"quality": 95},
    "BMP": {},
}
_WITH_ALPHA = {"PNG", "TIFF", "WEBP"}
_WITH_EXIF = {"JPEG", "PNG", "WEBP"}  # a TIFF's tags describe its own layout as well, so they stay with it
_EXIF_BYTES = {"JPEG": 65_533}  # what a format holds of them
_SIDES = {"JPEG": 65_535, "WEBP": 16_383}  # pixels that a format holds in a row or a column
_WRITING = {"JPEG": 4, "PNG": 4, "TIFF": 4, "WEBP": 14, "BMP": 4}  # bytes a pixel that Pillow and its encoder hold
_LONG = PngImagePlugin.MAX_TEXT_MEMORY  # bytes of one unpacked text or profile of a PNG; Pillow alone takes 1 MiB
_SUBFILE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706  # tags of a TIFF


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph as the network takes it, and what goes round the network."""

    pixels: np.ndarray  # height x width x 3, uint8, sRGB, upright
    alpha: np.ndarray | None = None  # height x width, uint8
    exif: bytes = b""  # date, place and camera; no orientation, no thumbnail
    source: Path | None = None

    @property
    def beside(self):
        """Bytes that are held beside the pixels while they are enhanced."""
        return BESIDE + (0 if self.alpha is None else self.alpha.nbytes)

    @property
    def image(self):
        """A Pillow image of it, RGB or RGBA."""
        image = Image.fromarray(self.pixels)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


@dataclass(frozen=True)
class Header:
    """What a file tells before it is decoded: the sides of the upright picture, and bytes of memory."""

    height: int
    width: int
    in_and_out: int  # bytes held at once while it is read or while it is written, whichever is more
    beside: int  # bytes held beside the pixels while they are enhanced


# --- reading ---


def header(path, out):
    """The `Header` of a file that is to be enhanced into the file `out`.

    `PictureError` as for `read`, for whatever the header shows already, and as for `write`.
    """
    kind = target(out, path)
    with _opened(path) as image:
        height, width = decoding.size(image)
        target(out, path, (height, width))
        alpha = decoding.has_alpha(image) * height * width
        writing = (3 + _WRITING[kind]) * height * width + alpha
        return Header(height, width, max(decoding.reading(image), writing), BESIDE + alpha)


def read(path):
    """A photograph from a JPEG, PNG, TIFF, WebP or BMP file: the first frame, upright, as 8-bit sRGB.

    Grey, palette, 16-bit, 1-bit and CMYK pictures become RGB; transparency is kept apart as alpha. An embedded colour
    profile is followed; where there is none, or a broken one, the colours are taken for sRGB. `PictureError` for what
    cannot be read, and for more than `MAX_PIXELS`, which the header tells before anything is decoded.
    """
    with _opened(path) as image:
        return Picture(*decoding.decode(image), exif.notes(image), Path(path))


def of(image):
    """A photograph from a Pillow image of any mode, by the same rules as from its file; `PictureError` likewise."""
    if not isinstance(image, Image.Image):
        need_pixels(image)
        return Picture(image)
    with _refusing("the image"):
        _check(image)
        return Picture(*decoding.decode(image), exif.notes(image))


@contextmanager
def _opened(path):
    """A file's Pillow image, checked as far as its header goes."""
    path = Path(path)
    with _refusing(path):
        if not path.is_file():
            none = "a link to nothing" if path.is_symlink() else "no such file"
            what = "a folder" if path.is_dir() else "not a file" if path.exists() else none
            raise PictureError(f"{what}: name a picture")
        with Image.open(path, formats=list(_OPTIONS)) as image:
            _check(image, path.suffix)
            yield image


@contextmanager
def _refusing(name):
    """Whatever is raised about a picture becomes a `PictureError` that begins with its name, and nothing else."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's complaints land on stderr
    try:
        with warnings.catch_warnings(action="ignore"), _long_texts():
            yield
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from error.__cause__
    except Image.DecompressionBombError as error:
        limit = MAX_PIXELS // 1_000_000
        raise PictureError(f"{name}: more than {limit} megapixels: make it smaller, or cut it up, first") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: empty, cut short, or not a {format_names()} picture: convert it to one") from error
    except MemoryError as error:
        raise PictureError(f"{name}: not enough memory to read it: make it smaller first") from error
    except Exception as error:  # a damaged file can raise anything inside a decoder
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{name}: cannot be opened ({line(error)}): check its name and permissions") from error
        raise PictureError(f"{name}: damaged or cut short ({line(error)}): get a whole copy of it") from error


@contextmanager
def _long_texts():
    """Pillow takes the long texts and profiles that editors write into a PNG."""
    before, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, _LONG
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before


def _check(image, suffix=""):
    """Refuse what the header shows already."""
    if not image.width * image.height:
        raise PictureError(f"{image.width}x{image.height} pixels: give one with some")
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.mode in ("I", "F"):
        raise PictureError("32-bit values have no agreed white: save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    preview = _DNG_VERSION in tags or (tags.get(_SUBFILE, 0) & 1 and _SUB_IFDS in tags)
    if preview or suffix.lower() in RAW:
        raise PictureError(
            "a camera's raw file, of which only a preview can be read: develop it to a TIFF or JPEG first"
        )


# --- writing ---


def write(picture, path, note=None):
    """Write a `Picture` whole or not at all, in the format that the suffix names; missing folders are made.

    JPEG and WebP at quality 95, PNG, TIFF and BMP lossless, all untagged sRGB. JPEG and BMP have no alpha: it is
    dropped and the colours stay as they are. `note`: see `files.replacing`. Returns how many of the camera's notes the
    format had no room for. `PictureError` for what `target` refuses, and when the system refuses.
    """
    path = Path(path)
    kind = target(path, picture.source, picture.pixels.shape)
    options, left_out = dict(_OPTIONS[kind]), 0
    try:
        if picture.exif and kind in _WITH_EXIF:
            options["exif"] = picture.exif
            if kind in _EXIF_BYTES:
                options["exif"], left_out = exif.fitted(picture.exif, _EXIF_BYTES[kind])
        image = picture.image if kind in _WITH_ALPHA else Image.fromarray(picture.pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, note=note) as part, decoding.silence(kind), _file(part, kind) as file:
            image.save(file, kind, **options)
    except Error as error:
        raise PictureError(str(error)) from error
    except Exception as error:  # the format's own limits, memory
        raise PictureError(f"{path}: cannot be written ({line(error)}): name another file or format") from error
    return left_out


class _Plain(io.FileIO):
    """A file without a descriptor for Pillow, whose encoders write to one without minding whether all of it fits."""

    def fileno(self):
        raise io.UnsupportedOperation


def _file(path, kind):
    """Where Pillow writes a picture. libtiff minds, and without a descriptor it would keep the whole file in memory."""
    return open(path, "w+b") if kind == "TIFF" else io.BufferedWriter(_Plain(path, "w"))


def target(path, source=None, shape=None):
    """The format that a target's suffix names; `PictureError` where a picture cannot be written to it.

    `source`: the file that the picture is made from; `shape`: begins with its height and width.
    """
    path = Path(path)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise PictureError(f"{path}: a folder: name a file to write")
    except OSError as error:  # most often there is no such file yet
        if error.errno == errno.ENAMETOOLONG:
            raise PictureError(f"{path}: cannot be written ({error.strerror}): name another file") from error
    if path.suffix.lower() not in KINDS:
        raise PictureError(f"{path}: no picture format has this suffix: end the name with {', '.join(KINDS)}")
    if source:
        not_itself(path, source)
    kind = KINDS[path.suffix.lower()]
    most = _SIDES.get(kind, MAX_PIXELS)
    if shape and max(shape[:2]) > most:
        size = "{}x{}".format(*shape[:2])
        raise PictureError(f"{path}: {kind} holds sides of {most:,} pixels at most, not {size}: name a .png or .tif")
    return kind


def format_names():
    """The formats in words."""
    *others, last = _OPTIONS
    return f"{', '.join(others)} or {last}"


def line(error):
    """What an exception says, in one line."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__
