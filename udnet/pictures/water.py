"""What water, and the camera in it, make of a scene: by colour, range and depth.

The revised image formation model (Akkaynak, Treibitz, "A revised underwater image formation model", CVPR 2018): what
comes straight from a thing fades by one coefficient, the veil of scattered light grows by another,

    I = J E exp(-direct z) + veil (1 - exp(-back z)),    E = exp(-K depth),

with K, the diffuse attenuation of daylight, of the ten water types of Jerlov (Marine Optics, 1976, table XXVII) at 600,
525 and 475 nm. The water scatters all colours alike, so its veil goes from the colour of E towards that of E / K.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

JERLOV = {  # 1/m: red, green, blue
    "I": (0.235, 0.043, 0.018),
    "IA": (0.240, 0.048, 0.025),
    "IB": (0.245, 0.054, 0.033),
    "II": (0.260, 0.076, 0.062),
    "III": (0.295, 0.116, 0.116),
    "1C": (0.30, 0.13, 0.17),
    "3C": (0.33, 0.20, 0.29),
    "5C": (0.40, 0.31, 0.43),
    "7C": (0.48, 0.49, 0.71),
    "9C": (0.60, 0.78, 1.23),
}
VISITED = 1, 1, 1, 1, 1, 1, 1, 0.6, 0.3, 0.2  # how often pictures are taken in each: seldom where little is seen
CLEARED = 0.5  # of the water before a thing, what is left before it in the reference
GRAY = 0.18  # the mean that a light meter exposes to
REACH = 3  # standard deviations to which scattered light is followed


class Water:
    """A water type with a place in it, a camera and its settings, all drawn at random; `name`: of `JERLOV`."""

    def __init__(self, rng, name=None):
        self.name = name or rng.choice(list(JERLOV), p=np.divide(VISITED, sum(VISITED)))
        k = np.array(JERLOV[self.name])
        depth = rng.uniform(0.05, 1.0) / k.min()  # m; in turbid water one does not dive as deep
        self.near = float(min(1, rng.uniform(0.03, 0.16) / k.min()))  # nor look as far: the scene is that much smaller
        scattering = rng.uniform(0, 0.2)  # alike for all colours
        self.direct, self.back = (k * rng.uniform(1, 1.5) + scattering * rng.uniform(0.6, 1.2) for _ in range(2))  # 1/m
        daylight = np.exp(-k * depth)
        self.balance = (daylight.max() / daylight) ** rng.uniform(0, 0.5)  # what the camera does about it
        self.daylight = daylight / daylight.max()
        veil = daylight * (k.min() / k) ** rng.uniform(0.5, 1)
        self.veil = rng.uniform(0.15, 0.7) * veil / veil.max()
        self.clear_veil = 0.35 * (veil / veil.max()) ** 0.6
        self.slope = rng.uniform(0, 1.2)  # how much brighter the water is upwards
        self.strobe = rng.uniform(0.3, 2) if rng.random() < 0.35 else 0.0  # white, beside the daylight
        self.lit = self.near * rng.uniform(1, 4)  # metres to where it has spread to half
        self.scattered = rng.uniform(0.0, 0.25) / self.near  # of the direct light, by metre
        self.spread = rng.uniform(0.001, 0.006)  # in heights of the picture
        self.noise = 0.03 * rng.uniform() ** 2  # most cameras remove it

    def halo(self, height):
        """Rows above and below that scattered light comes from."""
        return int(REACH * self.spread * height + 0.5)

    def picture(self, light, metres, v, height):
        """Linear light at the camera: of light (rows x width x 3), range in m (rows x width) and places of rows `v`."""
        z = metres[..., None]
        there = np.exp(-z * self.direct)
        direct = light * ((self.daylight + self._flash(z) * there) * there).astype(np.float32)
        if reach := self.halo(height):
            soft = direct
            for axis in (0, 1):
                soft = gaussian_filter1d(soft, self.spread * height, axis, mode="nearest", radius=reach)
            direct += (soft - direct) * (1 - np.exp(-self.scattered * z))
        veil = self._upwards(v) * self.veil * (1 - np.exp(-z * self.back))
        return ((direct + veil) * self.balance).astype(np.float32)

    def reference(self, light, metres, v):
        """The same in white light through half as much water: far things keep some of its colour, the sea all of it.

        What a strobe lights stays a little brighter than the rest.
        """
        z = CLEARED * metres[..., None]
        lit = (1 + 0.5 * self._flash(metres[..., None])) * np.exp(-z * self.direct)
        veil = self._upwards(v) * self.clear_veil * (1 - np.exp(-z * self.direct.min()))
        return (light * lit + veil).astype(np.float32)

    def _flash(self, z):
        """What the strobe adds at a range, were there no water."""
        return self.strobe / (1 + np.square(z / self.lit))

    def _upwards(self, v):
        return (1 + self.slope * (0.5 - v))[:, None, None]


def levels(linear):
    """Of a small picture, the two values that its exposure puts at black and white.

    The lightest hundredth is white; where that would make the whole too light, its mean is gray, as cameras do it.
    """
    black = np.percentile(linear.mean(2), 0.5) * 0.8
    white = np.percentile(linear.max(2), 99)
    return black, max(white, black + (linear.mean() - black) / GRAY)


def develop(linear, black, white):
    """Linear light to sRGB in [0, 1]."""
    x = np.clip((linear - black) / (white - black), 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


def to_bytes(picture):
    """sRGB in [0, 1], or beyond, to uint8."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
