"""Winograd's algorithm for 3x3 convolutions: m outputs from m + 2 products in place of 3 m, between two transforms.

`matrices` gives them for any points; more outputs take fewer products and lose more digits. Down the rows alone a
transform takes sums of whole rows, which lie one after another in memory, and the products are a 1x3 convolution in
as many groups as there are products: operators that every runtime has (`graph`).
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from udnet.network.export import OPSET
from udnet.network.model import SLOPE

TWO = 0, 1, -1  # the points, infinity besides, of two outputs from four products
FOUR = 0, 5 / 8, -5 / 8, 3 / 2, -3 / 2  # of four from six: least error of 34 pairs tried; the usual one is 1 and 2
IR = 10  # of ONNX: ONNX Runtime takes no newer ones than it knows


def matrices(points):
    """What turns outputs' products, weights and rows: A (m x m + 2), G (m + 2 x 3), B (m + 2 x m + 2), in float64.

    By Toom and Cook: the convolution is a product of polynomials, given by its values at the points and at infinity.
    """
    points = np.array(points, float)
    others = [np.delete(points, place) for place in range(len(points))]
    scale = [[np.prod(point - rest)] for point, rest in zip(points, others, strict=True)]
    powers = [np.vander(points, count, increasing=True) for count in (len(points) - 1, 3)]
    infinity = [np.eye(1, one.shape[1], one.shape[1] - 1) for one in powers]
    rows = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
    return np.vstack([powers[0], infinity[0]]).T, np.vstack([powers[1] / scale, infinity[1]]), np.array(rows)


def products(points, weight, bias):
    """The weights and biases of the products down the rows: a 1x3 convolution with a group a product."""
    down, across, _ = matrices(points)
    weight = np.einsum("kr,oirc->koic", across, weight.astype(float))
    shares = np.linalg.pinv(down).sum(axis=1)  # of the bias: what gives 1 in every output
    parts = weight.reshape(-1, weight.shape[2], 1, 3), np.outer(shares, bias).ravel()
    return [np.ascontiguousarray(one, np.float32) for one in parts]


def graph(points, weight, bias):
    """A convolution and its LeakyReLU in one ONNX file, as bytes: any columns, rows a multiple of the outputs.

    Rows are turned by a convolution a product, of each channel by itself: ONNX Runtime runs these, too, in its own
    layout, so that what comes in is reordered once.
    """
    down, _, rows = matrices(points)
    (most, count), (channels_out, channels) = down.shape, weight.shape[:2]
    weight, bias = products(points, weight, bias)
    values = {
        **{f"turn{k}": np.tile(row[:, None], (channels, 1, 1, 1)) for k, row in enumerate(rows)},
        **{"weight": weight, "bias": bias, "down": down},
        **{"flat": [count, -1], "apart": [most, channels_out], "joined": [1, channels_out, -1]},
    }
    each = {"group": channels, "strides": [most, 1]}
    nodes = [
        *(helper.make_node("Conv", ["block", f"turn{k}"], [f"turned{k}"], **each) for k in range(count)),
        helper.make_node("Concat", [f"turned{k}" for k in range(count)], ["turned"], axis=1),
        helper.make_node("Conv", ["turned", "weight", "bias"], ["products"], group=count),
        helper.make_node("Shape", ["products"], ["size"], start=2),
        helper.make_node("Shape", ["products"], ["columns"], start=3),
        helper.make_node("Concat", ["apart", "size"], ["apart by size"], axis=0),
        helper.make_node("Concat", ["joined", "columns"], ["joined by columns"], axis=0),
        helper.make_node("Reshape", ["products", "flat"], ["a product a row"]),
        helper.make_node("MatMul", ["down", "a product a row"], ["an output a row"]),
        helper.make_node("Reshape", ["an output a row", "apart by size"], ["outputs"]),
        helper.make_node("Transpose", ["outputs"], ["in turn"], perm=[1, 2, 0, 3]),
        helper.make_node("Reshape", ["in turn", "joined by columns"], ["sum"]),
        helper.make_node("LeakyRelu", ["sum"], ["out"], alpha=SLOPE),
    ]
    return model(nodes, values, channels, channels_out)


def model(nodes, values, channels, channels_out):
    """An ONNX file, as bytes, from `block` to `out`; `values` are its weights, and shapes where they hold integers."""
    sizes = {"block": (1, channels, "rows + 2", "columns + 2"), "out": (1, channels_out, "rows", "columns")}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in sizes.items()]
    held = [numpy_helper.from_array(_as_held(np.asarray(value)), name) for name, value in values.items()]
    opsets = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(helper.make_graph(nodes, "convolution", *ends, held), opset_imports=opsets, ir_version=IR)
    return proto.SerializeToString()


def _as_held(value):
    return value if value.dtype == np.int64 else value.astype(np.float32)


def by_rows(points, weight, bias):
    """The same with the transforms in NumPy, in three steps: what goes in, the products' weights, what comes out."""
    down, _, rows = (one.astype(np.float32) for one in matrices(points))
    most, count = down.shape

    def into(block, out):
        stop = block.shape[1] - count + 1
        turned(rows, [block[:, k : stop + k : most] for k in range(count)], out)

    def out_of(found):
        return leaky(turned(down, found).transpose(1, 2, 0, 3).reshape(found.shape[1], -1, found.shape[3]))

    return into, products(points, weight, bias), out_of


def tiles(weight, bias):
    """F(2x2, 3x3) in NumPy: 16 products of matrices for two by two outputs, where the direct method has 36."""
    down, across, rows = (one.astype(np.float32) for one in matrices(TWO))
    weight = np.einsum("ar,bc,oirc->baoi", across, across, weight).astype(np.float32)

    def run(block):
        channels, (high, wide) = len(block), (side // 2 - 1 for side in block.shape[1:])
        by_row = turned(rows, [block[:, k : k + 2 * high : 2] for k in range(4)])
        by_both = turned(rows, [by_row[..., k : k + 2 * wide : 2] for k in range(4)])
        found = turned(down, weight @ by_both.reshape(4, 4, channels, -1))
        out = turned(down, found.swapaxes(0, 1)) + bias[:, None].astype(np.float32)
        return leaky(out.reshape(2, 2, -1, high, wide).transpose(2, 3, 0, 4, 1).reshape(-1, 2 * high, 2 * wide))

    return run


def turned(matrix, arrays, out=None):
    """A transform: each row of the matrix as a sum of the arrays."""
    arrays = np.asarray(arrays)
    into = None if out is None else out.reshape(len(matrix), -1)
    return np.matmul(matrix, arrays.reshape(len(arrays), -1), out=into).reshape(len(matrix), *arrays.shape[1:])


def leaky(values):
    """LeakyReLU."""
    return np.maximum(values, values * np.float32(SLOPE))
