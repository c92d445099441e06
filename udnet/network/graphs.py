"""An ONNX graph for one picture: its nodes in the file's order, and the shape and bytes of every tensor. Nothing runs.

Shapes follow node by node from the picture's. Constants are the initializers, and what these and the picture's size
decide between them, such as borders and shapes: that is worked out here, and its nodes are left out.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from udnet import Error

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
    tensors: dict[str, Tensor]  # the picture, then those that the nodes make, in order
    ends: set[str]  # the picture and the results
    weights: int  # bytes of the constants


def read(path, height, width):
    """The `Graph` of an ONNX file that takes one batch of pictures, for one of this size."""
    proto = onnx.load(path)
    constants = {one.name: one for one in proto.graph.initializer}
    types = {name: helper.make_tensor_type_proto(one.data_type, one.dims) for name, one in constants.items()}
    (picture,) = (one for one in proto.graph.input if one.name not in constants)
    for dim, side in zip(picture.type.tensor_type.shape.dim, (1, None, height, width), strict=True):
        dim.dim_value = side or dim.dim_value
    types[picture.name] = picture.type
    nodes, tensors = [], {picture.name: _tensor(picture.name, "", types)}
    for node in proto.graph.node:
        inputs, outputs = ([*dict.fromkeys(filter(None, names))] for names in (node.input, node.output))
        small = {name: constants[name] for name in inputs if name in constants and prod(constants[name].dims) <= SMALL}
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
    ends = {picture.name, *(one.name for one in proto.graph.output)}
    return Graph(nodes, tensors, ends, sum(_tensor(name, "", types).bytes for name in constants))


def _inferred(node, types, values, proto):
    """The types of a node's outputs, by name, from those of its inputs and from the values that are known."""
    schema = onnx.defs.get_schema(node.op_type, _versions(proto)[node.domain], node.domain)
    try:
        return infer_node_outputs(schema, node, types, values, None, proto.opset_import, proto.ir_version)
    except InferenceError as error:
        raise Error(f"{node.name or node.output[0]} does not take a picture of this size: {error}") from None


def _versions(proto):
    return {one.domain: one.version for one in proto.opset_import}


def _tensor(name, operator, types):
    """A tensor of a known type; its shape has to be known too."""
    said = types[name].tensor_type
    if not said.HasField("shape") or not all(dim.HasField("dim_value") for dim in said.shape.dim):
        raise Error(f"the shape of {name} does not follow from the picture's size: its bytes cannot be counted")
    shape = tuple(dim.dim_value for dim in said.shape.dim)
    return Tensor(name, operator, shape, prod(shape) * helper.tensor_dtype_to_np_dtype(said.elem_type).itemsize)
