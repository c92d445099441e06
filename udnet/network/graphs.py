"""An ONNX graph for one picture: its nodes in the file's order, and the shape and bytes of every tensor. Nothing runs.

Shapes follow node by node from those of the inputs. Constants are the initializers, and what these and the picture's
size decide between them, such as borders and shapes: that is worked out here, and its nodes are left out.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from udnet import Error
from udnet.network import onnx_file

MULTIPLES = (2, 4, 8, 16, 32, 64, 128)  # of sides: what networks ask that halve a picture
SMALL = 256  # elements of a value that is worked out, at most: shapes, never maps


class Tensor(NamedTuple):
    """A value of the graph."""

    name: str
    operator: str  # of the node that makes it, or ""
    shape: tuple[int, ...]
    bytes: int


class Node(NamedTuple):
    """A node that depends on the picture's values."""

    name: str
    operator: str
    weight: str  # the first constant that it reads, or ""
    inputs: list[str]  # once each, without constants
    outputs: list[str]


@dataclass(frozen=True, eq=False)
class Graph:
    """What `read` gives."""

    nodes: list[Node]
    tensors: dict[str, Tensor]  # the inputs, then those that the nodes make, in order
    ends: set[str]  # the inputs and the results
    weights: int  # bytes of the constants


class Unfit(Error):
    """A graph that does not take a picture of this size."""


def need_size(file, height, width):
    """`Error` where an `OnnxFile` does not take a picture of this size, by its inputs or within, with what it takes.

    What depends on values, or cannot be told without a run for another reason, is left to the run.
    """
    file.feed(height, width)
    if takes(file, height, width):
        return
    for multiple in MULTIPLES:
        up = [-(-side // multiple) * multiple for side in (height, width)]
        if all(takes(file, *(side + more for side in up)) for more in (0, multiple)):
            which = f"give sides that are multiples of {multiple}, such as {up[0]}x{up[1]}"
            raise Unfit(f"{file.path}: takes no picture of {height}x{width}: {which}")
    try:
        read(file, height, width)
    except Unfit as error:
        said = f"takes no picture of {height}x{width}: {error}; give the size that it was made for"
        raise Unfit(f"{file.path}: {said}") from None


def takes(file, height, width):
    """Whether a graph takes a picture of this size, as far as that can be told without a run."""
    try:
        read(file, height, width)
    except Error as error:
        return not isinstance(error, Unfit)
    return True


def read(file, height, width):
    """The `Graph` for a picture of this size; `file`: an `OnnxFile`, or the path of one without further inputs."""
    if not isinstance(file, onnx_file.OnnxFile):
        file = onnx_file.read(file)
    feed = file.feed(height, width)
    proto = onnx.load(file.path, load_external_data=False)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    constants = {one.name: one for one in proto.graph.initializer}
    types = {name: helper.make_tensor_type_proto(one.data_type, one.dims) for name, one in constants.items()}
    for name, one in feed.inputs.items():
        types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(one.kind)), one.shape)
    nodes, tensors = [], {name: _tensor(name, "", types) for name in feed.inputs}
    for node in proto.graph.node:
        inputs, outputs = ([*dict.fromkeys(filter(None, names))] for names in (node.input, node.output))
        small = {name: constants[name] for name in inputs if name in constants and _is_small(constants[name])}
        types |= _inferred(node, {name: types[name] for name in inputs}, small, proto)
        made = {name: _tensor(name, node.op_type, types) for name in outputs}
        decided = small and len(small) == len(inputs) and all(prod(one.shape) <= SMALL for one in made.values())
        if decided or node.op_type in ("Constant", "Shape"):
            values = {name: np.broadcast_to(np.float32(0), _tensor(name, "", types).shape) for name in inputs}  # unread
            values |= {name: numpy_helper.to_array(one) for name, one in small.items()}
            results = ReferenceEvaluator(node, opsets=_versions(proto)).run(None, values)
            constants |= {name: numpy_helper.from_array(one) for name, one in zip(outputs, results, strict=True)}
        else:
            weight = next((name for name in inputs if name in constants), "")
            inputs = [name for name in inputs if name not in constants]
            nodes.append(Node(node.name or outputs[0], node.op_type, weight, inputs, outputs))
            tensors |= made
    ends = {*feed.inputs, *(one.name for one in proto.graph.output)}
    return Graph(nodes, tensors, ends, sum(_tensor(name, "", types).bytes for name in constants))


def _is_small(constant):
    return prod(constant.dims) <= SMALL and constant.data_location != onnx.TensorProto.EXTERNAL


def _inferred(node, types, values, proto):
    """The types of a node's outputs, by name, from those of its inputs and from the values that are known."""
    name, versions = node.name or node.output[0], _versions(proto)
    if any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in node.attribute):
        raise Error(f"{name} ({node.op_type}) decides by values what runs: its bytes cannot be counted")
    try:
        schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    except (onnx.defs.SchemaError, KeyError):
        raise Error(f"{name} ({node.op_type}) is not of ONNX's own operators: its bytes cannot be counted") from None
    try:
        return infer_node_outputs(schema, node, types, values, None, proto.opset_import, proto.ir_version)
    except InferenceError:
        raise Unfit(f"its {node.op_type} {name} takes other sides") from None


def _versions(proto):
    return {one.domain: one.version for one in proto.opset_import}


def _tensor(name, operator, types):
    """A tensor of a known type; its shape has to be known too."""
    said = types[name].tensor_type
    if not said.HasField("shape") or not all(dim.HasField("dim_value") for dim in said.shape.dim):
        raise Error(f"the shape of {name} does not follow from the picture's size: its bytes cannot be counted")
    shape = tuple(dim.dim_value for dim in said.shape.dim)
    return Tensor(name, operator, shape, prod(shape) * helper.tensor_dtype_to_np_dtype(said.elem_type).itemsize)
