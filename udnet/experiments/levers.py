"""The levers of whole-image runs, measured: what each saves in memory, and what it costs in time and in quality."""

from itertools import product
from typing import NamedTuple

import pandas as pd

from udnet import PARITY_LIMIT
from udnet.analysis import scaling
from udnet.network import prepared
from udnet.pictures import images, metrics
from udnet.system import files
from udnet.trials import study, tables, trial
from udnet.trials.grid import Grid, interleaved
from udnet.variants.levers import INEXACT, LEVERS, TILED

FOLDER = "levers"  # within the folder of the study that they belong to
PSNR = ["variant", "weights", "height", "width", "psnr"]
SIZES = {(512, 512): 3, (1080, 1920): 1}  # repeats by height and width: a large picture takes its time


class Measured(NamedTuple):
    """The levers of a study."""

    costs: pd.DataFrame  # as `scaling.costs`, with the columns `exact` and `psnr` (dB; nan where exact)
    saved: pd.DataFrame  # a row a lever and size, see `saved`


def measure(folder, sizes=SIZES, weights=None, progress=True):
    """Measure every lever and what it is against into `folder`/levers and return the `Measured`; what is there is kept.

    `sizes`: repeats by (height, width). An inexact one's cost is measured too; its PSNR is in `psnr.csv`.
    """
    names = dict.fromkeys([*(name for one in LEVERS for name in (one.against, one.variant)), *TILED])
    trials = [
        trial.Trial(name, *size, scaling.THREADS, repeat, runs=1, weights=weights)
        for size, repeats in sizes.items()
        for repeat, name in product(range(repeats), names)
    ]
    grid = Grid(FOLDER, interleaved(trials, seed=0), seed=0, parity_limit=float("inf"))
    study.run(grid, folder / FOLDER, weights, progress)
    if not (folder / FOLDER / "psnr.csv").exists():
        files.write_csv(folder / FOLDER / "psnr.csv", _psnr(next(iter(sizes)), weights))
    return read(folder)


def _psnr(size, weights=None):
    """PSNR of the inexact levers' 8-bit output against float32's on the trials' picture; a tidy frame."""

    def pixels(name):
        one = trial.Trial(name, *size, scaling.THREADS, runs=0, weights=weights)
        outputs = trial.run(one, keep_output=True).outputs
        return images.to_pixels(outputs[0], *size) if outputs else None

    expected, rows = pixels(study.REFERENCE), []
    about = {"weights": prepared.find(weights).name, "height": size[0], "width": size[1]}
    for name in (one.variant for one in LEVERS if one.change in INEXACT.values()):
        if (enhanced := pixels(name)) is not None:
            rows.append({"variant": name, **about, "psnr": metrics.psnr(enhanced, expected)})
    return pd.DataFrame(rows, columns=PSNR)


def psnr(folder):
    """The PSNR of the inexact levers' outputs in a study's folder: variant, weights, height, width, psnr (dB)."""
    return tables.read_table(folder / FOLDER / "psnr.csv", PSNR, "the levers were not measured")


def read(folder):
    """The `Measured` of a study's folder; `NotMeasured` where there is none."""
    psnrs = psnr(folder).set_index("variant").psnr
    done = tables.read(folder / FOLDER)
    differences = done.parity.set_index("variant").largest_difference
    costs = scaling.costs(done.trials)
    costs["exact"] = costs.variant.map(differences) <= PARITY_LIMIT
    costs["psnr"] = costs.variant.map(psnrs)
    return Measured(costs, saved(costs))


def saved(costs):
    """What each lever saves at each size: runtime, change, place, variant, against, size, pixels; `saved`, bytes of
    peak memory, and `times`, how many times as long a later picture takes, each an `Estimate`; `exact`, `psnr`."""
    here = dict(list(costs.groupby(["variant", "size"], sort=False)))
    sizes, rows = costs.sort_values("pixels")["size"].unique(), []
    for lever, size in product(LEVERS, sizes):
        if (lever.variant, size) not in here or (lever.against, size) not in here:
            continue
        own, other = here[lever.variant, size], here[lever.against, size]
        first = own.iloc[0]
        rows.append(
            {
                "runtime": first.runtime,
                **{name: getattr(lever, name) for name in ("change", "place", "variant", "against")},
                "size": size,
                "pixels": first.pixels,
                "saved": scaling.difference(other.peak_bytes, own.peak_bytes),
                "times": scaling.quotient(own.seconds, other.seconds),
                "exact": first.exact,
                "psnr": first.psnr,
            }
        )
    return pd.DataFrame(rows)
