"""How a picture is cut for the tiled schedule, what is kept from pass to pass, and what that costs.

A plan trades memory for time: what a strip does not keep, it computes again in every later pass. What it keeps may lie
in memory or on a scratch file, which trades the disk for time. `fit` takes the fastest plan within a budget of bytes.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

from udnet.system.memory import MIB, mib
from udnet.tiled.scratch import AHEAD, piece_bytes
from udnet.tiled.streams import beneath, doubled, widened

WIDTH = 64  # channels of every map
CONV = 9 * WIDTH  # multiply-adds a pixel and a channel of the input
PIXEL = 4 * WIDTH  # bytes a pixel of a map
ALWAYS = 2 * 3 + PIXEL // 8**2  # bytes a pixel that every plan holds: the two pictures, and the map at an eighth

# What a strip keeps from pass to pass besides its part of the map at an eighth; each adds to the one before.
NOTHING = 0
BOTTOM = 1  # the maps at half and a quarter of the size
FULL = 2  # the full-size map
INNER = 3  # the one within an output block

SHAPES = ((512, 16), (512, 8))  # most columns of a strip, rows that enter at once: from fast to lean
CALL = 3.5e6  # multiply-adds in the time that it takes to call a convolution
# Rows of so many full-size maps pass through a strip, as measured, by pass and by what it keeps: a third to two thirds
# are its own arrays, the rest is what a runtime needs in a call. The passes that are not named hold less than the one
# after them.
PASSING = {"decode": (9, 9, 9, 9), "normalise": (16, 12, 11, 11), "finish": (18, 14, 9, 9)}
WAITING = 8  # as is how many rows of each wait
LEAST = 64  # columns of a strip: below, it computes more beside its own columns than in them
ROOM = 0.02  # of a memory limit, left free: allocators and libraries do not take the same every time
# Winograd's algorithm: the time of a picture over the direct method's, and what its kernels hold more, as measured.
WINOGRAD_TIME = 0.7
WINOGRAD = 14 * MIB
LARGE = 2_000_000  # pixels, from which a person waits, and a scratch file is worth trying the disk
WORTH = 512**2  # pixels: of fewer, its kernels take longer to make than they save in one picture
COPIED = 2.4e9  # bytes a second between the threads and the scratch file's pieces, as measured
LEVELS = (BOTTOM, FULL, INNER)
# The maps that a strip keeps, and how often their size is halved; and what a strip that has them keeps at the least.
LEVEL_OF = {"quarter": 2, "half": 1, "full": 0, "inner": 0}
KEPT_BY = {"quarter": BOTTOM, "half": BOTTOM, "full": FULL, "inner": INNER}


@dataclass(frozen=True)
class Speed:
    """What a machine does in a second: multiply-adds on all threads, and bytes to and from a scratch file."""

    multiply_adds: float
    disk: float
    room: int  # bytes that a scratch file may take


@dataclass(frozen=True)
class Plan:
    """Strips of columns with what each keeps, and how many rows of the picture enter at once."""

    height: int
    width: int
    strips: tuple  # of (own columns, kept in memory)
    rows: int
    threads: int
    scratch: int = NOTHING  # what every strip keeps at the least: on the scratch file, where not in memory
    winograd: bool = False  # whether its convolutions are computed by Winograd's algorithm

    @cached_property
    def bytes(self):
        """What is held at the most: pictures, maps and what passes through."""
        always = ALWAYS * self.height * self.width
        moments = 4 * 8 * WIDTH * self.width
        strips = [
            Windows(own, self.width).held(self.height, self.rows, kept, self.scratch) for own, kept in self.strips
        ]
        at_once = min(self.threads, len(strips))
        held = 0
        for name in PASSING:  # what all strips keep, and what those that run need besides
            kept, passing = zip(*(strip[name] for strip in strips), strict=True)
            held = max(held, sum(kept) + at_once * max(passing))
        return always + moments + held + WINOGRAD * self.winograd

    @cached_property
    def multiply_adds(self):
        """What it computes, the columns beside each strip and the calls included."""
        return sum(self.passes.values())

    @cached_property
    def passes(self):
        """The same, by pass."""
        return _by_pass(
            Windows(own, self.width).multiply_adds(self.height, self.rows, max(kept, self.scratch))
            for own, kept in self.strips
        )

    @cached_property
    def scratch_bytes(self):
        """The size of its scratch file."""
        return sum(
            size * math.ceil((self.height >> LEVEL_OF[name]) / self.rows)
            for own, kept in self.strips
            for name, size in Windows(own, self.width).pieces(self.rows, kept, self.scratch).items()
        )

    @cached_property
    def moved(self):
        """Bytes to and from the scratch file, by pass."""
        return _by_pass(Windows(own, self.width).moved(self.height, kept, self.scratch) for own, kept in self.strips)

    @cached_property
    def work(self):
        """The multiply-adds that take as long by the direct method, by pass."""
        return {name: computed * (WINOGRAD_TIME if self.winograd else 1) for name, computed in self.passes.items()}

    def seconds(self, speed):
        """How long it takes: the disk works while the threads compute, and copy what goes to it and comes from it."""
        return sum(
            max(work / speed.multiply_adds + self.moved[name] / COPIED, self.moved[name] / speed.disk)
            for name, work in self.work.items()
        )

    def __str__(self):
        count, keeping = len(self.strips), sum(kept > NOTHING for _, kept in self.strips)
        kept = {0: "nothing kept between passes", count: "maps kept between passes"}
        if self.scratch_bytes:
            kept[keeping] = f"maps kept in memory and on a scratch file of {mib(self.scratch_bytes)}"
            kept[0] = f"maps kept on a scratch file of {mib(self.scratch_bytes)}"
        return f"{count} strip{'s' if count > 1 else ''}, {kept.get(keeping, f'maps of {keeping} kept between passes')}"


def usable(limit):
    """What may be held of a memory limit, in bytes."""
    return (1 - ROOM) * limit


def limit_for(size, beside=0):
    """The least limit of which so many bytes are usable, with others that are held beside, in whole MiB."""
    return math.ceil((size / (1 - ROOM) + beside) / MIB) * MIB


def leanest(height, width, threads, speed=None, winograd=False):
    """The plan that holds least; with a `Speed` the fastest that keeps in memory as little, with a scratch file.

    `winograd`: whether that has kernels by Winograd's algorithm.
    """
    least = _even(height, width, threads, *SHAPES[-1])
    return min(_variations(least, speed, winograd), key=_cost(speed)) if speed else least


def least(height, width, threads, speed=None):
    """The fewest bytes that a plan holds; with a `Speed` also those with a scratch file."""
    return min(plan.bytes for plan in _variations(_even(height, width, threads, *SHAPES[-1]), speed, winograd=False))


@lru_cache(maxsize=8)  # who asks what a plan holds asks how long it takes, too
def fit(height, width, threads, budget, speed=None, winograd=False):
    """The fastest plan among those that hold at most `budget` bytes; None where none does.

    Without a `Speed` there is no scratch file; `winograd`: whether there are kernels by Winograd's algorithm.
    """
    evens = [_even(height, width, threads, *shape) for shape in SHAPES]
    plans = [_filled(plan, budget) for even in evens for plan in _variations(even, speed, winograd)]
    return min((plan for plan in plans if plan.bytes <= budget), key=_cost(speed), default=None)


def _variations(plan, speed, winograd):
    """A plan, with each level on a scratch file that has room for it, with either kind of kernels.

    Those by Winograd's algorithm take a few rows at a time whatever enters: more would be held for nothing.
    """
    worth = winograd and plan.height * plan.width >= WORTH and plan.rows == SHAPES[-1][1]
    for level in (NOTHING, *LEVELS) if speed else (NOTHING,):
        for kind in (False, True) if worth else (False,):
            one = replace(plan, scratch=level, winograd=kind)
            if not one.scratch_bytes or one.scratch_bytes <= speed.room:
                yield one


def _cost(speed):
    return lambda plan: plan.seconds(speed) if speed else sum(plan.work.values())


def _even(height, width, threads, columns, rows):
    """A plan of equal strips that keep nothing; as many as keep every thread busy."""
    count = -(-width // columns)
    count = max(1, min(-(-count // threads) * threads, width // LEAST))
    edges = [width * place // count // 8 * 8 for place in range(count + 1)]
    return Plan(height, width, tuple((own, NOTHING) for own in pairwise(edges)), rows, threads)


def _filled(plan, budget):
    """The plan with as much kept as the budget holds: level by level, strip by strip."""
    owns, most = [own for own, _ in plan.strips], plan
    for level in LEVELS:
        for count in range(1, len(owns) + 1):
            strips = tuple((own, level if place < count else level - 1) for place, own in enumerate(owns))
            more = replace(plan, strips=strips)
            if more.bytes > budget:
                return most
            most = more
    return most


@dataclass(frozen=True)
class Windows:
    """The columns that a strip computes of each map, so that its own come out exact."""

    own: tuple[int, int]
    width: int

    def around(self, columns):
        """Its own columns of a full-size map and so many beside them."""
        return widened(self.own, columns, self.width)

    def joined(self, level):
        """Of UpConv's output: at the full size what both output blocks take, below it what is upsampled."""
        return self.above(level - 1) if level else self.around(4)

    def skip(self, level):
        """Of UpConv's input: the encoder's map and the upsampled one."""
        return widened(self.joined(level), 2, self.width >> level)

    def above(self, level):
        """Of the map of half the size, between which the upsampled columns lie."""
        return beneath(self.skip(level), self.width >> level + 1)

    def encoded(self, level, deepest):
        """Of the encoder's map, where it goes on down to the level `deepest`."""
        if level == deepest:
            return self.skip(level)
        return doubled(widened(self.encoded(level + 1, deepest), 2, self.width >> level + 1))

    def held(self, height, rows, kept, scratch=NOTHING):
        """By pass of `PASSING`, in bytes: what a strip keeps before it or after it, and what it needs while it runs."""
        levels = [_columns(self.skip(level)) * (height >> level) for level in (2, 1, 0)]
        sizes = [PIXEL * size for size in (*levels, _columns(self.around(3)) * height)]
        bottom, half, full, inner = (
            size if kept >= level else 0 for size, level in zip(sizes, (BOTTOM, BOTTOM, FULL, INNER), strict=True)
        )
        late = full + inner if kept >= FULL else half
        most = {"decode": bottom + half + full, "normalise": max(half + full, late), "finish": late}
        both = half if kept == INNER else 0  # normalise still reads it where the map within is there already
        row = PIXEL * _columns(self.encoded(0, 2)) * (rows + WAITING)
        pieces = self.pieces(rows, kept, scratch)
        waiting = {
            "decode": pieces["quarter"] + 2 * pieces["half"],
            "normalise": pieces["half"] + 2 * pieces["full"] + pieces["inner"],
            "finish": 2 * pieces["full"] + 2 * pieces["inner"],
        }
        return {
            name: (most[name], maps[max(kept, scratch)] * row + both * (name == "normalise") + AHEAD * waiting[name])
            for name, maps in PASSING.items()
        }

    def pieces(self, rows, kept, scratch):
        """The bytes of a piece, so many rows, of each map; none of one that is not on the scratch file."""
        windows = {"quarter": self.skip(2), "half": self.skip(1), "full": self.skip(0), "inner": self.around(3)}
        return {
            name: piece_bytes(WIDTH, rows, _columns(window)) if kept < KEPT_BY[name] <= scratch else 0
            for name, window in windows.items()
        }

    def moved(self, height, kept, scratch):
        """Bytes to and from the scratch file, by pass."""

        def of(name, *windows):
            on = kept < KEPT_BY[name] <= scratch
            return PIXEL * (height >> LEVEL_OF[name]) * sum(map(_columns, windows)) if on else 0

        encoded = of("quarter", self.skip(2)) + of("half", self.skip(1))
        decoded = of("half", self.joined(1))
        again = decoded if max(kept, scratch) == BOTTOM else 0
        full = {columns: of("full", self.around(columns)) for columns in (4, 2)}
        inner = {columns: of("inner", self.around(columns)) for columns in (3, 1)}
        return {
            "encode": encoded + of("full", self.skip(0)),
            "decode": encoded + decoded,
            "normalise": decoded + of("full", self.skip(0)) + full[4] + inner[3],
            "refine": again + full[4] + full[2] + inner[3] + inner[1],
            "finish": again + full[2] + inner[1],
        }

    def multiply_adds(self, height, rows, kept):
        """By pass, calls included."""

        def convolution(window, level=0, cin=WIDTH):
            return cin * CONV * _columns(window) * (height >> level) + CALL * height / rows

        def twice(window, level, cin):
            return convolution(widened(window, 1, self.width >> level), level, cin) + convolution(window, level)

        def encoder(deepest):
            return sum(
                twice(self.encoded(level, deepest), level, WIDTH if level else 3) for level in range(deepest + 1)
            )

        def joined(level):
            return twice(self.joined(level), level, 2 * WIDTH)

        bottom = joined(2) + joined(1)
        trunk = (encoder(2) + bottom, encoder(0), 0, 0)[kept] + joined(0)  # up to the output blocks
        inner, refined, inner_again, finished = (convolution(self.around(columns)) for columns in (3, 2, 1, 0))
        within = 0 if kept == INNER else inner
        before = trunk if kept < FULL else 0  # what refine, too, has to compute again
        return {
            "encode": encoder(2),
            "decode": bottom + (encoder(2) if kept == NOTHING else 0),
            "normalise": trunk + inner,
            "refine": before + within + refined + inner_again,
            "finish": (before + inner + refined if kept < FULL else 0) + (inner_again if within else 0) + finished,
        }


def _by_pass(strips):
    """The sums over strips of what each has by pass."""
    strips = list(strips)
    return {name: sum(strip[name] for strip in strips) for name in strips[0]}


def _columns(window):
    return window[1] - window[0]
