"""How far each runtime's float32 is from float64, and where in the network that begins: stage by stage.

The truth is PyTorch in float64. A fresh process a runtime and size computes the same picture and compares its output,
then the output of every stage, which the graph is told to give, too. What differs by more than rounding is computed
again with one thing changed, which the difference would outlast if that were not its cause: the graph with the
instance norm as one operator, whose sums are the runtime's own, against the one that sums column by column; MNN with
the Winograd units that it chooses, and with small ones.
"""

import json
import os
import shutil
import sys
from functools import partial
from itertools import count, product
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from udnet.analysis import scaling
from udnet.experiments import exporters, jobs
from udnet.network import converters, prepared
from udnet.pictures import images, reference
from udnet.system import files
from udnet.trials import tables
from udnet.variants import catalogue, runtimes

FILE = "precision.csv"
JOB = ["weights", "side", "variant", "graph"]
COLUMNS = [*JOB, "stage", "largest_difference", "rms_difference", "rms"]  # the last: of what float64 gives
SIDES = (256, 512, 1024)
FEW_UNITS = "mnn, small Winograd units"
MODULE, COLUMN_SUMS, ONE_OPERATOR, COUNTED = "PyTorch's module", "sums by column", "instance norm", "for ncnn"
RUNS = (  # variant and graph
    ("pytorch", MODULE),
    *product(("onnx", "openvino", "openvino-fixed"), (COLUMN_SUMS, ONE_OPERATOR)),
    ("mnn", COLUMN_SUMS),
    (FEW_UNITS, COLUMN_SUMS),
    ("ncnn", COUNTED),
)
CANDIDATES = {COLUMN_SUMS: exporters.CHOSEN, ONE_OPERATOR: "dynamo-18"}  # they differ in the norm alone
OUTPUT = "output"
STATISTICS = {"mean": "u_conv_layer", "spread": "s_conv_layer"}  # what goes into a layer of `compute_z_pr`
STRIP = 64  # rows of a float64 convolution at a time, which takes nine copies of its input
TRUTH_BYTES = 5 * 64 * 8 + 4096  # a pixel: the stages at full size, and the rest


def run(folder, weights=None, sides=SIDES, progress=True):
    """Compare every runtime that is installed into `precision.csv` of a folder, and return `read` of it."""
    name = prepared.find(weights).name
    here = [(variant, graph) for variant, graph in RUNS if not catalogue.find(variant.partition(",")[0]).missing]
    todo = [(name, side, *one) for side, one in product(sides, here)]
    with files.temporary_folder(TRUTH_BYTES * max(sides) ** 2) as truths:
        jobs.run(Path(folder) / FILE, COLUMNS, todo, partial(_job, truths, weights), progress)
    return read(folder)


def _job(truths, weights, _, side, variant, graph):
    truth = truths / str(side)
    if not truth.exists():
        for before in truths.iterdir():
            shutil.rmtree(before)
        truth.mkdir()
        jobs.fresh(__spec__.name, "write_truth", str(truth), weights, side)
    return jobs.fresh(__spec__.name, "compare", str(truth), weights, side, variant, graph)


def read(folder):
    """The table of a folder, a row a stage of a run, in the network's order: the columns of the file, and `relative`.

    `relative`: the root-mean-square difference over the root mean square of what float64 gives.
    """
    table = tables.read_table(Path(folder) / FILE, COLUMNS, "no runtime was compared with float64")
    table["relative"] = table.rms_difference / table.rms
    return table


def begins(table):
    """Where the difference of each run's output begins, a row a run, with the output's `largest_difference`.

    `stage`: that by which `relative` grows most over the largest before it, `times`; before the first is rounding.
    """
    rows = []
    for run, stages in table.groupby(JOB, sort=False):
        is_output = stages.stage == OUTPUT
        before = stages.relative.cummax().shift(fill_value=np.finfo(np.float32).eps)
        times = (stages.relative / before)[~is_output]
        at = times.idxmax()
        rows.append((*run, stages.largest_difference[is_output].iloc[0], stages.stage[at], times[at]))
    return pd.DataFrame(rows, columns=[*JOB, "largest_difference", "stage", "times"])


# --- in a process of its own ---


def write_truth(folder, weights, side):
    """Write what every stage gives in float64 into a folder, a file a stage: channels x height x width."""
    import torch
    from torch.nn import functional as F

    conv2d = F.conv2d

    def by_strips(x, weight, *rest):
        if weight.shape[2] == 1:
            return conv2d(x, weight, *rest)
        strips = [x[:, :, top : top + STRIP + 2] for top in range(0, x.shape[2] - 2, STRIP)]
        return torch.cat([conv2d(strip, weight, *rest) for strip in strips], 2)

    def save(stage, values):
        np.save(Path(folder, f"{next(number):02}-{stage}.npy"), values[0])

    number = count()
    with mock.patch.object(F, "conv2d", by_strips):
        _by_pytorch(weights, side, torch.float64, save)
    return []


def compare(folder, weights, side, variant, graph):
    """The rows of one run, against the truth in a folder."""
    truth, rows = Truth(Path(folder)), {}

    def see(stage, values):
        rows[stage] = truth.differences(stage, values[0])

    if graph == MODULE:
        import torch

        _by_pytorch(weights, side, torch.float32, see)
    else:
        with files.temporary_folder() as made:
            _by_runtime(_graph(graph, weights), side, variant, made, see)
    return [{"stage": stage} | rows[stage] for stage in truth.stages]


class Truth:
    """What float64 gives, in a folder; `stages`: the files by their names, in the network's order."""

    def __init__(self, folder):
        self.stages = {path.stem.partition("-")[2]: path for path in sorted(folder.iterdir())}

    def differences(self, stage, values):
        """How far values are from it, channel by channel, which keeps the memory low."""
        known = np.load(self.stages[stage], mmap_mode="r")
        largest, squares, power = 0.0, 0.0, 0.0
        for one, other in zip(known, values, strict=True):
            away = other - one
            largest = max(largest, float(np.abs(away).max()))
            squares, power = squares + float((away**2).sum()), power + float((one**2).sum())
        sides = {"rms_difference": squares, "rms": power}
        return {"largest_difference": largest} | {name: (sum_ / known.size) ** 0.5 for name, sum_ in sides.items()}


def _by_pytorch(weights, side, dtype, see):
    """Call `see(stage, values)` with what every stage gives, in the network's order."""
    import torch

    from udnet.network import checkpoint, export, model

    torch.set_num_threads(scaling.THREADS)
    network = export.load(model.InferenceUDnet(), checkpoint.read(prepared.find(weights).path), "weights").to(dtype)
    decoder = network.decoder
    for stage, module in model.stages(network):
        if module not in (decoder.compute_z_pr, decoder.out_conv[2]):  # what goes into it is seen; it gives the output
            module.register_forward_hook(lambda *seen, stage=stage: see(stage, seen[-1].numpy()))
    for stage, layer in STATISTICS.items():
        module = decoder.compute_z_pr.get_submodule(layer)
        module.register_forward_pre_hook(lambda _, seen, stage=stage: see(stage, seen[0].numpy()))
    with torch.inference_mode():
        see(OUTPUT, network(torch.from_numpy(_picture(side)).to(dtype)).numpy())


def _by_runtime(path, side, variant, folder, see):
    """The same of a graph in another runtime: its output alone first, then with some stages each time."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    known = {one.name: one for one in inferred.value_info}
    for stages in ([], *_groups(points(inferred))):
        model = onnx.load(path)
        model.graph.output.extend(known[tensor] for _, tensor in stages)
        onnx.save(model, folder / "model.onnx")
        output, *outputs = _runner(variant, folder)({model.graph.input[0].name: _picture(side)})
        if not stages:
            see(OUTPUT, output)
        for (stage, _), values in zip(stages, outputs, strict=True):
            see(stage, values)


def _runner(variant, folder):
    """What runs the graph in a folder: a function from arrays by the names of the inputs to a list of outputs."""
    path, threads = folder / "model.onnx", scaling.THREADS
    name = variant.partition(",")[0]
    chosen = catalogue.find(name)
    made = [folder / form for form in chosen.forms if form in converters.FORMS]
    for out in made:
        converters.convert(path, out, out.name)
    if variant == FEW_UNITS:
        return runtimes.MnnNetwork(*made, threads, winograd=0).run
    return chosen.load(threads, *(made or [path])).run


def _graph(name, weights):
    """The ONNX file of a graph's name."""
    found = prepared.find(weights)
    return prepared.prepared(found, "onnx-counted") if name == COUNTED else exporters.made(CANDIDATES[name], found)


def points(graph):
    """The tensors of an exported graph that stages give, by the stages' names, in the network's order."""
    gives = {output: node for node in graph.node for output in node.output}
    takes = {}
    for node in graph.node:
        for tensor in node.input:
            takes.setdefault(tensor, []).append(node)

    def after(tensor, *kinds):
        for kind in kinds:
            (tensor,) = (node.output[0] for node in takes[tensor] if node.op_type == kind)
        return tensor

    found = {}
    for node in (node for node in graph.node if node.op_type == "Conv"):
        layer = node.input[1].partition("decoder.")[2].removesuffix(".weight").removeprefix("pr_")
        stage, _, part = layer.partition(".body." if ".body." in layer else ".conv.")
        if layer == "UpConv1.conv.1":
            found["normalise"] = gives[node.input[0]].input[0]  # what is padded
        if ".body." in layer and part == "4":
            found[stage] = after(node.output[0], "Mul", "Add")
        elif part == "4":
            found[stage] = after(node.output[0], "LeakyRelu")
        found |= {name: node.input[0] for name, its in STATISTICS.items() if stage == f"compute_z_pr.{its}"}
    return found


def _groups(stages):
    """Stages that are given at once, as lists of pairs: each at full size by itself, as it takes much memory."""
    full = {"encoder.conv1", "normalise", "UpConv1", "out_conv.0", "out_conv.1"}
    rest = [(stage, tensor) for stage, tensor in stages.items() if stage not in full]
    return [rest, *([(stage, tensor)] for stage, tensor in stages.items() if stage in full)]


def _picture(side):
    return np.ascontiguousarray(images.to_batch(reference.picture(side, side)), np.float32)


if __name__ == "__main__":
    said = os.dup(1)
    os.dup2(2, 1)  # MNN prints
    job, *arguments = json.loads(sys.argv[1])
    os.write(said, json.dumps({"write_truth": write_truth, "compare": compare}[job](*arguments)).encode())
