"""Photographs in and out: any size and mode in, the same size out, 8-bit sRGB in between.

`to_batch` and `to_pixels` stand at the network's door and need NumPy alone. Pillow is imported when a file is opened:
a trial that measures a runtime does not pay for it.
"""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from udnet import Error
from udnet.system.files import replacing

MULTIPLE = 8  # the network halves a picture three times
SMALLEST = 16  # and reflects the borders of an eighth of it, which takes two pixels
MAX_PIXELS = 178_000_000  # just below the size at which Pillow itself refuses

REFERENCE = "_reference"  # after the name of a picture that another one is scored against
KINDS = {  # what a suffix stands for
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"quality": 95},
    "BMP": {},
}
_WITH_ALPHA = {"PNG", "TIFF", "WEBP"}
_WITH_EXIF = {"JPEG", "PNG", "WEBP"}  # a TIFF's tags describe its own layout as well, so they stay with it


class PictureError(Error):
    """A picture that cannot be read, enhanced or written, in one line: what, where and what to do."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph as the network takes it, and what goes round the network."""

    pixels: np.ndarray  # height x width x 3, uint8, sRGB, upright
    alpha: np.ndarray | None = None  # height x width, uint8
    exif: bytes = b""  # date, place and camera; no orientation, no thumbnail
    source: Path | None = None


def to_batch(pixels):
    """The network's input: the picture in [0, 1], reflected at the right and bottom up to sizes that the network takes.

    `pixels` is uint8, height x width x 3, of any size; the batch is float32, 1 x 3 x height x width, both multiples of
    8 and at least 16. `PictureError` for any other array.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise PictureError(f"a {pixels.dtype} array of shape {pixels.shape}: give uint8, height x width x 3")
    extra = [max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE) - side for side in pixels.shape[:2]]
    padded = np.pad(pixels, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="reflect")
    batch = np.empty((1, 3, *padded.shape[:2]), np.float32)
    np.divide(padded.transpose(2, 0, 1), np.float32(255), out=batch[0])
    return batch


def reflected(side):
    """Where each row (or column) of the network's input comes from, for a picture with so many: an array of indices."""
    return np.pad(np.arange(side), (0, max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE) - side), mode="reflect")


def parse_size(text):
    """Height and width from `HEIGHTxWIDTH`, in pixels."""
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise Error(f"no size {text!r}: give HEIGHTxWIDTH in pixels, for example 512x768")
    if height * width > MAX_PIXELS:
        raise Error(f"size {text!r} has more than {MAX_PIXELS:,} pixels: give a smaller one")
    return height, width


def padded_size(height, width):
    """The sides of a picture as the network takes it."""
    return tuple(len(reflected(side)) for side in (height, width))


def to_pixels(batch, height, width):
    """The network's output as a picture: cropped to its top left, clipped to [0, 1], halves rounded up.

    `batch` is float32, 1 x 3 x height x width or larger; the pixels are uint8, height x width x 3. `PictureError` where
    a value is not finite.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    rows = batch[0, :, :height, :width].transpose(1, 2, 0)
    for row, values in zip(pixels, rows, strict=True):  # one row at a time: no second picture of floats
        if not np.isfinite(values).all():
            raise PictureError("the network gave values that are not finite: check its weights (python -m udnet check)")
        row[:] = np.multiply(values.clip(0, 1), 255, dtype=np.float64) + 0.5
    return pixels


def read(path):
    """A photograph from a JPEG, PNG, TIFF, WebP or BMP file: the first frame, upright, as 8-bit sRGB.

    Grey, palette, 16-bit, 1-bit and CMYK pictures become RGB; transparency is kept apart as alpha. An embedded colour
    profile is followed; where there is none, or a broken one, the colours are taken for sRGB. `PictureError` for what
    cannot be read, and for more than `MAX_PIXELS`, which the header tells before anything is decoded.
    """
    import logging
    import warnings

    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's complaints land on stderr
    try:
        if not path.is_file():
            raise PictureError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}: name a picture")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=list(_OPTIONS)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _decode(image, path)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        limit = MAX_PIXELS // 1_000_000
        raise PictureError(f"{path}: more than {limit} megapixels: make it smaller, or cut it up, first") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: empty, cut short, or not a {_names()} picture: convert it to one") from error
    except MemoryError as error:
        raise PictureError(f"{path}: not enough memory to read it: make it smaller first") from error
    except Exception as error:  # a damaged file can raise anything inside a decoder
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{path}: cannot be opened ({_line(error)}): check its name and permissions") from error
        raise PictureError(f"{path}: damaged or cut short ({_line(error)}): get a whole copy of it") from error


def _decode(image, path):
    """An opened Pillow image as a `Picture`."""
    from PIL import Image, ImageOps

    if image.format == "TIFF":
        with _silence():
            image.load()
    ImageOps.exif_transpose(image, in_place=True)
    profile = image.info.get("icc_profile")
    exif = _exif(image) if "exif" in image.info else b""
    if image.mode in ("I", "F"):
        raise PictureError(f"{path}: 32-bit values have no agreed white: save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow's own conversion cuts off at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    return Picture(np.asarray(_to_srgb(image, profile)), alpha, exif, path)


@contextmanager
def _silence():
    """The system's stderr led nowhere for a while: libtiff writes its complaints there, past Pillow and Python."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _exif(image):
    """What the camera noted, less the thumbnail, which shows the old picture; the orientation is applied already."""
    try:
        return image.getexif().tobytes()
    except Exception:  # malformed notes are no reason to lose the picture
        return b""


def _to_srgb(image, profile):
    """A grey, RGB or CMYK image as sRGB, by its profile (bytes or None) where that fits the image."""
    from io import BytesIO

    from PIL import ImageCms

    if profile:
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def write(picture, path):
    """Write a `Picture` whole or not at all, in the format that the suffix names; missing folders are made.

    JPEG and WebP at quality 95, PNG, TIFF and BMP lossless, all untagged sRGB. JPEG and BMP have no alpha: it is
    dropped and the colours stay as they are. `PictureError` for an unknown suffix, for the picture's own source, and
    when the system refuses.
    """
    from PIL import Image

    path = Path(path)
    kind = _target_kind(path, picture.source)
    options = dict(_OPTIONS[kind])
    if picture.exif and kind in _WITH_EXIF:
        options["exif"] = picture.exif
    try:
        image = Image.fromarray(picture.pixels)
        if picture.alpha is not None and kind in _WITH_ALPHA:
            image.putalpha(Image.fromarray(picture.alpha))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            image.save(part, kind, **options)
    except Error as error:
        raise PictureError(str(error)) from error
    except Exception as error:  # the format's own limits, memory
        raise PictureError(f"{path}: cannot be written ({_line(error)}): name another file or format") from error


def enhance_file(enhancer, source, out, tell=None):
    """Read a photograph, enhance it and write it; `PictureError` when any of the three fails.

    `enhancer` takes and returns uint8 pixels, height x width x 3; `tell(source, pixels)` is called before it begins.
    """
    _target_kind(Path(out), source)
    picture = read(source)
    try:
        if tell:
            tell(source, picture.pixels)
        pixels = enhancer(picture.pixels)
    except MemoryError as error:
        size = "{}x{}".format(*picture.pixels.shape[:2])
        raise PictureError(f"{source}: not enough memory for {size}: set a memory limit or make it smaller") from error
    except Exception as error:  # whatever a runtime raises is the failure of this picture, not of the others
        raise PictureError(f"{source}: cannot be enhanced: {_line(error)}") from error
    write(replace(picture, pixels=pixels), out)


def enhance_path(enhancer, source, out, progress=True, tell=None):
    """Enhance a photograph to a file (or into a folder), or a folder with its subfolders into a folder, file by file.

    A folder's hidden files and those without a picture's suffix are left alone, and so is `out` where it lies inside.
    What fails is one line on stderr, the others are done. Returns the failures as (path, message); `PictureError`,
    before any work, when the request itself is wrong. `progress`: a bar on stderr, for a folder; `tell`: see
    `enhance_file`.
    """
    from tqdm import tqdm

    source, out = Path(source), Path(out)
    pairs = _pairs(source, out)
    failures = []
    with tqdm(pairs, desc="enhance", unit="picture", disable=not (progress and source.is_dir())) as bar:
        for path, target in bar:
            try:
                enhance_file(enhancer, path, target, tell)
            except PictureError as error:
                failures.append((path, str(error)))
                tqdm.write(f"udnet: {error}", file=sys.stderr)
    return failures


def _pairs(source, out):
    """Which file is enhanced into which: a list of (source, target), checked as far as can be before any work."""
    if not os.path.exists(source):  # os.path: a name too long for the system is no such file either
        raise PictureError(f"{source}: no such file or folder: name a picture or a folder of pictures")
    if not source.is_dir():
        pairs = [(source, out / source.name if os.path.isdir(out) else out)]
        folder = pairs[0][1].parent
    else:
        root, folder = source.resolve(), out
        if root.is_relative_to(out.resolve()):
            raise PictureError(f"{out}: holds the pictures to enhance: name another folder to write into")
        found = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
        pairs = [
            (source / path, out / path)
            for path in found
            if path.suffix.lower() in KINDS
            and not any(part.startswith(".") for part in path.parts)
            and not _is_reference(path, found)
            and not (root / path).is_relative_to(out.resolve())
        ]
        if not pairs:
            raise PictureError(f"{source}: no pictures in it: name a folder with {_names()} files")
    for path, target in pairs:
        _target_kind(target, path)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PictureError(f"{nearest}: not a folder that can be written into: name another")
    return pairs


def _is_reference(path, found):
    """Whether a picture is what another one is scored against: NAME_reference, where NAME is there too."""
    name = path.stem.removesuffix(REFERENCE)
    return name != path.stem and any((one.parent, one.stem) == (path.parent, name) for one in found)


def _target_kind(path, source):
    """The format that a target's suffix names; `PictureError` where the target cannot be written or is the source."""
    if os.path.isdir(path):
        raise PictureError(f"{path}: a folder: name a file to write")
    if path.suffix.lower() not in KINDS:
        raise PictureError(f"{path}: no picture format has this suffix: end the name with {', '.join(KINDS)}")
    if source and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise PictureError(f"{path}: would overwrite the picture it is made from: name another file")
    return KINDS[path.suffix.lower()]


def _names():
    """The formats in words."""
    *others, last = _OPTIONS
    return f"{', '.join(others)} or {last}"


def _line(error):
    """What an exception says, in one line."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__
