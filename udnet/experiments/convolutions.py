"""How fast the convolution of the tiled schedule could be: its own kernel beside `other_kernels`, on blocks as it has.

A fresh process a repeat and block runs all kernels in turn on one thread. Seconds are the processor's, so that waiting
for a core that others use is not counted. Speed is in the operations of the direct method, whatever a kernel computes;
the yardstick is a product of matrices in NumPy. A kernel that cannot be run here has a row with the reason.
"""

import json
import random
import sys
import time
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np

from udnet import NotMeasured
from udnet.analysis import scaling
from udnet.experiments import jobs
from udnet.experiments.other_kernels import KERNELS, OWN, Task
from udnet.network.model import WIDTH
from udnet.trials import tables

FILE = "convolutions.csv"
YARDSTICK = "product of matrices"
JOB = ["channels", "rows", "columns", "repeat"]
QUARTILES = {"low_seconds": 0.25, "seconds": 0.5, "high_seconds": 0.75}  # of the calls of a process
COLUMNS = [*JOB, "kernel", "library", *QUARTILES, "operations", "largest_error", "rms_error", "skipped"]
BLOCKS = tuple(product((WIDTH, 2 * WIDTH), (8, 16), (480,)))  # channels, rows and columns of the output
MATRIX_SIDE = 2048


def run(folder, repeats=3, blocks=BLOCKS, calls=25, progress=True):
    """Measure every kernel on every block into `convolutions.csv` of a folder, and return it; what is there is kept."""
    todo = [(*block, repeat) for repeat, block in product(range(repeats), blocks)]
    jobs.run(Path(folder) / FILE, COLUMNS, todo, lambda *job: jobs.fresh(__spec__.name, *job, calls), progress)
    return read(folder)


def read(folder):
    """The table of a study's folder, a row a kernel, block and repeat: the columns of the file, and `rate`, `share`.

    `rate`: operations a second; `share`: of the yardstick's rate in the same process.
    """
    table = tables.read_table(Path(folder) / FILE, COLUMNS, "no other kernels were tried")
    table["rate"] = table.operations / table.seconds
    yardstick = table[table.kernel == YARDSTICK].set_index(JOB).rate.rename("yardstick")
    table["share"] = table.rate / table.join(yardstick, on=JOB).yardstick
    return table


def compared(table):
    """By block and kernel, against the schedule's own in the same process: `times` as fast, and `share` of the
    yardstick, each an `Estimate` over the repeats; `error`, the largest over its own; its `rate` and seconds."""
    table = table[table.seconds.notna() & table.kernel.ne(YARDSTICK)]
    own = table[table.kernel == OWN].set_index(JOB)[["rate", "largest_error"]]
    table = table.join(own.add_suffix("_own"), on=JOB)
    table["times"], table["error"] = table.rate / table.rate_own, table.largest_error / table.largest_error_own
    groups = table.groupby([*JOB[:3], "kernel"], sort=False)
    over = dict.fromkeys((*QUARTILES, "rate", "error"), "median")
    return groups.agg(over | dict.fromkeys(("times", "share"), scaling.typical)).reset_index()


def measure(channels, rows, columns, repeat, calls):
    """Every kernel on one block, in another order each time; its rows."""
    task = Task(channels, rows, columns)
    found = {YARDSTICK: {"library": _version("numpy"), "operations": 2 * MATRIX_SIDE**3}}
    ready = {YARDSTICK: product_of_matrices()}
    for name, (library, make) in KERNELS.items():
        try:
            kernel = make(task)
            error = kernel.output(kernel.run()) - task.expected(kernel.block)
            found[name] = {"library": _version(library), "operations": task.operations(kernel.depth)}
            found[name] |= {"largest_error": float(np.abs(error).max()), "rms_error": float(np.sqrt((error**2).mean()))}
            ready[name] = kernel.run
        except (ImportError, NotMeasured) as reason:
            found[name] = {"skipped": str(reason)}
    seconds, order = {name: [] for name in ready}, random.Random(repeat)
    for _ in range(calls):
        for name in order.sample(list(ready), len(ready)):
            seconds[name].append(_time(ready[name]))
    for name, its in seconds.items():
        found[name] |= {edge: float(np.quantile(its, share)) for edge, share in QUARTILES.items()}
    return [{"kernel": name} | row for name, row in found.items()]


def product_of_matrices():
    """The yardstick, to be run: `2 * MATRIX_SIDE**3` operations."""
    left, right = np.random.default_rng(0).random((2, MATRIX_SIDE, MATRIX_SIDE), np.float32)
    return lambda: left @ right


def _time(run):
    run()  # what it reads is in the caches, as in the schedule, whose rows have just been written
    start = time.process_time()
    run()
    return time.process_time() - start


def _version(library):
    return f"{library} {metadata.version(library)}"


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
