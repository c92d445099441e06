"""How a picture is cut for the tiled schedule, what is kept from pass to pass, and what that costs.

A plan trades memory for time: what a strip does not keep, it computes again in every later pass. `fit` takes the plan
that computes least within a budget of bytes.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from udnet.system.memory import MIB
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
# Rows of so many full-size maps pass through a strip, as measured: by pass, since a strip's arrays are there from when
# they are first needed. The passes that are not named hold less than the one after them.
PASSING = {"decode": 9, "normalise": 16, "finish": 18}
WAITING = 8  # as is how many rows of each wait
LEAST = 64  # columns of a strip: below, it computes more beside its own columns than in them
ROOM = 0.02  # of a memory limit, left free: allocators and libraries do not take the same every time


@dataclass(frozen=True)
class Plan:
    """Strips of columns with what each keeps, and how many rows of the picture enter at once."""

    height: int
    width: int
    strips: tuple  # of (own columns, kept)
    rows: int
    threads: int

    @cached_property
    def bytes(self):
        """What is held at the most: pictures, maps and what passes through."""
        always = ALWAYS * self.height * self.width
        moments = 4 * 8 * WIDTH * self.width
        strips = [Windows(own, self.width).held(self.height, self.rows, kept) for own, kept in self.strips]
        at_once = min(self.threads, len(strips))
        held = 0
        for name in PASSING:  # what all strips keep, and what those that run need besides
            kept, passing = zip(*(strip[name] for strip in strips), strict=True)
            held = max(held, sum(kept) + at_once * max(passing))
        return always + moments + held

    @cached_property
    def multiply_adds(self):
        """What it computes, the columns beside each strip and the calls included."""
        return sum(self.passes.values())

    @cached_property
    def passes(self):
        """The same, by pass."""
        by_strip = [Windows(own, self.width).multiply_adds(self.height, self.rows, kept) for own, kept in self.strips]
        return {name: sum(strip[name] for strip in by_strip) for name in by_strip[0]}

    def __str__(self):
        count, keeping = len(self.strips), sum(kept > NOTHING for _, kept in self.strips)
        kept = {0: "nothing kept between passes", count: "maps kept between passes"}
        return f"{count} strip{'s' if count > 1 else ''}, {kept.get(keeping, f'maps of {keeping} kept between passes')}"


def usable(limit):
    """What may be held of a memory limit, in bytes."""
    return (1 - ROOM) * limit


def limit_for(size, beside=0):
    """The least limit of which so many bytes are usable, with others that are held beside, in whole MiB."""
    return math.ceil((size / (1 - ROOM) + beside) / MIB) * MIB


def leanest(height, width, threads):
    """The plan that holds least."""
    return _even(height, width, threads, *SHAPES[-1])


def fit(height, width, threads, budget):
    """The plan that computes least among those that hold at most `budget` bytes; None where none does."""
    plans = [_filled(_even(height, width, threads, *shape), budget) for shape in SHAPES]
    return min((plan for plan in plans if plan.bytes <= budget), key=lambda plan: plan.multiply_adds, default=None)


def _even(height, width, threads, columns, rows):
    """A plan of equal strips that keep nothing; as many as keep every thread busy."""
    count = -(-width // columns)
    count = max(1, min(-(-count // threads) * threads, width // LEAST))
    edges = [width * place // count // 8 * 8 for place in range(count + 1)]
    return Plan(height, width, tuple((own, NOTHING) for own in pairwise(edges)), rows, threads)


def _filled(plan, budget):
    """The plan with as much kept as the budget holds: level by level, strip by strip."""
    owns, most = [own for own, _ in plan.strips], plan
    for level in (BOTTOM, FULL, INNER):
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

    def held(self, height, rows, kept):
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
        return {name: (most[name], maps * row + both * (name == "normalise")) for name, maps in PASSING.items()}

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


def _columns(window):
    return window[1] - window[0]
