"""The original report's measurement, step by step as its scripts took it: single readings between the steps.

One process a runtime. Resident memory is read by psutil before the model is loaded, after that and after each
inference; the highest of these readings is what the report calls a peak. PyTorch enhances a uniform blue picture, with
resizing, colour balance and saturation around the network; ONNX Runtime is given random numbers, 256x256, and then
512x512 in the same session. Beyond the report: PyTorch at 512x512 too, which the report extrapolated; the seconds of
the network alone; the kernel's peak of each step; and the same under other allocators.

The readings go to `protocol.csv`, a row a step.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

from udnet.system import files, machine, memory
from udnet.variants import catalogue, compared

COLUMNS = (
    *("script", "allocator", "repeat", "step", "side", "seconds", "network_seconds", "rss_bytes", "peak_bytes"),
    "error",
)
SATURATION = 1.1  # any factor: it is the copies of the picture that cost


# --- the scripts: each returns its rows ---


def pytorch(side, full, vgg):
    """The report's PyTorch script: load as released, then one picture of this side."""
    import torch  # noqa: F401  before the first reading, as in the report
    from PIL import Image

    diary = Diary()
    diary.read("start")
    with diary.step("load"):
        network = compared.load_pytorch_published(machine.cores(), full, vgg)
    blue = Image.new("RGB", (side, side), (30, 90, 160))
    with diary.step("inference", side) as row:
        _enhance_as_reported(network, blue, side, row)
    return diary.rows


def onnx(path):
    """The report's ONNX script: a session as it comes, random numbers, two sizes in one session."""
    import onnxruntime  # noqa: F401

    diary = Diary()
    diary.read("start")
    with diary.step("load"):
        network = compared.load_onnx(machine.cores(), path)
    random = np.random.default_rng(0)
    for side in (256, 512):
        x = random.random((1, 3, side, side), np.float32)
        with diary.step("inference", side) as row:
            _timed(network, x, row)
    return diary.rows


def _enhance_as_reported(network, picture, side, row):
    """Resize, balance the colours, enhance, saturate, resize back: what stood around the network on one side only."""
    from PIL import Image, ImageEnhance

    pixels = np.asarray(picture.resize((side, side), Image.LANCZOS), np.float32) / 255
    means = pixels.mean((0, 1))
    balanced = (pixels * (means.mean() / np.maximum(means, 1e-6))).clip(0, 1).astype(np.float32)
    output = _timed(network, np.ascontiguousarray(balanced.transpose(2, 0, 1)[None]), row)
    enhanced = Image.fromarray((output[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8))
    return ImageEnhance.Color(enhanced).enhance(SATURATION).resize(picture.size, Image.LANCZOS)


def _timed(network, x, row):
    start = time.perf_counter()
    output = network(x)
    row["network_seconds"] = time.perf_counter() - start
    return output


class Diary:
    """The readings of one process."""

    def __init__(self):
        import psutil

        self.process = psutil.Process()
        self.rows = []

    def read(self, step, **more):
        """Read resident memory between two steps."""
        self.rows.append({"step": step, "rss_bytes": self.process.memory_info().rss, **more})

    @contextmanager
    def step(self, name, side=None):
        """One step: its seconds and the kernel's peak, and the reading after it; yields its row to add to."""
        row = {"side": side}
        with memory.track() as record:
            yield row
        self.read(name, seconds=record.seconds, peak_bytes=record.peak_bytes, **row)


SCRIPTS = {  # the variant whose allocator is replaced, the forms of the weights, and the arguments before them
    "pytorch": ("pytorch-published", pytorch, (256,)),
    "pytorch-512": ("pytorch-published", pytorch, (512,)),
    "onnx": ("onnx", onnx, ()),
}


# --- the parent's side ---


def run(folder, repeats=5, allocators=("",), weights=None, progress=True):
    """Repeat every script, under every allocator, into `protocol.csv` of a folder and return the table.

    `allocators`: names of `udnet.allocators`; the empty one is what the system has. What is there already is kept.
    """
    import pandas as pd
    from tqdm import tqdm

    from udnet.network import prepared

    folder = Path(folder)
    found = prepared.find(weights)
    jobs = [(script, name, repeat) for repeat, script, name in product(range(repeats), SCRIPTS, allocators)]
    with files.alone(folder):
        rows = read(folder).to_dict("records") if (folder / "protocol.csv").exists() else []
        done = {(row["script"], row["allocator"], row["repeat"]) for row in rows}
        todo = [job for job in jobs if job not in done]
        for script, name, repeat in tqdm(todo, desc="the report's protocol", disable=not progress or not todo):
            about = {"script": script, "allocator": name, "repeat": repeat}
            rows += [about | row for row in _measured(script, name, found)]
            files.write_csv(folder / "protocol.csv", pd.DataFrame(rows, columns=COLUMNS))
    return read(folder)


def read(folder):
    """The table of a study's folder: a row a step, bytes and seconds; a script that could not run has an error."""
    from udnet.trials import tables

    path, absent = Path(folder) / "protocol.csv", "the report's own steps were not run"
    table = tables.read_table(path, COLUMNS, absent, dtype=dict.fromkeys(["rss_bytes", "peak_bytes", "side"], "Int64"))
    return table.assign(**{name: table[name].astype(object).fillna("") for name in ("allocator", "step", "error")})


def _measured(script, allocator, weights):
    from udnet.network import prepared

    name, _, arguments = SCRIPTS[script]
    chosen = catalogue.find(f"{name}+{allocator}" if allocator else name)
    if chosen.missing:
        return [{"error": chosen.missing}]
    paths = [os.fspath(prepared.prepared(weights, form)) for form in chosen.forms]
    command = [sys.executable, "-m", "udnet.experiments.protocol", json.dumps([script, [*arguments, *paths]])]
    environment = os.environ | {"PYTHONPATH": files.python_path()} | chosen.environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return [{"error": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]}]
    return json.loads(done.stdout)


if __name__ == "__main__":
    name, given = json.loads(sys.argv[1])
    print(json.dumps(SCRIPTS[name][1](*given)))
