"""Winograd's algorithm for 3x3 convolutions: m outputs from m + 2 products in place of 3 m, between two transforms.

`matrices` gives them for any points; more outputs take fewer products and lose more digits. Down the rows alone a
transform takes sums of whole rows, which lie one after another in memory, and the products are a 1x3 convolution in
as many groups as there are products: operators that every runtime has (`graph`). Imports onnx only to make a graph.
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
    """A stage of `stages` as an ONNX file, as bytes: any columns, rows a multiple of the outputs.

    It names the weights of `products`, and of a head's last layer, and holds none. Rows are turned by a convolution a
    product, of each channel by itself: ONNX Runtime runs these, too, in its own layout, so that what comes in is
    reordered once.
    """
    from onnx import helper

    down, _, rows = matrices(points)
    most, count = down.shape
    held = {
        **{f"turn{k}": np.tile(row[:, None], (channels, 1, 1, 1)).astype(np.float32) for k, row in enumerate(rows)},
        "down": down.astype(np.float32),
        **{"flat": [count, -1], "apart": [most, WIDTH], "joined": [1, WIDTH, -1]},
    }
    named = {"weight": (count * WIDTH, channels, 1, 3), "bias": (count * WIDTH,)}
    nodes = [
        *(
            helper.make_node("Conv", ["block", f"turn{k}"], [f"turned{k}"], group=channels, strides=[most, 1])
            for k in range(count)
        ),
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
    ]
    if stage == "convolution":
        nodes.append(helper.make_node("LeakyRelu", ["sum"], ["out"], alpha=SLOPE))
    else:
        nodes.append(helper.make_node("Add", ["sum", "rows"], ["out" if stage == "residual" else "added"]))
    if stage == "head":
        named |= {"last_weight": (3, WIDTH, 1, 1), "last_bias": (3,)}
        nodes.append(helper.make_node("Conv", ["added", "last_weight", "last_bias"], ["out"]))
    return _file(nodes, held, named, channels, stage, 3 if stage == "head" else WIDTH)


def _file(nodes, held, named, channels, stage, channels_out):
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    def end(name, count, more=""):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, count, f"rows{more}", f"columns{more}"))

    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    for name, shape in named.items():  # said to lie in a file, as ONNX Runtime asks of what it is to replace
        given = numpy_helper.from_array(np.zeros(shape, np.float32), name)
        external_data_helper.set_external_data(given, "weights", 0, len(given.raw_data))
        given.ClearField("raw_data")
        weights.append(given)
    inputs = [end("block", channels, " + 2"), *([] if stage == "convolution" else [end("rows", WIDTH)])]
    about = helper.make_graph(nodes, stage, inputs, [end("out", channels_out)], weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(about, opset_imports=opsets, ir_version=IR).SerializeToString()
