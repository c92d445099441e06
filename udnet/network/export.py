"""PyTorch to ONNX: one file for any batch and size, and the check that both runtimes compute the same.

The graph is `InferenceUDnet`'s with one step written for ONNX Runtime, the instance norm: by the columns' means and
squares, then a product and a sum a channel. ONNX Runtime's own InstanceNormalization sums a whole image in float32;
that error is magnified in nearly uniform channels, and moves the published file's output by up to 1e-4 on a large
picture. Of the exporters, opsets and forms measured (`exporters`), this one needs least among those that are exact.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from udnet import PARITY_LIMIT, Error
from udnet.network import forms, sessions, stages, winograd
from udnet.network.checkpoint import load_into, read
from udnet.network.model import EPS, WIDTH, InferenceUDnet
from udnet.network.winograd import OPSET
from udnet.system.files import replacing

TRACED = (2, 3, 64, 96)
EXPORT_SIZES = ((1, 16, 16), (2, 64, 128), (1, 128, 1024))  # batch, height, width: far from the traced, not square
OLDER = {"dynamo": False, "opset": 12}  # the exporter and its operators
CALIBRATION_SIZES = ((64, 96), (128, 96), (192, 128))


class ExportError(Error):
    """An export that is not possible, or that does not compute what PyTorch computes."""


def export(weights, out, form=None):
    """Write the inference path of any checkpoint as one ONNX file; returns its largest difference from PyTorch.

    `form`: a name of `forms.EXPORTED` (None: `OnnxUDnet`). An export that differs by more than 1e-5 anywhere is not
    written.
    """
    if Path(out).suffix.lower() != ".onnx":
        raise ExportError(f"{out}: what is written is an ONNX file; end its name in .onnx")
    if form and form not in forms.EXPORTED:
        raise ExportError(f"no graph {form!r}: choose from {', '.join(forms.EXPORTED)}")
    state = read(weights)
    model = load(InferenceUDnet(), state, weights)
    written = load(forms.exported(form)() if form else OnnxUDnet(), state, weights)
    single, smallest, older = (written.single, written.smallest, written.older) if form else (False, 16, False)
    with replacing(out, weights) as part:
        write(written, part, single=single, **(OLDER if older else {}))
        sizes = [one for one in EXPORT_SIZES if min(one[1:]) >= smallest and not (single and one[0] > 1)]
        size, difference = max(differences(model, part, sizes), key=lambda row: row[1])
        if not difference <= PARITY_LIMIT:
            raise ExportError(f"{out}: not written, it differs from PyTorch by {difference:.1e} at {size}")
    return difference


def export_stages(folder):
    """Write the graphs of the tiled schedule's `stages` into a folder, where this package has them (`kernels.GRAPHS`).

    A graph names its weights and holds none: each kernel gives its own.
    """
    for stage, cin in stages.EXPORTED:
        with replacing(folder / f"{stage}{cin}.onnx") as part:
            part.write_bytes(_stage(stages.STAGES[stage](WIDTH, cin), cin))
        if cin >= WIDTH:
            with replacing(folder / f"{stage}{cin}-winograd.onnx") as part:
                part.write_bytes(winograd.graph(winograd.FOUR, cin, stage))


def _stage(module, cin):
    """A stage's graph, for any number of rows and columns, as bytes."""
    block, rows = torch.zeros(1, cin, 5, 7), torch.zeros(1, WIDTH, 3, 5)
    inputs = {"block": block} if type(module) is stages.Convolution else {"block": block, "rows": rows}
    free = {name: {2: f"{name}_rows", 3: f"{name}_columns"} for name in (*inputs, "out")}
    written = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            written,
            dynamo=False,
            input_names=list(inputs),
            output_names=["out"],
            dynamic_axes=free,
            opset_version=OPSET,
            do_constant_folding=False,
        )
    proto = onnx.load_from_string(written.getvalue())
    for tensor in proto.graph.initializer:  # said to lie in a file, as ONNX Runtime asks of what it is to replace
        onnx.external_data_helper.set_external_data(tensor, "weights", 0, len(tensor.raw_data))
        tensor.ClearField("raw_data")
    return proto.SerializeToString()


def load(model, state, source):
    """The model with these weights, ready to run."""
    load_into(model, state, source)
    return model.eval()


def differences(model, path, sizes):
    """The largest difference of an ONNX file's output from a PyTorch model's: yields (size, difference).

    `sizes`: (batch, height, width), multiples of 8; where the file fixes one of them, that is taken.
    """
    session = sessions.opened(path, path)
    picture, _ = sessions.ends(session, path)
    for batch, _, height, width in dict.fromkeys(sessions.fitting(picture, size, path) for size in sizes):
        x = _picture(batch, height, width)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).numpy()
        output = sessions.run(session, x, path)
        yield f"{height}x{width}" + (f" batch {batch}" if batch > 1 else ""), float(np.abs(output - expected).max())


def _picture(batch, height, width):
    """As taken under water: smooth light, little red, a little noise. Nearly uniform channels test the sums most."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    light = np.stack([np.full((height, width), 0.05), 0.7 - 0.4 * y * x, 0.5 + 0.3 * x - 0.2 * y])
    noise = np.random.default_rng(0).normal(0, 0.01, (batch, 3, height, width))
    return (light + noise).clip(0, 1).astype(np.float32)


def write(model, path, dynamo=True, opset=OPSET, single=False):
    """Write a PyTorch model from and to (B, 3, H, W) as an ONNX file, by one of PyTorch's two exporters.

    `single`: the file takes one picture at a time.
    """
    named = {"input_names": ["input"], "output_names": ["output"], "opset_version": opset, "verbose": False}
    with _quiet():
        if not dynamo:
            free = {0: "batch", 2: "height", 3: "width"}
            axes = {"input": free, "output": free}
            torch.onnx.export(model, (torch.rand(TRACED),), path, dynamo=False, dynamic_axes=axes, **named)
            return
        batch, h, w = (torch.export.Dim(name, max=most) for name, most in (("batch", 1024), ("h", 8192), ("w", 8192)))
        shapes = ({2: 8 * h, 3: 8 * w} if single else {0: batch, 2: 8 * h, 3: 8 * w},)
        traced = torch.rand(1, *TRACED[1:]) if single else torch.rand(TRACED)
        program = torch.onnx.export(model, (traced,), dynamo=True, dynamic_shapes=shapes, **named)
    proto = program.model_proto  # made anew each time it is asked for
    for noted in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del noted.metadata_props[:]  # the exporter's notes: stack traces with this machine's paths, 0.2 MB
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
    del proto.graph.value_info[:]
    onnx.save(proto, path)


# --- reduced precision: not exact ---


def to_float16(path, out):
    """Write an ONNX file with its tensors in float16; input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet(), replacing(out) as part:
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True, disable_shape_infer=True), part)


def to_int8(path, out):
    """Write an ONNX file with 8-bit convolutions and what is between them, by the ranges that seeded pictures give."""
    from onnxruntime import quantization

    from udnet.pictures import images, reference

    pictures = [images.to_batch(reference.picture(*size, seed)) for seed, size in enumerate(CALIBRATION_SIZES)]
    session = sessions.opened(path, path)
    name = sessions.ends(session, path)[0].name
    given = iter([{name: x} for x in [*pictures, *(_picture(1, *size) for size in CALIBRATION_SIZES)]])
    with _quiet(), replacing(out) as part:
        quantization.quantize_static(
            path,
            part,
            type("Pictures", (quantization.CalibrationDataReader,), {"get_next": lambda _: next(given, None)})(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "LeakyRelu", "Pad", "MaxPool", "Concat", "Resize", "Add", "Mul"],
            per_channel=True,
        )


@contextlib.contextmanager
def _quiet():
    """Without the exporter's advice to those who develop it."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


# --- the step that is written for ONNX Runtime ---


class OnnxUDnet(InferenceUDnet):
    """`InferenceUDnet` in the form that is exported: same keys, same output to rounding."""

    def __init__(self):
        super().__init__()
        self.decoder.normalise = ColumnNorm()


class ColumnNorm(nn.Module):
    """`AdaptiveInstanceNorm` by each column's mean and squares: no float32 sum runs over a whole image."""

    def forward(self, x, scale, shift):
        means = x.mean(2, keepdim=True)  # (B, C, 1, W)
        squares = torch.linalg.vector_norm(x - means, dim=2, keepdim=True).square() / x.shape[2]
        mean = means.mean(3, keepdim=True)
        variance = squares.mean(3, keepdim=True) + (means - mean).square().mean(3, keepdim=True)
        gain = scale / (variance + EPS).sqrt()
        return x * gain + (shift - mean * gain)
