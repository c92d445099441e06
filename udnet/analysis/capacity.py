"""What fits where, from a study's tables: each variant's `Model` fitted, held against what it has not seen, and asked.

A memory control group counts less than the whole process: pages that are mapped from files, such as libraries, it can
drop. So a limit is planned by the whole process's peak, and proved by what the group counts (`experiments.proofs`).
"""

from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from udnet import PARITY_LIMIT, Error, NotMeasured
from udnet.analysis import prediction, scaling
from udnet.analysis.prediction import Model
from udnet.pictures import images
from udnet.system import memory
from udnet.tiled import plans
from udnet.trials import tables
from udnet.variants import catalogue

LARGE = "large"  # the folder, within a study's, of the trials with large pictures
SCRATCH = "scratch"  # that of the trials with a scratch file
RUNTIMES = "runtimes"  # that of the trials of other runtimes


def models(done, threads=scaling.THREADS):
    """The `Model` of every variant of a study that it knows well enough, by name.

    With a scratch file a tiled schedule is the same, but for its plans: its model is that, and the rate of the disk.
    """
    found, rate = _models(_measured(done, threads)), disk(done)
    scratch = [_on_disk(model, rate) for model in found.values() if model.tiled and rate]
    return found | {model.variant: model for model in scratch}


def _on_disk(tiled, rate):
    """The model of a tiled variant with a scratch file, on a disk of so many bytes a second."""
    return replace(tiled, variant=tiled.variant.replace("tiled", "scratch"), disk=rate)


def disk(done):
    """Bytes a second of a scratch file on the machine of a study; 0 where it does not say."""
    folder = done.folder / SCRATCH
    return float((tables.read(folder) if folder.exists() else done).machine.get("disk_bytes_per_second", 0))


def with_scratch(done, threads=scaling.THREADS):
    """The trials with a scratch file and those beside them, in a study's folder: their `costs`, and two `Model`.

    The models, by variant, are those of the trials without a scratch file, and the same with the disk that was
    measured: what they predict for a trial with one, they have not seen. `NotMeasured` where there are none.
    """
    if not (done.folder / SCRATCH).exists():
        raise NotMeasured("no trial had a scratch file")
    beside = costs(tables.read(done.folder / SCRATCH))
    beside = beside[beside.threads == threads]
    tiled = fit(beside[beside.variant == "onnx-tiled"])
    return beside, {model.variant: model for model in (tiled, _on_disk(tiled, disk(done)))}


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
    work, power = rows.pixels, 1
    if catalogue.find(name).schedule != "tiled":
        fits = [(scaling.fit(own.assign(pixels=own.pixels**power)), power) for power in (1, 2)]
        line, power = min(fits, key=lambda one: one[0].off)
        fixed, slope, excess = line.fixed, line.slope, line.excess
    elif own.pixels.nunique() < 2:
        raise NotMeasured(f"{name} at one size alone")
    else:
        sizes = set(zip(rows.height, rows.width, strict=True))
        least = {size: plans.leanest(*images.padded_size(*size), threads) for size in sizes}
        held = np.array([least[size].bytes for size in zip(own.height, own.width, strict=True)])
        fixed, slope = float((own.process_peak_bytes - held).median()), 0.0
        excess = float((own.process_peak_bytes / (fixed + held) - 1).max())
        work = [least[size].multiply_adds for size in zip(rows.height, rows.width, strict=True)]
    seconds = rows.groupby(np.asarray(work, float)).first_seconds.median()
    loading, files = own.load_peak_bytes.median(), own.file_bytes.median()
    about = int(own.pixels.max()), tuple(seconds.index), tuple(seconds / seconds.index)
    return Model(name, threads, loading, fixed, slope, power, files, excess, *about)


def costs(done):
    """The rows of `scaling.costs` of a study, those with large pictures, which the column `large` marks, and those of
    other runtimes whose output is the reference's at every size."""
    frames, large = [scaling.costs(done.trials).assign(large=False)], done.folder / LARGE
    if large.exists():
        frames.append(scaling.costs(tables.read(large).trials).assign(large=True))
    with suppress(NotMeasured):
        others = runtimes(done.folder)
        exact = others.groupby("variant").exact.transform("all") & ~others.variant.isin(done.trials.variant)
        frames.append(others[exact].drop(columns=["difference", "exact"]).assign(large=False))
    return pd.concat(frames, ignore_index=True)


def ran(done):
    """The rows of `costs`, and those of what ran with a scratch file alone, to which no `Model` is fitted."""
    found, folder = costs(done), done.folder / SCRATCH
    if not folder.exists():
        return found
    beside = costs(tables.read(folder))
    return pd.concat([found, beside[~beside.variant.isin(found.variant)]], ignore_index=True)


def runtimes(folder):
    """Costs of other runtimes and of what ran in turns with them, a row a trial, in a study's folder.

    As `scaling.costs` with the columns `difference`, the largest of an output from PyTorch's at that size, and `exact`:
    whether that is within the limit of parity. `NotMeasured` where there are none.
    """
    if not (folder / RUNTIMES).exists():
        raise NotMeasured("no other runtimes were measured")
    done = tables.read(folder / RUNTIMES)
    found, key = scaling.costs(done.trials), ["variant", "height", "width"]
    differences = done.parity.set_index(key).largest_difference.rename("difference")
    found = found.join(differences, on=key)
    return found.assign(exact=found.difference <= PARITY_LIMIT)


def parity(done):
    """The rows of a study's `parity`, those with large pictures, and those of what ran with a scratch file alone."""
    parts = [tables.read(folder).parity for name in (LARGE, SCRATCH) if (folder := done.folder / name).exists()]
    return pd.concat([done.parity, *parts], ignore_index=True).drop_duplicates(["variant", "height", "width"])


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
    (the least limit for that picture), peak_bytes (of the whole process, by the plan for the limit, given or least),
    counted_bytes (what a control group counts of the peak), seconds (the first picture of its size), scratch_bytes,
    or_more (whether it is the largest picture that the study can tell of, and a larger one may fit); the fastest first,
    or with a limit alone the largest. An empty table says that nothing fits.
    """
    if limit is None and size is None:
        raise Error("give a limit, a size, or both")
    limit = None if limit is None else memory.limit_bytes(limit)
    size = images.parse_size(size) if isinstance(size, str) else size
    known = models(done, threads) if done else prediction.read()
    return among({name: model for name, model in known.items() if model.threads == threads}, limit, size)


def among(known, limit=None, size=None):
    """The table of `plan` for `models` that are known already: for those who ask more than once."""
    columns = [field.name for field in fields(prediction.Answer)]
    return pd.DataFrame(prediction.ask(known, limit, size), columns=columns)
