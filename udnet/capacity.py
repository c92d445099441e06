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
import psutil
from tqdm import tqdm

from . import guard, images, kernels, memory, plans, scaling, study, trial, variants
from .memory import MIB

PROOF = {"10% over": (1.10, "ok"), "25% under": (0.75, "oom")}  # of what is predicted to be counted: what should happen
PROVED = (  # sizes that no grid has
    ("onnx-lean", 896, 896),
    ("pytorch-lean", 896, 896),
    ("pytorch-tiled", 1440, 1440),
    ("onnx-tiled", 1440, 2560),
    ("onnx-tiled@512MiB", 1440, 2560),
)
FILE = "capacity.csv"
LARGE = "large"  # the folder, within a study's, of the trials with large pictures
BESIDE = 10 * MIB  # what photographs being read and written take beside a trial's process (measured: 8 to 9)
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
    work: tuple  # of the sizes that were timed: pixels, or a plan's multiply-adds where the schedule is tiled
    rates: tuple  # seconds for each of those

    @property
    def tiled(self):
        """Whether it is a plan that decides."""
        return variants.find(self.variant).schedule == "tiled"

    @property
    def floor(self):
        """What a tiled schedule plans on top of, in bytes, as it takes it to be itself (see `tiling`)."""
        return self.loading + kernels.RUNTIMES[variants.find(self.variant).runtime].START

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
    return measured[(measured.threads == threads) & ~measured.variant.str.contains("[+:]")]


def _models(measured):
    found = {}
    for name, rows in measured[~measured.variant.str.contains("@")].groupby("variant"):
        try:
            found[name] = fit(rows)
        except scaling.NotEnoughData:
            continue
    if not found:
        raise scaling.NotEnoughData(f"no variant at {scaling.SIZES} sizes")
    return found


def fit(rows):
    """The `Model` of one variant from its rows of `costs`: its peak by the study's own, its time by all of them."""
    name, threads, own = rows.variant.iloc[0], int(rows.threads.iloc[0]), rows[~rows.large]
    work = rows.pixels
    if variants.find(name).schedule != "tiled":
        line = scaling.fit(own)
        fixed, slope, excess = line.fixed, line.slope, line.excess
    elif own.pixels.nunique() < 2:
        raise scaling.NotEnoughData(f"{name} at one size alone")
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
    frames, large = [scaling.costs(done).assign(large=False)], done.folder / LARGE
    if large.exists():
        frames.append(scaling.costs(study.read(large)).assign(large=True))
    return pd.concat(frames, ignore_index=True)


def parity(done):
    """The rows of a study's `parity`, and those with large pictures."""
    large = done.folder / LARGE
    return pd.concat([done.parity, *([study.read(large).parity] if large.exists() else [])], ignore_index=True)


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
        except scaling.NotEnoughData:
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
    """What fits, as a table: the largest picture for a `limit` in bytes, the least limit for a `size`, or for both.

    `size`: (height, width). Columns: variant, height, width, limit_bytes (the least limit for that picture), peak_bytes
    (of the whole process, by the plan for the limit that is given), counted_bytes (what a control group counts of the
    peak), seconds (the first picture of its size); the fastest first, or with a limit alone the largest. An empty table
    says that nothing fits.
    """
    if limit is None and size is None:
        raise ValueError("give a limit, a size, or both")
    return among(models(done or study.read(), threads), limit, size)


def among(known, limit=None, size=None):
    """The table of `plan` for `models` that are known already: for those who ask more than once."""
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


# --- proof ---


def prove(model, variant, height, width, weights=None):
    """Run a variant under limits a little over and well under what its model says it needs: a row a case.

    `variant`: the model's own, or of a tiled one the plan for a limit, NAME@512MiB. The limit that it is run under
    is the kernel's, on a memory control group; where none can be made the rows say `skipped`.
    """
    size = variant.partition("@")[2]
    counted = model.peak(height, width, memory.parse_bytes(size) if size else None) - model.files
    rows = []
    for case, (factor, expected) in PROOF.items():
        limit = int(counted * factor)
        if guard.ControlGroup.possible():
            one = trial.Trial(variant, height, width, model.threads, runs=1, weights=weights)
            status = trial.run(one, limit=limit).status
        else:
            status = "skipped: this process may not make a memory control group"
        rows.append((variant, height, width, model.threads, counted, case, limit, expected, status))
    return pd.DataFrame(rows, columns=COLUMNS)


def run(folder, proved=PROVED, weights=None, progress=True):
    """Prove the models of a study at sizes that it did not measure, into `capacity.csv` of its folder.

    What is there is kept. Returns the table, with the columns of `prove`.
    """
    path, known = Path(folder) / FILE, models(study.read(folder))
    table = read(folder) if path.exists() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(table.variant, table.height, table.width, strict=True))
    todo = [case for case in proved if case not in done and case[0].partition("@")[0] in known]
    for name, height, width in tqdm(todo, desc="proof under a limit", disable=not progress or not todo):
        proofs = prove(known[name.partition("@")[0]], name, height, width, weights)
        table = pd.concat([table, proofs], ignore_index=True)
        study.write_csv(path, table)
    return table


def read(folder):
    """The proofs in a study's folder."""
    path = Path(folder) / FILE
    if not path.exists():
        raise scaling.NotEnoughData("nothing was proved under a limit")
    return pd.read_csv(path)


def as_text(table):
    """A table of `plan` for a terminal; limits beyond this machine's memory are marked."""
    installed = psutil.virtual_memory().total
    over = (table.limit_bytes > installed).sort_values(kind="stable")
    table = table.loc[over.index]
    columns = {
        "variant": table.variant,
        "picture": table.height.astype(str) + "x" + table.width.astype(str),
        "limit MiB": (table.limit_bytes / MIB).map("{:,.0f}".format) + np.where(over, "*", ""),
        "peak MiB": (table.peak_bytes / MIB).map("{:,.0f}".format),
        "counted MiB": (table.counted_bytes / MIB).map("{:,.0f}".format),
        "seconds": table.seconds.map("{:,.1f}".format),
    }
    lines = [pd.DataFrame(columns).to_string(index=False, col_space=12)]
    lines += [f"* more than this machine's {memory.mib(installed)}"] if over.any() else []
    lines.append(
        "limit: the least that is enough; peak: the whole process's, with what is given; counted: of it, by a control\n"
        "group, which leaves mapped files out; seconds: the first picture's, predicted for the machine of the study"
    )
    return "\n".join(lines)
