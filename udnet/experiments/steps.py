"""Where the time of the tiled schedule goes: the seconds of its threads by step, of whole pictures.

A fresh process a repeat and variant enhances one picture. A step's seconds are its own, without those of the steps that
it asks for rows. Operations are those of the direct method, whatever a kernel computes; the yardstick is a product of
matrices in NumPy on one thread, in the same process.
"""

import json
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from unittest import mock

import udnet
from udnet.experiments import convolutions, jobs
from udnet.pictures import reference
from udnet.tiled import kernels, plans, schedule, scratch, streams
from udnet.trials import tables

FILE = "steps.csv"
JOB = ["variant", "height", "width", "repeat"]
COLUMNS = [*JOB, "step", "calls", "seconds", "operations"]
VARIANTS = "onnx-tiled", "onnx-tiled@512MiB", "onnx-scratch"
SIZE = 1088, 1920
YARDSTICK = convolutions.YARDSTICK
CALLS, WAITING, REST = "calls of convolutions", "threads without work", "everything else"
STEPS = {  # by the class in `streams` or `scratch` whose work it is
    "Convolution": "putting blocks together",
    "Pool": "pooling",
    "Upsample": "upsampling",
    "Moments": "sums over the image",
    "WindowSums": "sums over the image",
    "Tap": "rows that wait",
    "Map": "maps in memory",
    "ScratchMap": "maps on the scratch file",
}
WARM = 256  # the side of a picture that is enhanced before, for what happens once


def run(folder, repeats=3, variants=VARIANTS, size=SIZE, progress=True):
    """Measure every variant into `steps.csv` of a folder, and return `read` of it; what is there is kept."""
    todo = [(variant, *size, repeat) for repeat, variant in product(range(repeats), variants)]
    jobs.run(Path(folder) / FILE, COLUMNS, todo, partial(jobs.fresh, __spec__.name), progress)
    return read(folder)


def read(folder):
    """The table of a study's folder, a row a step of a picture: the columns of the file, and `share`, `rate`.

    `share`: of the time of all threads; `rate`: operations a second of one thread, over the yardstick's.
    """
    table = tables.read_table(Path(folder) / FILE, COLUMNS, "no picture was enhanced step by step")
    is_yardstick = table.step == YARDSTICK
    yardstick = table[is_yardstick].set_index(JOB)
    table = table[~is_yardstick].reset_index(drop=True)
    table["share"] = table.seconds / table.groupby(JOB).seconds.transform("sum")
    beside = table.join((yardstick.operations / yardstick.seconds).rename("yardstick"), on=JOB)
    table["rate"] = table.operations / table.seconds / beside.yardstick
    return table


def measure(variant, height, width, repeat):
    """The rows of one picture, and of the yardstick, which is timed before it."""
    pixels, clock = reference.picture(height, width, repeat), Clock()
    yardstick = convolutions.product_of_matrices()
    steps = {YARDSTICK: Step(1, min(_seconds(yardstick) for _ in range(5)), 2 * convolutions.MATRIX_SIDE**3)}
    with clock.watching():
        enhancer = udnet.load(variant)
        enhancer(pixels[:WARM, :WARM])  # what happens once
        clock.clear()
        seconds = enhancer.network.threads * _seconds(partial(enhancer, pixels))
    seen = clock.steps()
    steps |= seen | {WAITING: Step(0, seconds - sum(step.seconds for step in seen.values()))}
    return [{"step": name} | vars(step) for name, step in steps.items()]


def _seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass
class Step:
    """What a step took: its calls, seconds without those of other steps within it, operations."""

    calls: int = 0
    seconds: float = 0.0
    operations: int = 0

    def add(self, other):
        """Take in another's."""
        self.calls, self.seconds = self.calls + other.calls, self.seconds + other.seconds
        self.operations += other.operations


class Clock:
    """The steps of the tiled schedule, by thread, while `watching`."""

    def __init__(self):
        self.clear()

    def clear(self):
        """Forget what was timed."""
        self.own, self.by_thread = threading.local(), []

    @contextmanager
    def step(self, name, operations=0):
        """Time what is done within."""
        if not hasattr(self.own, "steps"):
            self.own.steps, self.own.stack = defaultdict(Step), [(None, Step())]
            self.by_thread.append(self.own.steps)
        around, within = self.own.stack[-1]
        if around == name:
            yield
            return
        step, others = self.own.steps[name], Step()
        self.own.stack.append((name, others))
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            self.own.stack.pop()
            within.seconds += taken
            step.add(Step(1, taken - others.seconds, operations))

    def steps(self):
        """The sums over the threads."""
        sums = defaultdict(Step)
        for name, step in (item for steps in self.by_thread for item in steps.items()):
            sums[name].add(step)
        return sums

    @contextmanager
    def watching(self):
        """Have the schedule's steps timed."""
        makers = *kernels.RUNTIMES.values(), kernels.WinogradKernels
        passes = "encode", "decode", "normalise", "refine", "finish"
        instead = {(schedule, "stream"): self._stream} | {(maker, "make"): self._make for maker in makers}
        instead |= {(streams.Tap, name): partial(self._timed, STEPS["Tap"]) for name in ("_note", "take")}
        instead |= {(schedule._Strip, name): partial(self._timed, REST) for name in passes}
        instead |= {(schedule._Picture, "deepen"): partial(self._timed, REST)}
        instead |= {(kind, "read"): self._read for kind in (streams.Map, scratch.ScratchMap)}
        with ExitStack() as stack:
            for (owner, name), watch in instead.items():
                stack.enter_context(mock.patch.object(owner, name, watch(getattr(owner, name))))
            yield

    def _timed(self, name, run):
        def timed(*arguments):
            with self.step(name):
                return run(*arguments)

        return timed

    def _stream(self, stream):
        def watched(step, source):
            owner = getattr(step, "__qualname__", type(step).__name__).partition(".")[0]
            return stream(self._timed(STEPS[owner], step), source)

        return watched

    def _read(self, read):
        def watched(kept, *arguments):
            rows = read(kept, *arguments)
            following = self._timed(STEPS[type(kept).__name__], lambda: next(rows, None))
            while (piece := following()) is not None:
                yield piece

        return watched

    def _make(self, make):
        def watched(new, *arguments):
            kernel = make(new, *arguments)

            def run(out, block, *rows):
                with self.step(CALLS, 2 * plans.CONV * kernel.channels * out[0].size):
                    return kernel.run(out, block, *rows)

            return replace(kernel, run=run)

        return watched


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
