"""The exact tiled schedule: the whole image's result from strips of it, a few rows at a time.

Five sums look at the whole image: the attention of the two blocks at an eighth of the size, the latent statistics with
the instance norm, and the attention of the two output blocks. Each ends a pass over the picture. In a pass every strip
of columns is a stream of rows (`streams`) from the image, or from maps that the strip keeps in memory or on a scratch
file (`scratch`), to the place where the next sum is taken:

    encode      the encoder down to an eighth of the size; x1's share of the statistics
    deepen      two blocks at an eighth of the size, in place
    decode      the decoder up to the full size; its share of the statistics
    normalise   UpConv1 on the normalised maps; what the first output block's attention takes
    refine      the first output block; what the second's attention takes
    finish      the second output block, and the picture

A strip computes the columns beside it that its own depend on, so strips share nothing but the sums and the map at an
eighth of the size, and run side by side. What a strip does not keep (`plans`), each pass computes again; what it keeps
is overwritten behind the front of the stream that reads it: x1 by UpConv1's output, that by the first output block's;
x2 by UpConv2's; the map within the first output block by that within the second.

The norm is folded into the weights of the convolution after it, the attention into those of the convolution before it,
and the mean of a convolution's output follows from sums of its input, so that no convolution runs for its mean alone.
"""

import itertools
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np

from udnet import Error
from udnet.pictures import images
from udnet.system import memory
from udnet.system.turns import Turns
from udnet.tiled import plans, scratch
from udnet.tiled.plans import BOTTOM, FULL, INNER, Windows
from udnet.tiled.streams import (
    Convolution,
    Map,
    Moments,
    Pool,
    Tap,
    Upsample,
    WindowSums,
    Workspace,
    exhaust,
    gather,
    inside,
    split,
    stream,
    widened,
)

WIDTH = 64  # channels of every map
LATENT = 20
EPS = 1e-5
SLOPE = 0.01
PASSES = 5
SHARE = 0.8  # of a thread's time is within convolutions (measured: 0.76 to 0.84 where no scratch file is copied)
SPREAD = memory.MIB // 2  # how far the next process may be above this one before its first picture (measured: 0.3 MiB)


# the convolutions whose weights are those of the file, whatever the picture
NAMES = (
    *(f"pr_encoder.conv{level}.conv.{place}" for level in (1, 2, 3) for place in (1, 4)),
    *(f"pr_UpConv{level}.conv.{place}" for level in (3, 2) for place in (1, 4)),
    "pr_UpConv1.conv.4",
    *(f"{block}.body.1" for block in ("pr_encoder.conv4", "pr_conv", "out_conv.0", "out_conv.1")),
)


class OverLimit(Error):
    """A picture for which the limit is too low; `least`: the bytes of one that is not."""

    def __init__(self, least):
        super().__init__(least)
        self.least = least

    def __str__(self):
        return f"its process takes at least {memory.mib(self.least)}: raise the memory limit"


class TiledNetwork:
    """UDnet by the tiled schedule. Called as any network; `enhance` takes and gives bytes, a few rows at a time.

    `kernels`: a runtime's, see `kernels`; `weights`: arrays by the names of the published state dict, without prefixes;
    `threads`: how many strips run at once; `limit`: bytes that the whole process may take (None: the leanest plan);
    `folder`: for the scratch file of a large picture where that is faster than to compute again, see `scratch.find`
    (None: no such file).

    Threads may share one: it takes one picture at a time, in the order in which they came, on all of its threads, so
    that together they keep to the limit. Pictures that wait, and those that are done, are the callers' own memory.
    """

    def __init__(self, kernels, weights, threads, limit=None, folder=None):
        self.new, self.weights, self.threads, self.limit, self.folder = kernels, weights, threads, limit, folder
        self.kernels = self._made_by(kernels)
        self.winograd = hasattr(kernels, "winograd")
        self.floor = memory.resident() + kernels.START
        self.turns = Turns()

    def plan_for(self, header):
        """The `Plan` for a photograph by its `Header`; `Error` where reading or enhancing it goes over the limit."""
        return self.plan(*images.padded_size(header.height, header.width), header.beside, header.in_and_out)

    def plan(self, height, width, beside=0, around=0):
        """The `Plan` for a picture; `Error` where nothing keeps within the limit.

        `beside`: bytes that the process holds beside it; `around`: what it holds at once before or after.
        """
        about = height, width, self.threads
        speed = self.speed if self.folder and height * width >= plans.LARGE else None
        if self.limit is None:
            return plans.leanest(*about, speed, self.winograd)
        budget = plans.usable(self.limit - beside) - self.floor
        found = plans.fit(*about, budget, speed, self.winograd)
        if found and not found.winograd and "by_winograd" in vars(self):  # an earlier picture's: they are still held
            found = plans.fit(*about, budget - plans.WINOGRAD, speed)
        if found is None or around > budget:
            least = plans.limit_for(self.floor + SPREAD + max(plans.least(*about, speed), around), beside)
            raise OverLimit(least)
        return found

    @property
    def speed(self):
        """The `Speed` of this machine with a scratch file; None where none can be made."""
        disk = scratch.measured(self.folder)
        return disk and plans.Speed(self.threads * self._multiply_adds, disk.rate, disk.room)

    def seconds(self, plan):
        """How long a plan is expected to take on this machine, by what its threads compute in a second."""
        speed = plan.scratch_bytes and self.speed
        return plan.seconds(speed or plans.Speed(self.threads * self._multiply_adds, math.inf, 0))

    @cached_property
    def _multiply_adds(self):
        """What a thread computes in a second, by a block as the schedule has them."""
        kernel, rows, columns = self.kernels["pr_UpConv2.conv.4"], plans.SHAPES[-1][1], plans.SHAPES[-1][0]
        block = self.new.arranged(memory.fresh((WIDTH * (rows + 2) * (columns + 2),)), WIDTH, rows + 2, columns + 2)
        out = self.new.arranged(memory.fresh((WIDTH * rows * columns,)), WIDTH, rows, columns)

        def seconds():
            start = time.perf_counter()
            kernel.run(out, block)
            return time.perf_counter() - start

        with ThreadPoolExecutor(1, initializer=self.new.begin_thread) as pool:
            taken = min(pool.submit(seconds).result() for _ in range(4))
        return SHARE * WIDTH * plans.CONV * rows * columns / taken

    @cached_property
    def by_winograd(self):
        """What makes kernels by Winograd's algorithm, and its `kernels`: made once a plan asks for them."""
        new = self.new.winograd()
        return new, self._made_by(new)

    def _made_by(self, kernels):
        return {name: kernels.make("convolution", *self.weight_and_bias(name)) for name in NAMES}

    def weight_and_bias(self, name):
        """The two tensors of a convolution."""
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def __call__(self, x):
        return np.stack([self.run(one)[0] for one in x])

    def run(self, x, kernels=None):
        """One picture, float32, 3 x height x width: its output, and its kernels with what the sums decided.

        `kernels`: another picture's, taken instead of this one's own, whose sums then do not matter (see `locality`).
        """
        out = np.empty_like(x)

        def read(rows, columns):
            return x[:, slice(*rows), slice(*columns)]

        def write(rows, columns, values):
            out[:, slice(*rows), slice(*columns)] = values

        return out, self._run(*x.shape[1:], read, write, kernels)

    def enhance(self, pixels, beside=0, progress=None):
        """One picture, uint8 height x width x 3, to the same: nothing of its size is ever held in floats.

        `beside`: bytes that the process holds beside the picture, which the limit has to hold as well. `progress` is
        called in this thread, strip by strip, with the fraction that is done: what it raises ends the picture.
        """
        down, across = (images.reflected(side) for side in pixels.shape[:2])
        out = memory.fresh(pixels.shape, pixels.dtype)

        def read(rows, columns):
            piece = pixels[down[slice(*rows)]][:, across[slice(*columns)]]
            return np.divide(piece.transpose(2, 0, 1), np.float32(255))

        def write(rows, columns, values):
            target = out[slice(*rows), slice(*columns)]
            target[:] = images.to_pixels(values[None], *target.shape[:2])

        self._run(len(down), len(across), read, write, beside=beside, progress=progress)
        return out

    def _run(self, height, width, read, write, kernels=None, beside=0, progress=None):
        with ExitStack() as stack:
            stack.enter_context(self.turns.own())  # before it plans: a plan takes the whole limit
            plan = self.plan(height, width, beside)
            file = stack.enter_context(scratch.Scratch(self.folder, plan.scratch_bytes)) if plan.scratch_bytes else None
            pool = stack.enter_context(ThreadPoolExecutor(plan.threads, initializer=self.new.begin_thread))
            advance = _told(plan, progress) if progress else stack.enter_context(_shown(plan))
            picture = _Picture(self, plan, read, pool, advance, file, kernels)
            try:
                with picture.or_give_up():
                    picture.enhance(write)
            finally:
                picture.strips.clear()  # they hold the picture, and it them: it would outlive its use
                self.new.end_picture()
                memory.trim_heaps()  # each of its threads has one, and so has that of the next picture
            return picture.kernels


def _told(plan, progress):
    """A function that tells a caller of so many columns that have passed a pass: as the fraction of all work."""
    passed, done = 0, [0, *itertools.accumulate(plan.work.values())]

    def advance(columns):
        nonlocal passed
        passed += columns
        progress(float(np.interp(passed / plan.width, range(PASSES + 1), done) / done[-1]))

    return advance


@contextmanager
def _shown(plan):
    """A function that tells a person who waits for a large picture of so many columns that have passed a pass."""
    if plan.height * plan.width < plans.LARGE or not sys.stderr.isatty():
        yield lambda columns: None
        return
    from udnet.system.progress import bar

    shown = "{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"
    about = {"desc": f"{plan.height}x{plan.width}", "bar_format": shown, "leave": False}
    with bar(total=PASSES * plan.width, **about) as passed:
        yield passed.update


class _Picture:
    """One picture on its way through the passes; height and width are multiples of 8."""

    def __init__(self, network, plan, read, pool, advance, file=None, kernels=None):
        self.network, self.plan, self.read = network, plan, read
        self.new, own = network.by_winograd if plan.winograd else (network.new, network.kernels)
        self.pool, self.advance, self.file = pool, advance, file
        self.height, self.width = plan.height, plan.width
        self.kernels = dict(kernels or own)  # those whose weights depend on the picture join them
        self.workspaces, self.given_up = threading.local(), False
        self.eighth = self.new_map((0, self.width >> 3), 3)
        self.strips = [_Strip(self, own, kept) for own, kept in self.plan.strips]

    def enhance(self, write):
        """All passes; `write(rows, columns, values)` is given the picture piece by piece."""
        encoded = Moments(WIDTH, self.height, self.width)
        self.each(_Strip.encode, encoded)
        for block in ("pr_encoder.conv4", "pr_conv"):
            self.pool.submit(self.deepen, block).result()
        decoded = Moments(WIDTH, self.height, self.width)
        self.each(_Strip.decode, decoded)
        self.fold_norm(encoded, decoded)
        self.fold_attention("out_conv.0", self.each(_Strip.normalise, WindowSums(WIDTH, self.height, self.width)))
        self.fold_attention("out_conv.1", self.each(_Strip.refine, WindowSums(WIDTH, self.height, self.width)))
        self.each(_Strip.finish, write)

    @property
    def workspace(self):
        """This thread's own."""
        if not hasattr(self.workspaces, "own"):
            self.workspaces.own = Workspace(self.new.arranged)
        return self.workspaces.own

    @contextmanager
    def or_give_up(self):
        """Whatever ends this early, Ctrl-C and signals too, ends all strips where they are, not after their pass."""
        try:
            yield
        except BaseException:
            self.given_up = True
            raise

    def running(self, rows):
        """A stream, for as long as somebody waits for the picture."""
        while not self.given_up and (piece := next(rows, None)) is not None:
            yield piece

    def exhaust(self, rows):
        """Run a stream for what its steps note."""
        exhaust(self.running(rows))

    def each(self, run, argument):
        """A pass: every strip, as many at once as there are threads."""

        def of(strip):
            with self.or_give_up():
                run(strip, argument)

        self.workspaces = threading.local()  # what the last pass alone needed goes
        for strip, _ in zip(self.strips, self.pool.map(of, self.strips), strict=True):
            self.advance(strip.own[1] - strip.own[0])
        return argument

    def deepen(self, block):
        """A block at an eighth of the size, in place, by two passes over that map."""
        x, own = self.eighth, self.eighth.window
        sums = WindowSums(WIDTH, self.height >> 3, self.width >> 3)
        self.exhaust(stream(sums.of(own, own), self.convolved(f"{block}.body.1", x.read(own, self.rows(3)), own, 3)))
        self.fold_attention(block, sums)
        tap = Tap(x.read(own, self.rows(3)), self.workspace, block)
        rows = self.convolved(f"{block}.body.1", tap.ahead(), own, 3)
        self.exhaust(stream(x.write(own, own), self.convolved(f"{block}.body.4", rows, own, 3, tap.take)))

    def convolved(self, name, rows, window, level, skip=None):
        """A stream through a convolution; the window is the output's."""
        height, width = self.height >> level, self.width >> level
        return stream(Convolution(self.kernels[name], height, width, window, skip, self.workspace, name), rows)

    def new_map(self, window, level):
        """An empty map of a level's window."""
        shape = WIDTH, self.height >> level, window[1] - window[0]
        return Map(self.new.arranged(memory.fresh((math.prod(shape),)), *shape), window)

    def kept_map(self, name, strip, window):
        """A map of `plans.LEVEL_OF` for a strip: in memory where it keeps so much there, else on the scratch file."""
        level = plans.LEVEL_OF[name]
        if strip.in_memory >= plans.KEPT_BY[name]:
            return self.new_map(window, level)
        return self.file.map(name, WIDTH, self.height >> level, window, self.plan.rows)

    def rows(self, level):
        """How many rows of a level's maps are computed at once: what comes of those of the picture that enter."""
        return max(self.new.AT_ONCE, self.plan.rows >> level)

    # --- what the sums decide, folded into weights ---

    def fold_norm(self, *moments):
        """The latent statistics and the norm, into the weights of UpConv1's first convolution."""
        if "pr_UpConv1.conv.1" in self.kernels:
            return
        means, spreads = (np.concatenate(one) for one in zip(*(one.latent() for one in moments), strict=True))
        variance = np.concatenate([one.variance() for one in moments])
        u = self.layer("compute_z_pr.u_conv_layer", means)[:LATENT]
        s = self.layer("compute_z_pr.s_conv_layer", spreads)[:LATENT]
        gain = np.abs(self.layer("conv_s", s)) / np.sqrt(variance + EPS)
        shift = self.layer("conv_u", u) - means * gain
        weight, bias = self.network.weight_and_bias("pr_UpConv1.conv.1")
        bias = bias + np.einsum("oiyx,i->o", weight, shift)  # a border of reflections has the same shift
        self.kernels["pr_UpConv1.conv.1"] = self.new.make("convolution", weight * gain[:, None, None], bias)

    def fold_attention(self, block, sums):
        """A block's attention, into the weights of its second convolution."""
        if f"{block}.body.4" in self.kernels:
            return
        weight, bias = self.network.weight_and_bias(f"{block}.body.4")
        squeezed = self.layer(f"{block}.body.5.conv_double.0", sums.mean(weight, bias))
        excited = self.layer(f"{block}.body.5.conv_double.2", np.where(squeezed > 0, squeezed, SLOPE * squeezed))
        scale = 1 / (1 + np.exp(-excited))
        folded = weight * scale[:, None, None, None], bias * scale
        if block == "out_conv.1":
            kernel = self.new.make("head", *folded, *self.network.weight_and_bias("out_conv.2"))
        else:
            kernel = self.new.make("residual", *folded)
        self.kernels[f"{block}.body.4"] = kernel

    def layer(self, name, values):
        """A 1x1 convolution of one value a channel, in double precision."""
        weight, bias = self.network.weight_and_bias(name)
        return weight[:, :, 0, 0].astype(float) @ values + bias


class _Strip:
    """Some columns of a picture, with the columns beside them that they depend on, and the maps that they keep."""

    def __init__(self, picture, own, in_memory):
        self.picture, self.own, self.in_memory = picture, own, in_memory
        self.kept = max(in_memory, picture.plan.scratch)
        self.windows = Windows(own, picture.width)
        self.maps = {}  # by level: what is kept of the encoder's maps, then of what takes their place
        self.hidden = None  # where kept: the map within an output block
        self.decoded = False  # whether the kept map of the smallest level is the decoder's
        self.depth = -1  # of the kept full-size map, once it is not x1: how many output blocks it has passed

    # --- the passes ---

    def encode(self, moments):
        """The encoder down to an eighth of the size: the column sums of x1."""
        windows = self.windows

        def note(level, rows):
            window = windows.encoded(level, 2)
            if level == 0:
                rows = stream(moments.of(self.own, window, self.picture.workspace), rows)
            name = ("full", "half", "quarter")[level]
            if self.kept >= plans.KEPT_BY[name]:
                self.maps[level] = self.picture.kept_map(name, self, windows.skip(level))
                rows = self.written(self.maps[level], windows.skip(level), window, rows)
            return rows

        quarter, eighth = (tuple(side >> halvings for side in self.own) for halvings in (2, 3))
        rows = (inside(rows, quarter, windows.encoded(2, 2)) for rows in self.encoder(2, note))
        self.picture.exhaust(
            stream(self.picture.eighth.write(eighth, eighth), stream(Pool(self.picture.workspace, 3), rows))
        )

    def decode(self, moments):
        """The decoder up to the norm: the column sums of what it upsamples."""
        note = moments.of(self.own, self.windows.skip(0), self.picture.workspace)
        self.picture.exhaust(stream(note, self.upsampled(0, self.skips(1))))
        self.decoded = True
        self.maps.pop(2, None)

    def normalise(self, sums):
        """Up to the first output block's attention."""
        rows = self.inner(0, self.trunk(0))
        if self.kept == INNER:
            self.hidden = self.picture.kept_map("inner", self, self.windows.around(3))
            rows = self.written(self.hidden, self.windows.around(3), self.windows.around(3), rows)
        self.picture.exhaust(stream(sums.of(self.own, self.windows.around(3)), rows))
        if self.kept >= FULL:
            self.depth = 0
            del self.maps[1]

    def refine(self, sums):
        """Up to the second output block's attention."""
        rows = self.inner(1, self.trunk(1))
        if self.hidden:
            rows = self.written(self.hidden, self.windows.around(1), self.windows.around(1), rows)
        self.picture.exhaust(stream(sums.of(self.own, self.windows.around(1)), rows))
        if self.kept >= FULL:
            self.depth = 1

    def finish(self, write):
        """Through the output blocks to the picture."""
        top = 0
        for rows in self.picture.running(self.refined(1)):
            write((top, top + rows.shape[1]), self.own, rows)
            top += rows.shape[1]
        self.maps.clear()
        self.hidden = None

    # --- streams ---

    def image(self, window):
        """The picture itself."""
        height, rows = self.picture.height, self.picture.plan.rows
        for top in range(0, height, rows):
            yield self.picture.read((top, min(top + rows, height)), window)

    def encoder(self, deepest, note):
        """The encoder's map of a level; `note(level, rows)` is handed each on the way, and hands it on."""
        rows = self.image(widened(self.windows.encoded(0, deepest), 2, self.picture.width))
        for level in range(deepest + 1):
            if level:
                rows = stream(Pool(self.picture.workspace, level), rows)
                rows = gather(rows, self.picture.new.AT_ONCE, self.picture.workspace, level)
            rows = self.twice(f"pr_encoder.conv{level + 1}", rows, self.windows.encoded(level, deepest), level)
            rows = note(level, rows)
        return rows

    def skips(self, first):
        """What gives the next n rows of the encoder's maps, by level, from this one on."""
        takes, deepest = {}, 0 if self.kept == BOTTOM else 2

        def note(level, rows):
            if level < first:
                return rows
            tap = Tap(rows, self.picture.workspace, level)
            own, window = self.windows.skip(level), self.windows.encoded(level, deepest)
            takes[level] = lambda n: inside(tap.take(n), own, window)
            return tap.ahead()

        for level, kept in self.maps.items():
            rows = self.read(kept, self.windows.skip(level), level)
            takes[level] = Tap(rows, self.picture.workspace, level).take
        if first not in takes:
            self.encoder(deepest, note)
        return takes

    def upsampled(self, level, skips):
        """The decoder's map of the level above this one's, at this one's size."""
        picture, window = self.picture, self.windows.above(level)
        at_once = max(1, picture.rows(level) // 2)
        if level == 2:
            rows = picture.eighth.read(window, at_once)
        elif self.decoded and level + 1 in self.maps:
            rows = self.read(self.maps[1], window, 1)
        else:
            rows = self.joined(level + 1, skips)
        height, width = picture.height >> level + 1, picture.width >> level + 1
        step = Upsample(height, width, window, picture.workspace, ("upsampled", level))
        rows = stream(step, split(rows, at_once))
        return (inside(rows, self.windows.skip(level), step.output) for rows in rows)

    def joined(self, level, skips):
        """An UpConv of the encoder's map and the upsampled one."""
        window = self.windows.joined(level)
        pairs = ((skips[level](rows.shape[1]), rows) for rows in self.upsampled(level, skips))
        rows = self.twice(f"pr_UpConv{level + 1}", pairs, window, level)
        return self.written(self.maps[level], window, window, rows) if level in self.maps and level < 2 else rows

    def trunk(self, n):
        """The map that output block n takes."""
        if self.depth == n:
            return self.read(self.maps[0], self.windows.around(4 - 2 * n), 0)
        if n == 0:
            return self.joined(0, self.skips(0))
        rows, window = self.refined(0), self.windows.around(2)
        return self.written(self.maps[0], window, window, rows) if 0 in self.maps else rows

    def inner(self, n, rows):
        """The map within output block n."""
        return self.picture.convolved(f"out_conv.{n}.body.1", rows, self.windows.around(3 - 2 * n), 0)

    def refined(self, n):
        """What output block n gives; the last one gives the picture."""
        tap = Tap(self.trunk(n), self.picture.workspace, f"out_conv.{n}")
        own, window = self.windows.around(2 - 2 * n), self.windows.around(4 - 2 * n)
        within = self.hidden and self.read(self.hidden, self.windows.around(3 - 2 * n), 0)
        rows = within or self.inner(n, tap.ahead())
        return self.picture.convolved(f"out_conv.{n}.body.4", rows, own, 0, lambda n: inside(tap.take(n), own, window))

    def read(self, kept, window, level):
        """The columns of a window of a map that is kept."""
        return kept.read(window, self.picture.rows(level), self.picture.workspace)

    def written(self, kept, own, window, rows):
        """A stream with this window, whose columns `own` are kept."""
        return stream(kept.write(own, window, self.picture.workspace), rows)

    def twice(self, block, rows, window, level):
        """Two convolutions; the window is the output's, the input is two columns wider."""
        wider = widened(window, 1, self.picture.width >> level)
        rows = self.picture.convolved(f"{block}.conv.1", rows, wider, level)
        return self.picture.convolved(f"{block}.conv.4", rows, window, level)
