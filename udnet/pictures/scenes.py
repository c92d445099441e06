"""Underwater scenes from a seed, at any size and, stripe by stripe, in little memory.

Everything is a function of place, so a stripe is drawn alone and comes out as in the whole picture, and a large picture
shows the same scene as a small one, with more detail. Places are in heights of the picture, right and down from the
middle of its upper edge; lengths in the scene are in metres; colours are linear.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from udnet.pictures.canvas import Canvas, Noise
from udnet.pictures.reefs import FLOOR_ENDS, Boulder, Brain, Branches, Fan, Fish, Floor, Ridge, Star, Tentacles
from udnet.pictures.water import Water, develop, levels, to_bytes
from udnet.system import files, machine

AIMED = 0.3, 0.3, 0.15, 0.25  # how often a scene looks down, ahead, up, and at something close
CLOSE = -4.0  # the horizon of a camera that looks straight at what is before it


class Scene:
    """A scene by its seed."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.noise = Noise(rng)
        # from 1 on the floor is out of sight
        horizons = rng.uniform(-0.9, -0.2), rng.uniform(0, 0.45), rng.uniform(0.4, 1.3), CLOSE
        self.horizon = float(rng.choice(horizons, p=AIMED))
        self.altitude = rng.uniform(0.9, 2.2) * max(1 - self.horizon, 0.1) / 1.2  # of the camera over the floor
        self.floor = Floor(rng, self.noise)
        ridges = rng.integers(0, 4) if 0 < self.horizon < 1 else 0
        things = [Ridge(rng, self.noise, self, rng.uniform(5, 20)) for _ in range(ridges)]
        things += [self._standing(rng) for _ in range(rng.integers(6, 45))] if self.horizon < 0.95 else []
        things += [self._standing(rng) for _ in range(rng.integers(10, 60))] if self.horizon == CLOSE else []
        things += self._swimming(rng, rng.integers(0, 4) + 2 * (self.horizon > 0.45))
        self.things = sorted(things, key=lambda thing: thing.range)
        self.lamp = rng.uniform(0.3, 1.0) if rng.random() < 0.3 else 0.0  # a diver's, beside the light from above
        self.lamp_at = rng.uniform(-0.3, 0.3), rng.uniform(0.35, 0.7)

    def rows(self, height, width, top, bottom):
        """Light (rows x width x 3, linear; none in open water) and range (rows x width) of some rows.

        The range is in the metres of clear water; `Water.near` makes it that of a turbid one.
        """
        u, v = (np.arange(width) + 0.5 - width / 2) / height, (np.arange(top, bottom) + 0.5) / height
        canvas = Canvas(u.astype(np.float32), v.astype(np.float32), 1 / height)
        for thing in self.things:
            thing.paint(canvas)
        self.floor.paint(canvas, self)
        if self.lamp:
            u, v = canvas.u - self.lamp_at[0], canvas.v[:, None] - self.lamp_at[1]
            cone = np.exp(-3 * (u * u + v * v))
            canvas.light *= (1 - self.lamp + self.lamp * 1.6 * cone / (1 + (canvas.range / 5) ** 2))[..., None]
        return canvas.light, canvas.range

    def place(self, metres):
        """Where on the picture, from the top, the floor is at a range."""
        return self.horizon + self.altitude / metres

    def _standing(self, rng):
        nearest = self.altitude / (1.05 - self.horizon)
        farthest = min(FLOOR_ENDS * 0.7, self.altitude / max(0.02 - self.horizon, 0.05))
        metres = nearest * (farthest / nearest) ** rng.uniform(0, 1)
        kinds = [Branches, Branches, Boulder, Boulder, Brain, Tentacles, Fan, Star]
        kind = kinds[rng.integers(len(kinds))]
        size = rng.uniform(*kind.METRES) / metres
        return kind(rng, self.noise, rng.uniform(-1.3, 1.3), self.place(metres), size, metres)

    def _swimming(self, rng, groups):
        fish = []
        for _ in range(groups):
            metres, u, v = rng.uniform(1.2, 6), rng.uniform(-0.9, 0.9), rng.uniform(0.1, 0.8)
            looks = int(rng.integers(2**31))  # of one kind in a school
            school = rng.integers(3, 14) if rng.random() < 0.4 else 1
            size = rng.uniform(0.15, 0.6) * (0.55 if school > 1 else 2 if self.horizon > 0.45 else 1)
            left = int(rng.choice([-1, 1]))
            for _ in range(school):
                away = rng.normal(0, 0.12 if school > 1 else 0, 2).tolist()
                near = metres * rng.uniform(0.9, 1.15)
                fish.append(Fish(rng, looks, u + away[0], v + away[1], size / near, near, left))
        return fish


# --- pictures ---

REEFS = 3000039, 3000029, 3000022, 3000020, 3000028, 3000035  # shown and enhanced everywhere: six types of water
REEF_SIZE = 240, 320


@dataclass(frozen=True)
class View:
    """Some rows of a scene in water, and in white light through half the water: both uint8, and the range in metres."""

    picture: np.ndarray  # rows x width x 3
    reference: np.ndarray
    range: np.ndarray  # rows x width


STRIPE = 64  # rows that are drawn at once
THREADS = 4  # more would wait for one another
SMALL = 96  # height of the picture that the exposure is taken from
WIDEST = 4  # of its heights


def draw(seed, height, width, rows=None):
    """The `View` of a scene; `rows`: (top, bottom), all where none are given."""
    scene, rng = Scene(seed), np.random.default_rng([seed, 1])
    water = Water(rng)
    small = SMALL, max(1, round(SMALL * min(width / height, WIDEST)))
    light, clear = scene.rows(*small, 0, SMALL)
    metres, v = water.near * clear, (np.arange(SMALL) + 0.5) / SMALL
    exposed = levels(water.picture(light, metres, v, SMALL)), levels(water.reference(light, metres, v))
    top, bottom = rows or (0, height)

    def stripe(first):
        return _stripe(scene, water, exposed, height, width, first, min(first + STRIPE, bottom), seed)

    with ThreadPoolExecutor(min(THREADS, machine.cores())) as workers:
        stripes = workers.map(stripe, range(top, bottom, STRIPE))
        return View(*(np.concatenate(parts) for parts in zip(*stripes, strict=True)))


def save(view, path):
    """Write a view's picture to `path`, a .png, and its reference beside it, as NAME_reference.png."""
    for pixels, name in ((view.picture, path.name), (view.reference, f"{path.stem}_reference.png")):
        with files.replacing(path.with_name(name)) as part:
            Image.fromarray(pixels).save(part, "PNG", optimize=True)


def _stripe(scene, water, exposed, height, width, top, bottom, seed):
    first, last = max(0, top - water.halo(height)), min(height, bottom + water.halo(height))
    light, clear = scene.rows(height, width, first, last)
    metres, v = water.near * clear, (np.arange(first, last) + 0.5) / height
    own = slice(top - first, bottom - first)
    reference = develop(water.reference(light[own], metres[own], v[own]), *exposed[1])
    picture = develop(water.picture(light, metres, v, height)[own], *exposed[0])
    grain = [
        np.random.default_rng([seed, 2, row]).standard_normal((width, 3), np.float32) for row in range(top, bottom)
    ]
    picture += water.noise * np.stack(grain)
    return to_bytes(picture), to_bytes(reference), metres[own]
