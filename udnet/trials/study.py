"""A grid of trials to the tables of a folder (see `tables`), resumable.

Every table is rewritten whole after each trial and replaced in one step, so it is never half a table, and the same
command goes on where the last one stopped.
"""

import json
import math
import os
import platform
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from udnet import Error
from udnet.network import converters, onnx_file, prepared
from udnet.system import files, guard, machine
from udnet.tiled import scratch
from udnet.trials import tables, trial
from udnet.trials.grid import Grid, read_grid
from udnet.variants import catalogue, runtimes

REFERENCE = "pytorch"  # every variant's output is compared with this one's
SKIPPED = "skipped"  # begins what stands in place of a comparison that could not be made
BYTES = (np.uint8, np.int8)  # as an output, pictures: their scale is the type's
SAME = ("processor", "cores", "memory_bytes", "kernel", "packages", "huge_pages", "weights", "grid_sha256")
RESTART = 0.01  # how far a machine's memory may move, of all of it: a restart moves it by some kB


class Here:
    """Where the trials of a study run: on this machine."""

    def __init__(self):
        self._reference = None, None  # a trial and its result, for those that are compared with it: outputs are large

    def describe(self, grid, weights):
        """The machine, as `describe` says it."""
        return describe(grid, weights)

    def missing(self, variant):
        """What a variant lacks to run, and what to do, in one line; an empty one where it lacks nothing."""
        return catalogue.find(variant).missing

    def run(self, one, timeout):
        """The `Result` of a trial."""
        return trial.run(one, timeout=timeout)

    def difference(self, one, reference):
        """The largest between the outputs of two trials, nan where there is none, and what failed."""
        if self._reference[0] != reference:
            self._reference = reference, trial.run(reference, keep_output=True)
        expected = self._reference[1]
        made = expected if one == reference else trial.run(one, keep_output=True)
        error = f"{SKIPPED}: {reference.variant}: {expected.error}" if one.model and expected.error else expected.error
        return _difference(made.outputs, expected.outputs, one.model), made.error or error


def run(grid, out=None, weights=None, progress=True, model=None, place=None, inputs=()):
    """Run what is missing of a grid's trials into the folder `out` and return the `Study`.

    `grid`: a name, a TOML file or a `Grid`; `weights`, `model`, `inputs`: as `read_grid` takes them; `place`: where the
    trials run (None: `Here`). What is there already is kept, so an interrupted study goes on; a folder that holds
    another grid, other weights or another machine's study is refused. Every trial runs under a memory limit; what fails
    is a row.
    """
    if not isinstance(grid, Grid):
        grid = read_grid(grid, weights, model, inputs)
    out, place = Path(out or tables.LOCAL / grid.name), place or Here()
    with files.alone(out):
        growing = _Growing(out, grid, place.describe(grid, weights))
        _check_parity(grid, growing, place, progress)
        done = growing.done
        todo = [one for one in grid.trials if one.name not in done]
        bar = tqdm(
            total=sum(map(_effort, grid.trials)),
            initial=sum(_effort(one) for one in grid.trials if one not in todo),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left",
            desc=f"study {out.name}",
            disable=not progress,
        )
        with bar:
            for one in todo:
                bar.set_description(f"{out.name}: {one.name}")
                growing.add(one, _measure(one, grid, growing, place))
                bar.update(_effort(one))
    return tables.read(out)


def _effort(one):
    """Roughly how long a trial takes, in whole units of its own: for the progress bar alone."""
    return 3 + round((one.runs + 1) * one.height * one.width / 50_000 / one.threads**0.8)


def _measure(one, grid, growing, place):
    alike = growing.failures.get(_measured(one))
    if alike:
        return _refused(one, "skipped", f"an earlier repeat ended with {alike}")
    if missing := place.missing(one.variant):
        return _refused(one, "skipped", missing)
    if problem := growing.parity_problem(one):
        return _refused(one, "error", problem)
    return place.run(one, grid.timeout_seconds)


def _measured(one):
    """What a trial has in common with its repeats."""
    return one.variant, one.height, one.width, one.threads, one.weights, one.model


def _refused(one, status, error):
    chosen = catalogue.find(one.variant)
    about = {name: getattr(one, name) for name in ("height", "width", "threads", "repeat")}
    row = {
        "trial": one.name,
        "variant": chosen.name,
        "runtime": chosen.runtime,
        "schedule": chosen.schedule,
        "phase": "",
        **about,
    }
    return trial.Result([row | {"status": status, "error": error}])


def _check_parity(grid, growing, place, progress):
    """Compare each variant's output with the reference's, for each file that it loads, in fresh processes."""
    asked, least = {}, {}
    for one in sorted(grid.trials, key=lambda one: one.height * one.width):
        if catalogue.find(one.variant).forms and not place.missing(one.variant):
            size = least.setdefault(_loaded(one), (one.height, one.width))
            for height, width in [size] if one.model else grid.parity_sizes:
                compared = replace(one, height=height, width=width, threads=2, repeat=0, runs=0, timeline=False)
                asked.setdefault((*_loaded(one), height, width), compared)
    todo = sorted(asked.keys() - growing.parity_known, key=lambda key: (key[1:], key[0]))  # by their reference
    for key in tqdm(todo, desc="parity of the variants", disable=not progress or not todo, leave=False):
        one, reference = asked[key], _reference(asked[key])
        if reference is None:
            growing.add_parity(one, np.nan, f"{SKIPPED}: no other runtime is installed that takes this file")
        else:
            growing.add_parity(one, *place.difference(one, replace(one, variant=reference)))


def _loaded(one):
    """The variant of a trial and the file that it loads, as the table of parity names them."""
    return catalogue.find(one.variant).name, Path(one.model or one.weights or "").name


def _reference(one):
    """The variant that a trial's output is compared with: for a model one of another runtime, or None."""
    if not one.model:
        return REFERENCE
    runtime = catalogue.find(one.variant).runtime
    return next((other.name for other in catalogue.that_take_models() if other.runtime != runtime), None)


def _difference(outputs, expected, model):
    """The largest between the outputs of two runs; of a model in the scale of its values, where that is above 1."""
    if not outputs or not expected:
        return np.nan
    if [one.shape for one in outputs] != [one.shape for one in expected]:
        return np.inf
    return max(_apart(one, other, model) for one, other in zip(outputs, expected, strict=True))


def _apart(one, other, model):
    """The largest difference between two arrays: none between equal values, of which nan is one, and else infinity."""
    if {one.dtype.kind, other.dtype.kind} & {"S", "U"}:
        return 0.0 if np.array_equal(one, other) else np.inf
    kind = other.dtype
    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    differences = np.abs(np.subtract(one, other, out=np.zeros_like(one), where=~same))
    scale = 1.0
    if model:
        scale = np.iinfo(kind).max if kind in BYTES else max(1.0, np.abs(other[np.isfinite(other)]).max(initial=0))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0) / scale)


def _same(key, before, now):
    """Whether an entry of the machine's description is that of the same machine."""
    if key == "memory_bytes" and isinstance(before, int):
        return math.isclose(before, now, rel_tol=RESTART)
    return before == now


class _Growing:
    """The tables of a study while it runs."""

    def __init__(self, folder, grid, machine):
        self.folder, self.grid = folder, grid
        known = folder / "machine.json"
        if known.exists():
            before = files.read_json(known, tables.DAMAGED)
            for key in SAME:
                if not _same(key, before.get(key), machine[key]):
                    what = "grid" if key == "grid_sha256" else key.removesuffix("_bytes").replace("_", " ")
                    other = "other" if what.endswith("s") else "another"
                    raise Error(f"{folder} holds a study of {other} {what}: give another --out, or remove that folder")
        else:
            trials = folder / "trials.csv"
            if trials.exists() and len(tables.read_table(trials, tables.COLUMNS, remedy=tables.DAMAGED)):
                raise Error(f"{known}: is missing: {tables.DAMAGED}")
            files.write_csv(trials, tables.typed(pd.DataFrame()))  # first: a study without it has lost it
            files.write_text(known, json.dumps(machine, indent=1) + "\n")
        old = tables.read(folder)
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
        kinds = {one.name: _measured(one) for one in self.grid.trials}
        return {
            kinds[row["trial"]]: row["status"]
            for row in self.rows
            if row["status"] in ("oom", "timeout") and row["trial"] in kinds
        }

    @property
    def parity_known(self):
        return {tuple(row[name] for name in ("variant", "weights", "height", "width")) for row in self.parity}

    def parity_problem(self, one):
        """Why a trial's cost is not to be published, or None: by its own size, where outputs of that are compared."""
        rows = [row for row in self.parity if (row["variant"], row["weights"]) == _loaded(one)]
        own = [row for row in rows if (row["height"], row["width"]) == (one.height, one.width)]
        for row in own or rows:
            difference = row["largest_difference"]
            if row["error"].startswith(SKIPPED) or difference <= self.grid.parity_limit:
                continue
            if one.model and difference <= onnx_file.step(one.model):
                continue
            return row["error"] or f"its output differs from {_reference(one)}'s by {difference:.1e}"
        return None

    def add_parity(self, one, difference, error):
        variant, loaded = _loaded(one)
        about = {"variant": variant, "weights": loaded, "height": one.height, "width": one.width}
        self.parity.append(about | {"largest_difference": difference, "error": error})
        files.write_csv(self.folder / "parity.csv", pd.DataFrame(self.parity))

    def add(self, one, result):
        """Write a trial's rows; the main table last, since it is what says that a trial is done."""
        name = {"study": self.grid.name, "trial": one.name}
        if result.samples:
            self.timelines += [
                {"trial": one.name, "seconds": round(at, 3), "rss_bytes": rss} for at, rss in result.samples
            ]
            files.write_csv(self.folder / "timelines.csv", pd.DataFrame(self.timelines))
        if result.stages:
            self.stages += [name | stage for stage in result.stages]
            files.write_csv(self.folder / "stages.csv", pd.DataFrame(self.stages))
        self.rows += [name | row for row in result.rows]
        files.write_csv(self.folder / "trials.csv", tables.typed(pd.DataFrame(self.rows)))


# --- the machine ---


def describe(grid, weights=None):
    """What a study runs on and with, as plain data."""
    models = {one.model for one in grid.trials if one.model}
    loaded = [prepared.model(path) for path in sorted(models)]
    if any(not one.model for one in grid.trials):
        loaded = [prepared.find(weights), *loaded]
    names = ["numpy", "torch", "onnxruntime", "memory-profiler", "psutil", "pandas"]
    here = [chosen for chosen in (catalogue.find(one.variant) for one in grid.trials) if not chosen.missing]
    names += sorted({name for chosen in here for name in chosen.imports} & runtimes.PACKAGES)
    return {
        "grid": grid.name,
        "grid_sha256": grid.sha256,
        "trials": len(grid.trials),
        "seed": grid.seed,
        "weights": ", ".join(one.caption for one in loaded),
        "files": _file_sizes(grid, loaded[0]),
        "processor": machine.processor(),
        "cores": machine.cores(),
        "memory_bytes": machine.memory()[0],
        "guard": "cgroup" if guard.ControlGroup.possible() else "watchdog",
        "guard_bytes": guard.safe_limit(),
        "system": platform.system(),
        "kernel": platform.release(),
        "allocator": " ".join(platform.libc_ver()).strip() + (" " + os.environ.get("LD_PRELOAD", "")).rstrip(),
        "huge_pages": machine.huge_pages(),
        "disk_bytes_per_second": _disk(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _disk():
    """Of a scratch file where trials make theirs; 0 where none can be made."""
    folder = scratch.find()
    disk = folder and scratch.measured(folder)
    return round(disk.rate) if disk else 0


def _file_sizes(grid, weights):
    """Bytes of the files that the grid's variants load, of UDnet's weights or of a model, where they can be had."""
    chosen = [catalogue.find(one.variant) for one in grid.trials if bool(one.model) == weights.graph]
    sizes = {}
    for form in sorted({form for one in chosen for form in one.forms if not one.missing}):
        with suppress(converters.NotTaken):  # its trials say so
            sizes[form] = prepared.prepared(weights, form).stat().st_size
    return sizes
