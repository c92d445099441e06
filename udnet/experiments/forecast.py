"""How much memory a model will need at a size, before it is run there: from small pictures, and from its graph.

What a picture adds to a process grows with what the graph's tensors take at once (`lifetimes`), along a line that a few
small pictures of the same shape show. It is followed from what the process holds once the model is loaded. Some things
bend it:

- The arena of a default session grows in steps. So the small pictures are run in an arena whose steps are as much
  smaller as their tensors are (`variants.scaled`).
- Without an arena glibc's heap keeps what is freed, in blocks below 32 MiB; larger ones go back to the system at once,
  as every block does in a lean session. So the largest of the small pictures is run with a heap for blocks as much
  smaller, once what loading left free in it is given back: a small picture would lie in that, and show nothing. That
  heap keeps blocks from the start, where glibc begins with smaller ones: seven tenths of what it takes above the lean
  session are usual. Into which freed block a tensor goes depends on all blocks before it, so equal trials of a large
  picture differ: they take up to three times what the small one shows, or nearly nothing.
- What loading has left free in an arena takes small pictures in, too. No such session takes less than the lean one, nor
  more than three times what a picture adds there.
- Where other tensors are the most at once in a small picture than in the large one, the line may be too steep: then
  nothing is sure but that the large one's are held.
- Where a graph's tensors cannot be counted, the line is one of pixels, or of their square where that fits better, as it
  does with attention between all parts of a picture.

`run` holds forecasts against trials at those sizes, for three exports of UDnet.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from udnet import Error
from udnet.experiments import exporters, jobs
from udnet.network import graphs, lifetimes, onnx_file, prepared
from udnet.pictures import images
from udnet.system import guard, machine
from udnet.system.memory import MIB, mib
from udnet.trials import tables, trial
from udnet.variants import catalogue, scaled

LEAST, MOST = 3, 12  # by what the sides of the large picture are divided: no less, and where that is too large, no more
LADDER = (1, 7 / 6, 4 / 3, 5 / 3)  # the small pictures, from the largest on
TRIED = 400 * MIB  # of tensors at once, in a picture that is tried
UNCOUNTED = 1024  # bytes a pixel, where a graph's tensors cannot be counted: the line is then one of pixels

# How far the truth may be, as measured (`forecasts.csv`): factors of what a picture adds along a line, or in an arena
LINE, ARENA = (0.95, 1.05), (0.85, 1.2)
OTHER = (0.6, 1.05)  # along a line of another runtime, which may choose kernels that take less for a large picture
CHOOSING = {"ncnn": (0.6, 1.35)}  # or others that take more (measured: 1.27)
UNSURE = (0.5, 2)  # along any line, where a graph's tensors cannot be counted
APART = 3 * MIB  # equal trials may be
HEAP = (0.7, 3)  # and of what a small picture's heap takes on top of the lean session: usual, most
HEAP_TRIALS = 3  # of that small picture
FULL = 3  # times what a picture adds to the lean session, at the most in an arena
LEAN = "onnx-lean"


@dataclass(frozen=True)
class Forecast:
    """What a variant will need for a picture of a size, in bytes of the whole process."""

    variant: str
    height: int
    width: int
    peak_bytes: float  # nan where a trial failed
    low_bytes: float
    high_bytes: float  # the least limit of a container that is enough for certain
    tensors_bytes: int  # of the graph at once, at that size; none where they cannot be counted
    tried: tuple[tuple[int, int], ...]  # the pictures that it rests on, height and width
    error: str = ""  # how a trial failed

    def fits(self, limit):
        """Whether that keeps within a limit in bytes: "yes", "no", "perhaps", or "not known" where a trial failed."""
        if self.error:
            return "not known"
        return "yes" if self.high_bytes <= limit else "no" if self.low_bytes > limit else "perhaps"


def variants():
    """The variants that can be forecast here, by name: those that take any ONNX file and whose runtime is installed."""
    return [one.name for one in catalogue.that_take_models()]


def forecast(model, size, names=None, threads=None, inputs=(), begin=lambda trial: None) -> Iterator[Forecast]:
    """What variants will need for an ONNX file and a picture: each `Forecast` as it is known.

    `size`: (height, width) or "HEIGHTxWIDTH", in pixels; `names`: of variants (None: all of `variants()`); `inputs`: as
    `onnx_file.read` takes them; `begin` is told each trial before it runs. `Error` where small pictures cannot tell:
    the file takes one size alone, the picture is too small for that, or so large that it would be a guess.
    """
    file, threads = onnx_file.read(model, inputs), machine.threads(threads)
    size = images.parse_size(size) if isinstance(size, str) else size
    graphs.need_size(file, *size)
    sizes = _sizes(file, size)
    tops = {one: _top(file, one) for one in (size, *sizes)}
    counted, alike = None not in tops.values(), len({top and top.node for top in tops.values()}) == 1
    held = {one: _bytes(top, one) for one, top in tops.items()}

    @cache
    def added(name, small, repeat=0):
        """What a process holds once loaded, its peak until then, and what the picture adds to the former."""
        one = trial.Trial(name, *small, threads, repeat, runs=1, model=str(model), inputs=tuple(inputs))
        begin(one)
        result = trial.run(one)
        if result.status != "ok":
            raise Error(f"{name} at {small[0]}x{small[1]}: {result.error}")
        rows = {row["phase"]: row for row in result.rows}
        loaded, peaks = rows["load"]["rss_end_bytes"], [rows[phase]["peak_bytes"] for phase in ("first", "steady")]
        return loaded, rows["load"]["peak_bytes"], max(peaks) - loaded

    @cache
    def line(name):
        """The least and the usual that the picture will add, by the line through what the small ones add."""
        names = {one: down(name, one) if name in scaled.ARENAS else name for one in sizes}
        points = [(held[one], added(names[one], one)[2]) for one in sizes]
        straight = _at(held[size], points)
        if not counted:
            return straight, max(straight, _at(held[size], points, (1, 2)))
        return straight if alike else min(straight, held[size]), straight

    def down(name, small):
        """The name of a variant whose allocator is as much smaller as the tensors of a small picture are."""
        return f"{name}/{held[size] / held[small]:.2f}"

    def factors(usual):
        return usual if counted else UNSURE

    def more(name, loaded):
        """The least, the usual and the most that the picture will add to what a process holds once loaded."""
        if name not in scaled.SESSIONS:
            (least, usual), (low, high) = line(name), factors(LINE if name == LEAN else CHOOSING.get(name, OTHER))
            return low * least, usual, high * usual
        (lean_least, lean), (lean_loaded, _, shown) = line(LEAN), added(LEAN, sizes[0])
        left = max(0, loaded - lean_loaded)  # by loading, for pictures to use
        if name in scaled.HEAPS:
            small = [added(down(name, sizes[0]), sizes[0], repeat)[2] for repeat in range(HEAP_TRIALS)]
            heap = max(0, np.mean(small) - shown) * held[size] / held[sizes[0]]
            low, high = factors(LINE)
            return low * lean_least - left, lean + HEAP[0] * heap, high * lean + HEAP[1] * heap
        (least, usual), (low, high) = line(name), factors(ARENA)
        usual = max(usual, lean - left)
        most = max(high * usual, FULL * lean if left > shown else 0)  # the small pictures were lost in what is left
        return low * max(least, lean_least - left), usual, most

    for name in variants() if names is None else names:
        try:
            loaded, loading, _ = added(name, sizes[-1])
            low, peak, high = (float(max(loading, loaded + one)) for one in more(name, loaded))
            low, high = low - APART, high + APART
            error = ""
        except Error as failed:
            low, peak, high, error = np.nan, np.nan, np.nan, str(failed)
        yield Forecast(name, *size, peak, low, high, held[size] if counted else 0, tuple(sizes), error)


def _sizes(file, size):
    """The small pictures, the largest first: of the large one's shape, as far as the file takes it."""
    declared = dict(zip(file.layout, file.inputs[file.picture].shape or file.layout, strict=True))
    free = [not isinstance(declared[side], int) for side in "HW"]
    if not any(free):
        raise Error(f"{file.path}: takes {size[0]}x{size[1]} alone, and nothing smaller can be tried: measure it")
    tensors = _tensors(file, size)
    divisor = max(LEAST, (tensors / TRIED) ** (1 / sum(free)))
    if divisor > MOST:
        raise Error(
            f"{file.path}: at {size[0]}x{size[1]} its tensors take {mib(tensors)} at once: beyond what "
            f"can be known from pictures with a {MOST}th of the sides; ask for a smaller size"
        )
    for multiple in (1, *graphs.MULTIPLES):
        small = dict.fromkeys(
            tuple(
                max(1, int(side / divisor / step) // multiple) * multiple if loose else side
                for side, loose in zip(size, free, strict=True)
            )
            for step in LADDER
        )
        if len(small) > 2 and all(graphs.takes(file, *one) for one in small):
            return list(small)
    raise Error(f"{file.path}: {size[0]}x{size[1]} is too small for a forecast: measure it, which takes seconds")


def _tensors(file, size):
    """Bytes of a graph's tensors at once."""
    return _bytes(_top(file, size), size)


def _bytes(top, size):
    return top.bytes if top else UNCOUNTED * size[0] * size[1]


def _top(file, size):
    """Where a graph's tensors take most at once; None where they cannot be counted."""
    try:
        return lifetimes.peak(file, *size, "in-place")
    except Error:
        return None


def _at(tensors, points, powers=(1,)):
    """A line's value there; its points are (tensors, added) in bytes, each as near as its own size asks.

    `powers`: of the tensors, of which the one that fits best is taken.
    """
    held, added = np.array(points, float).T
    weights = 1 / np.maximum(added, MIB)
    fits = []
    for power in powers:
        grown = (held / held.max()) ** power
        design = np.stack([np.ones_like(held), grown], axis=1)
        (fixed, slope), *_ = np.linalg.lstsq(design * weights[:, None], added * weights)
        off = np.square((fixed + slope * grown - added) * weights).sum()
        fits.append((off, fixed + max(slope, 0) * (tensors / held.max()) ** power))
    return min(fits)[1]


def as_text(forecasts, limit=None):
    """A table for a terminal of forecasts for one picture, for a limit in bytes or for none; why some failed, once."""
    known, reasons = [one for one in forecasts if not one.error], {}
    for one in forecasts:
        if one.error:
            reasons.setdefault(one.error.partition(" ")[2], []).append(one.variant)
    failures = [f"{', '.join(names)} {reason}" for reason, names in reasons.items()]
    if not known:
        return "\n".join(failures)
    columns = ["variant", "peak, MiB", "between", "least limit, MiB"]
    rows = [columns + ([f"fits {mib(limit)}"] if limit else [])]
    for one in forecasts:
        peak, low, high = (f"{size / MIB:,.0f}" for size in (one.peak_bytes, one.low_bytes, one.high_bytes))
        said = [one.variant, peak, f"{low} to {high}", f"{np.ceil(one.high_bytes / MIB):,.0f}"]
        rows.append((said if not one.error else [one.variant, "-", "-", "-"]) + ([one.fits(limit)] if limit else []))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{word:>{width}}" for word, width in zip(row, widths, strict=True)) for row in rows]
    lines += failures
    first = known[0]
    pictures = ", ".join(f"{height}x{width}" for height, width in first.tried)
    graph = f"on the graph: {mib(first.tensors_bytes)} of tensors at once"
    graph = graph if first.tensors_bytes else "on the number of pixels: the graph's tensors cannot be counted"
    lines.append(f"rests on pictures of {pictures} and {graph}")
    return "\n".join(lines)


# --- held against trials ---

FILE = "forecasts.csv"
CASES = {  # exports of UDnet, which differ in how its norms are written, and sizes: trials of each variant there
    **{(export, 1024, 1024): 3 for export in (exporters.CHOSEN, "dynamo-18", "torchscript-12")},
    (exporters.CHOSEN, 2160, 3840): 1,
}
COLUMNS = [
    *("export", "height", "width", "variant", "peak_bytes", "low_bytes", "high_bytes", "tensors_bytes"),
    *("measured_bytes", "trials", "error"),
]


def run(folder, cases=CASES, weights=None, progress=True):
    """Forecast every variant of UDnet's exports, then measure it, into `forecasts.csv` of a folder; returns the table.

    `cases`: trials by (export, height, width). What is there is kept. What will not fit this machine is forecast alone.
    """
    found = prepared.find(weights)
    jobs.run(Path(folder) / FILE, COLUMNS, list(cases), partial(_held_against, found, cases), progress)
    return read(folder)


def _held_against(weights, cases, export, height, width):
    model = exporters.made(export, weights)
    for one in forecast(model, (height, width), threads=2):
        about = asdict(one)
        sizes = {name: about[name] for name in ("peak_bytes", "low_bytes", "high_bytes")}
        results, trials = [], cases[export, height, width]
        if one.high_bytes < guard.safe_limit():
            asked = trial.Trial(one.variant, height, width, 2, runs=1, model=str(model))
            results = [trial.run(asked) for _ in range(trials)]
        peaks = [max(row["peak_bytes"] for row in result.rows) for result in results if result.status == "ok"]
        sizes["measured_bytes"] = np.median(peaks) if peaks else np.nan
        error = next((result.error for result in results if result.status != "ok"), one.error)
        yield about | pd.Series(sizes).round().to_dict() | {"trials": len(peaks), "error": error}


def read(folder):
    """The forecasts in a study's folder, and what was measured; `NotMeasured` where there are none."""
    return tables.read_table(Path(folder) / FILE, COLUMNS, "no forecast was held against trials")
