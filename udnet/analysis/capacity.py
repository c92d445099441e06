"""What fits where: each variant's peak as a model fitted to a study, asked both ways, and proved under a real limit.

The peak of a variant that takes the whole image is that of loading, or a fixed part and so many bytes a pixel; a tiled
one's is a fixed part and what its plan holds. `plan` answers with them: the largest picture for a limit, the least
limit for a picture, the fastest variant for both. A memory control group counts less than the whole process: pages that
are mapped from files, such as libraries, it can drop. So a limit is planned by the whole process's peak, and proved by
what the group counts.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil

from udnet import Error, NotMeasured
from udnet.analysis import scaling
from udnet.pictures import images, photographs
from udnet.system import memory
from udnet.system.memory import MIB
from udnet.tiled import kernels, plans
from udnet.trials import tables
from udnet.variants import catalogue

LARGE = "large"  # the folder, within a study's, of the trials with large pictures
BESIDE = photographs.BESIDE + 9 * MIB  # of the process of `enhance` beside a trial's: and its modules (measured: 8.2)
BEYOND = 2  # times the largest side measured: so far a line is followed


@dataclass(frozen=True)
class Model:
    """A variant's peak and time by the size of the picture, on so many threads."""

    variant: str
    threads: int
    loading: float  # bytes, the peak until it is loaded: no picture takes less
    fixed: float  # bytes
    slope: float  # bytes a pixel; none where the schedule is tiled
    files: float  # bytes of the peak that are mapped from files
    excess: float  # how far, relatively, a size's peak was above the model at the most
    measured: float  # the most pixels that it was fitted to
    work: tuple  # of the sizes that were timed: pixels, or a plan's multiply-adds where the schedule is tiled
    rates: tuple  # seconds for each of those

    @property
    def tiled(self):
        """Whether it is a plan that decides."""
        return catalogue.find(self.variant).schedule == "tiled"

    @property
    def floor(self):
        """What a tiled schedule plans on top of, in bytes, as it takes it to be itself (see `tiled.schedule`)."""
        return self.loading + kernels.RUNTIMES[catalogue.find(self.variant).runtime].START

    def plan(self, height, width, limit=None):
        """The plan of a tiled variant, the leanest or that for a limit, in bytes; None where none keeps within it."""
        if limit is None:
            return _leanest(height, width, self.threads)
        return plans.fit(*images.padded_size(height, width), self.threads, plans.usable(limit) - self.floor)

    def peak(self, height, width, limit=None):
        """The peak of the whole process that the model expects, in bytes.

        nan where nothing keeps within the limit, or the whole image is too far beyond what was measured.
        """
        if not self.tiled:
            known = height * width <= BEYOND**2 * self.measured
            return max(self.loading, self.fixed + self.slope * height * width) if known else np.nan
        plan = self.plan(height, width, limit)
        return self.fixed + plan.bytes if plan else np.nan

    def limit(self, height, width):
        """The least limit for a picture, in bytes: with room for steps above a line, and for what is beside the model.

        nan where the whole image is too far beyond what was measured.
        """
        if self.tiled:
            needed = self.floor + self.plan(height, width).bytes
        else:
            needed = self.peak(height, width) * (1 + max(0.0, self.excess))
        return np.nan if np.isnan(needed) else plans.limit_for(needed) + BESIDE

    def seconds(self, height, width, limit=None):
        """The seconds that the first picture of a size takes: between the sizes that were timed, by their rates."""
        work = height * width
        if self.tiled:
            plan = self.plan(height, width, limit)
            work = plan.multiply_adds if plan else np.nan
        return float(work * np.exp(np.interp(np.log(work), np.log(self.work), np.log(self.rates))))


def models(done, threads=scaling.THREADS):
    """The `Model` of every variant of a study that it knows well enough, by name."""
    return _models(_measured(done, threads))


def _measured(done, threads):
    """The rows of `costs` on so many threads, of variants that run as they are."""
    measured = costs(done)
    measured = measured[measured.variant.map(catalogue.known).astype(bool)]
    return measured[(measured.threads == threads) & ~measured.variant.str.contains("+", regex=False)]


def _models(measured):
    found = {}
    for name, rows in measured[~measured.variant.str.contains("@")].groupby("variant"):
        try:
            found[name] = fit(rows)
        except NotMeasured:
            continue
    if not found:
        raise NotMeasured(f"no variant at {scaling.SIZES} sizes")
    return found


def fit(rows):
    """The `Model` of one variant from its rows of `costs`: its peak by the study's own, its time by all of them."""
    name, threads, own = rows.variant.iloc[0], int(rows.threads.iloc[0]), rows[~rows.large]
    work = rows.pixels
    if catalogue.find(name).schedule != "tiled":
        line = scaling.fit(own)
        fixed, slope, excess = line.fixed, line.slope, line.excess
    elif own.pixels.nunique() < 2:
        raise NotMeasured(f"{name} at one size alone")
    else:
        least = {size: _leanest(*size, threads) for size in set(zip(rows.height, rows.width, strict=True))}
        held = np.array([least[size].bytes for size in zip(own.height, own.width, strict=True)])
        fixed, slope = float((own.process_peak_bytes - held).median()), 0.0
        excess = float((own.process_peak_bytes / (fixed + held) - 1).max())
        work = [least[size].multiply_adds for size in zip(rows.height, rows.width, strict=True)]
    seconds = rows.groupby(np.asarray(work, float)).first_seconds.median()
    loading, files = own.load_peak_bytes.median(), own.file_bytes.median()
    about = own.pixels.max(), tuple(seconds.index), tuple(seconds / seconds.index)
    return Model(name, threads, loading, fixed, slope, files, excess, *about)


def _leanest(height, width, threads):
    return plans.leanest(*images.padded_size(height, width), threads)


def costs(done):
    """The rows of `scaling.costs` of a study, and those with large pictures, which the column `large` marks."""
    frames, large = [scaling.costs(done.trials).assign(large=False)], done.folder / LARGE
    if large.exists():
        frames.append(scaling.costs(tables.read(large).trials).assign(large=True))
    return pd.concat(frames, ignore_index=True)


def parity(done):
    """The rows of a study's `parity`, and those with large pictures."""
    large = done.folder / LARGE
    return pd.concat([done.parity, *([tables.read(large).parity] if large.exists() else [])], ignore_index=True)


def held_out(done, threads=scaling.THREADS):
    """Each peak and time as predicted without it, against what was measured: a row a variant and size.

    A size from its variant's other sizes, peaks from the study's own alone; a plan for a limit from all sizes. Columns:
    variant, height, width; `measured_bytes`, `predicted_bytes`, `error` (relative) and the same of `seconds`.
    """
    measured = _measured(done, threads)
    known, rows = _models(measured), []
    for (variant, height, width), here in measured.groupby(["variant", "height", "width"], sort=False):
        name, _, limit = variant.partition("@")
        if name not in known:
            continue
        others = measured[(measured.variant == name) & ((measured.height != height) | (measured.width != width))]
        try:
            model = known[name] if limit else fit(others)
        except NotMeasured:
            continue
        size = (height, width, memory.parse_bytes(limit) if limit else None)
        about = here.process_peak_bytes.median(), model.peak(*size), here.first_seconds.median(), model.seconds(*size)
        rows.append((variant, height, width, *about))
    columns = ["measured_bytes", "predicted_bytes", "measured_seconds", "predicted_seconds"]
    table = pd.DataFrame(rows, columns=["variant", "height", "width", *columns]).dropna(ignore_index=True)
    table["error"] = table.predicted_bytes / table.measured_bytes - 1
    table["seconds_error"] = table.predicted_seconds / table.measured_seconds - 1
    return table


# --- asked both ways ---


def plan(limit=None, size=None, done=None, threads=scaling.THREADS):
    """What fits, as a table: the largest picture for a `limit`, the least limit for a `size`, or for both the fastest.

    `limit`: bytes, or as 512MiB; `size`: (height, width), or as 2160x3840. Columns: variant, height, width, limit_bytes
    (the least limit for that picture), peak_bytes (of the whole process, by the plan for the limit that is given),
    counted_bytes (what a control group counts of the peak), seconds (the first picture of its size); the fastest first,
    or with a limit alone the largest. An empty table says that nothing fits.
    """
    if limit is None and size is None:
        raise Error("give a limit, a size, or both")
    limit = None if limit is None else memory.limit_bytes(limit)
    size = images.parse_size(size) if isinstance(size, str) else size
    return among(models(done or tables.read(), threads), limit, size)


def among(known, limit=None, size=None):
    """The table of `plan` for `models` that are known already: for those who ask more than once."""
    if not known:
        raise NotMeasured("no model of any variant")
    rows = []
    for model in known.values():
        shape = size or (_largest(model, limit),) * 2
        least = model.limit(*shape) if shape[0] else np.nan
        if np.isnan(least) or (limit is not None and least > limit):
            continue
        about = (*shape, None if limit is None else limit - BESIDE)
        peak = model.peak(*about)
        rows.append((model.variant, *shape, least, peak, peak - model.files, model.seconds(*about)))
    names = ["variant", "height", "width", "limit_bytes", "peak_bytes", "counted_bytes", "seconds"]
    table = pd.DataFrame(rows, columns=names)
    if size is None:
        return table.sort_values(["height", "seconds"], ascending=[False, True], ignore_index=True)
    return table.sort_values("seconds", ignore_index=True)


def _largest(model, limit):
    """The largest side of a square picture, a multiple of 8, that keeps within a limit; 0 where none does.

    From above, side by side: a tiled variant's peak falls where a picture is cut into more strips.
    """
    most = min(images.MAX_PIXELS, limit / plans.ALWAYS) ** 0.5
    return next((side for side in range(int(most) // 8 * 8, 0, -8) if model.limit(side, side) <= limit), 0)


def as_text(table, limit=None):
    """A table of `plan`, made for a limit in bytes or for none, for a terminal.

    Limits beyond this machine's memory are marked.
    """
    installed = psutil.virtual_memory().total
    over = (table.limit_bytes > installed).sort_values(kind="stable")
    table = table.loc[over.index]
    columns = {
        "variant": table.variant,
        "picture": table.height.astype(str) + "x" + table.width.astype(str),
        "least limit, MiB": (table.limit_bytes / MIB).map("{:,.0f}".format) + np.where(over, "*", ""),
        f"peak with {memory.mib(limit)}" if limit else "peak, MiB": (table.peak_bytes / MIB).map("{:,.0f}".format),
        "of it counted": (table.counted_bytes / MIB).map("{:,.0f}".format),
        "seconds": table.seconds.map("{:,.1f}".format),
    }
    lines = [pd.DataFrame(columns).to_string(index=False, col_space=12)]
    lines += [f"* more than this machine's {memory.mib(installed)}"] if over.any() else []
    lines.append(
        "peak: of the whole process; of it counted: what is not mapped from files, which the kernel can drop;\n"
        "seconds: of the first picture, predicted for the machine of the study"
    )
    return "\n".join(lines)
