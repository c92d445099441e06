"""A grid of trials to tidy tables, resumable.

A study is a folder: `trials.csv`, a row a phase of a trial; `machine.json`, what it ran on; `parity.csv`, how far each
variant's output is from the reference; `timelines.csv` and `stages.csv` of the trials that were sampled. Every table is
rewritten whole after each trial and replaced in one step, so it is never half a table, and the same command goes on
where the last one stopped.
"""

import hashlib
import io
import json
import os
import platform
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from tqdm import tqdm

from . import PARITY_LIMIT, Error, checkpoint, files, guard, instruments, trial, variants

GRIDS = Path(__file__).parent / "grids"
RESULTS = Path(__file__).parent.parent / "data" / "results"
PUBLISHED = RESULTS / "published"
LOCAL = RESULTS / "local"

PHASE_COLUMNS = [
    *("phase", "runs", "start_seconds", "end_seconds", "seconds", "rss_start_bytes", "rss_end_bytes"),
    *("private_end_bytes", "file_end_bytes", "peak_bytes", "peak_is_exact", "sampled_peak_bytes", "status", "error"),
]
COLUMNS = [
    *("study", "trial", "variant", "runtime", "schedule", "weights", "height", "width", "threads", "repeat"),
    *PHASE_COLUMNS,
]
WHOLE_NUMBERS = [name for name in COLUMNS if name.endswith("_bytes")] + ["runs"]

REFERENCE = "pytorch"  # every variant's output is compared with this one's
PARITY_SIZE = (264, 136)
SAME = ("processor", "cores", "memory_bytes", "kernel", "packages", "huge_pages", "weights", "grid_sha256")


@dataclass(frozen=True)
class Grid:
    """The trials of a study, in the order in which they run."""

    name: str
    trials: list[trial.Trial]
    seed: int
    timeout_seconds: float = trial.TIMEOUT_SECONDS
    sha256: str = ""
    parity_limit: float = PARITY_LIMIT  # a variant whose output differs by more is not measured
    parity_size: tuple[int, int] = PARITY_SIZE  # of the picture whose outputs are compared, height and width


@dataclass
class Study:
    """The tables of a study's folder."""

    folder: Path
    trials: pd.DataFrame
    machine: dict
    parity: pd.DataFrame
    timelines: pd.DataFrame
    stages: pd.DataFrame
    instruments: pd.DataFrame

    @property
    def finished(self):
        """Whether every trial of the grid has its rows."""
        return self.trials.trial.nunique() >= self.machine["trials"]


# --- grids ---


def read_grid(name, weights=None):
    """A grid by name (`quick`, `full`) or from a TOML file: see the grids in `udnet/grids` for what it may say.

    Trials are interleaved: all first repeats in a seeded random order, then all second ones.
    """
    path = GRIDS / f"{name}.toml" if "/" not in str(name) and not str(name).endswith(".toml") else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in GRIDS.glob("*.toml")))
        raise Error(f"no grid {name!r}: choose {known}, or give a .toml file")
    try:
        text = path.read_bytes()
        said = tomllib.loads(text.decode())
        if unknown := said.keys() - {"about", "seed", "timeout_seconds", "parity_size", "trials"}:
            raise ValueError(f"unknown {min(unknown)!r}")
        trials = [one for block in said["trials"] for one in _expand(block, weights)]
        seed, timeout = int(said["seed"]), float(said.get("timeout_seconds", trial.TIMEOUT_SECONDS))
        size = trial.parse_size(said["parity_size"]) if "parity_size" in said else PARITY_SIZE
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Error(f"{path} is not a grid: {missing}; compare it with {GRIDS / 'quick.toml'}") from error
    twice = {one.name for one in trials if sum(other.name == one.name for other in trials) > 1}
    if twice:
        raise Error(f"{path} asks twice for {sorted(twice)[0]}: give each trial once")
    for path in {one.weights for one in trials} - {None}:
        checkpoint.find(path)
    sha256 = hashlib.sha256(text).hexdigest()
    return Grid(path.stem, interleaved(trials, seed), seed, timeout, sha256, parity_size=size)


def interleaved(trials, seed):
    """Trials in the order of a study: a drift of the machine does not fall on one variant."""
    order = random.Random(seed)
    return sorted(trials, key=lambda one: (one.repeat, one.timeline, order.random()))


def _expand(block, weights) -> Iterable[trial.Trial]:
    if not isinstance(block, dict):
        raise ValueError("its trials are not tables, each under [[trials]]")
    block = dict(block)
    names, sizes, threads = block.pop("variants"), block.pop("sizes"), block.pop("threads")
    repeats, runs = block.pop("repeats"), block.pop("runs", trial.STEADY_RUNS)
    timeline, named = block.pop("timeline", False), block.pop("weights", [weights])
    if block:
        raise ValueError(f"unknown {min(block)!r}")
    for key, value in {"variants": names, "sizes": sizes, "threads": threads, "weights": named}.items():
        if not isinstance(value, list):
            raise ValueError(f"{key} = {value!r} is not a list")
    for key, numbers, least in (("threads", threads, 1), ("repeats", [repeats], 1), ("runs", [runs], 0)):
        for number in numbers:
            if type(number) is not int or number < least:
                raise ValueError(f"{number!r} in {key} is not a whole number from {least}")
    for name, size, count, repeat, file in product(names, sizes, threads, range(repeats), named):
        variants.find(name)
        yield trial.Trial(name, *trial.parse_size(str(size)), count, repeat, runs, file, timeline)


# --- running ---


def run(grid, out=None, weights=None, progress=True):
    """Run what is missing of a grid's trials into the folder `out` and return the `Study`.

    `grid`: a name, a TOML file or a `Grid`. What is there already is kept, so an interrupted study goes on; a folder
    that holds another grid, other weights or another machine's study is refused. Every trial runs under a memory
    limit; what fails is a row.
    """
    if not isinstance(grid, Grid):
        grid = read_grid(grid, weights)
    out = Path(out or LOCAL / grid.name)
    machine = describe(grid, weights)
    with alone(out):
        tables = _Tables(out, grid, machine)
        _check_parity(grid, tables, progress)
        done = tables.done
        todo = [one for one in grid.trials if one.name not in done]
        bar = tqdm(
            total=sum(map(_effort, grid.trials)),
            initial=sum(_effort(one) for one in grid.trials if one not in todo),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left",
            desc=f"study {grid.name}",
            disable=not progress,
        )
        with bar:
            for one in todo:
                bar.set_description(f"{grid.name}: {one.name}")
                tables.add(one, _measure(one, grid, tables))
                bar.update(_effort(one))
    return read(out)


def _effort(one):
    """Roughly how long a trial takes, in whole units of its own: for the progress bar alone."""
    return 3 + round((one.runs + 1) * one.height * one.width / 50_000 / one.threads**0.8)


def _measure(one, grid, tables):
    alike = tables.failures.get((one.variant, one.height, one.width, one.threads, one.weights))
    if alike:
        return _refused(one, "skipped", f"an earlier repeat ended with {alike}")
    if missing := variants.find(one.variant).missing:
        return _refused(one, "skipped", missing)
    if problem := tables.parity_problem(one):
        return _refused(one, "error", problem)
    return trial.run(one, timeout=grid.timeout_seconds)


def _refused(one, status, error):
    chosen = variants.find(one.variant)
    about = {name: getattr(one, name) for name in ("variant", "height", "width", "threads", "repeat")}
    row = {"trial": one.name, "runtime": chosen.runtime, "schedule": chosen.schedule, "phase": "", **about}
    return trial.Result([row | {"status": status, "error": error}])


def _check_parity(grid, tables, progress):
    """Compare the output of every variant and weights of the grid with the reference's, once, in fresh processes."""
    comparable = {name for name in {one.variant for one in grid.trials} if _comparable(variants.find(name))}
    pairs = sorted({(one.variant, one.weights or "") for one in grid.trials if one.variant in comparable})
    missing = [(name, weights) for name, weights in pairs if (name, Path(weights).name) not in tables.parity_known]
    references = {}
    for name, weights in tqdm(missing, desc="parity of the variants", disable=not progress or not missing, leave=False):
        if weights not in references:
            references[weights] = _output(REFERENCE, weights, grid.parity_size)
        reference, reference_error = references[weights]
        output, error = (reference, "") if name == REFERENCE else _output(name, weights, grid.parity_size)
        difference = np.nan
        if output is not None and reference is not None:
            difference = float(np.abs(output - reference).max())
        tables.add_parity(name, Path(weights).name, difference, error or reference_error)


def _comparable(variant):
    return variant.forms and not variant.missing


def _output(name, weights, size):
    result = trial.run(trial.Trial(name, *size, 2, runs=0, weights=weights or None), keep_output=True)
    return result.output, result.error


class _Tables:
    """The tables of a study while it runs."""

    def __init__(self, folder, grid, machine):
        self.folder, self.grid = folder, grid
        known = folder / "machine.json"
        if known.exists():
            before = files.read_json(known, DAMAGED)
            for key in SAME:
                if before.get(key) != machine[key]:
                    what = "grid" if key == "grid_sha256" else key.replace("_bytes", "")
                    raise Error(f"{folder} holds a study of another {what}: give another --out, or remove that folder")
        else:
            files.write_text(known, json.dumps(machine, indent=1) + "\n")
        old = read(folder)
        self.rows = old.trials.to_dict("records")
        self.parity = old.parity.to_dict("records")
        # A trial that was stopped between its tables is run again: the main table, written last, knows it not.
        done = self.done
        before = old.machine["commit"]
        if {one.name for one in grid.trials} - done and machine["commit"] not in before:  # other code goes on
            both = old.machine | {"commit": f"{before}, {machine['commit']}"}
            files.write_text(known, json.dumps(both, indent=1) + "\n")
        self.timelines = [row for row in old.timelines.to_dict("records") if row["trial"] in done]
        self.stages = [row for row in old.stages.to_dict("records") if row["trial"] in done]

    @property
    def done(self):
        return {row["trial"] for row in self.rows}

    @property
    def failures(self):
        """Trials that ran out of memory or time, by what they measured: their repeats would do the same."""
        kinds = {one.name: (one.variant, one.height, one.width, one.threads, one.weights) for one in self.grid.trials}
        return {
            kinds[row["trial"]]: row["status"]
            for row in self.rows
            if row["status"] in ("oom", "timeout") and row["trial"] in kinds
        }

    @property
    def parity_known(self):
        return {(row["variant"], row["weights"]) for row in self.parity}

    def parity_problem(self, one):
        """Why a trial's cost is not to be published, or None."""
        for row in self.parity:
            same = (row["variant"], row["weights"]) == (one.variant, Path(one.weights or "").name)
            if same and not row["largest_difference"] <= self.grid.parity_limit:
                return row["error"] or f"its output differs from {REFERENCE}'s by {row['largest_difference']:.1e}"
        return None

    def add_parity(self, variant, weights, difference, error):
        size = dict(zip(("height", "width"), self.grid.parity_size, strict=True))
        row = {"variant": variant, "weights": weights, **size}
        self.parity.append(row | {"largest_difference": difference, "error": error})
        write_csv(self.folder / "parity.csv", pd.DataFrame(self.parity))

    def add(self, one, result):
        """Write a trial's rows; the main table last, since it is what says that a trial is done."""
        name = {"study": self.grid.name, "trial": one.name}
        if result.samples:
            self.timelines += [
                {"trial": one.name, "seconds": round(at, 3), "rss_bytes": rss} for at, rss in result.samples
            ]
            write_csv(self.folder / "timelines.csv", pd.DataFrame(self.timelines))
        if result.stages:
            self.stages += [name | stage for stage in result.stages]
            write_csv(self.folder / "stages.csv", pd.DataFrame(self.stages))
        self.rows += [name | row for row in result.rows]
        write_csv(self.folder / "trials.csv", _typed(pd.DataFrame(self.rows)))


def _typed(frame):
    frame = frame.reindex(columns=COLUMNS)
    frame[WHOLE_NUMBERS] = frame[WHOLE_NUMBERS].astype("Int64")
    frame["peak_is_exact"] = frame["peak_is_exact"].astype("boolean")
    for name in ("weights", "phase", "error"):
        frame[name] = frame[name].astype(object).fillna("")
    return frame


def write_csv(path, frame):
    """Write a table as CSV, in one step: it is there whole, or as it was before."""
    files.write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


@contextmanager
def alone(folder):
    """Hold the folder, so that two runs never write into one, and remove what a killed one was writing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make the folder {folder}: {error.strerror}; give another") from error
    with _locked(folder):
        for part in folder.glob(files.PARTS):
            part.unlink()
        yield


@contextmanager
def _locked(folder):
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Error(f"another run is writing into {folder}: wait for it, or give another folder") from error
    try:
        yield
    finally:
        os.close(handle)


# --- reading ---


DAMAGED = "put it back, or remove its folder and run the study again"


def read(folder=PUBLISHED):
    """The `Study` in a folder; tables that are not there yet are empty."""
    folder = Path(folder)
    if not (folder / "machine.json").exists():
        raise Error(f"no study in {folder}: run python -m udnet study --out {folder}")
    empty = {
        "trials": COLUMNS,
        "parity": ["variant", "weights", "height", "width", "largest_difference", "error"],
        "timelines": ["trial", "seconds", "rss_bytes"],
        "instruments": list(instruments.COLUMNS),
        "stages": ["study", "trial", "stage", "start", "end", "peak_bytes"],
    }
    tables = {name: _read_table(folder / f"{name}.csv", columns) for name, columns in empty.items()}
    with files.reading(folder / "trials.csv", DAMAGED):
        tables["trials"] = _typed(tables["trials"])
    return Study(folder, machine=files.read_json(folder / "machine.json", DAMAGED), **tables)


def _read_table(path, columns):
    if not path.exists():
        return pd.DataFrame(columns=columns)
    measured = [name for name in columns if name.endswith(("_bytes", "seconds"))]
    blank = {name: [""] for name in (*measured, "runs", "peak_is_exact", "largest_difference") if name in columns}
    with files.reading(path, DAMAGED):
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise EOFError("cut short")
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=blank)
        table[measured].astype(float)  # no text among the numbers
        return table


def latest(folder=None):
    """The study that the notebooks show: `folder`, else $UDNET_STUDY, else the published one."""
    return read(folder or os.environ.get("UDNET_STUDY") or PUBLISHED)


# --- the machine ---


def describe(grid, weights=None):
    """What a study runs on and with, as plain data."""
    memory = psutil.virtual_memory()
    names = ("numpy", "torch", "onnxruntime", "memory-profiler", "psutil", "pandas")
    return {
        "grid": grid.name,
        "grid_sha256": grid.sha256,
        "trials": len(grid.trials),
        "seed": grid.seed,
        "weights": checkpoint.find(weights).caption,
        "files": _file_sizes(grid, checkpoint.find(weights)),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory.total,
        "guard": "cgroup" if _can_make_groups() else "watchdog",
        "guard_bytes": guard.safe_limit(),
        "system": platform.system(),
        "kernel": platform.release(),
        "allocator": " ".join(platform.libc_ver()).strip() + (" " + os.environ.get("LD_PRELOAD", "")).rstrip(),
        "huge_pages": _huge_pages(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _file_sizes(grid, weights):
    """Bytes of the files that the grid's variants load, by form."""
    forms = {form for one in grid.trials for form in variants.find(one.variant).forms}
    return {form: checkpoint.prepared(weights, form).stat().st_size for form in sorted(forms)}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _huge_pages():
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        return text[text.index("[") + 1 : text.index("]")]
    except (OSError, ValueError):
        return "unknown"


def _can_make_groups():
    with guard.limit(guard.safe_limit()) as held:
        return held.kind == "cgroup"


def _commit():
    """The commit of the code that measures, marked where this package has been changed since."""

    def git(*words):
        asked = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("-changed" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
