"""What an ONNX file of anybody's takes, and what a trial gives it: a picture, and zeros for every further input.

Imports onnx where a file is read alone: the process of a trial has no need of it.
"""

import mmap
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from udnet import Error
from udnet.network import checkpoint

KINDS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {
    "float16",
    "float32",
    "float64",
    "bool",
}
CHANNELS = (1, 3, 4)  # of a picture
STEPS = {"FLOAT16": 4 / 2**10, "BFLOAT16": 4 / 2**7, "UINT8": 1 / 255, "INT8": 1 / 127}  # of coarse types (see `step`)


class Input(NamedTuple):
    """An input of a file: what a trial gives it, or what the file declares."""

    kind: str  # of its elements, in NumPy's words
    shape: tuple[int | str | None, ...] | None  # a side may be free, with a name or without; None: any shape


class Feed(NamedTuple):
    """What a file is given for a picture of one size."""

    picture: str  # the input that takes it
    layout: str  # the order of its sides, such as NCHW
    inputs: dict[str, Input]  # by name, every side a number

    def arrays(self, pixels):
        """Every input by name, for a picture: uint8, height x width x 3.

        Floats are in [0, 1], whole numbers in 0 to 255, int8 from -128 on. Channels beyond three are the first ones
        again, and a batch of several is this picture several times. Every other input is zeros.
        """
        arrays = {name: np.zeros(one.shape, one.kind) for name, one in self.inputs.items()}
        picture = arrays[self.picture]
        seen = pixels[:, :, np.arange(picture.shape[self.layout.index("C")]) % 3]
        seen = seen.transpose(["HWC".index(side) for side in self.layout if side != "N"])
        if picture.dtype.kind == "f":
            np.divide(seen, np.float32(255), out=picture, casting="same_kind")
        elif picture.dtype == np.int8:
            picture[...] = seen - 128  # goes round in uint8, and back in int8
        else:
            picture[...] = seen
        return arrays


class OnnxFile(NamedTuple):
    """An ONNX file that takes a picture."""

    path: Path
    picture: str  # as in `Feed`
    layout: str
    inputs: dict[str, Input]  # as the file declares them
    given: dict[str, tuple[int, ...]]  # shapes of further inputs, by name

    def feed(self, height, width):
        """The `Feed` for a picture of this size; `Error` where the file takes others, or a shape is not known."""
        declared = self.inputs[self.picture].shape or (None,) * len(self.layout)
        usual = {"N": 1, "C": 3, "H": height, "W": width}
        picture = [side if isinstance(side, int) else usual[at] for at, side in zip(self.layout, declared, strict=True)]
        sides = dict(zip(self.layout, picture, strict=True))
        if (sides["H"], sides["W"]) != (height, width):
            free = dict(zip(self.layout, declared, strict=True))
            only = by([free[side] if isinstance(free[side], int) else None for side in "HW"])
            raise Error(f"{self.path}: takes {only} alone, not {height}x{width}: give a size that it takes")
        known = {name: side for name, side in zip(declared, picture, strict=True) if isinstance(name, str)}
        shapes = {name: tuple(picture) if name == self.picture else self._shape(name, known) for name in self.inputs}
        inputs = {name: Input(one.kind, shapes[name]) for name, one in self.inputs.items()}
        return Feed(self.picture, self.layout, inputs)

    def _shape(self, name, known):
        """Of a further input: as given, else its numbers, the sides that the picture has too, and a batch of one."""
        if name in self.given:
            return self.given[name]
        shape = self.inputs[name].shape
        if shape is None:
            raise Error(f"{self.path}: the input {name} may have any shape: give one, as in --input {name}=1x8")
        sides = [side if isinstance(side, int) else known.get(side, None if at else 1) for at, side in enumerate(shape)]
        if None in sides:
            such = by([8 if side is None else side for side in sides])
            raise Error(f"{self.path}: the input {name} is {by(shape)}: give its shape, as in --input {name}={such}")
        return tuple(sides)


def read(path, given=()):
    """The `OnnxFile` at a path; `Error` where there is none, or where none of its inputs takes a picture.

    `given`: a shape for each further input whose sides are free, as `NAME=2x3`.
    """
    import onnx

    path = Path(path)
    checkpoint.need_file(path, "an .onnx")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf's own kinds
        raise Error(f"{path}: not an ONNX file, or cut short: get the file again") from None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        checkpoint.second_files(path, content)
    constants = {one.name for one in graph.initializer}
    inputs = {one.name: _input(one, path) for one in graph.input if one.name not in constants}
    layouts = {name: _layout(one.shape) for name, one in inputs.items()}
    picture = max(filter(layouts.get, layouts), key=lambda name: len(layouts[name]), default=None)
    if picture is None:
        said = ", ".join(f"{name} {by(one.shape)}" for name, one in inputs.items()) or "none"
        raise Error(f"{path}: takes no picture, as a batch of them or one alone: its inputs are {said}")
    return OnnxFile(path, picture, layouts[picture], inputs, _parsed(given, inputs, picture, path))


def step(path):
    """How far outputs of a file may differ by their type alone, relative to its scale: four roundings, or a level."""
    import onnx

    outputs = onnx.load(path, load_external_data=False).graph.output
    names = [onnx.TensorProto.DataType.Name(one.type.tensor_type.elem_type) for one in outputs]
    return max((STEPS.get(name, 0.0) for name in names), default=0.0)


def _input(declared, path):
    from onnx import helper

    if not declared.type.HasField("tensor_type"):
        raise Error(f"{path}: the input {declared.name} is no tensor: give a file that takes tensors alone")
    tensor = declared.type.tensor_type
    kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    if kind not in KINDS:
        raise Error(
            f"{path}: the input {declared.name} is of {kind}: give a file that takes {', '.join(sorted(KINDS))}"
        )
    if not tensor.HasField("shape"):
        return Input(kind, None)
    sides = (dim.dim_value if dim.dim_value > 0 else dim.dim_param for dim in tensor.shape.dim)
    return Input(kind, tuple(None if side in ("", "?") else side for side in sides))


def _layout(shape):
    """The order of an input's sides, if it can take a picture: by its number of channels, else as PyTorch has them."""
    if shape is None:
        return "NCHW"
    if len(shape) == 4:
        return "NHWC" if shape[3] in CHANNELS and shape[1] not in CHANNELS else "NCHW"
    if len(shape) == 3 and (shape[0] in CHANNELS or shape[2] in CHANNELS):
        return "CHW" if shape[0] in CHANNELS else "HWC"
    return None


def _parsed(given, inputs, picture, path):
    """Shapes by the input's name, of `NAME=2x3`; `Error` where the file has no such input, or another shape for it."""
    shapes = {}
    for text in given:
        name, equals, sides = text.rpartition("=")
        if not equals or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides):
            raise Error(f"no input {text!r}: give its name and its shape, as in mask=1x77")
        if name not in inputs:
            raise Error(f"{path}: has no input {name}: its inputs are {', '.join(inputs)}")
        if name == picture:
            raise Error(f"{path}: the input {name} takes the picture: its shape follows from the size")
        shapes[name] = tuple(map(int, sides.split("x")))
        declared = inputs[name].shape
        if declared is not None and (
            len(declared) != len(shapes[name])
            or any(isinstance(side, int) and side != got for side, got in zip(declared, shapes[name], strict=True))
        ):
            raise Error(f"{path}: the input {name} is {by(declared)}, not {sides}")
    return shapes


def by(shape):
    """A shape in words: 1x3x?x?, or any."""
    return "any" if shape is None else "x".join("?" if side is None else str(side) for side in shape) or "one value"
