"""Maps as streams of rows: each step takes the next rows of its input and gives the rows that follow from them.

A 3x3 convolution needs three rows for one, so a step keeps the two rows that it will need again and nothing more: no
map is ever held whole, no row is computed twice, and the borders are those of the whole image. Rows are float32 arrays,
channels x rows x columns; a window (left, right) says which of a map's columns a stream carries. The rows that a step
gives are good until it is asked for the next ones.
"""

import numpy as np

from udnet.system import memory

PASSING = "passing"  # the array of a strip that every step may work in until it gives its rows


def stream(step, source):
    """The rows that a step gives for those of a source; where it gives None, it waits for more."""
    return filter(_given, map(step, source))  # neither holds on to rows that have passed


def _given(rows):
    return rows is not None


def exhaust(rows):
    """Run a stream for what its steps note."""
    for _ in rows:
        pass


def split(source, most):
    """A stream of no more than so many rows at once: at a map's end, steps give all that they have held back."""
    for rows in source:
        rows = rows.copy("K") if rows.shape[1] > most else rows  # what follows works in the same arrays
        for start in range(0, rows.shape[1], most):
            yield rows[:, start : start + most]


def gather(source, least, workspace, name):
    """A stream of no fewer than so many rows at once, but for the last."""
    held = None
    for rows in source:
        if held is not None:
            rows = workspace.joined((name, "gathered"), held, rows)
        held = None
        if rows.shape[1] >= least:
            yield rows
        else:
            held = workspace.array((name, "held"), *rows.shape)
            held[:] = rows
    if held is not None:
        yield held


# --- windows ---


def widened(window, columns, width):
    """A window with this many columns more on either side, as far as the map goes."""
    return max(0, window[0] - columns), min(width, window[1] + columns)


def doubled(window):
    """The window of a map of twice the size that is pooled to this one."""
    return 2 * window[0], 2 * window[1]


def beneath(window, width):
    """The columns of a map of half the size, `width` in all, between which the window's upsampled columns lie."""
    return max(0, (window[0] - 1) // 2), min(width, window[1] // 2 + 1)


def inside(rows, own, window):
    """The columns of a narrower window."""
    return rows[:, :, own[0] - window[0] : own[1] - window[0]]


# --- steps ---


class Workspace:
    """The arrays that the steps of a strip work in, by name: the next strip takes the same, so the heap stays whole.

    `arranged(flat, channels, rows, columns)` is a flat array in the layout that a runtime likes best.
    """

    def __init__(self, arranged):
        self.arranged, self.flat = arranged, {}

    def array(self, name, channels, rows, columns):
        """An array of this shape with any values, the last one of this name where that has room."""
        return self.arranged(self.flat_array(name, channels * rows * columns), channels, rows, columns)

    def flat_array(self, name, size):
        """The same of so many values, in whole pages of the system's."""
        if name not in self.flat or self.flat[name].size < size:
            self.flat[name] = memory.fresh((size,))
        return self.flat[name][:size]

    def longest(self, name, channels, rows, columns):
        """The same, of more rows where there is room for them."""
        known = self.flat[name].size // (channels * columns) if name in self.flat else 0
        return self.array(name, channels, max(rows, known), columns)

    def joined(self, name, one, other):
        """The rows of one array and then those of another."""
        out = self.array(name, len(other), one.shape[1] + other.shape[1], other.shape[2])
        out[:, : one.shape[1]] = one
        out[:, one.shape[1] :] = other
        return out


class Convolution:
    """A 3x3 convolution with reflected borders.

    `height` and `width` are the map's, `window` is the output's; the input has a column more on either side, except at
    the map's own edge. It may come as a tuple of arrays, groups of channels. `skip(n)` gives the n rows to be added to
    the next n of the output.
    """

    def __init__(self, kernel, height, width, window, skip, workspace, name):
        self.kernel, self.height, self.skip = kernel, height, skip
        self.left, self.right = int(window[0] == 0), int(window[1] == width)
        self.seen = 0  # rows of the input so far
        self.given = 0  # rows of the output
        self.carry = None  # the last two rows of the input, with their borders
        self.workspace, self.name = workspace, name

    def __call__(self, rows):
        groups = rows if isinstance(rows, tuple) else (rows,)
        n, width = groups[0].shape[1:]
        held, top = min(2, self.seen), int(not self.given)
        self.seen += n
        bottom = int(self.seen == self.height)
        start, stop = top + held, top + held + n
        shape = self.kernel.channels, stop + bottom, self.left + width + self.right
        block = self.workspace.array(PASSING, *shape)
        if self.carry is None:
            self.carry = self.workspace.array((self.name, "carry"), shape[0], 2, shape[2])
        block[:, top:start] = self.carry[:, :held]
        channel = 0
        for group in groups:
            block[channel : channel + len(group), start:stop, self.left : self.left + width] = group
            channel += len(group)
        if self.left:
            block[:, start:stop, 0] = block[:, start:stop, 2]
        if self.right:
            block[:, start:stop, -1] = block[:, start:stop, -3]
        kept = min(2, self.seen)
        self.carry[:, :kept] = block[:, stop - kept : stop]
        if self.seen < 2:  # the border above reflects the second row
            return None
        if top:
            block[:, 0] = block[:, 2]
        if bottom:
            block[:, -1] = block[:, -3]
        n = block.shape[1] - 2
        self.given += n
        out = self.workspace.array("given", self.kernel.channels_out, n, block.shape[2] - 2)
        return self.kernel.run(out, block, self.skip(n)) if self.skip else self.kernel.run(out, block)


class Pool:
    """The largest of each two by two values."""

    def __init__(self, workspace, name):
        self.workspace, self.name = workspace, name
        self.carry = None  # a row without its second

    def __call__(self, rows):
        if self.carry is not None:
            rows = self.workspace.joined((self.name, "in"), self.carry, rows)
        pairs, odd = divmod(rows.shape[1], 2)
        channels, _, columns = rows.shape
        self.carry = None
        if odd:
            self.carry = self.workspace.array((self.name, "carry"), channels, 1, columns)
            self.carry[:] = rows[:, -1:]
        if not pairs:
            return None
        tall = self.workspace.array(PASSING, channels, pairs, columns)
        np.maximum(rows[:, 0 : 2 * pairs : 2], rows[:, 1 : 2 * pairs : 2], out=tall)
        out = self.workspace.array((self.name, "out"), channels, pairs, columns // 2)
        return np.maximum(tall[:, :, 0::2], tall[:, :, 1::2], out=out)


class Upsample:
    """Twice the size, bilinear with aligned corners: between each two neighbours lie two values.

    Exact in any window because the weights follow from the place in the whole map. `height`, `width` and `window` are
    the input's; `output` is the output's window.
    """

    def __init__(self, height, width, window, workspace, name):
        self.height = height
        self.down = between(height)
        self.across = between(width)[:, window[0] : window[1] - 1]
        self.left, self.right = int(window[0] == 0), int(window[1] == width)
        self.output = 2 * window[0] + 1 - self.left, 2 * window[1] - 1 + self.right
        self.seen = 0
        self.carry = None  # the last row
        self.workspace, self.name = workspace, name

    def __call__(self, rows):
        top, bottom = int(self.seen == 0), int(self.seen + rows.shape[1] == self.height)
        if self.carry is None:
            self.carry = self.workspace.array((self.name, "carry"), len(rows), 1, rows.shape[2])
        else:
            rows = self.workspace.joined((self.name, "in"), self.carry, rows)
        pairs = rows.shape[1] - 1
        self.seen += pairs + top
        weights = self.down[:, self.seen - 1 - pairs : self.seen - 1, None]
        self.carry[:] = rows[:, -1:]
        rows = self._fill(rows, weights, top, bottom, axis=1)
        return self._fill(rows, self.across, self.left, self.right, axis=2)

    def _fill(self, rows, weights, first, last, axis):
        """Two values between each two neighbours along an axis, and the ends where they are the map's own."""

        def cut(*bounds):
            return (slice(None),) * axis + (slice(*bounds),)

        pairs = rows.shape[axis] - 1
        shape = list(rows.shape)
        shape[axis] = pairs
        difference, part = self.workspace.array("difference", *shape), self.workspace.array(PASSING, *shape)
        shape[axis] = first + 2 * pairs + last
        out = self.workspace.array((self.name, "out", axis), *shape)
        one = rows[cut(pairs)]
        np.subtract(rows[cut(1, None)], one, out=difference)
        for place, weight in enumerate(weights):
            np.multiply(difference, weight, out=part)
            np.add(part, one, out=out[cut(first + place, first + 2 * pairs, 2)])  # every other value: once is enough
        if first:
            out[cut(1)] = rows[cut(1)]
        if last:
            out[cut(-1, None)] = rows[cut(-1, None)]
        return out


def between(size):
    """Where outputs 2i + 1 and 2i + 2 lie between i and i + 1: (2, size - 1), in float32 as PyTorch computes it."""
    at = np.float32((size - 1) / (2 * size - 1)) * np.arange(2 * size, dtype=np.float32)
    return np.stack([at[1:-1:2], at[2::2]]) - np.arange(size - 1, dtype=np.float32)


class Tap:
    """A stream that is read twice: `ahead` leads, `take` follows."""

    def __init__(self, source, workspace, name):
        self.source = iter(source)
        self.buffer = None  # goes round: row n of the stream lies in row n modulo its rows
        self.start = self.stop = 0  # of the rows in it that wait to be taken
        self.workspace, self.name = workspace, (name, "tap")

    def ahead(self):
        """The stream, every row noted as it passes."""
        return map(self._note, self.source)

    def take(self, n):
        """The next n rows, good until the stream goes on."""
        while self.stop - self.start < n:
            self._note(next(self.source))
        self.start += n
        parts = self._parts(self.start - n, self.start)
        return self.workspace.joined((self.name, "round"), *parts) if len(parts) > 1 else parts[0]

    def _parts(self, start, stop):
        """Rows of the stream where they lie in the buffer: in one part, or in two."""
        size = self.buffer.shape[1]
        first = start % size
        end = first + stop - start
        parts = self.buffer[:, first : min(end, size)], self.buffer[:, : max(0, end - size)]
        return [part for part in parts if part.shape[1]]

    def _note(self, rows):
        n, waiting = rows.shape[1], self.stop - self.start
        if self.buffer is None or waiting + n > self.buffer.shape[1]:
            parts = self._parts(self.start, self.stop) if waiting else []
            self.buffer = self.workspace.longest(self.name, len(rows), waiting + n, rows.shape[2])
            self._begin(parts)
        elif waiting <= n and self.stop % self.buffer.shape[1] + n > self.buffer.shape[1]:
            parts = self._parts(self.start, self.stop)
            if len(parts) < 2:
                self._begin(parts)  # so few are sooner moved to the front than joined when they are taken
        self._put(rows)
        return rows

    def _begin(self, parts):
        """Rows that wait, at the front of the buffer."""
        self.start = self.stop = 0
        for part in parts:
            self._put(part)

    def _put(self, rows):
        n, size = rows.shape[1], self.buffer.shape[1]
        first = self.stop % size
        within = min(n, size - first)
        self.buffer[:, first : first + within] = rows[:, :within]  # NumPy minds the overlap
        self.buffer[:, : n - within] = rows[:, within:]
        self.stop += n


class Map:
    """A window of a map, held whole: read as a stream, and written by one, also in place behind the reader."""

    def __init__(self, values, window):
        self.values, self.window = values, window  # (C, H, columns of the window)

    def read(self, window, rows, workspace=None):
        """The columns of a window within its own, so many rows at a time; views, so the writer must stay behind."""
        values = inside(self.values, window, self.window)
        for start in range(0, values.shape[1], rows):
            yield values[:, start : start + rows]

    def write(self, own, window, workspace=None):
        """A step that writes the columns `own` of a stream with this window, and gives the rows on."""
        target, place = inside(self.values, own, self.window), 0

        def put(rows):
            nonlocal place
            target[:, place : place + rows.shape[1]] = inside(rows, own, window)
            place += rows.shape[1]
            return rows

        return put


# --- sums over the whole image, in double precision ---


class Moments:
    """The mean and the sum of squared differences of every column of a map."""

    def __init__(self, channels, height, width):
        self.height = height
        self.mean = np.zeros((channels, width))
        self.squares = np.zeros((channels, width))

    def of(self, own, window, workspace):
        """A step that takes in its own columns of a stream with this window, and gives the rows on."""
        columns = slice(*own)
        seen = 0

        def gather(given):
            nonlocal seen
            rows = inside(given, own, window)
            n = rows.shape[1]
            mean = rows.mean(axis=1)
            difference = np.subtract(rows, mean[:, None], out=workspace.array(PASSING, *rows.shape))
            squares = np.einsum("cnw,cnw->cw", difference, difference)
            step = mean - self.mean[:, columns]  # Chan, Golub, LeVeque 1979
            self.mean[:, columns] += step * (n / (seen + n))
            self.squares[:, columns] += squares + step**2 * (seen * n / (seen + n))
            seen += n
            return given

        return gather

    def latent(self):
        """What `LatentStatistics` looks at: each channel's mean, and the spread of its columns' spreads."""
        return self.mean.mean(axis=1), np.sqrt(self.squares / (self.height - 1)).std(axis=1, ddof=1)

    def variance(self):
        """Each channel's variance over the whole map."""
        within = self.squares.mean(axis=1) / self.height
        return within + self.mean.var(axis=1)


class WindowSums:
    """What the mean of a 3x3 convolution's output takes of its input: the sum of all that each of nine weights sees.

    With reflected borders a weight sees every value once, except that its side's outermost row (column) is missed and
    the one after the opposite border is seen twice.
    """

    def __init__(self, channels, height, width):
        self.channels = channels
        self.down, self.across = _times_seen(height), _times_seen(width)
        self.parts = {}  # by strip, so that their sum does not depend on which was done first

    def of(self, own, window):
        """A step that takes in its own columns of a stream with this window, and gives the rows on."""
        across = self.across[:, slice(*own)]
        sums = self.parts[own] = np.zeros((self.channels, 3, 3))
        place = 0

        def gather(given):
            nonlocal place
            rows = inside(given, own, window)
            down = self.down[:, place : place + rows.shape[1]]
            place += rows.shape[1]
            columns = rows.sum(axis=1).astype(float)
            for offset, times in enumerate(down):
                seen = columns
                for row in np.flatnonzero(times != 1):
                    seen = seen + (times[row] - 1) * rows[:, row]
                sums[:, offset] += seen @ across.T
            return given

        return gather

    def mean(self, weight, bias):
        """The mean of each channel of the convolution's output."""
        sums = sum(self.parts[own] for own in sorted(self.parts))
        count = self.down.shape[1] * self.across.shape[1]
        return np.einsum("oiyx,iyx->o", weight.astype(float), sums) / count + bias


def _times_seen(size):
    """How often each of the three weights along an axis sees each place of it: (3, size)."""
    seen = np.pad(np.arange(size), 1, mode="reflect")
    return np.stack([np.bincount(seen[offset : offset + size], minlength=size) for offset in range(3)])
