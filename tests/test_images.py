"""The network's door: what goes in and what comes out, against references written out."""

import subprocess
import sys

import numpy as np
import pytest

from udnet.pictures.images import PictureError, to_batch, to_pixels


def mirrored(size, total):
    """Reference: the index that each row of a reflected picture repeats, walked step by step."""
    index, place, step = [], 0, 1
    for _ in range(total):
        index.append(place)
        if size > 1:
            step = -1 if place == size - 1 else 1 if place == 0 else step
            place += step
    return index


@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 33])
@pytest.mark.parametrize("width", [1, 2, 5, 8, 13, 16, 23, 31, 40])
def test_batch_against_float64_and_back(height, width):
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = (next(n for n in range(16, 64, 8) if n >= side) for side in (height, width))
    reference = pixels[mirrored(height, rows)][:, mirrored(width, columns)].transpose(2, 0, 1)[None] / 255.0
    batch = to_batch(pixels)
    assert batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, reference.astype(np.float32))
    np.testing.assert_array_equal(to_pixels(batch, height, width), pixels)


def test_every_level_survives():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_pixels(to_batch(pixels), 16, 16), pixels)


def test_output_is_clipped_and_rounded_half_up():
    batch = np.zeros((1, 3, 16, 16), np.float32)
    batch[0, :, 0, 0] = -3.0, 0.5, 7.0  # 0.5 x 255 = 127.5
    assert to_pixels(batch, 1, 1).tolist() == [[[0, 128, 255]]]
    values = np.random.default_rng(0).uniform(-0.1, 1.1, (1, 3, 64, 64)).astype(np.float32)
    halves = ((np.arange(256) + 0.5) / 255).astype(np.float32).reshape(4, 64)  # where float32 arithmetic would slip
    values[0, :, :8] = np.concatenate([halves, np.nextafter(halves, np.float32(0))])
    reference = np.floor(np.clip(values[0].astype(np.float64), 0, 1) * 255 + 0.5).transpose(1, 2, 0)
    np.testing.assert_array_equal(to_pixels(values, 64, 64), reference)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_finite(value):
    batch = np.zeros((1, 3, 16, 16), np.float32)
    batch[0, 1, 8, 8] = value
    with pytest.raises(PictureError, match="not finite"):
        to_pixels(batch, 16, 16)
    assert to_pixels(batch, 8, 8).max() == 0  # in the padding it does no harm


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_batch_of_something_else(array):
    with pytest.raises(PictureError, match="give uint8"):
        to_batch(array)


def test_a_trial_pays_for_numpy_alone():
    code = """
import sys, numpy
from udnet.pictures import images
images.to_pixels(images.to_batch(numpy.zeros((5, 5, 3), "uint8")), 5, 5)
print(sorted({"PIL", "torch", "onnxruntime", "tqdm", "pandas"} & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
