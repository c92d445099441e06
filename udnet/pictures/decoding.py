"""From a Pillow image to upright 8-bit sRGB, some rows at a time, and what its decoder holds meanwhile."""

import io
import os
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageCms

from udnet.pictures import exif
from udnet.system.memory import fresh

PIECE = 1 << 18  # pixels that are converted at once
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # tags of a TIFF
_ROWS_PER_STRIP, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILE_BYTES = 278, 279, 322, 323, 325
_PLAIN = {  # the mode that a piece is converted to before its profile is followed; RGB for all others
    **dict.fromkeys(("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"), "L"),
    "CMYK": "CMYK",
}


def size(image):
    """Height and width of an opened image, upright."""
    turned_already = ExifTags.Base.Orientation in getattr(image, "tag_v2", {})  # as Pillow tells it of a TIFF
    sideways = exif.orientation(image) in exif.SIDEWAYS and not turned_already
    return (image.width, image.height) if sideways else (image.height, image.width)


def has_alpha(image):
    """Whether an opened image has transparency that is kept; of 16-bit grey it is not."""
    return image.has_transparency_data and not image.mode.startswith("I;16")


def reading(image):
    """Bytes that `decode` holds at once of an opened image, by how each format is decoded."""
    result = image.width * image.height * (3 + has_alpha(image))
    return _held(image) + max(_decoding(image), result)


def _held(image):
    """Bytes of an opened image as Pillow holds it decoded, with the texts and profiles of its file."""
    each = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    return image.width * image.height * each + sum(len(v) for v in image.info.values() if isinstance(v, str | bytes))


def _decoding(image):
    """Bytes that a decoder holds beside that, until it is through."""
    pixels = image.width * image.height
    if image.format == "WEBP":  # its file, the canvas of this frame and of the one before, and what it hands over
        return 12 * pixels + os.path.getsize(image.filename)
    if image.format == "TIFF":
        tags, turned = image.tag_v2, (exif.orientation(image) != 1) * _held(image)
        if tags.get(_COMPRESSION, 1) == 1:
            return turned
        across, down = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_HEIGHT, tags.get(_ROWS_PER_STRIP, 1 << 32))
        unpacked = across * min(down, max(image.size)) * sum(tags.get(_BITS, (1,))) // 8  # of a strip, or a tile
        return max(turned, unpacked + max(tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES, (0,)))))
    if image.info.get("progressive"):  # libjpeg keeps the coefficients of the whole picture, two bytes each
        most = max(across * down for _, across, down, _ in image.layer)
        return 2 * pixels * sum(across * down for _, across, down, _ in image.layer) // most
    return 0


def decode(image):
    """Pixels, height x width x 3, and alpha, height x width, or None, of an opened image: uint8, sRGB, upright."""
    with silence(image.format):
        image.load()
    turn = exif.orientation(image)
    pixels = fresh((*size(image), 3), np.uint8)
    alpha = fresh(size(image), np.uint8) if has_alpha(image) else None
    as_stored = [None if one is None else exif.TURNED[turn](one) for one in (pixels, alpha)]
    scaled, plain = _scale(image), _PLAIN.get(image.mode, "RGB")
    to_srgb = _transform(image.info.get("icc_profile"), plain)
    step = max(1, PIECE // image.width)
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        piece = scaled(image.crop((0, rows.start, image.width, rows.stop)))
        if piece.mode in ("RGBa", "La"):  # premultiplied
            piece = piece.convert(piece.mode[:-1] + "A")
        if alpha is not None:
            as_stored[1][rows] = piece.convert("RGBA").getchannel("A")
        as_stored[0][rows] = to_srgb(piece if piece.mode == plain else piece.convert(plain))
    return pixels, alpha


def _scale(image):
    """A function that makes 8 bits of a piece of 16-bit grey, which Pillow's own conversion cuts off at 255."""
    if not image.mode.startswith("I;16"):
        return lambda piece: piece
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(_BITS) == (12,) else 65_535
    inverted = tags.get(_PHOTOMETRIC) == 0  # 0 is white, which Pillow minds with 8 bits alone

    def scaled(piece):
        values = np.asarray(piece).astype(np.uint32)
        values = white - values if inverted else values
        return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))

    return scaled


def _transform(profile, mode):
    """A function to sRGB from a piece of a mode, by a colour profile (bytes or None) where that fits it."""
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            change = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
            return lambda piece: ImageCms.applyTransform(piece, change)
        except (ImageCms.PyCMSError, OSError):
            pass
    return lambda piece: piece.convert("RGB")


@contextmanager
def silence(kind):
    """The system's stderr led nowhere for a while: libtiff writes its complaints there, past Pillow and Python."""
    if kind != "TIFF":
        yield
        return
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
