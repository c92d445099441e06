"""One measurement of one variant at one size, in a fresh process.

`run` starts `python -m udnet.trials.trial` with a job and turns what it reports into rows of `trials.csv`. The worker
is this same module: it imports little more than NumPy before it measures, reports each phase as it ends, so that a
trial that is killed still tells how far it came, and never samples itself. A timeline is drawn from outside, by
memory-profiler in the parent, in a trial of its own.
"""

import functools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from udnet import Error
from udnet.pictures import images
from udnet.system import files, memory
from udnet.variants import catalogue

PHASES = ("interpreter", "import", "load", "first", "steady")
STEADY_RUNS = 3
TIMEOUT_SECONDS = 900
SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Trial:
    """What to measure: one variant at one size, once."""

    variant: str
    height: int  # pixels
    width: int
    threads: int
    repeat: int = 0
    runs: int = STEADY_RUNS  # inferences of the steady phase, after the first
    weights: str | None = None  # as `prepared.find` takes it
    model: str | None = None  # an ONNX file that is run in UDnet's place
    inputs: tuple[str, ...] = ()  # of further inputs of the model: NAME=SHAPE
    timeline: bool = False  # sampled by memory-profiler; its times are not to be used

    @property
    def name(self):
        """What tells this trial from the others of its study."""
        variant = Path(self.variant).name if ":" in self.variant else self.variant
        parts = [variant, f"{self.height}x{self.width}", f"t{self.threads}", f"r{self.repeat}"]
        parts += [Path(file).name for file in (self.weights, self.model) if file]
        return "/".join([*parts, "timeline"] if self.timeline else parts)


@dataclass
class Result:
    """What a trial said: a row a phase, the timeline's samples and stages where it was asked for."""

    rows: list[dict]
    samples: list[tuple[float, int]] = field(default_factory=list)  # seconds since the start, resident bytes
    stages: list[dict] = field(default_factory=list)  # name, start and end in seconds since the start, peak in bytes
    outputs: list[np.ndarray] = field(default_factory=list)  # of the network for the picture, where they were kept

    @property
    def status(self):
        """`ok`, or what ended the trial: `oom`, `timeout`, `error`, `skipped`."""
        return self.rows[-1]["status"]

    @property
    def error(self):
        """One line about what ended the trial, or an empty one."""
        return self.rows[-1]["error"]


# --- the parent's side ---


def check(trial):
    """`Error` where a trial asks for what does not go together, whatever is in its files."""
    if trial.model is None and trial.inputs:
        raise Error(f"{trial.inputs[0]}: an input of no model: name an ONNX file")
    if trial.model is None:
        return
    if trial.weights is not None:
        raise Error(f"{trial.weights} and {trial.model}: give weights for UDnet, or a model in its place")
    if not catalogue.find(trial.variant).takes_models:
        raise Error(f"{trial.variant} runs UDnet alone: choose onnx, or another variant that takes any ONNX file")


def feed(trial):
    """What the model of a trial is given, as a `Feed`; None where it runs UDnet.

    `Error` where the model is no ONNX file, or does not take that size, or is not for that variant.
    """
    check(trial)
    if trial.model is None:
        return None
    from udnet.network import graphs, onnx_file

    file = onnx_file.read(trial.model, trial.inputs)
    graphs.need_size(file, trial.height, trial.width)
    return file.feed(trial.height, trial.width)


def run(trial, limit=None, timeout=TIMEOUT_SECONDS, keep_output=False, pixels=None):
    """Measure one trial in a fresh process and return its `Result`; a failure is a result too.

    `limit`: bytes of memory the process may take (None: what the machine can spare); `timeout`: seconds; `pixels`: the
    picture to enhance, uint8, of the trial's size (None: `reference.picture`).
    """
    from udnet.network import converters, prepared
    from udnet.pictures import reference

    if trial.timeline:  # for `_sample`, which waits: Python ends otherwise if Ctrl-C comes while it imports psutil
        import memory_profiler  # noqa: F401
    chosen = catalogue.find(trial.variant)
    if chosen.missing:
        raise Error(f"{trial.variant} cannot run here: {chosen.missing}")
    given = feed(trial)
    find, named = (prepared.model, trial.model) if trial.model else (prepared.find, trial.weights)
    weights = find(named) if chosen.forms else None
    about = {
        "trial": trial.name,
        "variant": chosen.name,
        "runtime": chosen.runtime,
        "schedule": chosen.schedule,
        "weights": weights.name if weights else "",
        **{name: getattr(trial, name) for name in ("height", "width", "threads", "repeat")},
    }
    try:
        paths = [os.fspath(prepared.prepared(weights, form)) for form in chosen.forms]
    except converters.NotTaken as error:
        return Result([about | {"phase": "load", "status": "error", "error": str(error)}])
    if pixels is None:
        pixels = reference.picture(trial.height, trial.width, trial.repeat)
    room = pixels.nbytes + keep_output * pixels.size * 4 + memory.MIB  # the picture, an output, and what is reported
    with files.temporary_folder(room) as folder:
        np.save(folder / "picture.npy", pixels)
        job = {**asdict(trial), "files": paths, "folder": str(folder), "feed": given, "keep_output": keep_output}
        variables = environment(trial.threads, folder) | chosen.environment
        ended = work(__spec__.name, job, variables, limit, timeout, _sample if trial.timeline else None)
        said = [json.loads(line) for line in lines(folder / "phases")]
        statuses = [one["status"] for one in said if "phase" in one]
        complete = len(statuses) == len(PHASES) and not (keep_output and ended.code)
        if not complete and set(statuses) <= {"ok"}:  # it was ended before it could say why
            phase = [*PHASES, "steady"][len(statuses)]
            said.append({"phase": phase, "status": ended.status, "error": ended.error})
        rows = [about | one for one in said if "phase" in one]
        samples = [(at - ended.started, rss) for at, rss in ended.samples]
        if trial.timeline:
            for row in rows:
                row.pop("seconds", None)  # the sampler was on
                seen = [rss for at, rss in samples if row.get("start_seconds", 0) <= at < row.get("end_seconds", 0)]
                row["sampled_peak_bytes"] = max(seen, default=None)
        stages = [one for one in said if "stage" in one]
        result = Result(rows, samples, stages)
        if keep_output and result.status == "ok":
            with np.load(folder / "outputs.npz") as kept:
                result.outputs = [kept[f"arr_{place}"] for place in range(len(kept))]
        return result


@dataclass
class Ending:
    """How a worker's process ended: its exit code, and what ended it where it could not say so itself."""

    code: int
    status: str  # `oom`, `timeout` or `error`
    error: str  # one line
    started: float  # seconds since the epoch
    samples: list = field(default_factory=list)  # what the sampler made of it


def work(module, job, variables, limit=None, timeout=TIMEOUT_SECONDS, sample=None):
    """Run a module as a fresh process for a job, plain data with its `folder`, and return its `Ending`.

    The job is told when it `started`, too. `variables`: the environment; `limit`, `timeout`: as `run` takes them;
    `sample`: what watches the process while it runs, and returns samples.
    """
    import subprocess
    import threading

    from udnet.system import guard

    path = Path(job["folder"]) / "stderr"
    with guard.limit(limit or guard.safe_limit()) as held, open(path, "w") as stderr:
        kills, started = guard.kernel_kills(), time.time()
        given = json.dumps(job | {"started": started}, default=os.fspath)
        process = subprocess.Popen(
            held.command([sys.executable, "-m", module, given]),
            env=variables,
            stdin=subprocess.PIPE,  # open while this process lives: the worker ends with it
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the worker
        )
        timed_out = threading.Event()
        alarm = threading.Timer(timeout, lambda: (timed_out.set(), process.kill()))
        try:
            held.watch(process)
            alarm.start()
            samples = sample(process) if sample else []
            process.wait()
        finally:
            alarm.cancel()
            process.kill()
            process.wait()
            process.stdin.close()
        killed, code = held.killed, process.returncode
        starved, ending = guard.starved(code, kills), guard.ending(code, kills)
    if killed:
        return Ending(code, "oom", f"killed at its memory limit by the {held.kind}", started, samples)
    if timed_out.is_set():
        return Ending(code, "timeout", f"no end within {timeout} s", started, samples)
    said = lines(path) if code >= 0 else []
    return Ending(code, "oom" if starved else "error", said[-1].strip() if said else ending, started, samples)


def measure(
    variant, size, repeats=1, threads=None, weights=None, runs=1, timeline=False, limit=None, model=None, inputs=()
):
    """Measure one variant at one size in fresh processes: a tidy frame, a row a phase of a repeat, as `trials.csv` has.

    `size`: (height, width) or "HEIGHTxWIDTH", in pixels; `threads`: None for all cores; `runs`: inferences after the
    first; `timeline`: memory-profiler samples each process from outside, into `sampled_peak_bytes`, and its seconds are
    left out; `limit`: of its memory, in bytes or as 512MiB; `model`: an ONNX file to run in UDnet's place, `inputs`:
    shapes of its further inputs where they are free, as "mask=1x77". A trial that fails is a row that says so.
    """
    import pandas as pd

    from udnet.pictures import images
    from udnet.system import machine
    from udnet.trials import tables

    threads = machine.threads(threads)
    size = images.parse_size(size) if isinstance(size, str) else size
    limit = None if limit is None else memory.limit_bytes(limit)
    rows = []
    for repeat in range(repeats):
        one = Trial(variant, *size, threads, repeat, runs, weights, model, tuple(inputs), timeline)
        rows += run(one, limit).rows
    return tables.typed(pd.DataFrame(rows))


def environment(threads, folder):
    """The worker's environment: this one's, the same thread count for every library, nothing compiled beforehand."""
    variables = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "PYTHONPATH": files.python_path(),
    }
    _compile()
    return variables


@functools.cache
def _compile():
    """Compile this package once, or the first worker would do it, and that would be counted as its variant's memory."""
    import compileall

    compileall.compile_dir(files.REPO / "udnet", quiet=2)


def _sample(process):
    """Memory-profiler's samples of a process until it ends: (seconds since the epoch, resident bytes)."""
    import psutil
    from memory_profiler import memory_usage

    try:
        seen = memory_usage(process, interval=SAMPLE_SECONDS, timestamps=True, max_iterations=1)
    except psutil.NoSuchProcess:  # it ended, and was waited for, between two samples
        return []
    return [(at, int(mib * memory.MIB)) for mib, at in seen if mib > 0]


def lines(path):
    """The lines of a text file that a worker may have been stopped from writing."""
    return path.read_text(errors="replace").splitlines() if path.exists() else []


# --- the worker's side ---


def main():
    """Measure the job that the parent describes in the one argument, phase by phase."""
    job = json.loads(sys.argv[1])
    end_with_parent()
    report = Reporter(Path(job["folder"]) / "phases", job["started"])
    report.interpreter()
    with report.phase("import"):
        variant = catalogue.find(job["variant"])
        for module in variant.imports:
            __import__(module)
    with report.phase("load"):
        network = variant.load(job["threads"], *job["files"])
    pixels = np.load(Path(job["folder"]) / "picture.npy")
    if job["timeline"] and hasattr(network, "stages"):
        network.stages(report.begin_stage)
    feed, keep, kept = _read_feed(job["feed"]), job["keep_output"], []

    def run_once():
        outputs = _outputs(network, pixels, feed, whole=keep)
        if keep:
            kept[:] = outputs
        report.end_stage()

    with report.phase("first"):
        run_once()
    with report.phase("steady", job["runs"]):
        for _ in range(job["runs"]):
            run_once()
    if keep:
        np.savez(Path(job["folder"]) / "outputs.npz", *_flat(kept))


def _read_feed(said):
    if said is None:
        return None
    from udnet.network.onnx_file import Feed, Input

    picture, layout, inputs = said
    return Feed(picture, layout, {name: Input(*one) for name, one in inputs.items()})


def _outputs(network, pixels, feed, whole):
    """What one run makes of a picture: the enhanced picture, a model's outputs, or one output that is no picture.

    `whole`: of a network that has its own way with pictures, the output of the whole batch, unclipped.
    """
    if feed is not None:
        return network.run(feed.arrays(pixels))
    if hasattr(network, "enhance") and not whole:
        return [network.enhance(pixels)]
    output = network(images.to_batch(pixels))
    if images.is_batch(output, *pixels.shape[:2]):
        images.to_pixels(output, *pixels.shape[:2])  # as whoever enhances pictures does
    return [output]


def _flat(outputs):
    """Every array of outputs: sequences and maps are taken apart, and text is NumPy's own."""
    for one in outputs:
        if isinstance(one, dict):
            yield from _flat([[*one], [*one.values()]])
        elif isinstance(one, list) and any(isinstance(part, np.ndarray | dict | list) for part in one):
            yield from _flat(one)
        else:
            array = np.asarray(one)
            yield array.astype(str) if array.dtype == object else array


def end_with_parent():
    """Be killed by the system when the parent is gone: its end of our standard input then closes.

    A signal from the pipe costs no memory, where a thread that waits would.
    """
    if sys.platform == "win32":
        return
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(0, 1)
    except BlockingIOError:  # nothing there, and nobody has closed it
        return
    sys.exit("the parent was gone before the worker began")


class Reporter:
    """Writes a line for each phase and stage as it ends."""

    def __init__(self, path, started):
        self.path, self.started = path, started
        self.stage = None

    def interpreter(self):
        """The first phase: everything from the process's start to here, which no `track()` could surround."""
        rss, private = memory.resident_and_private()
        now = time.time()
        exact = memory.peak_is_kept()
        peak = memory.lifetime_peak() if exact else rss
        record = memory.Record(now - self.started, 0, rss, private, rss - private, peak, exact)
        line = {"phase": "interpreter", "runs": 1, "start_seconds": 0.0, "end_seconds": now - self.started}
        self._write(**line, status="ok", error="", **asdict(record))

    def phase(self, name, runs=1):
        """A context that measures one phase; a failure inside is reported and ends the worker."""
        return _Phase(self, name, runs)

    def begin_stage(self, name):
        """A stage of the network begins, and with it the one before ends."""
        self.end_stage()
        tracker = memory.track()
        self.stage = name, time.time(), tracker, tracker.__enter__()

    def end_stage(self):
        """The running stage ends, if there is one."""
        if self.stage is None:
            return
        name, start, tracker, record = self.stage
        tracker.__exit__(None, None, None)
        self.stage = None
        self._write(
            stage=name, start=start - self.started, end=time.time() - self.started, peak_bytes=record.peak_bytes
        )

    def _write(self, **line):
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


class _Phase:
    def __init__(self, reporter, name, runs):
        self.reporter, self.name, self.runs = reporter, name, runs

    def __enter__(self):
        self.start = time.time()
        self.tracker = memory.track()
        self.record = self.tracker.__enter__()

    def __exit__(self, kind, error, trace):
        self.tracker.__exit__(None, None, None)
        status, message = "ok", ""
        if error is not None:
            status = "oom" if out_of_memory(error) else "error"
            message = str(error).splitlines()[0] if str(error) else ""
            message = message if isinstance(error, Error) else f"{kind.__name__}: {message}"  # our own says it all
        line = {
            "phase": self.name,
            "runs": self.runs,
            "start_seconds": self.start - self.reporter.started,
            "end_seconds": time.time() - self.reporter.started,
        }
        self.reporter._write(**line, status=status, error=message, **asdict(self.record))
        if error is not None:
            sys.exit(1)


def out_of_memory(error):
    """Whether an exception says that memory ran out, in Python's, PyTorch's or ONNX Runtime's words."""
    words = ("can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


if __name__ == "__main__":
    main()
