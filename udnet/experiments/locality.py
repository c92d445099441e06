"""Why tiles can be exact: one pixel is changed, and what of the output follows it, with and without the global sums.

The network is convolutions and upsampling, which look at their neighbours, and five sums over the whole image. If
that is all, then with the sums held as they were a change stays within the reach of the convolutions, and each pixel
beyond is the same to the bit; with the sums free to follow, everything moves a little.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from udnet import NotMeasured
from udnet.network import prepared
from udnet.pictures import images, reference
from udnet.system import files
from udnet.trials import tables
from udnet.variants import compared

FILE = "locality.npz"
HEIGHT, WIDTH = 192, 256
AT = 96, 104  # row and column of the pixel


class Changes(NamedTuple):
    """How far each pixel of the output moved, the largest of its channels: height x width arrays."""

    free: np.ndarray  # every sum follows the picture
    held: np.ndarray  # the sums are those of the picture before the change
    weights: str  # a caption


def run(folder, weights=None):
    """Measure it into `locality.npz` of a study's folder, in half precision, and return the `Changes`."""
    found = changes(weights)
    with files.replacing(Path(folder) / FILE) as part, part.open("wb") as file:
        np.savez_compressed(file, **{**found._asdict(), **{n: np.float16(getattr(found, n)) for n in ("free", "held")}})
    return read(folder)


def read(folder):
    """The `Changes` of a study's folder."""
    path = Path(folder) / FILE
    if not path.exists():
        raise NotMeasured("no pixel was changed")
    with files.reading(path, tables.AGAIN), np.load(path) as file:
        return Changes(np.float32(file["free"]), np.float32(file["held"]), str(file["weights"]))


def changes(weights=None):
    """A drawn reef, one pixel of it turned to its opposite, through the tiled network."""
    found = prepared.find(weights)
    network = compared.load_onnx_tiled(1, prepared.prepared(found, "arrays"))
    pixels = reference.picture(HEIGHT, WIDTH)
    (x,) = images.to_batch(pixels)
    pixels[AT] = 255 - pixels[AT]
    (changed,) = images.to_batch(pixels)
    before, kernels = network.run(x)
    after = network.run(changed)[0], network.run(changed, kernels)[0]
    return Changes(*(np.abs(one - before).max(axis=0) for one in after), found.caption)


def reach(change):
    """How far from the pixel the output moved at all: rows up and down, columns left and right."""
    rows, columns = (np.flatnonzero(change.any(axis=axis)) for axis in (1, 0))
    return tuple(int(n) for n in (AT[0] - rows[0], rows[-1] - AT[0], AT[1] - columns[0], columns[-1] - AT[1]))
