"""The pictures that trials enhance: six drawn reefs, stretched to any size."""

import numpy as np

from udnet.system.files import DATA


def reefs():
    """The files of the drawn reefs, in their order."""
    return sorted((DATA / "images").glob("reef_?.png"))


def picture(height, width, seed=0):
    """The picture that a trial enhances: one of the drawn reefs, stretched to its size, uint8, height x width x 3."""
    from PIL import Image

    paths = reefs()
    with Image.open(paths[seed % len(paths)]) as reef:
        return np.array(reef.resize((width, height), Image.BICUBIC))
