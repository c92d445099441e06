"""The network's door: pictures as bytes on one side, batches of floats on the other. Imports NumPy alone."""

import numpy as np

from udnet import Error

MULTIPLE = 8  # the network halves a picture three times
SMALLEST = 16  # and reflects the borders of an eighth of it, which takes two pixels
MAX_PIXELS = 178_000_000  # just below the size at which Pillow itself refuses


class PictureError(Error):
    """A picture that cannot be read, enhanced or written, in one line: what, where and what to do."""


def need_pixels(pixels):
    """`PictureError` unless it is a picture in memory: an array of uint8, height x width x 3, with nothing masked."""
    if not isinstance(pixels, np.ndarray) or isinstance(pixels, np.ma.MaskedArray):
        raise PictureError(
            f"a {type(pixels).__name__} is no picture: give a Pillow image or a uint8 array, height x width x 3"
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise PictureError(f"a {pixels.dtype} array of shape {pixels.shape}: give uint8, height x width x 3")


def to_batch(pixels):
    """The network's input: the picture in [0, 1], reflected at the right and bottom up to sizes that the network takes.

    `pixels` is uint8, height x width x 3, of any size; the batch is float32, 1 x 3 x height x width, both multiples of
    8 and at least 16. `PictureError` for any other array.
    """
    need_pixels(pixels)
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


def is_batch(output, height, width):
    """Whether an output of a network is a picture of that size, or a larger one to crop to it."""
    shape = np.shape(output)
    return len(shape) == 4 and shape[1] == 3 and shape[2] >= height and shape[3] >= width


def to_pixels(batch, height, width):
    """The network's output as a picture: cropped to its top left, clipped to [0, 1], halves rounded up.

    `batch` is float32, 1 x 3 x height x width or larger; the pixels are uint8, height x width x 3. `PictureError` where
    a value is not finite.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    rows = batch[0, :, :height, :width].transpose(1, 2, 0)
    for row, values in zip(pixels, rows, strict=True):  # one row at a time: no second picture of floats
        if not np.isfinite(values).all():
            raise PictureError("the network gave values that are not finite: check its weights by `udnet check`")
        row[:] = np.multiply(values.clip(0, 1), 255, dtype=np.float64) + 0.5
    return pixels
