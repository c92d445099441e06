"""A study and its audit by the names that the report's claims use: readings, peaks, sizes, seconds."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from udnet import NotMeasured
from udnet.analysis import scaling
from udnet.analysis.scaling import Estimate
from udnet.system.files import DATA
from udnet.system.memory import MIB, mib
from udnet.variants import allocators

FILE = DATA / "claims.csv"
LARGE = 1024  # side of the picture that a statement about any size takes at least
UNITS = {"MB": " MiB", "GB": " GiB", "s": " s"}  # the report's MB are MiB


class Statement(NamedTuple):
    """Whether a claim in words holds, and what decides it, with its number."""

    holds: bool
    measured: str


def shown(estimate, unit):
    """An estimate with its unit as a person reads it, to three figures or so."""
    size = abs(estimate.best)
    digits = 0 if size >= 100 else 1 if size >= 10 else 3 if unit == "s" and size < 1 else 2
    number, gap, interval = f"{estimate:,.{digits}f}".partition(" ")
    return f"{number}{UNITS.get(unit, unit)}{gap}{interval}"


def claims_table():
    """The report's claims as they were copied out: a row a claim."""
    return pd.read_csv(FILE, keep_default_na=False)


def reported(claim):
    """The number that a claim of the report states, in its unit."""
    return float(claims_table().set_index("id").value[claim])


class Evidence:
    """A study and its audit, by the names that the claims use. Memory in MiB, as in the report; time in seconds."""

    def __init__(self, study, found, allocator=""):
        self.study, self.audit, self.allocator = study, found, allocator

    @property
    def allocators(self):
        """Those under which both scripts ran, the system's first: the first that agrees with a claim is shown."""
        done = self.audit.protocol[self.audit.protocol.error.eq("")]
        return [name for name in ("", *allocators.NAMES) if done[done.allocator == name].script.nunique() > 1]

    def under(self, allocator):
        """The same evidence, with the report's protocol as it ran under an allocator."""
        return Evidence(self.study, self.audit, allocator)

    @cached_property
    def costs(self):
        """The study's costs on the usual number of threads."""
        costs = scaling.select(scaling.costs(self.study.trials))
        return costs[costs.schedule == "whole"]

    def file(self, form):
        """Size of a file, MiB."""
        return Estimate(self.study.machine["files"][form] / MIB, np.nan, np.nan)

    def sample(self, column, variant, side=None):
        """A column of the costs of a variant, of all sizes or of one."""
        rows = self.costs[self.costs.variant == variant]
        rows = rows if side is None else rows[(rows.height == side) & (rows.width == side)]
        if rows.empty:
            raise NotMeasured(f"no trials of {variant}" + (f" at {side}x{side}" if side else ""))
        values = rows[column].to_numpy(float)
        return values / MIB if column.endswith("_bytes") else values

    def fit(self, variant, column="peak_bytes"):
        """The line of a variant's cost against pixels."""
        return scaling.fit(self.costs[self.costs.variant == variant], column)

    def added(self, variant):
        """What loading adds at its top, MiB, by trial."""
        return self.sample("load_peak_bytes", variant) - self.sample("import_bytes", variant)

    def grown(self, variant, side):
        """What inference adds at its top to what is there once the model is loaded, MiB, by trial."""
        return self.sample("peak_bytes", variant, side) - self.sample("load_bytes", variant, side)

    # the report's protocol

    def reading(self, script, step, side=None, column="rss_bytes"):
        """The readings of a step of one of the report's scripts, by repeat: MiB, or seconds."""
        rows = self.audit.protocol
        rows = rows[(rows.script == script) & (rows.allocator == self.allocator) & (rows.step == step)]
        rows = rows if side is None else rows[rows.side == side]
        if rows.empty:
            raise NotMeasured(f"the report's {script} script was not run")
        values = rows.sort_values("repeat")[column].to_numpy(float)
        return values / MIB if column.endswith("_bytes") else values

    def loaded(self, script):
        """What loading adds between two readings."""
        return self.reading(script, "load") - self.reading(script, "start")

    def highest(self, script, side):
        """The highest reading up to a picture's size: what the report calls a peak."""
        readings = [self.reading(script, step) for step in ("start", "load")]
        rows = self.audit.protocol
        sides = rows[(rows.script == script) & (rows.side <= side)].side.unique()
        readings += [self.reading(script, "inference", one) for one in sides]
        return np.max(readings, axis=0)


def worst(e):
    """The largest peak of the default session's whole process over all sizes; it takes large ones."""
    _need_large(e)
    return e.sample("process_peak_bytes", "onnx").max(keepdims=True)


def covered(e):
    """Whether what the report plans for ONNX Runtime, with its buffer, holds the peak at the report's own sizes."""
    peak = max(e.sample("process_peak_bytes", "onnx", side).max() for side in (256, 512))
    return Statement(bool(peak <= planned()), f"{planned():,.0f} MiB planned, {mib(peak * MIB)} taken")


def planned():
    """What the report plans for ONNX Runtime, with its buffer, in MiB."""
    return reported("C33") * 1024 * (1 + reported("C36") / 100)


def onnx_first(e):
    """Whether the default session, which the report ran, needs less memory than PyTorch at every size of both."""
    ratios = against_torch(e, "onnx")
    if ratios.max() < 1:
        _need_large(e)
    return Statement(bool(ratios.max() < 1), f"up to {ratios.max():.2f}x PyTorch's memory (at {ratios.idxmax()})")


def against_torch(e, variant):
    """The peak of a variant's whole process over PyTorch's, by size, smallest first."""
    for name in (variant, "pytorch"):
        e.sample("pixels", name)
    medians = e.costs.groupby(["variant", "pixels", "size"]).process_peak_bytes.median()
    return (medians[variant] / medians["pytorch"]).dropna().droplevel("pixels")


def scales_better(e):
    """Whether a pixel costs less in the default session than in PyTorch."""
    ratio = slopes(e)
    return Statement(ratio.high < 1, f"{shown(ratio, 'x')} the bytes a pixel")


def slopes(e):
    """Bytes a pixel of the default session over PyTorch's."""
    one, other = (e.fit(name) for name in ("onnx", "pytorch"))
    ratios = one.draws[:, 1] / other.draws[:, 1]
    return Estimate(one.slope / other.slope, *(float(edge) for edge in np.percentile(ratios, [2.5, 97.5])))


def _need_large(e):
    if e.sample("side", "onnx").max() < LARGE:
        raise NotMeasured(f"it takes a picture of {LARGE}x{LARGE} at least")
