"""Kernels for one convolution of the tiled schedule, by what others ship and by Winograd's algorithm.

Each takes a `Task` and is then `Ready` to run on one thread. It raises ImportError where its library is not
installed, and `NotMeasured` where there is no such kernel.
"""

import importlib
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import numpy as np

from udnet import NotMeasured
from udnet.network import winograd
from udnet.network.model import SLOPE, WIDTH
from udnet.system import files
from udnet.tiled import kernels

SPREAD = {"map": 0.1, "weight": 0.027}  # standard deviations, as the default network has them
OWN = "the schedule's own"


class Task:
    """One convolution of random values: its weights, a block with its borders, and room for the output."""

    def __init__(self, channels, rows, columns):
        self.channels, self.rows, self.columns = channels, rows, columns
        self.weight = _normal("weight", WIDTH, channels, 3, 3)
        self.bias = _normal("map", WIDTH)
        self.block = self.deep(1)
        self.out = np.empty((WIDTH, rows, columns), np.float32)

    def deep(self, depth):
        """A block with borders for so many convolutions, one after the other."""
        return leaky(_normal("map", self.channels, self.rows + 2 * depth, self.columns + 2 * depth))

    def expected(self, block):
        """What the convolutions give that the block has borders for, in float64."""
        while block.shape[1] > self.rows:
            high, wide = (side - 2 for side in block.shape[1:])
            seen = {(y, x): block[:, y : y + high, x : x + wide] for y, x in product(range(3), range(3))}
            taps = (np.tensordot(self.weight[..., y, x].astype(float), part, 1) for (y, x), part in seen.items())
            block = sum(taps) + self.bias[:, None, None]
            block = np.maximum(block, block * SLOPE)
        return block

    def operations(self, depth):
        """Multiplications and additions of so many, by the direct method."""
        outputs = sum((self.rows + 2 * more) * (self.columns + 2 * more) for more in range(depth))
        return 2 * 9 * WIDTH * self.channels * outputs


def _normal(kind, *shape):
    return np.random.default_rng(len(shape)).normal(0, SPREAD[kind], shape).astype(np.float32)


@dataclass
class Ready:
    """A kernel with its block: `run()` is what is timed, and `output` makes channels x rows x columns of its result."""

    run: callable
    block: np.ndarray
    output: callable = np.asarray
    depth: int = 1  # convolutions, one after the other


def own(task):
    kernel = kernels.OnnxKernels().make("convolution", task.weight, task.bias)
    return Ready(lambda: kernel.run(task.out, task.block), task.block)


# --- what others ship ---


def chain(depth, task):
    """Convolutions in one graph: ONNX Runtime reorders before the first and after the last."""
    if task.channels != WIDTH:
        raise NotMeasured("a chain takes what it gives")
    block = task.deep(depth)
    return Ready(_runner(_direct(task, depth), block, task.out), block, depth=depth)


def blocked(task):
    """ONNX Runtime's own layout in and out: the graph that it makes of a convolution, without what reorders."""
    import onnx
    import onnxruntime

    with files.temporary_folder() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.optimized_model_filepath = 3, str(folder / "made.onnx")
        onnxruntime.InferenceSession(_direct(task), options, providers=["CPUExecutionProvider"])
        made = onnx.load(folder / "made.onnx")
    found = [node for node in made.graph.node if node.domain.endswith("nchwc") and node.op_type == "Conv"]
    if not found:
        raise NotMeasured("ONNX Runtime has no layout of its own for this processor")
    (node,) = found
    (weight,) = (onnx.numpy_helper.to_array(one) for one in made.graph.initializer if one.name == node.input[1])
    size = next(size for size in (8, 16) if np.array_equal(_in_blocks(task.weight, size), weight.ravel()))
    node.input[0], node.output[0] = "block", "out"
    del made.graph.node[:]
    made.graph.node.append(node)
    apart = task.block.reshape(-1, size, *task.block.shape[1:]).transpose(0, 2, 3, 1)
    run = _runner(made.SerializeToString(), np.ascontiguousarray(apart).reshape(task.block.shape), task.out)
    out = task.out.reshape(-1, task.rows, task.columns, size).transpose(0, 3, 1, 2)
    return Ready(run, task.block, lambda _: out.reshape(task.out.shape))


def _in_blocks(weight, size):
    """Weights as ONNX Runtime reorders them: by blocks of outputs and of inputs, then the place in each."""
    outputs, inputs = (count // size for count in weight.shape[:2])
    return weight.reshape(outputs, size, inputs, size, 3, 3).transpose(0, 2, 4, 5, 3, 1).ravel()


def pytorch(layout, task):
    import torch

    from udnet.network import stages

    torch.set_num_threads(1)
    layout, module = getattr(torch, layout), stages.Convolution(WIDTH, task.channels)
    module.load_state_dict({"weight": torch.from_numpy(task.weight), "bias": torch.from_numpy(task.bias)})
    module, x = module.to(memory_format=layout), torch.from_numpy(task.block)[None].contiguous(memory_format=layout)
    return Ready(torch.inference_mode()(lambda: module(x)[0].numpy()), task.block)


def openvino(task):
    vino = importlib.import_module("openvino")  # tried where it is installed: not one of this project's packages
    core = vino.Core()
    model = core.read_model(model=_direct(task))
    model.reshape([1, *task.block.shape])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(vino.Tensor(task.block[None], shared_memory=True))
    request.set_output_tensor(vino.Tensor(task.out[None], shared_memory=True))
    return Ready(request.infer, task.block, lambda _: task.out)


# --- Winograd ---


def tiles(task):
    run = _by_tiles(task.weight, task.bias)
    return Ready(lambda: run(task.block), task.block)


def rows(points, task):
    """Transforms of rows in NumPy, the products in ONNX Runtime."""
    from onnx import helper

    into, (weight, bias), out_of = _by_rows(points, task.weight, task.bias)
    count, high = len(points) + 1, task.rows // (len(points) - 1)
    turned = np.empty((count * task.channels, high, task.columns + 2), np.float32)
    found = np.empty((count * WIDTH, high, task.columns), np.float32)
    node = helper.make_node("Conv", ["block", "weight", "bias"], ["out"], group=count)
    products = _runner(_model([node], {"weight": weight, "bias": bias}, len(turned), len(found)), turned, found)

    def run():
        into(task.block, turned)
        return out_of(products().reshape(count, WIDTH, high, -1))

    return Ready(run, task.block)


def graph(points, task):
    """All of it in one graph of ONNX Runtime, a few rows at a time, in maps with their rows one after another."""
    run = kernels.OnnxKernels().by_graph(
        winograd.graph(points, task.channels), winograd.products(points, task.weight, task.bias)
    )
    most, block = len(points) - 1, np.ascontiguousarray(task.block.transpose(1, 0, 2))
    out = task.out.reshape(task.rows, WIDTH, task.columns)

    def every():
        for top in range(0, task.rows, most):
            run(out[top : top + most], block[top : top + most + 2])

    return Ready(every, task.block, lambda _: out.transpose(1, 0, 2))


def _by_rows(points, weight, bias):
    """The same with the transforms in NumPy, in three steps: what goes in, the products' weights, what comes out."""
    down, _, rows = (one.astype(np.float32) for one in winograd.matrices(points))
    most, count = down.shape

    def into(block, out):
        stop = block.shape[1] - count + 1
        _turned(rows, [block[:, k : stop + k : most] for k in range(count)], out)

    def out_of(found):
        return leaky(_turned(down, found).transpose(1, 2, 0, 3).reshape(found.shape[1], -1, found.shape[3]))

    return into, winograd.products(points, weight, bias), out_of


def _by_tiles(weight, bias):
    """F(2x2, 3x3) in NumPy: 16 products of matrices for two by two outputs, where the direct method has 36."""
    down, across, rows = (one.astype(np.float32) for one in winograd.matrices(winograd.TWO))
    weight = np.einsum("ar,bc,oirc->baoi", across, across, weight).astype(np.float32)

    def run(block):
        channels, (high, wide) = len(block), (side // 2 - 1 for side in block.shape[1:])
        by_row = _turned(rows, [block[:, k : k + 2 * high : 2] for k in range(4)])
        by_both = _turned(rows, [by_row[..., k : k + 2 * wide : 2] for k in range(4)])
        found = _turned(down, weight @ by_both.reshape(4, 4, channels, -1))
        out = _turned(down, found.swapaxes(0, 1)) + bias[:, None].astype(np.float32)
        return leaky(out.reshape(2, 2, -1, high, wide).transpose(2, 3, 0, 4, 1).reshape(-1, 2 * high, 2 * wide))

    return run


def _turned(matrix, arrays, out=None):
    """A transform: each row of the matrix as a sum of the arrays."""
    arrays = np.asarray(arrays)
    into = None if out is None else out.reshape(len(matrix), -1)
    return np.matmul(matrix, arrays.reshape(len(arrays), -1), out=into).reshape(len(matrix), *arrays.shape[1:])


def leaky(values):
    """LeakyReLU."""
    return np.maximum(values, values * np.float32(SLOPE))


# --- ONNX Runtime ---


def _direct(task, depth=1):
    """Convolutions, one after the other, as an ONNX file."""
    from onnx import helper

    names, nodes = ["block", *(f"map{place}" for place in range(1, depth)), "out"], []
    for source, target in pairwise(names):
        nodes.append(helper.make_node("Conv", [source, "weight", "bias"], [f"sum {target}"]))
        nodes.append(helper.make_node("LeakyRelu", [f"sum {target}"], [target], alpha=SLOPE))
    return _model(nodes, {"weight": task.weight, "bias": task.bias}, task.channels, WIDTH)


def _model(nodes, values, channels, channels_out):
    """An ONNX file, as bytes, from `block` to `out`, with its weights."""
    from onnx import TensorProto, helper, numpy_helper

    sizes = {"block": (1, channels, "rows + 2", "columns + 2"), "out": (1, channels_out, "rows", "columns")}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in sizes.items()]
    held = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    opsets = [helper.make_opsetid("", winograd.OPSET)]
    proto = helper.make_model(
        helper.make_graph(nodes, "convolution", *ends, held), opset_imports=opsets, ir_version=winograd.IR
    )
    return proto.SerializeToString()


def _runner(model, block, out):
    """What runs a file from one array, channels x rows x columns, to another, as the schedule's own; returns that."""
    run = kernels.OnnxKernels().by_graph(model)

    def once():
        run(out[None], block[None])
        return out

    return once


KERNELS = {  # by name: the library that computes, what makes it ready
    OWN: ("onnxruntime", own),
    "ONNX Runtime, 2 in one graph": ("onnxruntime", partial(chain, 2)),
    "ONNX Runtime, 4 in one graph": ("onnxruntime", partial(chain, 4)),
    "ONNX Runtime, its own layout": ("onnxruntime", blocked),
    "PyTorch, channels last": ("torch", partial(pytorch, "channels_last")),
    "PyTorch, contiguous": ("torch", partial(pytorch, "contiguous_format")),
    "OpenVINO": ("openvino", openvino),
    "F(2x2, 3x3) in NumPy": ("numpy", tiles),
    "F(2, 3), rows in NumPy": ("onnxruntime", partial(rows, winograd.TWO)),
    "F(4, 3), rows in NumPy": ("onnxruntime", partial(rows, winograd.FOUR)),
    "F(2, 3) in one graph": ("onnxruntime", partial(graph, winograd.TWO)),
    "F(4, 3) in one graph": ("onnxruntime", partial(graph, winograd.FOUR)),
}
