"""What fits where: each variant's peak as a model fitted to a study, asked both ways, and proved under a real limit.

The peak of a variant that takes the whole image is that of loading, or a fixed part and so many bytes a pixel; a tiled
one's is a fixed part and what its plan holds. `plan` answers with them: the largest picture for a limit, the least
limit for a picture, the fastest variant for both. A memory control group counts less than the whole process: pages that
are mapped from files, such as libraries, it can drop. So a limit is planned by the whole process's peak, and proved by
what the group counts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import guard, images, memory, plans, scaling, study, trial, variants
from .memory import MIB

PROOF = {"10% over": (1.10, "ok"), "25% under": (0.75, "oom")}  # of what is predicted to be counted: what should happen
PROVED = (  # sizes that no grid has
    ("onnx-lean", 896, 896),
    ("pytorch-lean", 896, 896),
    ("pytorch-tiled", 1440, 1440),
    ("onnx-tiled", 1440, 2560),
)
FILE = "capacity.csv"
LARGE = "large"  # the folder, within a study's, of the trials with large pictures
BEYOND = 2  # times the largest side measured: so far a line is followed
COLUMNS = ("variant", "height", "width", "threads", "predicted_bytes", "case", "limit_bytes", "expected", "status")


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
    seconds_fixed: float
    seconds_slope: float  # seconds a pixel, or a multiply-add where the schedule is tiled

    @property
    def tiled(self):
        """Whether it is a plan that decides."""
        return variants.find(self.variant).schedule == "tiled"

    def plan(self, height, width, limit=None):
        """The plan of a tiled variant, the leanest or that for a limit, in bytes; None where none keeps within it."""
        if limit is None:
            return _leanest(height, width, self.threads)
        return plans.fit(*images.padded_size(height, width), self.threads, limit - self.fixed)

    def peak(self, height, width, limit=None):
        """The peak of the whole process that the model expects, in bytes.

        nan where nothing keeps within the limit, or the whole image is too far beyond what was measured.
        """
        if not self.tiled:
            known = height * width <= BEYOND**2 * self.measured
            return max(self.loading, self.fixed + self.slope * height * width) if known else np.nan
        plan = self.plan(height, width, limit)
        return self.fixed + plan.bytes if plan else np.nan

    def seconds(self, height, width, limit=None):
        """The seconds that the first picture of a size takes."""
        if not self.tiled:
            return self.seconds_fixed + self.seconds_slope * height * width
        plan = self.plan(height, width, limit)
        return self.seconds_slope * plan.multiply_adds if plan else np.nan

    def fits(self, height, width, limit):
        """Whether a picture keeps within a limit, in bytes; steps above a line are allowed for."""
        allowed = 1.0 if self.tiled else 1 + max(0.0, self.excess)
        return bool(self.peak(height, width) * allowed <= limit)


def models(done, threads=scaling.THREADS):
    """The `Model` of every variant of a study that it knows well enough, by name."""
    measured, found = scaling.costs(done), {}
    for name, rows in measured[measured.threads == threads].groupby("variant"):
        if "@" in name or "+" in name or ":" in name:
            continue
        try:
            found[name] = fit(rows)
        except scaling.NotEnoughData:
            continue
    if not found:
        raise scaling.NotEnoughData(f"no variant at {scaling.SIZES} sizes on {threads} threads")
    return found


def fit(rows):
    """The `Model` of one variant from its rows of `scaling.costs`."""
    name, threads = rows.variant.iloc[0], int(rows.threads.iloc[0])
    if variants.find(name).schedule != "tiled":
        line, time = scaling.fit(rows), scaling.fit(rows, "first_seconds")
        about = line.fixed, line.slope, rows.file_bytes.median(), line.excess, rows.pixels.max()
        return Model(name, threads, rows.load_peak_bytes.median(), *about, max(0.0, time.fixed), time.slope)
    if rows.pixels.nunique() < 2:
        raise scaling.NotEnoughData(f"{name} at one size alone")
    least = [_leanest(row.height, row.width, threads) for row in rows.itertuples()]
    held, computed = np.array([one.bytes for one in least]), np.array([one.multiply_adds for one in least])
    fixed = float((rows.process_peak_bytes - held).median())
    excess = float((rows.process_peak_bytes / (fixed + held) - 1).max())
    rate = float((rows.first_seconds / computed).median())
    about = fixed, 0.0, rows.file_bytes.median(), excess, rows.pixels.max()
    return Model(name, threads, rows.load_peak_bytes.median(), *about, 0.0, rate)


def _leanest(height, width, threads):
    return plans.leanest(*images.padded_size(height, width), threads)


def costs(done):
    """The rows of `scaling.costs` of a study, those with large pictures included."""
    large = done.folder / LARGE
    frames = [scaling.costs(one) for one in (done, *([study.read(large)] if large.exists() else []))]
    return pd.concat(frames, ignore_index=True)


def held_out(done, threads=scaling.THREADS):
    """Each peak as predicted without it, against what was measured: a row a variant and size.

    A size of the study from its other sizes; a large picture, and a plan for a limit, from the study's own sizes.
    """
    known, own = models(done, threads), scaling.costs(done)
    rows, measured = [], costs(done)
    measured = measured[(measured.threads == threads) & ~measured.variant.str.contains("[+:]")]
    for (variant, height, width), here in measured.groupby(["variant", "height", "width"], sort=False):
        name, _, limit = variant.partition("@")
        if name not in known:
            continue
        others = (own.variant == name) & (own.threads == threads) & ((own.height != height) | (own.width != width))
        try:
            model = known[name] if limit else fit(own[others])
        except scaling.NotEnoughData:
            continue
        peak = here.process_peak_bytes.median()
        predicted = model.peak(height, width, memory.parse_bytes(limit) if limit else None)
        rows.append((variant, height, width, peak, predicted, predicted / peak - 1))
    table = pd.DataFrame(rows, columns=["variant", "height", "width", "measured_bytes", "predicted_bytes", "error"])
    return table.dropna(ignore_index=True)


# --- asked both ways ---


def plan(limit=None, size=None, done=None, threads=scaling.THREADS):
    """What fits, as a table: the largest picture for a `limit` in bytes, the least limit for a `size`, or for both.

    `size`: (height, width). Columns: variant, height, width, peak_bytes (whole process), counted_bytes (what a control
    group counts of it), seconds (the first picture of its size); the fastest first, or with a limit alone the largest.
    An empty table says that nothing fits.
    """
    if limit is None and size is None:
        raise ValueError("give a limit, a size, or both")
    return among(models(done or study.read(), threads), limit, size)


def among(known, limit=None, size=None):
    """The table of `plan` for `models` that are known already: for those who ask more than once."""
    rows = []
    for model in known.values():
        if size is None:
            side = _largest(model, limit)
            shape = (side, side)
        else:
            shape = size
        if limit is not None and not (shape[0] and model.fits(*shape, limit)):
            continue
        peak = model.peak(*shape, limit)
        if np.isnan(peak):
            continue
        rows.append((model.variant, *shape, peak, peak - model.files, model.seconds(*shape, limit)))
    table = pd.DataFrame(rows, columns=["variant", "height", "width", "peak_bytes", "counted_bytes", "seconds"])
    if size is None:
        return table.sort_values(["height", "seconds"], ascending=[False, True], ignore_index=True)
    return table.sort_values("seconds", ignore_index=True)


def _largest(model, limit):
    """The largest side of a square picture, a multiple of 8, that keeps within a limit; 0 where none does.

    From above, side by side: a tiled variant's peak falls where a picture is cut into more strips.
    """
    sides = range(int(images.MAX_PIXELS**0.5) // 8 * 8, 0, -8)
    return next((side for side in sides if model.fits(side, side, limit)), 0)


# --- proof ---


def prove(model, height, width, weights=None):
    """Run a variant under limits a little over and well under what it is predicted to need: a row a case.

    The limit is the kernel's, on a memory control group; where none can be made the rows say `skipped`.
    """
    counted = model.peak(height, width) - model.files
    rows = []
    for case, (factor, expected) in PROOF.items():
        limit = int(counted * factor)
        if guard.ControlGroup.possible():
            one = trial.Trial(model.variant, height, width, model.threads, runs=1, weights=weights)
            status = trial.run(one, limit=limit).status
        else:
            status = "skipped: this process may not make a memory control group"
        rows.append((model.variant, height, width, model.threads, counted, case, limit, expected, status))
    return pd.DataFrame(rows, columns=COLUMNS)


def run(folder, proved=PROVED, weights=None, progress=True):
    """Prove the models of a study at sizes that it did not measure, into `capacity.csv` of its folder.

    What is there is kept. Returns the table, with the columns of `prove`.
    """
    path, known = Path(folder) / FILE, models(study.read(folder))
    table = read(folder) if path.exists() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(table.variant, table.height, table.width, strict=True))
    todo = [case for case in proved if case not in done and case[0] in known]
    for name, height, width in tqdm(todo, desc="proof under a limit", disable=not progress or not todo):
        table = pd.concat([table, prove(known[name], height, width, weights)], ignore_index=True)
        study.write_csv(path, table)
    return table


def read(folder):
    """The proofs in a study's folder."""
    path = Path(folder) / FILE
    if not path.exists():
        raise scaling.NotEnoughData("nothing was proved under a limit")
    return pd.read_csv(path)


def as_text(table):
    """A table of `plan` for a terminal."""
    shown = pd.DataFrame(
        {
            "variant": table.variant,
            "picture": table.height.astype(str) + "x" + table.width.astype(str),
            "peak, MiB": (table.peak_bytes / MIB).map("{:,.0f}".format),
            "counted, MiB": (table.counted_bytes / MIB).map("{:,.0f}".format),
            "seconds": table.seconds.map("{:,.1f}".format),
        }
    )
    return shown.to_string(index=False)
