"""What the audit of the original report measures beside a study: its protocol, loading step by step, allocators.

Everything goes to the folder `audit` within the study that it belongs to: `trials.csv` of the ladder and of the
allocators, `protocol.csv` of the report's own steps, `limit.csv` of the machine's multiply-adds a second.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from tqdm import tqdm

from udnet.analysis import scaling
from udnet.experiments import protocol
from udnet.system import files
from udnet.trials import study, tables, trial
from udnet.trials.grid import Grid, interleaved
from udnet.variants import allocators, ladder

FOLDER = "audit"  # within the folder of the study that it belongs to
BASES = ("pytorch-published", "pytorch", "onnx")  # what is run under every allocator
LADDER_SIDE, ALLOCATOR_SIDE = 64, 256
LIMIT = ["threads", "repeat", "per_second"]
MATRIX_SIDE, PRODUCTS = 2048, 5


@dataclass
class Audit:
    """The tables of an audit."""

    ladder: pd.DataFrame  # as `scaling.costs`: the rungs
    allocators: pd.DataFrame  # as `scaling.costs`, with the columns `base` and `allocator`
    skipped: dict  # variant to the reason why it was not run
    protocol: pd.DataFrame
    limit: pd.DataFrame


def run(folder, repeats=5, every_allocator=True, weights=None, progress=True):
    """Measure all of it, as often as said, into `folder`/audit and return the `Audit`; what is there is kept."""
    out = folder / FOLDER
    names = allocators.NAMES if every_allocator else ()
    rungs = dict.fromkeys(rung.variant for rung in ladder.RUNGS)
    under = [name for base in BASES for name in (base, *(f"{base}+{allocator}" for allocator in names))]
    trials = [
        trial.Trial(variant, side, side, scaling.THREADS, repeat, 1, weights)
        for repeat, (side, variants) in product(range(repeats), ((LADDER_SIDE, rungs), (ALLOCATOR_SIDE, under)))
        for variant in variants
    ]
    study.run(Grid(FOLDER, interleaved(trials, seed=0), seed=0), out, weights, progress)
    protocol.run(out, repeats, ("", *names), weights, progress)
    _measure_limit(out, repeats, progress)
    return read(folder)


def read(folder):
    """The `Audit` of a study's folder, `NotMeasured` where there is none."""
    out = folder / FOLDER
    limit = tables.read_table(out / "limit.csv", LIMIT, "the report was not audited")
    done = tables.read(out)
    costs = scaling.costs(done.trials)
    under = costs[costs.side == ALLOCATOR_SIDE]
    parts = under.variant.str.partition("+")
    skipped = done.trials[done.trials.status.eq("skipped")].drop_duplicates("variant")
    return Audit(
        costs[costs.side == LADDER_SIDE],
        under.assign(base=parts[0], allocator=parts[2]),
        dict(zip(skipped.variant, skipped.error, strict=True)),
        protocol.read(out),
        limit,
    )


# --- the machine's limit ---


def _measure_limit(out, repeats, progress):
    """How many multiply-adds a second a large product of matrices reaches: columns threads, repeat, per_second."""
    path = out / "limit.csv"
    rows = tables.read_table(path, LIMIT).to_dict("records") if path.exists() else []
    done = {(row["threads"], row["repeat"]) for row in rows}
    jobs = [job for job in product(range(1, scaling.THREADS + 1), range(repeats)) if job not in done]
    for threads, repeat in tqdm(jobs, desc="multiply-adds", disable=not progress or not jobs):
        command = [sys.executable, "-m", "udnet.experiments.audit", str(threads)]
        environment = os.environ | {"PYTHONPATH": files.python_path(), "OMP_NUM_THREADS": str(threads)}
        said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
        rows.append({"threads": threads, "repeat": repeat, "per_second": json.loads(said)})
        files.write_text(path, pd.DataFrame(rows).to_csv(index=False))


def _multiply_adds(threads):
    """The most multiply-adds a second of several products, by PyTorch."""
    import time

    import torch

    torch.set_num_threads(threads)
    left, right = torch.from_numpy(np.random.default_rng(0).random((2, MATRIX_SIDE, MATRIX_SIDE), np.float32))
    best = 0.0
    for _ in range(PRODUCTS + 1):
        start = time.perf_counter()
        left @ right
        best = max(best, MATRIX_SIDE**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    print(json.dumps(_multiply_adds(int(sys.argv[1]))))
