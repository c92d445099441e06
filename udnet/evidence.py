"""A study and its audit by the names that the report's claims use: readings, peaks, sizes, seconds."""

from functools import cached_property

import numpy as np

from . import scaling
from .memory import MIB
from .scaling import Estimate


class Evidence:
    """A study and its audit, by the names that the claims use. Memory in MiB, as in the report; time in seconds."""

    def __init__(self, study, found, allocator=""):
        self.study, self.audit, self.allocator = study, found, allocator

    @property
    def allocators(self):
        """Those under which both scripts ran, the system's first."""
        done = self.audit.protocol[self.audit.protocol.error.eq("")]
        return [name for name in done.allocator.unique() if done[done.allocator == name].script.nunique() > 1]

    def under(self, allocator):
        """The same evidence, with the report's protocol as it ran under an allocator."""
        return Evidence(self.study, self.audit, allocator)

    @cached_property
    def costs(self):
        """The study's costs on the usual number of threads."""
        return scaling.select(self.study)

    def file(self, form):
        """Size of a file, MiB."""
        return Estimate(self.study.machine["files"][form] / MIB, np.nan, np.nan)

    def sample(self, column, variant, side=None):
        """A column of the costs of a variant, of all sizes or of one."""
        rows = self.costs[self.costs.variant == variant]
        rows = rows if side is None else rows[(rows.height == side) & (rows.width == side)]
        if rows.empty:
            raise scaling.NotEnoughData(f"no trials of {variant}" + (f" at {side}x{side}" if side else ""))
        values = rows[column].to_numpy(float)
        return values / MIB if column.endswith("_bytes") else values

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
            raise scaling.NotEnoughData(f"the report's {script} script was not run")
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


def spread(e):
    """The largest excess of a trial's peak over the median of its repeats, in per cent: one value a case."""
    groups = e.costs.groupby(["variant", "pixels"]).process_peak_bytes
    return ((groups.max() / groups.median() - 1) * 100).to_numpy()


def onnx_first(e):
    """Whether the lean session needs less memory and less time than PyTorch at every size of both."""
    columns = ["process_peak_bytes", "seconds"]
    medians = e.costs.groupby(["variant", "pixels"])[columns].median()
    lean, torch = (medians.loc[name] for name in ("onnx-lean", "pytorch"))
    sizes = lean.index.intersection(torch.index)
    return bool((lean.loc[sizes] < torch.loc[sizes]).all(axis=None))


def slopes(e):
    """Bytes a pixel of the default session over PyTorch's."""
    one, other = (scaling.fit(e.costs[e.costs.variant == name]) for name in ("onnx", "pytorch"))
    ratios = one.draws[:, 1] / other.draws[:, 1]
    return Estimate(one.slope / other.slope, *(float(edge) for edge in np.percentile(ratios, [2.5, 97.5])))
