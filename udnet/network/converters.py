"""An ONNX file to the files of other runtimes: MNN's by its converter, ncnn's by pnnx.

Both read axes that a reduction takes as an input, as newer opsets have them, as none at all, and say nothing: what is
converted would compute something else. For MNN they are written as older opsets had them; for ncnn such a file is
refused.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from udnet.network.checkpoint import CheckpointError, few
from udnet.system.files import replacing, temporary_folder

NCNN = ("ncnn-param", "ncnn-bin")  # the two files of a network for ncnn: its layers, its weights
FORMS = ("mnn", *NCNN)
MISREAD = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # by MNN's converter
SIDES = (64, 96)  # of two pictures, which tell pnnx which sides are free
EXIT = 3  # of the process that converts, where a graph is not taken
KINDS = {1: "f32", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64"}  # pnnx's words for ONNX's types


class NotTaken(CheckpointError):
    """A graph that a converter does not take, or its runtime does not have what it takes to run it."""


def convert(path, out, form):
    """Write what a runtime loads in place of an ONNX file: "mnn", or one of `NCNN`."""
    if form == "mnn":
        to_mnn(path, out)
    else:
        to_ncnn(path, out, form)


def to_mnn(path, out):
    """Write an ONNX file as MNN's; `NotTaken` where its converter does not take it."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type in MISREAD and _takes_axes(node):
            if (axes := _constant(node.input[1], model.graph)) is None:
                raise _refused(path, "MNN", f"its converter drops the axes that {node.op_type} takes as an input")
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
            del node.input[1]
        if node.op_type.startswith("Reduce") and "keepdims" not in [one.name for one in node.attribute]:
            node.attribute.append(onnx.helper.make_attribute("keepdims", 1))  # MNN's is 0
    with temporary_folder() as folder, replacing(out) as part:
        onnx.save(model, folder / "model.onnx")
        # the module itself: the command around it logs what it converts
        run = "import sys, _tools; _tools.mnnconvert(sys.argv)"
        model = ["-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", os.fspath(part.absolute())]
        said = _said([sys.executable, "-c", run, *model, "--bizCode", "udnet"], folder)
        if not part.exists():
            raise _refused(path, "MNN", next((line for line in said if "Not Support" in line), said[-1]))


def to_ncnn(path, out, form):
    """Write one of the two files, `NCNN`, that ncnn takes for an ONNX file: inputs named as there, out0, out1, ...

    `NotTaken` where pnnx does not take the graph, or ncnn has no layer for what it makes of it.
    """
    import ncnn
    import onnx

    model = onnx.load(path)
    graph = model.graph
    if misread := {node.op_type for node in graph.node if _takes_axes(node)}:
        raise _refused(path, "ncnn", f"pnnx drops the axes that {few(sorted(misread))} takes; export it with opset 12")
    pnnx = Path(importlib.util.find_spec("pnnx").submodule_search_locations[0], "pnnx")  # importing it imports torch
    with temporary_folder() as folder:
        onnx.save(model, folder / "model.onnx")  # with the weights that lie in other files
        said = _said([pnnx, "model.onnx", "fp16=0", *_shapes(graph)], folder)
        if not (folder / "model.ncnn.bin").exists():
            raise _refused(path, "ncnn", f"pnnx: {'; '.join(said[-2:])}")
        magic, counts, *layers = (folder / "model.ncnn.param").read_text().splitlines()
        lacking = {kind for kind in (line.split()[0] for line in layers) if ncnn.layer_to_index(kind) < 0}
        if lacking:
            raise _refused(path, "ncnn", f"it has no layer for {few(sorted(lacking))}")
        weights = {one.name for one in graph.initializer}
        names = {f"in{at}": name for at, name in enumerate(one.name for one in graph.input if one.name not in weights)}
        named = [" ".join(names.get(word, word) for word in line.split()) for line in layers]
        with replacing(out) as part:
            if form == "ncnn-bin":
                part.write_bytes((folder / "model.ncnn.bin").read_bytes())
            else:
                part.write_text("\n".join([magic, counts, *named, ""]))


def _takes_axes(node):
    """Whether a node is a reduction that has its axes as an input."""
    return node.op_type.startswith("Reduce") and len(node.input) > 1 and node.input[1] != ""


def _constant(name, graph):
    """The whole numbers of a graph's constant, a list; None where it is none."""
    from onnx import helper, numpy_helper

    known = {one.name: one for one in graph.initializer}
    known |= {
        one.output[0]: helper.get_attribute_value(one.attribute[0]) for one in graph.node if one.op_type == "Constant"
    }
    if name not in known:
        return None
    value = known[name]
    return list(value) if isinstance(value, list) else numpy_helper.to_array(value).ravel().tolist()


def _shapes(graph):
    """What tells pnnx the shapes of a graph's inputs: twice, where one is free."""
    weights = {one.name for one in graph.initializer}
    shapes = [[], []]
    for one in (one for one in graph.input if one.name not in weights):
        kind = KINDS.get(one.type.tensor_type.elem_type, "f32")
        sides = [side.dim_value for side in one.type.tensor_type.shape.dim]
        for free, words in zip(SIDES, shapes, strict=True):
            shape = [max(side, 0) or (free if place else 1) for place, side in enumerate(sides)]
            words.append(f"[{','.join(map(str, shape))}]{kind}")
    said = [",".join(words) for words in shapes]
    return [f"inputshape={said[0]}"] + ([f"inputshape2={said[1]}"] if said[0] != said[1] else [])


def _said(command, folder):
    """The lines that a program says, run in a folder, with how it ended as the last one if it failed."""
    from udnet.system import guard

    kills = guard.kernel_kills()
    run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    lines = run.stdout.split("\n")
    return [*filter(None, lines), *([guard.ending(run.returncode, kills)] if run.returncode else [])]


def _refused(path, runtime, said):
    return NotTaken(f"{Path(path).name}: {runtime} does not take this graph: {' '.join(said.split())[:300]}")
