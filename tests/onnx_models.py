"""ONNX files of kinds of networks that people deploy, with seeded weights: tests build them on the spot."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FREE = ("batch", 3, "height", "width")


class Builder:
    """Nodes one after another: each method adds some and returns the name of what they make."""

    def __init__(self):
        self.nodes, self.stored, self.random = [], [], np.random.default_rng(0)

    def add(self, operator, *inputs, **attributes):
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, values):
        name = f"constant_{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(self, x, cin, cout, side=3, stride=1, activation="Relu"):
        scale = (2 / (cin * side * side)) ** 0.5
        kernel = self.constant(self.random.normal(0, scale, (cout, cin, side, side)).astype(np.float32))
        x = self.add("Conv", x, kernel, pads=[side // 2] * 4, strides=[stride, stride])
        return self.add(activation, x) if activation else x

    def save(self, path, inputs, outputs, **external):
        """Write the graph; inputs: kind and shape by name; outputs: names."""
        picture = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
        graph = helper.make_graph(self.nodes, path.stem, picture, made, self.stored)
        domains = {"", *(node.domain for node in self.nodes)}
        opsets = [helper.make_opsetid(domain, 1 if domain else 18) for domain in sorted(domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, path, **external)
        return path


def unet(path, channels=16, levels=3, shape=FREE):
    """Halved and doubled again, with a skip at every level; sides are multiples of 2**levels."""
    build, skips, x, cin = Builder(), [], "x", 3
    for level in range(levels):
        x = build.conv(build.conv(x, cin, channels << level), channels << level, channels << level)
        skips.append(x)
        x, cin = build.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), channels << level
    x = build.conv(x, cin, 2 * cin)
    for level in reversed(range(levels)):
        scales = build.constant(np.array([1, 1, 2, 2], np.float32))
        x = build.add("Resize", x, "", scales, mode="nearest")
        x = build.add("Concat", x, skips.pop(), axis=1)
        x = build.conv(x, 3 * (channels << level) if level < levels - 1 else 3 * cin, channels << level)
    y = build.conv(x, channels, 3, activation="Sigmoid")
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def denoiser(path, channels=24, depth=8, shape=FREE):
    """A chain of convolutions at full size that computes the noise, which is taken away: any size."""
    build, x = Builder(), "x"
    for layer in range(depth):
        x = build.conv(x, channels if layer else 3, channels)
    y = build.add("Sub", "x", build.conv(x, channels, 3, activation=None))
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def classifier(path, channels=16, classes=10, shape=FREE, kind=TensorProto.FLOAT, layout="NCHW"):
    """Halved four times, then one mean a channel and a product: classes in place of a picture."""
    build, x = Builder(), "x"
    if kind != TensorProto.FLOAT:
        x = build.add("Cast", x, to=TensorProto.FLOAT)
    if layout == "NHWC":
        x = build.add("Transpose", x, perm=[0, 3, 1, 2])
    for level in range(4):
        cin = channels << (level - 1) if level else 3
        x = build.conv(x, cin, channels << level, stride=2)
    x = build.add("Flatten", build.add("GlobalAveragePool", x))
    weights = build.constant(build.random.normal(0, 0.1, (channels << 3, classes)).astype(np.float32))
    y = build.add("Softmax", build.add("MatMul", x, weights))
    return build.save(path, {"x": (kind, shape)}, {y: TensorProto.FLOAT})


def gated(path):
    """Two inputs more: a mask of the picture's sides, and features of a free length; two outputs."""
    build = Builder()
    x = build.conv("x", 3, 4)
    masked = build.add("Mul", x, "mask")
    total = build.add("ReduceSum", "features", keepdims=0)
    inputs = {
        "features": (TensorProto.FLOAT, ("batch", "length")),
        "x": (TensorProto.FLOAT, FREE),
        "mask": (TensorProto.FLOAT, ("batch", 1, "height", "width")),
    }
    return build.save(path, inputs, {masked: TensorProto.FLOAT, total: TensorProto.FLOAT})


def mobile(path, channels=16, blocks=5, shape=FREE):
    """Depthwise convolutions in widened blocks with a skip, squeezed by their means, as in networks for telephones."""
    build, x = Builder(), "x"
    x = build.conv(x, 3, channels, stride=2)
    for _ in range(blocks):
        wide, skip = 4 * channels, x
        x = build.conv(x, channels, wide, side=1, activation="HardSwish")
        kernel = build.constant(build.random.normal(0, 0.3, (wide, 1, 3, 3)).astype(np.float32))
        x = build.add("HardSwish", build.add("Conv", x, kernel, pads=[1] * 4, group=wide))
        gate = build.conv(build.add("GlobalAveragePool", x), wide, wide, side=1, activation="HardSigmoid")
        x = build.conv(build.add("Mul", x, gate), wide, channels, side=1, activation=None)
        x = build.add("Add", x, skip)
    y = build.conv(x, channels, 1, side=1, activation="Sigmoid")
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def upscaler(path, channels=48, depth=6, factor=2, shape=FREE):
    """A chain of convolutions, then channels rearranged into a picture of twice the sides."""
    build, x = Builder(), "x"
    for layer in range(depth):
        x = build.conv(x, channels if layer else 3, channels, activation="LeakyRelu")
    x = build.conv(x, channels, 3 * factor**2, activation=None)
    y = build.add("DepthToSpace", x, blocksize=factor)
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def dense(path, growth=12, layers=8, shape=FREE):
    """At half the sides, each layer reads the maps of all before it, as in DenseNet: many small tensors live long."""
    build = Builder()
    x, cin = build.conv("x", 3, 2 * growth, stride=2), 2 * growth
    for _ in range(layers):
        narrow = build.conv(x, cin, 4 * growth, side=1)
        x, cin = build.add("Concat", x, build.conv(narrow, 4 * growth, growth), axis=1), cin + growth
    y = build.conv(x, cin, 3, side=1, activation="Sigmoid")
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def pyramid(path, channels=24, levels=4, shape=FREE):
    """Halved some times, then summed from the smallest maps up, as detectors do; sides: multiples of 2**levels."""
    build, x, maps = Builder(), "x", []
    for level in range(levels):
        x = build.conv(x, channels << (level - 1) if level else 3, channels << level, stride=2)
        x = build.conv(x, channels << level, channels << level)
        maps.append(build.conv(x, channels << level, 2 * channels, side=1, activation=None))
    top = maps.pop()
    while maps:
        scales = build.constant(np.array([1, 1, 2, 2], np.float32))
        top = build.add("Add", maps.pop(), build.add("Resize", top, "", scales, mode="nearest"))
        top = build.conv(top, 2 * channels, 2 * channels)
    y = build.conv(top, 2 * channels, 1, activation="Sigmoid")
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def attention(path, side=8, channels=32, shape=FREE):
    """Squares of a picture that all look at one another, with an operator of ONNX Runtime's own: sides in squares."""
    build = Builder()
    looks = [build.random.normal(0, 0.1, (channels, channels)).astype(np.float32) for _ in range(2)]
    squares = build.constant(build.random.normal(0, 0.1, (channels, 3, side, side)).astype(np.float32))
    x = build.add("Conv", "x", squares, strides=[side, side])
    x = build.add("Gelu", x, domain="com.microsoft")
    x = build.add("Reshape", x, build.constant(np.array([0, channels, -1])))
    x = build.add("Transpose", x, perm=[0, 2, 1])
    asks, answers = (build.add("MatMul", x, build.constant(look)) for look in looks)
    seen = build.add("Softmax", build.add("MatMul", asks, build.add("Transpose", answers, perm=[0, 2, 1])), axis=-1)
    y = build.add("MatMul", seen, x)
    return build.save(path, {"x": (TensorProto.FLOAT, shape)}, {y: TensorProto.FLOAT})


def identity(path, kind):
    """What comes in comes out, of any kind."""
    build = Builder()
    y = build.add("Identity", "x")
    return build.save(path, {"x": (kind, FREE)}, {y: kind})


def words(path):
    """A picture's numbers as text."""
    build = Builder()
    y = build.add("Cast", "x", to=TensorProto.STRING)
    return build.save(path, {"x": (TensorProto.FLOAT, FREE)}, {y: TensorProto.STRING})
