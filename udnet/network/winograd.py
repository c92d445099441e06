"""Winograd's algorithm for 3x3 convolutions: m outputs from m + 2 products in place of 3 m, between two transforms.

`matrices` gives them for any points; more outputs take fewer products and lose more digits. Here it goes down the rows
alone, in maps whose rows lie one after another in memory, each with all its channels: then either transform is a
product with a small matrix, and the products between them are a 1x3 convolution in as many groups (`graph`). Imports
onnx only to make a graph.
Winograd, Arithmetic complexity of computations, 1980; Lavin, Gray, Fast algorithms for convolutional neural networks,
2016.
"""

import numpy as np

WIDTH = 64  # channels of every map
SLOPE = 0.01  # of every LeakyReLU, these as in `model`, which takes PyTorch
TWO = 0, 1, -1  # the points, infinity besides, of two outputs from four products
FOUR = 0, 5 / 8, -5 / 8, 3 / 2, -3 / 2  # of four from six: least error of 34 pairs tried; the usual one is 1 and 2
IR = 10  # of ONNX: ONNX Runtime takes no newer ones than it knows
OPSET = 18


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


def graph(points, channels, stage="convolution"):
    """A stage of `stages` as an ONNX file, as bytes: rows x channels x columns, as many rows as the points give.

    It names the weights of `products`, and of a head's last layer, and holds none.
    """
    from onnx import helper

    down, _, rows = matrices(points)
    most, count = down.shape
    held = {"rows into": rows.astype(np.float32), "out of": down.astype(np.float32)}
    held |= {"a row": [count, -1], "a group": [1, count * channels, 1, -1], "as given": [most, WIDTH, -1]}
    named = {"weight": (count * WIDTH, channels, 1, 3), "bias": (count * WIDTH,)}
    nodes = [
        helper.make_node("Reshape", ["block", "a row"], ["in"]),
        helper.make_node("MatMul", ["rows into", "in"], ["factors"]),
        helper.make_node("Reshape", ["factors", "a group"], ["grouped"]),
        helper.make_node("Conv", ["grouped", "weight", "bias"], ["products"], group=count),
        helper.make_node("Reshape", ["products", "a row"], ["ungrouped"]),
        helper.make_node("MatMul", ["out of", "ungrouped"], ["sums"]),
        helper.make_node("Reshape", ["sums", "as given"], ["sum"]),
    ]
    inputs = {"block": (count, channels, "columns + 2")}
    if stage == "convolution":
        nodes.append(helper.make_node("LeakyRelu", ["sum"], ["out"], alpha=SLOPE))
    else:
        inputs["rows"] = most, WIDTH, "columns"
        nodes.append(helper.make_node("Add", ["sum", "rows"], ["out" if stage == "residual" else "added"]))
    if stage == "head":
        named |= {"last_weight": (3, WIDTH, 1), "last_bias": (3,)}
        nodes.append(helper.make_node("Conv", ["added", "last_weight", "last_bias"], ["out"]))
    return _file(nodes, held, named, stage, inputs, {"out": (most, 3 if stage == "head" else WIDTH, "columns")})


def _file(nodes, held, named, stage, *ends):
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    for name, shape in named.items():  # said to lie in a file, as ONNX Runtime asks of what it is to replace
        given = numpy_helper.from_array(np.zeros(shape, np.float32), name)
        external_data_helper.set_external_data(given, "weights", 0, len(given.raw_data))
        given.ClearField("raw_data")
        weights.append(given)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()] for side in ends
    )
    about = helper.make_graph(nodes, stage, inputs, outputs, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(about, opset_imports=opsets, ir_version=IR).SerializeToString()
