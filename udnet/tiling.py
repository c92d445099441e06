"""The exact tiled schedule: the whole image's result from a few rows at a time.

Five sums look at the whole image: the attention of the two blocks at an eighth of the size, the latent statistics with
the instance norm, and the attention of the two output blocks. Each ends a pass over the picture. A pass is a stream of
rows (`streams`) from the image, or from maps that the `Plan` keeps, to the place where the next sum is taken:

    encode      the encoder down to an eighth of the size; x1's share of the statistics
    deepen      two blocks at an eighth of the size, in place
    decode      the decoder up to the full size; its share of the statistics
    normalise   UpConv1 on the normalised maps; what the first output block's attention takes
    refine      the first output block; what the second's attention takes
    finish      the second output block, and the picture

What a plan does not keep, each pass computes again. A map that is kept is overwritten behind the front of the stream
that reads it: x1 by UpConv1's output, that by the first output block's; x2 by UpConv2's, x3 by UpConv3's. The norm is
folded into the weights of the convolution after it, the attention into those of the convolution before it, and the mean
of a convolution's output follows from sums of its input, so no pass runs a convolution for its mean alone.
"""

from dataclasses import dataclass

import numpy as np

from . import images
from .streams import (
    Convolution,
    Map,
    Moments,
    Pool,
    Tap,
    Upsample,
    WindowSums,
    beneath,
    inside,
    stream,
    widened,
)

WIDTH = 64  # channels of every map
LATENT = 20
EPS = 1e-5
SLOPE = 0.01
LEVELS = ("full", "half", "quarter", "eighth")  # sizes of maps, by how often the picture was halved


@dataclass(frozen=True)
class Plan:
    """What is kept from pass to pass besides the map at an eighth, and how large the pieces of the picture are."""

    kept: frozenset = frozenset()  # of "full", "half", "quarter", and "hidden": the output blocks' inner map
    rows: int = 16  # of the picture that enter at once
    columns: int = 1024  # of a strip; a pass that overwrites a map has one strip


class TiledNetwork:
    """UDnet by the tiled schedule. Called as any network; `enhance` takes and gives bytes, a few rows at a time."""

    def __init__(self, kernels, weights, plan=None):
        self.kernels, self.weights, self.plan = kernels, weights, plan or Plan()
        names = [f"pr_encoder.conv{level}.conv.{i}" for level in (1, 2, 3) for i in (1, 4)]
        names += [f"pr_UpConv{level}.conv.{i}" for level in (3, 2) for i in (1, 4)] + ["pr_UpConv1.conv.4"]
        names += [f"{block}.body.1" for block in ("pr_encoder.conv4", "pr_conv", "out_conv.0", "out_conv.1")]
        self.convolutions = {name: kernels.convolution(*self.weight_and_bias(name)) for name in names}

    def weight_and_bias(self, name):
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def __call__(self, x):
        out = np.empty_like(x)
        for batch, result in zip(x, out, strict=True):

            def read(rows, columns, batch=batch):
                return batch[:, slice(*rows), slice(*columns)]

            def write(rows, columns, values, result=result):
                result[:, slice(*rows), slice(*columns)] = values

            _Picture(self, *x.shape[2:], read).enhance(write)
        return out

    def enhance(self, pixels):
        """One picture, uint8 height x width x 3, to the same: nothing of its size is ever held in floats."""
        down, across = (images.reflected(side) for side in pixels.shape[:2])
        out = np.empty_like(pixels)

        def read(rows, columns):
            piece = pixels[down[slice(*rows)]][:, across[slice(*columns)]]
            return np.divide(piece.transpose(2, 0, 1), np.float32(255))

        def write(rows, columns, values):
            target = out[slice(*rows), slice(*columns)]
            target[:] = images.to_pixels(values[None], *target.shape[:2])

        _Picture(self, len(down), len(across), read).enhance(write)
        return out


class _Picture:
    """One picture on its way through the passes; height and width are multiples of 8."""

    def __init__(self, network, height, width, read):
        self.weight_and_bias, self.new = network.weight_and_bias, network.kernels
        self.kernels = dict(network.convolutions)  # those whose weights depend on the picture join them
        self.plan, self.height, self.width, self.read = network.plan, height, width, read
        self.x = {}  # by level: what is kept of the encoder's maps, until
        self.d = {}  # by level: the decoder's take their places
        self.body = None  # where kept: the map that the output blocks refine,
        self.refined = 0  # how many of them have,
        self.hidden = None  # and the map within a block

    def enhance(self, write):
        """All passes; `write(rows, columns, values)` is given the picture piece by piece."""
        encoded = self.encode()
        self.deepen("pr_encoder.conv4")
        self.deepen("pr_conv")
        self.d[3] = self.x.pop(3)
        self.fold_norm(encoded, self.decode())
        del encoded
        self.fold_attention("out_conv.0", self.attended(0))
        if 0 in self.x:
            self.body = self.x.pop(0)
        self.fold_attention("out_conv.1", self.attended(1))
        self.refined = 1
        self.finish(write)

    # --- the passes ---

    def encode(self):
        """The encoder down to an eighth of the size: the column sums of x1."""
        moments = Moments(WIDTH, self.height, self.width)
        for level, name in enumerate(LEVELS):
            if name in self.plan.kept or name == "eighth":
                self.x[level] = self.new_map(level)
        for own in self.strips():
            _, rows = self.encoder({3: scaled(own, 3)}, own, moments)
            exhaust(rows)
        return moments

    def deepen(self, block):
        """A block at an eighth of the size, in place, by two passes over that map."""
        x, own = self.x[3], (0, self.width >> 3)
        sums = WindowSums(WIDTH, self.height >> 3, self.width >> 3)
        exhaust(stream(sums.of(own), self.inner(block, self.read_map(x, own, 3), own, 3)))
        self.fold_attention(block, sums)
        tap = Tap(self.read_map(x, own, 3), own)
        exhaust(stream(x.write(own, own), self.outer(block, self.inner(block, tap.ahead(), own, 3), tap, own, 3)))

    def decode(self):
        """The decoder up to the norm: the column sums of what it upsamples."""
        moments = Moments(WIDTH, self.height, self.width)
        for own in self.strips(in_place=1 in self.x or 2 in self.x):
            taps, _ = self.encoder(self.skips(own))
            exhaust(stream(moments.of(own, own), self.upsampled(0, own, taps)))
        self.d |= {level: self.x.pop(level) for level in (1, 2) if level in self.x}
        return moments

    def attended(self, n):
        """Up to the middle of an output block: what its attention takes."""
        if n == 0 and "hidden" in self.plan.kept:
            self.hidden = self.new_map(0)
        sums = WindowSums(WIDTH, self.height, self.width)
        for own in self.strips(in_place=0 in self.x or self.body):
            rows = self.trunk(n, widened(own, 1, self.width))
            rows = self.inner(f"out_conv.{n}", rows, own, 0)
            if self.hidden:
                rows = stream(self.hidden.write(own, own), rows)
            exhaust(stream(sums.of(own), rows))
        return sums

    def finish(self, write):
        """Through the output blocks to the picture."""
        for own in self.strips(in_place=self.body):
            window = widened(own, 2, self.width)
            tap = Tap(self.trunk(1, window), window)
            top = 0
            for rows in self.outer("out_conv.1", self.within("out_conv.1", tap, own), tap, own, 0):
                write((top, top + rows.shape[1]), own, rows)
                top += rows.shape[1]

    def strips(self, in_place=False):
        """The windows of a pass; one that overwrites a map must not come back to the columns beside it."""
        step = self.width if in_place else self.plan.columns
        return [(left, min(left + step, self.width)) for left in range(0, self.width, step)]

    # --- streams ---

    def image(self, window):
        for top in range(0, self.height, self.plan.rows):
            yield self.read((top, min(top + self.plan.rows, self.height)), window)

    def encoder(self, wanted, own=None, moments=None):
        """Taps of the encoder's maps, and the stream of the deepest; `wanted`: windows by level.

        x1, x2 and x3 are levels 0, 1 and 2, the pooled x3 is 3. In the first pass (`own`: its strip) maps are written
        and summed; later, what was kept is read.
        """
        windows = dict(wanted)
        for level in (3, 2, 1):
            if level in windows and (own or level not in self.x):
                above = windows[level] if level == 3 else self.widened(windows[level], 2, level)
                windows[level - 1] = scaled(above, -1)
        taps, rows = {}, None
        for level, window in sorted(windows.items()):
            if not own and level in self.x:
                rows = self.read_map(self.x[level], window, level)
            elif level == 0:
                rows = self.twice("pr_encoder.conv1", self.image(self.widened(window, 2, 0)), window, 0)
            else:
                rows = stream(Pool(), rows)
                if level < 3:
                    rows = self.twice(f"pr_encoder.conv{level + 1}", rows, window, level)
            if own and level in self.x:
                rows = stream(self.x[level].write(scaled(own, level), window), rows)
            if own and level == 0:
                rows = stream(moments.of(own, window), rows)
            if not own and level in wanted:
                taps[level] = Tap(rows, window)
                rows = taps[level].ahead()
        return taps, rows

    def skips(self, window):
        """The windows of the encoder's maps that it takes to fill a full-size window with the decoder."""
        wanted = {}
        for level in (1, 2):
            if level in self.d:
                break
            window = self.widened(beneath(window, self.width >> level), 2, level)
            wanted[level] = window
        return wanted

    def upsampled(self, level, window, taps):
        """The decoder's map of the level above this one's, at this one's size."""
        height, width = self.height >> level + 1, self.width >> level + 1
        above = beneath(window, width)
        if level + 1 in self.d:
            rows = self.read_map(self.d[level + 1], above, level + 1)
        else:
            rows = self.joined(level + 1, above, taps)
        step = Upsample(height, width, above)
        return map(lambda rows: inside(rows, window, step.output), stream(step, rows))

    def joined(self, level, window, taps):
        """An UpConv of the encoder's map and the upsampled one."""
        inner = self.widened(window, 2, level)
        pairs = map(
            lambda rows: (taps[level].take(rows.shape[1], inner), rows),
            self.upsampled(level, inner, taps),
        )
        rows = self.twice(f"pr_UpConv{level + 1}", pairs, window, level)
        return stream(self.x[level].write(window, window), rows) if level in self.x else rows

    def trunk(self, n, window):
        """The map that output block n takes."""
        if self.body and self.refined == n:
            return self.read_map(self.body, window, 0)
        inner = self.widened(window, 2, 0)
        if n == 0:
            taps, _ = self.encoder({0: inner} | self.skips(inner))
            return self.joined(0, window, taps)
        tap = Tap(self.trunk(0, inner), inner)
        rows = self.outer("out_conv.0", self.within("out_conv.0", tap, window), tap, window, 0)
        return stream(self.body.write(window, window), rows) if self.body else rows

    def within(self, block, tap, window):
        """The map within an output block, a column wider than its output."""
        window = self.widened(window, 1, 0)
        if self.hidden:
            return self.read_map(self.hidden, window, 0)
        return self.inner(block, tap.ahead(), window, 0)

    def inner(self, block, rows, window, level):
        return self.once(f"{block}.body.1", rows, window, level)

    def outer(self, block, rows, tap, window, level):
        return self.once(f"{block}.body.4", rows, window, level, lambda n: tap.take(n, window))

    def twice(self, block, rows, window, level):
        """Two convolutions; the window is the output's, the input is two columns wider."""
        rows = self.once(f"{block}.conv.1", rows, self.widened(window, 1, level), level)
        return self.once(f"{block}.conv.4", rows, window, level)

    def once(self, name, rows, window, level, skip=None):
        """One convolution; the window is the output's."""
        height, width = self.height >> level, self.width >> level
        return stream(Convolution(self.kernels[name], height, width, window, skip), rows)

    def widened(self, window, columns, level):
        return widened(window, columns, self.width >> level)

    def new_map(self, level):
        return Map(self.new.empty(WIDTH, self.height >> level, self.width >> level))

    def read_map(self, map, window, level):
        return map.read(window, max(1, self.plan.rows >> level))

    # --- what the sums decide, folded into weights ---

    def fold_norm(self, *moments):
        """The latent statistics and the norm, into the weights of UpConv1's first convolution."""
        means, spreads = (np.concatenate(one) for one in zip(*(one.latent() for one in moments), strict=True))
        variance = np.concatenate([one.variance() for one in moments])
        u = self.layer("compute_z_pr.u_conv_layer", means)[:LATENT]
        s = self.layer("compute_z_pr.s_conv_layer", spreads)[:LATENT]
        gain = np.abs(self.layer("conv_s", s)) / np.sqrt(variance + EPS)
        shift = self.layer("conv_u", u) - means * gain
        weight, bias = self.weight_and_bias("pr_UpConv1.conv.1")
        bias = bias + np.einsum("oiyx,i->o", weight, shift)  # a border of reflections has the same shift
        self.kernels["pr_UpConv1.conv.1"] = self.new.convolution(weight * gain[:, None, None], bias)

    def fold_attention(self, block, sums):
        """A block's attention, into the weights of its second convolution."""
        weight, bias = self.weight_and_bias(f"{block}.body.4")
        squeezed = self.layer(f"{block}.body.5.conv_double.0", sums.mean(weight, bias))
        excited = self.layer(f"{block}.body.5.conv_double.2", np.where(squeezed > 0, squeezed, SLOPE * squeezed))
        scale = 1 / (1 + np.exp(-excited))
        folded = weight * scale[:, None, None, None], bias * scale
        if block == "out_conv.1":
            self.kernels[f"{block}.body.4"] = self.new.head(*folded, *self.weight_and_bias("out_conv.2"))
        else:
            self.kernels[f"{block}.body.4"] = self.new.residual(*folded)

    def layer(self, name, values):
        """A 1x1 convolution of one value a channel, in double precision."""
        weight, bias = self.weight_and_bias(name)
        return weight[:, :, 0, 0].astype(float) @ values + bias


def scaled(window, halvings):
    """The window of a map that was halved so often more; doubled where negative."""
    return tuple(side >> halvings if halvings > 0 else side << -halvings for side in window)


def exhaust(rows):
    """Run a stream for what its steps note."""
    for _ in rows:
        pass
