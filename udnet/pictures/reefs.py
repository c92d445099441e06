"""What a scene is made of: the sea floor, reef walls, corals, and fish; each paints itself onto a `Canvas`.

Places are in heights of the picture, sizes on the picture too, lengths in the scene in metres.
"""

import numpy as np

from udnet.pictures.canvas import blend, drawn_colour, smooth

FLOOR_ENDS = 25.0  # metres to where the floor is lost in the water


class Floor:
    """Sand with ripples, rubble and growth, under the light that waves focus."""

    def __init__(self, rng, noise):
        self.noise = noise
        sand = drawn_colour(rng, [0.08, 0.1, 0.12], 0.35, (0.5, 0.85))
        dark = drawn_colour(rng, [0.03, 0.07, 0.1], 0.5, (0.12, 0.35))
        growth = drawn_colour(rng, [0.97, 0.02, 0.06, 0.1, 0.14], 0.6, (0.25, 0.6))
        self.colours = sand, dark, growth
        self.rough = rng.uniform(0, 1)  # from sand to rubble
        self.grown = rng.uniform(-0.2, 0.5)
        self.scale = rng.uniform(2.5, 8)  # lumps a metre
        self.ripples = rng.uniform(0, 0.35) * (self.rough < 0.5)
        self.caustics = rng.uniform(0.2, 1.2) if rng.random() < 0.5 else 0.0

    def paint(self, canvas, scene):
        below = canvas.v - scene.horizon
        first = int(np.searchsorted(below, scene.altitude / FLOOR_ENDS))
        if first == len(below):
            return
        z = (scene.altitude / below[first:, None]).astype(np.float32)
        x = canvas.u[None] * z
        y = z * max(1.0, 0.8 - 1.6 * scene.horizon)  # looking down, the plane is less foreshortened
        seen = z * canvas.pixel * np.sqrt(1 + z / scene.altitude)  # metres a pixel, across and along
        k, noise = self.scale, self.noise
        lumps = noise.fractal(k * x, k * y, k * seen, lumps=True)
        lit = lumps - noise.fractal(k * x + 0.1, k * y + 0.08, k * seen, octaves=5, lumps=True)
        patches = noise.fractal(0.5 * x + 40, 0.5 * y, 0.5 * seen, octaves=6)
        sand, dark, growth = self.colours
        rubble = smooth(0.15, 0.5, self.rough + 0.6 * patches)
        colour = blend(sand, dark, rubble * (0.25 + 0.6 * smooth(0.35, -0.25, lumps)))
        colour = blend(colour, growth, smooth(0.1, 0.4, self.grown + patches * 0.8 - 0.3 * lumps) * 0.85)
        shade = (
            1
            + (0.2 + 0.8 * rubble) * (0.7 * lumps + 1.6 * lit)
            + 0.9 * (0.3 + rubble) * noise.fractal(4 * k * x, 4 * k * y, 4 * k * seen, octaves=4, lumps=True)
        )
        if self.ripples:
            wave = np.sin(22 * (y + 0.25 * x + 0.35 * patches)) * np.clip(2 - 12 * seen, 0, 1)
            shade += self.ripples * wave * (1 - rubble)
        if self.caustics:
            bent = noise.at(1.7 * x + 9, 1.7 * y)
            lines = 1 - np.abs(noise.at(3.1 * x + bent, 3.1 * y - bent))
            shade *= 1 + self.caustics * np.clip(2 - 8 * seen, 0, 1) * (lines**6 * 1.4 - 0.3)
        colour = colour * np.clip(shade, 0.1, 2.2)[..., None]
        canvas.paint(slice(first, None), np.float32(1), colour, z * np.sqrt(1 + canvas.u * canvas.u))


class Ridge:
    """A reef wall across the picture."""

    def __init__(self, rng, noise, scene, metres):
        self.noise, self.range = noise, metres
        self.foot = scene.place(metres)
        self.high = rng.uniform(0.5, 3.0) / metres
        self.shift = rng.uniform(0, 200)
        self.tilt = rng.normal(0, 0.35)
        self.colours = [drawn_colour(rng, [0.02, 0.07, 0.1, 0.9], 0.55, (0.2, 0.65)) for _ in range(2)]

    def paint(self, canvas):
        profile = self.noise.fractal(canvas.u * 2.5 + self.shift, np.float32(self.shift), 2.5 * canvas.pixel)
        top = self.foot - self.high * (0.55 + 1.3 * profile + self.tilt * canvas.u)
        found = canvas.box(canvas.u[0], float(top.min()), canvas.u[-1] + canvas.pixel, self.foot + 0.02)
        if found is None:
            return
        where, u, v = found
        x, y, seen = u * self.range + self.shift, v * self.range, canvas.pixel * self.range
        lumps = self.noise.fractal(2.2 * x, 3.2 * y, 3.2 * seen, lumps=True)
        patches = self.noise.fractal(1.5 * x, 1.5 * y + 50, 1.5 * seen)
        colour = blend(*self.colours, smooth(-0.2, 0.3, patches)) * np.clip(0.85 + 1.6 * lumps, 0.08, 2)[..., None]
        cover = np.clip((v - top[where[1]]) / canvas.pixel + 0.5, 0, 1)
        canvas.paint(where, cover, colour, self.range + lumps)


class Standing:
    """A thing on the floor, from its foot up; `size` is its height on the picture."""

    METRES = 0.2, 0.8
    HUES = 0.0, 0.03, 0.07, 0.12, 0.9, 0.95, 0.8, 0.15
    SATURATION, VALUE = 0.95, (0.3, 0.95)

    def __init__(self, rng, noise, u, v, size, metres):
        self.noise, self.u, self.v, self.size, self.range = noise, u, v, size, metres
        self.colours = [drawn_colour(rng, self.HUES, self.SATURATION, self.VALUE) for _ in range(2)]
        self.shift = rng.uniform(0, 200)
        self.wide = rng.uniform(0.8, 1.5)
        self.grow(rng)
        self.side, self.top = (self.size * reach for reach in self.reach())

    def grow(self, rng):
        """What else it draws."""

    def paint(self, canvas):
        found = canvas.box(self.u - self.side, self.v - self.top, self.u + self.side, self.v + 0.45 * self.size)
        if found:
            where, u, v = found
            x, y = (u - self.u) / self.size, (self.v - v) / self.size  # y up from its foot
            self.draw(canvas, where, x, y, np.float32(canvas.pixel / self.size))
        self.shadow(canvas)

    def reach(self):
        """How far it reaches to either side and up, of its size."""
        return 1.1 * self.wide, 1.15

    def shadow(self, canvas):
        """Less light about its foot."""
        width, height = 0.9 * self.size * self.wide, 0.22 * self.size
        found = canvas.box(self.u - 2 * width, self.v - 2 * height, self.u + 2 * width, self.v + 2 * height)
        if found:
            where, u, v = found
            canvas.shade(where, 1 - 0.6 * np.exp(-(((u - self.u) / width) ** 2) - ((v - self.v) / height) ** 2))


class Boulder(Standing):
    """A rock, grown over."""

    METRES = 0.15, 0.8
    HUES = 0.05, 0.08, 0.1, 0.95
    SATURATION, VALUE = 0.6, (0.15, 0.65)

    def draw(self, canvas, where, x, y, pixel):
        rough = self.noise.fractal(1.6 * x + self.shift, 1.6 * y, 1.6 * pixel)
        x, y = x / self.wide, y + 0.05
        out = np.sqrt(x * x + np.square(np.where(y > 0, y, 4 * y))) + 0.4 * rough
        cover = np.clip((0.95 - out) / pixel + 0.5, 0, 1)
        lumps = self.noise.fractal(7 * x + self.shift, 7 * y, 7 * pixel, lumps=True)
        patches = self.noise.fractal(3 * x, 3 * y + self.shift, 3 * pixel)
        light = np.clip(0.4 + 0.5 * y - 0.15 * x + 1.1 * lumps, 0.08, 2)
        colour = blend(*self.colours, smooth(-0.1, 0.25, patches)) * light[..., None]
        canvas.paint(where, cover, colour, self.range - 0.3 * np.clip(1 - out, 0, 1) * self.size * self.range)


class Brain(Standing):
    """A dome with the winding ridges of a brain coral."""

    def grow(self, rng):
        self.colours[1] = self.colours[0] * rng.uniform(0.15, 0.6)

    def draw(self, canvas, where, x, y, pixel):
        x = x / self.wide
        bent = self.noise.fractal(2.2 * x + self.shift, 2.2 * y, 2.2 * pixel, octaves=3)
        out = np.sqrt(x * x + np.square(np.where(y > 0, y, 4 * y))) + 0.1 * bent
        cover = np.clip((0.9 - out) / pixel + 0.5, 0, 1)
        winding = np.sin(45 * bent + 14 * out) * np.clip(2 - 30 * pixel, 0, 1)
        dome = np.sqrt(np.clip(1 - np.square(out / 0.95), 0, 1))
        light = np.clip(0.3 + 0.55 * dome * (0.7 + 0.5 * y) + 0.22 * winding, 0.06, 2)
        canvas.paint(where, cover, blend(*self.colours, smooth(-0.6, 0.6, winding)) * light[..., None], self.range)


class Fan(Standing):
    """A sea fan: a net that grows from its foot."""

    METRES = 0.3, 1.0

    def draw(self, canvas, where, x, y, pixel):
        bent = self.noise.fractal(3 * x + self.shift, 3 * y, 3 * pixel, octaves=4)
        far, angle = np.sqrt(x * x + y * y), np.arctan2(x, np.maximum(y, 1e-3))
        edge = 0.85 + 0.25 * self.noise.at(2 * angle + self.shift, np.full_like(angle, self.shift))
        inside = np.clip((edge - far) / pixel + 0.5, 0, 1) * smooth(1.25, 1.05, np.abs(angle)) * (y > 0)
        veins = np.abs(np.sin(17 * angle + 5 * bent)) * np.abs(np.sin(21 * far + 7 * bent))
        net = smooth(0.75, 0.35, veins) + (1 - np.clip(2 - 30 * pixel, 0, 1)) * 0.7
        light = 0.55 + 0.4 * far + 0.5 * bent
        canvas.paint(where, inside * np.clip(net, 0, 1), self.colours[0] * light[..., None], self.range)


class Star(Standing):
    """A starfish, lying."""

    METRES = 0.12, 0.3

    def grow(self, rng):
        self.turn = rng.uniform(0, 6.3)

    def draw(self, canvas, where, x, y, pixel):
        y = 1.7 * y
        far, angle = np.sqrt(x * x + y * y), np.arctan2(y, x) + self.turn
        arm = np.abs(np.mod(angle / (2 * np.pi) * 5, 1) - 0.5) * 2  # 1 along an arm
        cover = np.clip((0.16 + 0.5 * arm**2.5 - far) / pixel + 0.5, 0, 1)
        dots = self.noise.fractal(14 * x + self.shift, 14 * y, 14 * pixel, octaves=2)
        canvas.paint(where, cover, self.colours[0] * np.clip(0.65 + 0.4 * arm + dots, 0.1, 2)[..., None], self.range)


class Branches(Standing):
    """A coral of branches, which fork."""

    METRES = 0.2, 0.7

    def grow(self, rng):
        self.segments = []
        for _ in range(rng.integers(2, 6)):
            self._fork(rng, np.array([rng.normal(0, 0.12), 0.0]), rng.normal(0, 0.5), rng.uniform(0.25, 0.4), 0.075, 0)

    def _fork(self, rng, start, angle, length, thick, depth):
        end = start + length * np.array([np.sin(angle), np.cos(angle)])
        self.segments.append((*start.tolist(), *end.tolist(), thick, thick * 0.8, depth / 4))
        if depth < 4:
            for side in (-1, 1) if rng.random() < 0.85 else (rng.choice([-1, 1]),):
                turn = angle + side * rng.uniform(0.2, 0.65)
                self._fork(rng, end, turn, length * rng.uniform(0.6, 0.9), thick * 0.78, depth + 1)

    def reach(self):
        _, _, x, y, thick, _, _ = np.transpose(self.segments)
        return float(max(super().reach()[0], (abs(x) + thick).max())), float((y + thick).max())

    def draw(self, canvas, where, x, y, pixel):
        for segment in reversed(self.segments):
            self.limb(canvas, where, x, y, pixel, *segment)

    def limb(self, canvas, where, x, y, pixel, x0, y0, x1, y1, thick, thin, along):
        """A straight piece from one place to another, lit from above; `along` is how near the tip it is."""
        x, y = x[0], y[:, 0]
        columns = slice(*np.searchsorted(x, (min(x0, x1) - thick - pixel, max(x0, x1) + thick + pixel)))
        rows = slice(*np.searchsorted(-y, (-max(y0, y1) - thick - pixel, -min(y0, y1) + thick + pixel)))
        x, y = x[None, columns], y[rows, None]
        if not x.size or not y.size:
            return
        down, across = y1 - y0, x1 - x0
        t = np.clip(((x - x0) * across + (y - y0) * down) / (across**2 + down**2), 0, 1)
        right, up = x - x0 - t * across, y - y0 - t * down
        half = thick + (thin - thick) * t
        out = np.sqrt(right * right + up * up)
        cover = np.clip((half - out) / pixel + 0.5, 0, 1)
        light = np.clip(0.55 + 0.45 * (up - 0.5 * right) / half, 0.1, 1.2)
        colour = blend(*self.colours, np.clip(along + 0.25 * t, 0, 1))
        target = where[0].start + rows.start, where[1].start + columns.start
        piece = slice(target[0], target[0] + cover.shape[0]), slice(target[1], target[1] + cover.shape[1])
        canvas.paint(piece, cover, colour * light[..., None], self.range)


class Tentacles(Branches):
    """An anemone, or grass: blades from one foot that bend."""

    METRES = 0.15, 0.6

    def grow(self, rng):
        self.segments = []
        thick, bend, spread = rng.uniform(0.015, 0.05), rng.normal(0, 0.5), rng.uniform(0.3, 1.3)
        for _ in range(rng.integers(15, 60)):
            place, angle = np.array([rng.normal(0, 0.15), rng.uniform(-0.05, 0.1)]), rng.normal(0, spread)
            length = rng.uniform(0.6, 1) / 4
            for joint in range(4):
                end = place + length * np.array([np.sin(angle), np.cos(angle)])
                thicks = thick * (1 - 0.18 * joint), thick * (0.82 - 0.18 * joint)
                self.segments.append((*place.tolist(), *end.tolist(), *thicks, joint / 4))
                place, angle = end, angle + bend / 3 + rng.normal(0, 0.12)


class Fish:
    """A fish from its side."""

    def __init__(self, rng, looks, u, v, size, metres, left):
        kind = np.random.default_rng(looks)
        self.u, self.v, self.size, self.range, self.left = u, v, size, metres, left
        self.tilt = rng.normal(0, 0.15)
        hues = (0.0, 0.05, 0.1, 0.14, 0.16, 0.55, 0.62, 0.9)
        self.back, self.stripe = (drawn_colour(kind, hues, 0.9, (0.25, 0.95)) for _ in range(2))
        self.belly = blend(self.back, np.float32(0.8), np.array([0.6], np.float32))[0]
        self.deep = kind.uniform(0.16, 0.32)  # half its height, of its length
        self.stripes = int(kind.choice([0, 0, 3, 5, 8]))
        self.upright = kind.random() < 0.6

    def paint(self, canvas):
        found = canvas.box(self.u - self.size, self.v - self.size, self.u + self.size, self.v + self.size)
        if not found:
            return
        where, u, v = found
        u, v, pixel = (u - self.u) / self.size * self.left, (v - self.v) / self.size, canvas.pixel / self.size
        x, y = u + self.tilt * v, v - self.tilt * u  # -0.5 is the nose, 0.3 the tail's root, 0.5 its end
        along = np.clip((x + 0.5) / 0.8, 0, 1)
        half = self.deep * np.sqrt(np.clip(along * (1.06 - along) * 3.6, 0, 1)) ** 1.3
        body = half - np.abs(y)
        tail = np.minimum(
            0.03 + 0.75 * (x - 0.27) - np.abs(y), np.minimum(0.5 - x - 0.25 * (0.2 - np.abs(y)), x - 0.24)
        )
        fin = np.minimum(self.deep * 1.35 - 1.2 * np.abs(x + 0.02) - np.abs(y + 0.04), 0.3 - np.abs(x))
        cover = np.clip(np.maximum(np.maximum(body, tail), fin) / pixel + 0.5, 0, 1)
        across = np.clip(0.5 + y / (2 * self.deep), 0, 1)
        colour = blend(self.back, self.belly, smooth(0.4, 0.9, across))
        if self.stripes:
            wave = np.sin(self.stripes * 2 * np.pi * (x if self.upright else y * 2))
            colour = blend(colour, self.stripe, smooth(-0.2, 0.3, wave))
        light = np.clip(1.15 - 0.6 * across, 0.2, 1.2) * np.where(body > 0, np.float32(1), np.float32(0.75))
        eye = np.sqrt((x + 0.36) ** 2 + (y + 0.04) ** 2)
        light = light * smooth(0.025, 0.035, eye) + 1.6 * smooth(0.012, 0.008, eye)
        canvas.paint(where, cover, colour * light[..., None], self.range)
