"""Scaling laws: what a variant costs against the number of pixels, with intervals, and where two variants cross.

Both peak memory and time are close to a fixed part plus a part that grows with the pixels. The line is fitted to
relative errors, so that 64x64 counts as much as 2048x2048, and every interval is a 95% percentile bootstrap over sizes:
how well a line describes the sizes is the larger uncertainty here, not how well a repeat agrees with the next.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from udnet import NotMeasured

DRAWS = 1000
SEED = 0
THREADS = 2  # what is compared and drawn, where nothing else is said
SIZES = 4  # that a line with an interval takes at least


@dataclass(frozen=True, eq=False)
class Fit:
    """cost = fixed + slope x pixels, with the bootstrap's draws of both."""

    fixed: float  # bytes or seconds
    slope: float  # bytes or seconds a pixel
    draws: np.ndarray  # draws x 2
    pixels: np.ndarray  # of the points
    values: np.ndarray

    def __call__(self, pixels):
        return self.fixed + self.slope * np.asarray(pixels, float)

    def band(self, pixels):
        """The 95% interval of the line at `pixels`: (low, high) arrays."""
        lines = self.draws[:, :1] + self.draws[:, 1:] * np.asarray(pixels, float).reshape(1, -1)
        return tuple(np.percentile(lines, [2.5, 97.5], axis=0))

    @property
    def fixed_estimate(self):
        """The fixed part with its 95% interval."""
        return Estimate(self.fixed, *np.percentile(self.draws[:, 0], [2.5, 97.5]))

    @property
    def slope_estimate(self):
        """The slope with its 95% interval."""
        return Estimate(self.slope, *np.percentile(self.draws[:, 1], [2.5, 97.5]))

    @property
    def worst(self):
        """The largest relative distance of a size's median from the line: how far from a line the truth is."""
        return float(np.abs(self._distances()).max())

    @property
    def off(self):
        """What a fit minimises: the sum of the squares of its relative distances from the values."""
        return float(np.square(self(self.pixels) / self.values - 1).sum())

    @property
    def excess(self):
        """How far a size's median lies above the line at most, relative to it: the unsafe side of a plan."""
        return float(self._distances().max())

    def _distances(self):
        medians = pd.Series(self.values).groupby(self.pixels).median()
        return medians / self(medians.index) - 1


class Estimate(NamedTuple):
    """A number with its 95% interval; a format such as `.2f` holds for all three.

    An interval that is not there, or that rounds to the number itself, is not printed.
    """

    best: float
    low: float
    high: float

    def __truediv__(self, unit):
        """The same in another unit, such as MiB in place of bytes."""
        return Estimate(*(edge / unit for edge in self))

    def __format__(self, form):
        sign, form = (form[:1], form[1:]) if form.startswith("+") else ("", form)
        best, low, high = (format(one, f"{sign}z{form}") for one in self)  # z: what rounds to zero has no minus
        return best if np.isnan(self.low) or low == best == high else f"{best} ({low} to {high})"


@dataclass(frozen=True)
class Crossing:
    """Where one line meets another, in pixels, with its 95% interval."""

    pixels: float
    low: float
    high: float
    share: float  # of the bootstrap's draws that cross at all

    @property
    def side(self):
        """The side of the square picture."""
        return Estimate(*(float(np.sqrt(n)) for n in (self.pixels, self.low, self.high)))


def costs(trials):
    """One row a finished trial, from rows of `trials.csv`: its sizes and its costs; sampled trials are left out.

    Columns: variant, runtime, schedule (whole or tiled), weights, height, width, pixels, side, size (such as 256x256),
    threads, repeat; `peak_bytes` of inference (first and later runs), `first_peak_bytes`, `steady_peak_bytes`,
    `load_peak_bytes` (until the model is loaded), `process_peak_bytes` (of all phases); what is resident after a phase:
    `interpreter_bytes`, `import_bytes`, `load_bytes`, `rest_bytes` (after the last inference); what is mapped from
    files: `load_file_bytes` by loading, `file_bytes` after the last inference; `seconds` a later run (the first where
    there is no other), `first_seconds`, `load_seconds`, `import_seconds`.
    """
    trials = trials[~trials.trial.str.endswith("/timeline")]
    done = trials[trials.phase.eq("steady") & trials.status.eq("ok")].trial
    trials = trials[trials.trial.isin(done)]
    about = ["trial", "variant", "runtime", "schedule", "weights", "height", "width", "threads", "repeat"]
    read = ["peak_bytes", "rss_end_bytes", "file_end_bytes", "seconds", "runs"]
    wide = trials.set_index([*about, "phase"])[read].astype(float).unstack()
    phases = ["interpreter", "import", "load", "first", "steady"]
    wide = wide.reindex(columns=pd.MultiIndex.from_product([read, phases]))  # where nothing has finished, too
    peak, rss, file, seconds = wide.peak_bytes, wide.rss_end_bytes, wide.file_end_bytes, wide.seconds
    frame = pd.DataFrame(
        {
            "peak_bytes": peak[["first", "steady"]].max(axis=1),
            "first_peak_bytes": peak["first"],
            "steady_peak_bytes": peak["steady"],
            "load_peak_bytes": peak[["interpreter", "import", "load"]].max(axis=1),
            "process_peak_bytes": peak.max(axis=1),
            "interpreter_bytes": rss["interpreter"],
            "import_bytes": rss["import"],
            "load_bytes": rss["load"],
            "rest_bytes": rss["steady"],
            "load_file_bytes": file["load"] - file["import"],
            "file_bytes": file["steady"],
            "seconds": (seconds["steady"] / wide.runs["steady"]).where(wide.runs["steady"] > 0, seconds["first"]),
            "first_seconds": seconds["first"],
            "load_seconds": seconds["load"],
            "import_seconds": seconds["import"],
        }
    ).reset_index()
    frame.insert(6, "pixels", frame.height * frame.width)
    frame["side"] = np.sqrt(frame.pixels)
    frame["size"] = frame.height.astype(str) + "x" + frame.width.astype(str)
    whole = [name for name in frame if name.endswith("_bytes") and frame[name].notna().all()]
    return frame.astype(dict.fromkeys(whole, "int64"))


def select(frame, *variants, size=None, threads=THREADS):
    """The rows of `costs` of some variants (none named: all), at a size such as "256x256" and on so many threads.

    `NotMeasured` where there are none of one that is named.
    """
    frame = frame[frame.threads == threads]
    frame = frame if size is None else frame[frame["size"] == size]
    for name in variants:
        if name not in frame.variant.values:
            raise NotMeasured(f"no finished trials of {name}" + (f" at {size}" if size else ""))
    if frame.empty:
        raise NotMeasured("no finished trials")
    return frame[frame.variant.isin(variants)] if variants else frame


def at_sizes(frame, least):
    """The rows of the variants that were measured at so many sizes at least."""
    return frame[frame.groupby("variant").pixels.transform("nunique") >= least]


class Fits(dict):
    """A `Fit` by variant; one that is not there was measured at too few sizes, or is tiled."""

    def __missing__(self, name):
        raise NotMeasured(f"no line of {name}: it takes {SIZES} sizes of whole images")


def fits(frame, value="peak_bytes"):
    """The `Fits` of a column of `costs`, of every variant that was measured at enough sizes.

    Whole images alone: what a tiled variant costs follows its plan, and is not on a line.
    """
    whole = at_sizes(frame[frame.schedule == "whole"], SIZES)
    return Fits({name: fit(rows, value) for name, rows in whole.groupby("variant")})


def fit(frame, value="peak_bytes"):
    """The `Fit` of a column of `costs` against pixels; it takes at least four sizes."""
    pixels, values = frame.pixels.to_numpy(float), frame[value].to_numpy(float)
    sizes = np.unique(pixels)
    if len(sizes) < SIZES:
        raise NotMeasured(f"{len(sizes)} sizes, where a line with an interval takes at least {SIZES}")
    random = np.random.default_rng(SEED)
    # sums of the normal equations, a row a size, so that a resample of the sizes is a weighted sum of rows
    place = np.searchsorted(sizes, pixels)
    parts = np.zeros((len(sizes), 5))
    terms = np.array([1 / values**2, pixels / values**2, (pixels / values) ** 2, 1 / values, pixels / values])
    np.add.at(parts, place, terms.T)
    counts = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), 2 * DRAWS)
    counts = counts[(counts > 0).sum(axis=1) >= 3][:DRAWS]
    (best,) = _lines(parts.sum(axis=0, keepdims=True))
    return Fit(*best, _lines(counts @ parts), pixels, values)


def _lines(sums):
    """The least relative squares, (fixed, slope) a row, from sums of 1/y^2, x/y^2, x^2/y^2, 1/y and x/y."""
    a, b, c, d, e = sums.T
    return np.column_stack([c * d - b * e, a * e - b * d]) / (a * c - b * b)[:, None]


def crossing(one, other):
    """The `Crossing` of two fits at a positive number of pixels, or None where the lines do not meet there."""

    def meet(fixed, slope, other_fixed, other_slope):
        with np.errstate(divide="ignore", invalid="ignore"):
            return (other_fixed - fixed) / (slope - other_slope)

    pixels = meet(one.fixed, one.slope, other.fixed, other.slope)
    if not (np.isfinite(pixels) and pixels > 0):
        return None
    draws = meet(*one.draws.T, *other.draws.T)
    share = float(np.mean(draws > 0))
    low, high = np.percentile(draws[draws > 0], [2.5, 97.5])
    return Crossing(float(pixels), float(low), float(high), share)


def ratio(frame, value, over, under):
    """The ratio of the medians of a column in two selections of rows, as an `Estimate` with its 95% interval.

    `over` and `under` are boolean masks. With one row on either side there is no interval: its edges are nan.
    """
    top, bottom = frame.loc[over, value].to_numpy(float), frame.loc[under, value].to_numpy(float)
    if not len(top) or not len(bottom):
        raise NotMeasured(f"no trials to compare {value} of")
    return quotient(top, bottom)


def spread(frame, value="peak_bytes"):
    """How far equal trials differ: the largest of a case's repeats over the smallest, less 1; a value a case."""
    cases = frame.groupby(["variant", "height", "width", "threads"])[value]
    repeated = cases.size() > 1
    if not repeated.any():
        raise NotMeasured("no repeats")
    return (cases.max() / cases.min() - 1)[repeated]


def quotient(top, bottom):
    """The ratio of the medians of two samples, as an `Estimate` with its 95% interval, by bootstrap."""
    return _between(np.divide, top, bottom)


def difference(top, bottom):
    """The median of one sample less that of another, as an `Estimate` with its 95% interval, by bootstrap."""
    return _between(np.subtract, top, bottom)


def _between(operation, top, bottom):
    best = float(operation(np.median(top), np.median(bottom)))
    if min(len(top), len(bottom)) < 2:
        return Estimate(best, np.nan, np.nan)
    random = np.random.default_rng(SEED)
    tops = np.median(random.choice(top, (DRAWS, len(top))), axis=1)
    bottoms = np.median(random.choice(bottom, (DRAWS, len(bottom))), axis=1)
    return Estimate(best, *(float(edge) for edge in np.percentile(operation(tops, bottoms), [2.5, 97.5])))


def typical(values):
    """The median of a sample, as an `Estimate` with its 95% interval, by bootstrap."""
    return _estimate(values, np.median)


def average(values):
    """The mean of a sample, as an `Estimate` with its 95% interval, by bootstrap."""
    return _estimate(values, np.mean)


def _estimate(values, statistic):
    best = float(statistic(values))
    if len(values) < 2:
        return Estimate(best, np.nan, np.nan)
    drawn = statistic(np.random.default_rng(SEED).choice(values, (DRAWS, len(values))), axis=1)
    return Estimate(best, *(float(edge) for edge in np.percentile(drawn, [2.5, 97.5])))


def compare(frame, value, over, under, side, threads=THREADS):
    """`ratio` of two variants at one square size, on the same number of threads."""
    here = (frame.height == side) & (frame.width == side) & (frame.threads == threads)
    return ratio(frame, value, here & (frame.variant == over), here & (frame.variant == under))


def largest_square(frame, *variants, most=1024):
    """The side of the largest square, up to `most` pixels, at which all of these variants were measured."""
    square = frame[(frame.height == frame.width) & (frame.height <= most)]
    shared = set.intersection(*(set(square.height[square.variant == name]) for name in variants))
    if not shared:
        raise NotMeasured(f"no square that all of {', '.join(variants)} were measured at")
    return int(max(shared))


def median(frame, value, variant, side, threads=THREADS):
    """The median of a column for one variant at one square size."""
    rows = frame[(frame.variant == variant) & (frame.side == side) & (frame.threads == threads)]
    if rows.empty:
        raise NotMeasured(f"no trials of {variant} at {side}x{side} with {threads} threads")
    return float(rows[value].median())
