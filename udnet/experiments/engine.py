"""What the engine of a cluster costs: pictures a minute by workers of this machine, beside one process.

A fresh process enhances a folder of drawn pictures, in the same memory in all: by itself on two threads, by one worker
with two, by two workers with one each; in two amounts of memory, since what an engine takes a plan has not: it then
cuts finer. The same with a network that gives back what it gets says what the engine takes
for a picture beside the network, and how much of that the one process computes that sends and writes.
"""

import json
import os
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path

from udnet.experiments import jobs
from udnet.pictures import folders, photographs, scenes
from udnet.system import files, memory
from udnet.trials import tables
from udnet.variants import enhancer
from udnet.variants.variant import Variant

FILE = "engine.csv"
JOB = ["variant", "memory_bytes", "workers", "threads", "repeat"]  # no workers: one process by itself
COLUMNS = [*JOB, "pictures", "seconds", "picture_bytes", "own_seconds", "peak_bytes"]
WAYS = ((0, 2), (1, 2), (2, 1))  # workers, threads of each
SIZE, PICTURES = (1080, 1920), 8
LITTLE, MUCH = 1024 * memory.MIB, 2048 * memory.MIB  # memory, in all
TILED, NOTHING = "onnx-tiled", "nothing"
NETWORKS = ((TILED, LITTLE), (TILED, MUCH), (NOTHING, MUCH))


class Nothing:
    """A network that gives back the picture that it gets."""

    def enhance(self, pixels, beside=0, progress=None):
        """The same picture."""
        return pixels


NOTHING_AT_ALL = Variant(NOTHING, "onnx", "gives back what it gets", lambda threads: Nothing())


def run(folder, repeats=3, size=SIZE, pictures=PICTURES, progress=True):
    """Measure every way into `engine.csv` of a folder, and return `read` of it; what is there is kept."""
    with files.temporary_folder() as drawn:
        for seed in range(pictures):
            photographs.write(photographs.Picture(scenes.draw(seed, *size).picture), drawn / "in" / f"{seed:03}.jpg")
        todo = [(*network, *way, repeat) for repeat, way, network in product(range(repeats), WAYS, NETWORKS)]
        jobs.run(Path(folder) / FILE, COLUMNS, todo, partial(_job, drawn), progress)
    return read(folder)


def read(folder):
    """The table of a folder, a row a way and repeat: the columns of the file, and `a_minute`, pictures.

    `memory_bytes`: the limit of all processes together; `seconds`: of a picture, on average, once every worker has had
    one; `picture_bytes`: of its file and its answer's; `own_seconds`: that the one process computed for a picture;
    `peak_bytes`: of all processes, each at its own peak.
    """
    table = tables.read_table(Path(folder) / FILE, COLUMNS, "the engine of a cluster was not measured")
    return table.assign(a_minute=60 / table.seconds)


def _job(drawn, *about):
    return jobs.fresh(__spec__.name, str(drawn / "in"), *about)


# --- in a process of its own ---


def measure(source, variant, limit, workers, threads, repeat):
    """The row of one way."""
    name = variant if variant == TILED else f"{__file__}:NOTHING_AT_ALL"
    with tempfile.TemporaryDirectory() as out:
        out, ends, peaks, begun = Path(out), [], [], time.process_time()

        def timed(each):
            def pairs_of(pairs):
                for outcome in each(pairs):
                    ends.append(time.monotonic())
                    yield outcome

            return pairs_of

        if workers:
            peaks = _by_workers(source, out, name, limit, workers, threads, timed)
        else:
            loaded = enhancer.load(name, "default", threads, *([limit] if variant == TILED else []))
            folders.enhance_path(timed(folders.one_by_one(loaded)), source, out, ("", ""), progress=False)
        own = time.process_time() - begun
        there = [path for folder in (Path(source), out) for path in folder.glob("*.jpg")]
        count, first = len(ends), max(1, workers)
        return [
            {
                "pictures": count,
                "seconds": (ends[-1] - ends[first - 1]) / (count - first),
                "picture_bytes": sum(path.stat().st_size for path in there) // count,
                "own_seconds": own / count,
                "peak_bytes": memory.lifetime_peak() + sum(peaks),
            }
        ]


def _by_workers(source, out, name, limit, count, threads, timed):
    from distributed import LocalCluster

    from udnet.cluster import pictures
    from udnet.cluster import workers as cluster

    about = {"threads_per_worker": threads, "memory_limit": None, "dashboard_address": None}
    with LocalCluster(n_workers=count, **about) as started, cluster.connected(started.scheduler_address) as client:
        each = cluster.share(limit, count) if name == TILED else None
        on = pictures.on(client, pictures.Enhancing(name, "default", each))
        folders.enhance_path(timed(on), source, out, ("", ""), progress=False)
        return list(client.run(memory.lifetime_peak).values())


if __name__ == "__main__":
    said = os.dup(1)
    os.dup2(2, 1)
    os.write(said, json.dumps(measure(*json.loads(sys.argv[1]))).encode())
