"""The exported file: any batch and size, PyTorch's output, one small file."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPO

from udnet import Error
from udnet.network import checkpoint, export, model, prepared
from udnet.network.checkpoint import CheckpointError
from udnet.network.export import ExportError
from udnet.tiled import kernels


@pytest.fixture(scope="module")
def network():
    return export.load(model.InferenceUDnet(), prepared.seeded(), "seeded")


@pytest.mark.slow
def test_the_published_weights_are_exported_within_the_limit(published, tmp_path, capfd):
    out = tmp_path / "udnet.onnx"
    assert 0 < export.export(published, out) <= 1e-5
    assert capfd.readouterr() == ("", ""), "the exporter says nothing of its own"
    assert out.stat().st_size <= 3_500_000


def test_it_is_one_file_of_at_most_3_5_mb(exported):
    assert exported.stat().st_size <= 3_500_000
    assert not [path for path in exported.parent.iterdir() if ".data" in path.name]
    onnx.checker.check_model(exported, full_check=True)
    assert str(REPO).encode() not in exported.read_bytes()


def test_input_and_output_are_named_and_of_any_batch_and_size(exported):
    session = onnxruntime.InferenceSession(exported)
    (one,), (other,) = session.get_inputs(), session.get_outputs()
    assert (one.name, other.name) == ("input", "output")
    assert one.shape == other.shape == ["batch", 3, "8*h", "8*w"]


def test_it_computes_what_pytorch_computes_far_from_the_traced_size(exported, network):
    session = onnxruntime.InferenceSession(exported)
    generator = np.random.default_rng(0)
    for batch, height, width in ((1, 16, 16), (3, 48, 24), (1, 32, 512), (1, 512, 16)):
        x = generator.random((batch, 3, height, width), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        (output,) = session.run(None, {"input": x})
        assert output.shape == x.shape and abs(output - expected).max() <= 1e-5, x.shape


def test_its_weights_can_be_read_back(exported, network):
    state = checkpoint.read(exported)
    assert all(np.array_equal(state[name], tensor) for name, tensor in network.state_dict().items())
    checkpoint.load_into(model.InferenceUDnet(), state, exported)


def test_no_instance_norm_sums_a_whole_image(exported):
    operators = [node.op_type for node in onnx.load(exported).graph.node]
    assert "InstanceNormalization" not in operators
    assert operators.count("Pad") == 20 and len(operators) < 170  # no arithmetic on shapes, no copies


@pytest.mark.parametrize("size", [(136, 200), pytest.param((784, 1040), marks=pytest.mark.slow)])
def test_it_is_exact_on_a_nearly_uniform_picture(exported, network, size):
    """Of the large one the published form, by InstanceNormalization, is off by 2e-5."""
    ((_, difference),) = export.differences(network, exported, [(1, *size)])
    assert difference <= 1e-5


def test_an_export_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "write", lambda _, path, single: shutil.copy(exported, path))
    monkeypatch.setattr(export, "PARITY_LIMIT", 1e-9)
    monkeypatch.setattr(export, "EXPORT_SIZES", [(1, 16, 24)])
    with pytest.raises(ExportError, match=r"u\.onnx: not written, it differs from PyTorch by \S+ at 16x24"):
        export.export(exported, tmp_path / "u.onnx")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_not_finite_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "write", lambda *_, single: None)
    monkeypatch.setattr(export, "differences", lambda *_: [("64x64", float("nan"))])
    with pytest.raises(ExportError, match="nan at 64x64"):
        export.export(prepared.DEFAULT, tmp_path / "u.onnx")
    assert not list(tmp_path.iterdir())


def test_bad_requests_are_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"u\.pth: .*\.onnx"):
        export.export(prepared.DEFAULT, tmp_path / "u.pth")
    with pytest.raises(ExportError, match=r"no graph 'none': choose from shared, split, "):
        export.export(prepared.DEFAULT, tmp_path / "u.onnx", "none")
    with pytest.raises(Error, match="no folder"):
        export.export(prepared.DEFAULT, tmp_path / "none" / "u.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        export.export(tmp_path / "none.pth", tmp_path / "u.onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_onto_its_own_weights_is_refused(exported, tmp_path):
    path = tmp_path / "w.onnx"
    shutil.copy(exported, path)
    with pytest.raises(Error, match="made from"):
        export.export(path, path)
    assert path.read_bytes() == exported.read_bytes()


def test_check_compares_at_each_size(exported, monkeypatch):
    monkeypatch.setattr(prepared, "CHECK_SIZES", ((1, 24, 40), (2, 32, 16)))
    rows = list(prepared.check("seeded"))
    assert [size for size, _ in rows] == ["24x40", "32x16 batch 2"]
    assert all(0 < difference <= 1e-5 for _, difference in rows)


def test_check_takes_the_sizes_that_a_file_leaves_free(exported, tmp_path, monkeypatch):
    proto = onnx.load(exported)
    proto.graph.input[0].name = "x"
    for node in proto.graph.node:
        node.input[:] = ["x" if name == "input" else name for name in node.input]
    for dim, side in zip(proto.graph.input[0].type.tensor_type.shape.dim, (1, 3, None, 24), strict=True):
        if side:
            dim.dim_value = side
    onnx.save(proto, tmp_path / "fixed.onnx")
    monkeypatch.setattr(prepared, "CHECK_SIZES", ((1, 24, 40), (2, 32, 16), (1, 32, 32)))
    rows = list(prepared.check(tmp_path / "fixed.onnx"))
    assert [size for size, _ in rows] == ["24x24", "32x24"]
    assert all(difference <= 1e-5 for _, difference in rows)


def test_check_sees_another_network(exported, network, tmp_path):
    """A bias moved by 0.001 in the ONNX file alone moves its output by as much."""
    proto = onnx.load(exported)
    (bias,) = (t for t in proto.graph.initializer if t.name == "decoder.out_conv.2.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.001), bias.name))
    onnx.save(proto, tmp_path / "moved.onnx")
    ((_, difference),) = export.differences(network, tmp_path / "moved.onnx", [(1, 16, 16)])
    assert difference == pytest.approx(0.001, abs=1e-5)


def test_the_stages_that_are_shipped_are_what_pytorch_exports(tmp_path):
    """Made anew by `export.export_stages(kernels.GRAPHS)`."""
    export.export_stages(tmp_path)
    shipped = {path.name: path.read_bytes() for path in kernels.GRAPHS.iterdir()}
    assert len(shipped) == 9 and shipped == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
