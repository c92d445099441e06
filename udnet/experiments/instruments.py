"""Known answers for the instruments: how far each way of measuring memory is off, and what measuring costs.

Four questions, each with its answer known beforehand:

- `spike`: memory planted for 15 ms, a little after the measurement began: how much of it does each instrument see?
- `floor`: what does a trial's worker hold before it measures anything, beside Python with NumPy and nothing else?
- `parent`: does a trial that is started from a large process read the same as one started from a small one?
- `tracking`: how much longer does a computation take when `memory.track()` stands around it?

The answers go to `instruments.csv` in a study's folder, a row a reading.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from udnet import NotMeasured
from udnet.system import files, machine, memory
from udnet.variants.variant import Variant

COLUMNS = ("question", "instrument", "planted_bytes", "repeat", "pair", "seen_bytes", "seconds")
SPIKE_BYTES = tuple(size * memory.MIB for size in (16, 64, 256, 1024))
SPIKE_SECONDS = 0.015
SAMPLERS = {"memory-profiler, 10 ms": 0.01, "memory-profiler, 100 ms": 0.1}  # the interval in seconds
PARENT_BYTES = (0, 10**9)
PAIRS = 40  # tracked and untracked computations of one process
MATRIX_SIDE = 1024  # a product takes some 40 ms on one core, as an inference at a small size does


def run(folder, repeats=5, progress=True):
    """Answer every question `repeats` times into `instruments.csv` of a folder and return the table.

    What is there already is kept, so an interrupted run goes on.
    """
    import pandas as pd
    from tqdm import tqdm

    folder = Path(folder)
    jobs = [
        (question, planted, repeat)
        for repeat in range(repeats)
        for question, (_, sizes) in QUESTIONS.items()
        for planted in sizes
    ]
    with files.alone(folder):
        rows = read(folder).to_dict("records") if (folder / "instruments.csv").exists() else []
        done = {(row["question"], row["planted_bytes"], row["repeat"]) for row in rows}
        todo = [job for job in jobs if job not in done]
        for question, planted, repeat in tqdm(todo, desc="instruments", disable=not progress or not todo):
            about = {"question": question, "planted_bytes": planted, "repeat": repeat, "pair": 0}
            ask, _ = QUESTIONS[question]
            rows += [about | row for row in ask(planted, repeat)]
            table = pd.DataFrame(rows, columns=COLUMNS).astype({"seen_bytes": "Int64"})
            files.write_csv(folder / "instruments.csv", table)
    return read(folder)


def read(folder):
    """The table of a study's folder: a row a reading, bytes and seconds."""
    from udnet.trials import tables

    path, absent = Path(folder) / "instruments.csv", "the instruments were not tested"
    return tables.read_table(path, COLUMNS, absent, dtype={"seen_bytes": "Int64"})


def tracking_cost(table):
    """How much longer a tracked computation took, relative to an untracked one: median, low and high of its interval.

    The interval is that of the median of the pairs, 95 %, from the ranks of their ratios: no shape is assumed.
    """
    rows = table[table.question == "tracking"]
    if rows.empty:
        raise NotMeasured("tracking was not timed")
    seconds = rows.pivot_table(index=["repeat", "pair"], columns="instrument", values="seconds")
    costs = np.sort(seconds["tracked"] / seconds["untracked"] - 1)
    middle, reach = (len(costs) - 1) / 2, 1.96 * np.sqrt(len(costs)) / 2
    low, high = max(0, int(middle - reach)), min(len(costs) - 1, int(np.ceil(middle + reach)))
    return float(np.median(costs)), float(costs[low]), float(costs[high])


# --- the questions: each takes what is planted and the repeat, and returns its rows ---


def spike(planted, repeat):
    """What each instrument sees of a spike, above the level before it."""
    return [
        {"instrument": name, "seen_bytes": _fresh("_see_spike", name, planted, repeat)}
        for name in ("kernel's peak", *SAMPLERS)
    ]


def _see_spike(instrument, planted, repeat):
    # A sampler begins with the function that it watches: without a delay every spike would fall on the same sample.
    delay = random.Random(f"{planted} {repeat}").uniform(0.02, 0.12)
    if instrument in SAMPLERS:
        from memory_profiler import memory_usage

        samples = memory_usage((_plant_late, (planted, delay)), interval=SAMPLERS[instrument], max_iterations=1)
        return round((max(samples) - samples[0]) * memory.MIB)
    with memory.track() as record:
        _plant_late(planted, delay)
    return record.peak_bytes - record.rss_start_bytes


def _plant_late(size, delay):
    time.sleep(delay)
    memory.plant(size, SPIKE_SECONDS)


def floor(planted, repeat):
    """What a trial's worker holds before it measures anything, and what Python with NumPy alone does."""
    from udnet.trials import trial

    worker = trial.run(trial.Trial(IDLE, 64, 64, machine.cores(), runs=0)).rows[0]["rss_end_bytes"]
    return [
        {"instrument": "a trial's worker", "seen_bytes": worker},
        {"instrument": "Python and NumPy", "seen_bytes": _bare()},
    ]


def _bare():
    """Resident bytes of a Python that has imported NumPy and nothing else: read from outside, so as to add nothing."""
    import psutil

    code = "import numpy, sys; print(); sys.stdin.read()"  # says that it is ready, then waits
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        return psutil.Process(process.pid).memory_info().rss


def parent(planted, repeat):
    """The highest peak of a trial that is started from a process which holds the planted bytes."""
    return _fresh("_trial_of_parent", planted)


def _trial_of_parent(planted):
    from udnet.trials import trial

    held = np.ones(planted, np.uint8)
    result = trial.run(trial.Trial(IDLE, 64, 64, machine.cores()), keep_output=True)
    del held
    rows = [{"instrument": "kernel's peak", "seen_bytes": max(row["peak_bytes"] for row in result.rows)}]
    if sys.platform == "linux":
        rows.append({"instrument": "ru_maxrss", "seen_bytes": int(result.outputs[0].max()) * 1024})
    return rows


def _idle(threads):
    """A network that does nothing; on Linux its output is the worker's own `ru_maxrss`, in KiB."""
    if sys.platform != "linux":
        return lambda x: x
    import resource

    return lambda x: np.full_like(x, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


IDLE = f"{__file__}:_IDLE"
_IDLE = Variant("idle", "none", "nothing at all", _idle)


def tracking(planted, repeat):
    """Seconds of a computation with and without `memory.track()` around it, in turn, in one process.

    `tracked` is what a trial reports; the readings at both ends stand outside it, and in the third row inside.
    """
    return _fresh("_time_tracking", PAIRS)


def _time_tracking(pairs):
    left, right = np.random.default_rng(0).random((2, MATRIX_SIDE, MATRIX_SIDE), np.float32)

    def untracked():
        start = time.perf_counter()
        left @ right
        return {"untracked": time.perf_counter() - start}

    def tracked():
        start = time.perf_counter()
        with memory.track() as record:
            left @ right
        return {"tracked": record.seconds, "tracked, with its readings": time.perf_counter() - start}

    untracked()  # the first product also starts the library
    rows = []
    for pair in range(pairs):
        for one in (tracked, untracked) if pair % 2 else (untracked, tracked):
            rows += [{"instrument": name, "pair": pair, "seconds": seconds} for name, seconds in one().items()]
    return rows


QUESTIONS = {
    "spike": (spike, SPIKE_BYTES),
    "floor": (floor, (0,)),
    "parent": (parent, PARENT_BYTES),
    "tracking": (tracking, (0,)),
}


def _fresh(function, *arguments):
    """What a function of this module returns in a fresh process, on one thread: the other cores may be busy."""
    command = [sys.executable, "-m", "udnet.experiments.instruments", json.dumps([function, *arguments])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    folder = files.REPO
    return json.loads(subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    name, *given = json.loads(sys.argv[1])
    print(json.dumps(globals()[name](*given)))
