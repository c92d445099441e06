"""What scenes are painted with: some rows of a picture, smooth noise of the plane, colours."""

import colorsys
from dataclasses import dataclass

import numpy as np

FAR = 60.0  # metres to what is open water
SIDE = 256  # of a table of noise, a power of two


@dataclass
class Canvas:
    """Some rows of a picture: light (rows x width x 3) and range in metres.

    It is painted from the near to the far, each thing behind what is there: what is hidden is never worked out.
    """

    u: np.ndarray  # of the columns
    v: np.ndarray  # of the rows
    pixel: float  # size of one

    def __post_init__(self):
        shape = len(self.v), len(self.u)
        self.light = np.zeros((*shape, 3), np.float32)
        self.range = np.full(shape, FAR, np.float32)
        self.left = np.ones(shape, np.float32)  # of the light from behind what is there

    def box(self, left, top, right, bottom):
        """The slices of these rows that the box covers and that are not hidden, with their places; None where none."""
        rows = slice(*np.searchsorted(self.v, (top, bottom)))
        columns = slice(*np.searchsorted(self.u, (left, right)))
        visible = self.left[rows, columns] > 0
        rows, columns = _within(rows, visible.any(axis=1)), _within(columns, visible.any(axis=0))
        if rows.start == rows.stop or columns.start == columns.stop:
            return None
        return (rows, columns), self.u[None, columns], self.v[rows, None]

    def paint(self, where, cover, colour, metres):
        """Colour behind what is there, as far as it covers; `metres` is its range."""
        left = self.left[where]
        seen = cover * left
        self.light[where] += seen[..., None] * colour
        left -= seen
        self.range[where] = np.where((cover > 0.5) & (self.range[where] == FAR), metres, self.range[where])

    def shade(self, where, factor):
        """Less light from behind what is there."""
        self.left[where] *= factor


def _within(place, found):
    """From the first to the last of a slice that was found."""
    at = np.flatnonzero(found)
    return slice(place.start + at[0], place.start + at[-1] + 1) if len(at) else slice(0, 0)


class Noise:
    """Smooth noise of the plane, within -1 and 1, that can be asked for at any place."""

    def __init__(self, rng):
        table = rng.uniform(-1, 1, SIDE * SIDE).astype(np.float32).reshape(SIDE, SIDE)
        low = np.roll(table, -1, axis=0)
        around = table, np.roll(table, -1, axis=1), low, np.roll(low, -1, axis=1)
        self.table = np.stack(around, axis=-1).reshape(-1, 4)  # of each square its four corners, read at once

    def at(self, x, y):
        """One value a unit, between which it is smooth."""
        left, top = np.floor(x), np.floor(y)
        across, down = x - left, y - top
        across *= across * (3 - 2 * across)
        down *= down * (3 - 2 * down)
        square = (top.astype(np.intp) & (SIDE - 1)) * SIDE + (left.astype(np.intp) & (SIDE - 1))
        above, above_right, below, below_right = np.moveaxis(self.table.take(square, axis=0), -1, 0)
        above = above + (above_right - above) * across
        below = below + (below_right - below) * across
        return above + (below - above) * down

    def fractal(self, x, y, footprint, octaves=7, gain=0.65, lumps=False):
        """Ever finer noise, as far as pixels that cover so many units can show it; `lumps`: with creases."""
        total = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), np.float32)
        weights = gain ** np.arange(octaves, dtype=np.float32)
        footprint = np.asarray(footprint, np.float32)
        for weight in weights:
            seen = np.clip(2 - 4 * footprint, 0, 1)  # from a quarter to half a cycle a pixel
            if not np.any(seen):
                break
            value = self.at(x, y)
            total += weight * seen * (np.abs(value) * 2 - 0.6 if lumps else value)
            # turned and shifted, so that the lattices of two octaves do not meet
            x, y, footprint = 1.68 * x - 1.4 * y + 7.3, 1.4 * x + 1.68 * y + 3.1, 2.19 * footprint
        return total / weights.sum()


def smooth(low, high, x):
    """From 0 to 1 between two values."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def linear(srgb):
    """sRGB to linear light."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def drawn_colour(rng, hues, saturation, value):
    """A colour, linear: of one of these hues or, one time in four, of any; saturated up to so much, seldom fully.

    A network that trains on them must not be able to tell a colour from a shape. Green is among the hues of nothing:
    where a reef looks green, it is nearly always the water.
    """
    hue = rng.choice(hues) + rng.normal(0, 0.015) if rng.random() < 3 / 4 else rng.uniform()
    return linear(colorsys.hsv_to_rgb(hue % 1, saturation * rng.uniform() ** 1.5, rng.uniform(*value)))


def blend(one, other, t):
    return one + (other - one) * t[..., None]
