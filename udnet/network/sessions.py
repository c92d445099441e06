"""ONNX files of anybody's in ONNX Runtime: taken in once, and what it says against them as one line.

Imports ONNX Runtime where it needs it: a trial has it from elsewhere.
"""

import os
import re
import shutil
import textwrap
from pathlib import Path

from udnet.network.checkpoint import CheckpointError, few, second_files
from udnet.system.files import replacing, temporary_folder

SIDE = 64  # of the picture that a file is tried with
MADE_ANEW = "export it for the version of ONNX Runtime that is installed here"
REMEDY = "where the weights are UDnet's, `udnet export` makes a file that takes any picture"
OF_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation")


def take(path, out):
    """Write an ONNX file of anybody's as sessions here take it: whole, in one file, a picture its only output.

    Refused where ONNX Runtime does not run it, or where what it makes of a picture is none.
    """
    import numpy as np

    path = Path(path)
    model = _whole(path)
    session = opened(model.SerializeToString(), path)
    picture, output = ends(session, path)
    shape = fitting(picture, (1, SIDE, SIDE), path)
    if shape[0] > 1:
        raise CheckpointError(f"{path}: takes {shape[0]} pictures at a time, where one is given; {REMEDY}")
    x = np.full(shape, 0.5, np.float32)
    enhanced = run(session, x, path)
    if enhanced.shape != x.shape:
        raise CheckpointError(f"{path}: makes {_by(enhanced.shape)} of a picture of {_by(x.shape)}; {REMEDY}")
    if not np.isfinite(enhanced).all():
        raise CheckpointError(f"{path}: makes values that are not finite; get the file again, or train it anew")
    content = path.read_bytes()
    if second_files(path, content) or len(session.get_outputs()) > 1:
        (kept,) = (one for one in model.graph.output if one.name == output.name)
        del model.graph.output[:]
        model.graph.output.append(kept)
        content = model.SerializeToString()
    with replacing(out) as part:
        part.write_bytes(content)


def _whole(path):
    """An ONNX file as onnx reads it, with what its second files hold; links are followed, as a hub's cache has them."""
    import onnx

    content = path.read_bytes()
    seconds = second_files(path, content)
    try:
        model = onnx.load_from_string(content)
    except Exception:  # protobuf's own kinds
        raise CheckpointError(f"{path}: not an ONNX file, or cut short; get the file again") from None
    if seconds:
        with temporary_folder() as folder:  # onnx itself follows no link
            for name, second in seconds.items():
                copy = Path(folder, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(second, copy)
            try:
                onnx.load_external_data_for_model(model, os.fspath(folder))
            except (ValueError, onnx.checker.ValidationError):
                raise CheckpointError(
                    f"{path}: does not fit its second file, {few([*seconds])}; get both again"
                ) from None
    return model


def opened(model, path):
    """A session with an ONNX file, given by its path or by its bytes; `CheckpointError`, about `path`, if refused."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # the exception says it
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise refused(error, path, REMEDY) from None


def run(session, x, path):
    """A picture, batch x 3 x height x width, through a session whose file is `path`."""
    picture, output = ends(session, path)
    try:
        return session.run([output.name], {picture.name: x})[0]
    except Exception as error:
        raise refused(error, path, REMEDY) from None


def ends(session, path):
    """The input of a session that takes a picture, and the first output that gives one."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    enhanced = next(filter(_is_picture, outputs), None)
    if len(inputs) != 1 or not _is_picture(inputs[0]) or not enhanced:
        said = ", ".join(f"{one.name} {one.type} {_by(one.shape)}" for one in (*inputs, *outputs))
        raise CheckpointError(
            f"{path}: not from one picture to one, float32, batch x 3 x height x width: {said}; {REMEDY}"
        )
    return inputs[0], enhanced


def _is_picture(one):
    """Whether an input or output can be float32, batch x 3 x height x width: what is no int is free, or not known."""
    free = not one.shape or (len(one.shape) == 4 and (one.shape[1] == 3 or not isinstance(one.shape[1], int)))
    return one.type == "tensor(float)" and free


def fitting(picture, size, path):
    """A shape that a session's input takes: batch, height and width as given where it leaves them free."""
    batch, height, width = (
        fixed if isinstance(fixed, int) else given
        for fixed, given in zip([*picture.shape[:1], *picture.shape[2:]] or size, size, strict=True)
    )
    if min(height, width) < 16 or height % 8 or width % 8:
        raise CheckpointError(
            f"{path}: takes {height}x{width} alone; sides have to be multiples of 8, from 16; {REMEDY}"
        )
    return batch, 3, height, width


def refused(error, path, remedy=MADE_ANEW):
    """An exception of ONNX Runtime's as one line about `path`; any other, and one about memory, as it is."""
    said = " ".join(str(error).split())
    if not type(error).__module__.startswith("onnxruntime") or any(word in said.lower() for word in OF_MEMORY):
        return error
    if "PROTOBUF" in said:
        return CheckpointError(f"{path}: not an ONNX file, or cut short; get the file again")
    said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?", "", said)
    said = re.sub(r"\S+\.(cc|h):\d+ (\S+ (?=[A-Z])|.*?\) (?=\w))", "", said)  # where in its source
    return CheckpointError(f"{path}: ONNX Runtime refuses it: {textwrap.shorten(said, 500)}; {remedy}")


def _by(shape):
    return "x".join(str(side) if side else "?" for side in shape)
