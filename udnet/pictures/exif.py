"""What a camera noted in EXIF: how it was held, and what of its notes can be written again."""

from PIL import ExifTags, Image

SIDEWAYS = (5, 6, 7, 8)
TURNED = {  # by EXIF's orientation: an upright array, seen as the file stores it
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


def orientation(image):
    """How the camera was held, by EXIF's numbers; 1, upright, where that is not said."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # malformed notes are no reason to lose the picture
        return 1
    return found if found in TURNED else 1


def notes(image):
    """EXIF of an image without what no longer holds: its orientation, and the thumbnail of the old picture.

    What cannot be written again is left out.
    """
    if "exif" not in image.info:
        return b""
    try:
        return _writable(image.getexif()).tobytes()
    except Exception:  # malformed notes are no reason to lose the picture
        return b""


def _writable(exif):
    """EXIF with those of its notes alone that can be written, each on its own, in its directories too."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag == ExifTags.Base.Orientation:
            continue
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            value = {inner: one for inner, one in exif.get_ifd(tag).items() if _can_be_written({inner: one})}
        if _can_be_written({tag: value}):
            kept[tag] = value
    return kept


def _can_be_written(tags):
    exif = Image.Exif()
    exif.update(tags)
    try:
        return bool(exif.tobytes())
    except Exception:
        return False


def fitted(data, most):
    """EXIF of at most so many bytes, the largest notes left out, and how many those are."""
    exif, left_out = Image.Exif(), 0
    exif.load(data)
    folders = [exif, *(exif.get_ifd(tag) for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) if tag in exif)]
    while len(exif.tobytes()) > most:
        sizes = [(_size(value), tag, folder) for folder in folders for tag, value in folder.items()]
        _, tag, folder = max(sizes, key=lambda one: one[:2])
        del folder[tag]
        left_out += 1
    return exif.tobytes(), left_out


def _size(value):
    return len(value) if isinstance(value, str | bytes | tuple) else 1
