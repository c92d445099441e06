"""What a server needs: one process that is asked for pictures of many sizes, one after another and several at once.

A trial is a fresh process that loads a variant and answers requests, as many at once as it has threads: each takes the
next one when its last is answered. A session has a thread for each core of the machine, so several sessions have more
threads than there are cores. An answer is right if its bytes are those that the variant gave for that picture where
requests came one at a time.
"""

import gc
import json
import os
import random
import sys
import threading
import time
import zlib
from collections import namedtuple
from contextlib import nullcontext
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np

from udnet import Error
from udnet.system import files, machine, memory
from udnet.trials import trial
from udnet.variants import catalogue, variant

REQUESTS, TRIALS = "serving.csv", "serving-trials.csv"  # a row a request; a row a trial, which is written last
JOB = ["order", "at_once", "way", "variant", "repeat"]
COLUMNS = [
    *(*JOB, "index", "height", "width", "picture"),  # the picture: by its seed, see `reference`
    *("seconds", "resident_bytes", "peak_bytes"),  # after it; the kernel's mark since the process began to load
    *("answer", "status", "error"),  # the answer: a checksum of its bytes
]
TRIAL_COLUMNS = [
    *(*JOB, "threads", "limit_bytes", "pictures_bytes"),  # what pictures and answers take at once, at the most
    *("loaded_bytes", "end_bytes", "settle_seconds", "settled_bytes", "peak_bytes", "peak_is_exact"),
    *("requests", "seconds", "status", "error"),  # requests that came to an end; seconds of all
]
WHOLE = ["answer", "resident_bytes", "loaded_bytes", "end_bytes", "settled_bytes", "peak_bytes", "requests"]
SAID = "said"  # the file in which a worker says what came of each request
LIMIT = 8 * 1024 * memory.MIB  # of a trial
SETTLE_SECONDS = 2

ONE, EACH, LOCK = "one session", "a session each", "one behind a lock"
ORDERS = ("growing", "falling", "mixed")
SAME, SAME_REQUESTS = (192, 256), 16
SIDES, SHAPES = (128, 384), (1, 4 / 3, 3 / 2, 16 / 9, 21 / 9)  # of the shorter side; the longer one over it
ARENAS = ("lever.onnx-as-requested", "lever.onnx-shrinking")
DEPLOYED = ("pytorch", "onnx", "onnx-lean", "onnx-tiled@512MiB")
VARIANTS = (*DEPLOYED[:3], *ARENAS, *DEPLOYED[3:], "onnx-tiled")
AT_ONCE = (1, 2, 4, 8)
GRID = (  # order, at once, way, variant
    *product(ORDERS, [1], [ONE], VARIANTS),
    *product(["same"], [1], [ONE], DEPLOYED),
    *product(["same"], AT_ONCE[1:], [ONE, EACH, LOCK], DEPLOYED),
    *product(["mixed"], [4], [ONE], VARIANTS[:-1]),
)


def uploads(count=20, seed=469):
    """Heights and widths of a visitor's pictures, in the order in which they come."""
    draw, sizes = random.Random(seed), []
    for _ in range(count):
        short = SIDES[0] * (SIDES[1] / SIDES[0]) ** draw.random()
        sides = [round(short), round(short * draw.choice(SHAPES))]
        sizes.append(tuple(draw.sample(sides, 2)))
    return sizes


def requests(order, sizes):
    """What is asked for in turn: height, width and picture of each."""
    if order == "same":
        return [(*SAME, index) for index in range(SAME_REQUESTS)]
    asked = [(*size, index) for index, size in enumerate(sizes)]
    return asked if order == "mixed" else sorted(asked, key=lambda one: one[0] * one[1], reverse=order == "falling")


Served = namedtuple("Served", "requests trials")  # the tables of a study


def run(folder, repeats=3, grid=GRID, sizes=None, weights=None, limit=LIMIT, progress=True):
    """Measure what a folder lacks of a grid, and return the `Served`; what is there is kept.

    `grid`: rows of order, requests at once, way and variant; `sizes`: those of `uploads`; `limit`: bytes of a trial.
    """
    from tqdm import tqdm

    folder, order = Path(folder), random.Random(0)
    jobs = [(*job, repeat) for repeat in range(repeats) for job in order.sample(grid, len(grid))]
    jobs.sort(key=lambda job: (job[-1], job[1] > 1))  # those that have the machine to themselves say what is right
    with files.alone(folder):
        growing = _Growing(folder)
        todo = [job for job in jobs if job not in growing.done]
        for job in tqdm(todo, desc="serving", disable=not progress or not todo):
            growing.add(job, *_measure(job, requests(job[0], sizes or uploads()), weights, limit))
    return read(folder)


def read(folder):
    """The `Served` of a study's folder; seconds and bytes."""
    from udnet.trials import tables

    dtype = dict.fromkeys(WHOLE, "Int64") | {"error": "str"}
    trials = tables.read_table(Path(folder) / TRIALS, TRIAL_COLUMNS, "no server was tried", dtype=dtype)
    served = tables.read_table(Path(folder) / REQUESTS, COLUMNS, dtype=dtype)
    return Served(*(table.fillna({"error": ""}) for table in (served, trials)))


class _Growing:
    """The tables while the trials run."""

    def __init__(self, folder):
        self.folder, self.rows, self.trials, self.answers = folder, [], [], {}
        if (folder / TRIALS).exists():
            requests, trials = (table.to_dict("records") for table in read(folder))
            self.trials = trials
            self.rows = [row for row in requests if _job(row) in self.done]  # a trial may have been stopped half-way
            for row in self.rows:
                self._note(row)

    @property
    def done(self):
        return set(map(_job, self.trials))

    def _note(self, row):
        """The first answer for a picture, while nothing else runs; what any row should have answered, or None."""
        key = tuple(row[name] for name in ("variant", "height", "width", "picture"))
        if row["at_once"] == 1 and row["status"] == "ok":
            self.answers.setdefault(key, row["answer"])
        return self.answers.get(key)

    def add(self, job, rows, own):
        """Take in a trial, and write the tables; that of the trials last, since it says what is done."""
        import pandas as pd

        about = dict(zip(JOB, job, strict=True))
        for row in rows:
            row |= about
            expected = self._note(row)
            if row["status"] == "ok" and row["answer"] != expected:
                alone = "nothing to compare with" if expected is None else "not what the variant answered alone"
                row |= {"status": "wrong", "error": alone}
        for failed in (row for row in rows if row["status"] != "ok" and own["status"] == "ok"):
            own |= {"status": failed["status"], "error": f"request {failed['index']}: {failed['error']}"}
        self.rows += rows
        self.trials.append(about | own)
        for name, columns, made in ((REQUESTS, COLUMNS, self.rows), (TRIALS, TRIAL_COLUMNS, self.trials)):
            table = pd.DataFrame(made, columns=columns)
            whole = dict.fromkeys([name for name in WHOLE if name in columns], "Int64")
            files.write_csv(self.folder / name, table.astype(whole))


def _job(row):
    return tuple(row[name] for name in JOB)


def _measure(job, asked, weights, limit):
    """The rows of a trial's requests, and its own."""
    from udnet.network import prepared
    from udnet.pictures import reference
    from udnet.system import guard

    _, at_once, way, name, _ = job
    chosen, threads = catalogue.find(name), machine.cores()
    if chosen.missing:
        raise Error(f"{name} cannot run here: {chosen.missing}")
    found = prepared.find(weights) if chosen.forms else None
    paths = [os.fspath(prepared.prepared(found, form)) for form in chosen.forms]
    largest = max(height * width * 3 for height, width, _ in asked)
    limit = min(limit, guard.safe_limit())
    with files.temporary_folder(len(asked) * largest) as folder:
        for index, one in enumerate(asked):
            np.save(folder / f"{index}.npy", reference.picture(*one))
        about = {"variant": name, "at_once": at_once, "way": way, "requests": len(asked)}
        about |= {"threads": threads, "files": paths, "folder": str(folder), "settle_seconds": SETTLE_SECONDS}
        ended = trial.work(__spec__.name, about, trial.environment(threads, folder) | chosen.environment, limit)
        said = [json.loads(line) for line in trial.lines(folder / SAID)]
    rows = sorted((one for one in said if "index" in one), key=lambda one: one["index"])
    for row in rows:
        row |= dict(zip(("height", "width", "picture"), asked[row["index"]], strict=True))
    own = {"threads": threads, "limit_bytes": limit, "settle_seconds": SETTLE_SECONDS, "requests": len(rows)}
    own |= {"pictures_bytes": 2 * at_once * largest}
    for line in said:
        own |= line if "index" not in line else {}
    well = "settled_bytes" in own
    return rows, own | {"status": "ok" if well else ended.status, "error": "" if well else ended.error}


# --- the worker's side ---


def main():
    """Answer the requests of the job that the parent describes in the one argument."""
    job = json.loads(sys.argv[1])
    trial.end_with_parent()
    folder, written = Path(job["folder"]), threading.Lock()

    def say(**line):
        with written, open(folder / SAID, "a") as file:
            file.write(json.dumps(line) + "\n")

    with memory.track() as record:
        chosen = catalogue.find(job["variant"])
        for module in chosen.imports:
            __import__(module)
        count = job["at_once"] if job["way"] == EACH else 1
        networks = [chosen.load(job["threads"], *job["files"]) for _ in range(count)]
        say(loaded_bytes=memory.resident())
        alone = threading.Lock() if job["way"] == LOCK else nullcontext()
        following, taken = iter(range(job["requests"])), threading.Lock()

        def serve(network):
            while (index := _next(following, taken)) is not None:
                say(index=index, **_answer(network, folder / f"{index}.npy", alone))

        servers = [threading.Thread(target=serve, args=(one,)) for one in islice(cycle(networks), job["at_once"])]
        start = time.perf_counter()
        for server in servers:
            server.start()
        for server in servers:
            server.join()
        say(seconds=time.perf_counter() - start, end_bytes=memory.resident())
    gc.collect()
    time.sleep(job["settle_seconds"])
    settled = memory.resident()
    say(settled_bytes=settled, peak_bytes=record.peak_bytes, peak_is_exact=record.peak_is_exact)


def _next(following, taken):
    with taken:
        return next(following, None)


def _answer(network, path, alone):
    """What one request came to; it holds its picture and its answer, and nothing of them afterwards."""
    pixels, said = np.load(path), {"status": "ok", "error": ""}
    start = time.perf_counter()
    try:
        with alone:
            answer = variant.enhance(network, pixels)
        said |= {"seconds": time.perf_counter() - start, "answer": zlib.crc32(answer)}
    except Exception as error:
        kind = "oom" if trial.out_of_memory(error) else "error"
        said |= {"status": kind, "error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    pixels = answer = None
    return said | {"resident_bytes": memory.resident(), "peak_bytes": memory.lifetime_peak()}


if __name__ == "__main__":
    main()
