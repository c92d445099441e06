"""ONNX files of anybody's: which are taken, what is left of them, and what is said against the others."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from udnet import Error
from udnet.network import sessions
from udnet.network.checkpoint import CheckpointError
from udnet.variants.variant import OnnxNetwork

PICTURE = ["batch", 3, "height", "width"]


def value(name, shape=PICTURE, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


SAME, X, Y = helper.make_node("Identity", ["x"], ["y"]), value("x"), value("y")


def model(path, nodes=(SAME,), inputs=(X,), outputs=(Y,), constants=(), ir=10, opset=18):
    """An ONNX file that makes `y` of a picture `x`: the same, where no other nodes are given."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=constants)
    proto = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(proto.SerializeToString())
    return path


def constant(name, *values):
    return numpy_helper.from_array(np.array(values, np.float32).reshape(-1, *[1] * 3), name)


def product(factor, out="y"):
    return helper.make_node("Mul", ["x", factor], [out])


def test_a_file_that_fits_is_taken_byte_for_byte(tmp_path):
    path = model(tmp_path / "m.onnx")
    sessions.take(path, tmp_path / "taken.onnx")
    assert (tmp_path / "taken.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("first", [True, False])
def test_of_several_outputs_the_picture_is_kept(tmp_path, first):
    """A map of one channel, and the picture twice as bright: which comes first does not matter."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["map"], axes=[1]), product("two")]
    outputs = [value("map", ["batch", 1, "height", "width"]), value("y")]
    outputs = outputs if first else outputs[::-1]
    model(tmp_path / "m.onnx", nodes, outputs=outputs, constants=[constant("two", 2)], opset=13)
    sessions.take(tmp_path / "m.onnx", tmp_path / "taken.onnx")
    x = np.random.default_rng(0).random((1, 3, 16, 24), np.float32)
    np.testing.assert_array_equal(OnnxNetwork(tmp_path / "taken.onnx", 1)(x), 2 * x)


def test_second_files_are_taken_in(tmp_path):
    model(tmp_path / "m.onnx", [product("three")], constants=[constant("three", 3)])
    onnx.save(
        onnx.load(tmp_path / "m.onnx"),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    sessions.take(tmp_path / "m.onnx", tmp_path / "taken.onnx")
    (tmp_path / "m.data").unlink()
    x = np.ones((1, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(OnnxNetwork(tmp_path / "taken.onnx", 1)(x), 3 * x)


def test_a_fixed_size_is_tried_at_that_size(tmp_path):
    fixed = [1, 3, 24, 40]
    path = model(tmp_path / "m.onnx", inputs=[value("x", fixed)], outputs=[value("y", fixed)])
    sessions.take(path, tmp_path / "taken.onnx")
    network = OnnxNetwork(tmp_path / "taken.onnx", 1)
    assert network(np.ones(fixed, np.float32)).shape == (1, 3, 24, 40)
    with pytest.raises(
        Error, match="x of 1x3x16x16: ONNX Runtime refuses it: Got invalid dimensions for input: x"
    ) as error:
        network(np.ones((1, 3, 16, 16), np.float32))
    assert "\n" not in str(error.value)


FAULTS = {
    "newer IR": ({"ir": 99}, "Unsupported model IR version: 99"),
    "newer opset": ({"opset": 99}, "Opset 99 is under development"),
    "unknown operator": ({"nodes": [helper.make_node("NoSuchOp", ["x"], ["y"])]}, "NoSuchOp"),
    "invalid graph": ({"nodes": [helper.make_node("Identity", ["z"], ["y"])]}, "z"),
    "two inputs": ({"inputs": [value("x"), value("z")]}, "x tensor(float) batchx3xheightxwidth, z"),
    "another type": (
        {"inputs": [value("x", kind=TensorProto.FLOAT16)], "outputs": [value("y", kind=TensorProto.FLOAT16)]},
        "x tensor(float16)",
    ),
    "one channel": (
        {"inputs": [value("x", ["b", 1, "h", "w"])], "outputs": [value("y", ["b", 1, "h", "w"])]},
        "bx1xhxw",
    ),
    "no picture": (
        {"inputs": [value("x", ["n", 3])], "outputs": [value("y", ["n", 3])]},
        "not from one picture to one",
    ),
    "odd size": ({"inputs": [value("x", [1, 3, 50, 50])], "outputs": [value("y", [1, 3, 50, 50])]}, "50x50 alone"),
    "two at a time": (
        {"inputs": [value("x", [2, 3, "h", "w"])], "outputs": [value("y", [2, 3, "h", "w"])]},
        "takes 2 pictures",
    ),
    "another size": (
        {"nodes": [helper.make_node("GlobalMaxPool", ["x"], ["y"])]},
        "makes 1x3x1x1 of a picture of 1x3x64x64",
    ),
    "empty": ({"nodes": [], "inputs": [], "outputs": []}, ""),
    "not finite": ({"nodes": [product("nan")], "constants": [constant("nan", np.nan)]}, "not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_one_line_and_not_taken(tmp_path, fault):
    change, said = FAULTS[fault]
    path = model(tmp_path / "m.onnx", **change)
    with pytest.raises(CheckpointError) as error:
        sessions.take(path, tmp_path / "taken.onnx")
    line = str(error.value)
    assert line.startswith(f"{path}: ") and said in line and "\n" not in line and len(line) < 700, line
    assert "onnxruntime_src" not in line and "ONNXRuntimeError" not in line
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_of_ones_own_says_what_is_wrong_in_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"m\.onnx: not an ONNX file, or cut short; get the file again"):
        OnnxNetwork(tmp_path / "m.onnx", 1)
    with pytest.raises(CheckpointError, match=rf"none\.onnx: ONNX Runtime refuses it: .*; {sessions.MADE_ANEW}$"):
        OnnxNetwork(tmp_path / "none.onnx", 1)


def test_a_long_refusal_ends_with_a_whole_word():
    refusal = onnxruntime.capi.onnxruntime_pybind11_state.Fail("word " * 200)
    said = str(sessions.refused(refusal, "m.onnx"))
    assert re.fullmatch(rf"m\.onnx: ONNX Runtime refuses it: (word ){{90,}}\[\.\.\.\]; {sessions.MADE_ANEW}", said)


def test_what_is_not_the_file_s_fault_is_passed_on():
    error = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(
        "Failed to allocate memory for requested buffer"
    )
    assert sessions.refused(error, "m.onnx") is error
    assert sessions.refused(error := KeyError("x"), "m.onnx") is error
