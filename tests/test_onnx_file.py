"""Any ONNX file: what it takes, what it is given, and how a trial of it ends."""

import json

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnx_models import FREE, Builder, classifier, denoiser, gated, unet

import udnet
from udnet import Error
from udnet.__main__ import main
from udnet.network import graphs, onnx_file
from udnet.pictures import reference
from udnet.trials import grid, study, trial

PIXELS = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10


def fed(path, height=2, width=4, given=()):
    return onnx_file.read(path, given).feed(height, width)


# What is given


def test_a_float_picture_is_in_0_to_1(tmp_path):
    (x,) = fed(denoiser(tmp_path / "m.onnx")).arrays(PIXELS).values()
    assert (x.shape, x.dtype) == ((1, 3, 2, 4), np.float32)
    np.testing.assert_array_equal(x[0], (PIXELS / np.float32(255)).astype(np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("kind", "dtype", "values"),
    [
        (TensorProto.FLOAT16, np.float16, PIXELS / np.float32(255)),
        (TensorProto.DOUBLE, np.float64, PIXELS / np.float32(255)),
        (TensorProto.UINT8, np.uint8, PIXELS),
        (TensorProto.INT8, np.int8, PIXELS.astype(int) - 128),
        (TensorProto.INT32, np.int32, PIXELS),
    ],
)
def test_each_kind_of_numbers(tmp_path, kind, dtype, values):
    (x,) = fed(classifier(tmp_path / "m.onnx", kind=kind)).arrays(PIXELS).values()
    assert x.dtype == dtype
    np.testing.assert_array_equal(x[0].transpose(1, 2, 0), values.astype(dtype))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC"])
def test_each_layout(tmp_path, layout):
    sides = {"N": 2, "C": 3, "H": "height", "W": "width"}
    path = classifier(tmp_path / "m.onnx", shape=[sides[side] for side in layout]) if len(layout) == 4 else None
    feed = fed(path) if path else onnx_file.Feed("x", layout, {"x": onnx_file.Input("float32", (2, 4, 3))})
    if layout == "CHW":
        feed = feed._replace(inputs={"x": onnx_file.Input("float32", (3, 2, 4))})
    assert feed.layout == layout
    x = feed.arrays(PIXELS)["x"]
    for picture in x if len(layout) == 4 else [x]:  # each of a batch
        to_picture = [layout.replace("N", "").index(side) for side in "HWC"]
        np.testing.assert_allclose(picture.transpose(to_picture), PIXELS / 255, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels(channels):
    feed = onnx_file.Feed("x", "NCHW", {"x": onnx_file.Input("uint8", (1, channels, 2, 4))})
    x = feed.arrays(PIXELS)["x"][0]
    for channel in range(channels):
        np.testing.assert_array_equal(x[channel], PIXELS[..., channel % 3])


def test_further_inputs_are_zeros_of_their_shape(tmp_path):
    arrays = fed(gated(tmp_path / "m.onnx"), given=["features=1x7"]).arrays(PIXELS)
    assert {name: x.shape for name, x in arrays.items()} == {
        "features": (1, 7),
        "x": (1, 3, 2, 4),
        "mask": (1, 1, 2, 4),
    }
    assert not arrays["mask"].any()
    assert arrays["x"].any()


# What is refused, in one line


def test_a_size_that_the_file_does_not_take(tmp_path):
    file = onnx_file.read(classifier(tmp_path / "m.onnx", shape=(1, 3, 48, 192)))
    assert file.feed(48, 192).inputs["x"].shape == (1, 3, 48, 192)
    with pytest.raises(Error, match="takes 48x192 alone, not 48x64"):
        file.feed(48, 64)
    tall = onnx_file.read(classifier(tmp_path / "t.onnx", shape=(1, 3, 48, "width")))
    with pytest.raises(Error, match=r"takes 48x\? alone, not 64x64"):
        tall.feed(64, 64)


def test_a_size_that_is_fixed_within(tmp_path):
    build = Builder()
    y = build.add("MatMul", "x", build.constant(np.ones((24, 8), np.float32)))
    path = build.save(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, FREE)}, {y: TensorProto.FLOAT})
    graphs.need_size(onnx_file.read(path), 16, 24)
    with pytest.raises(Error) as refused:
        graphs.need_size(onnx_file.read(path), 16, 25)
    said = "takes no picture of 16x25: its MatMul matmul_0 takes other sides; give the size that it was made for"
    assert str(refused.value) == f"{path}: {said}"


def test_a_file_that_is_none(tmp_path):
    for path, fault in ((tmp_path / "absent.onnx", "there is no such file"), (tmp_path, "is a folder")):
        with pytest.raises(Error, match=f"{path}: {fault}; name an .onnx$"):
            onnx_file.read(path)


def test_a_size_that_does_not_fit_within(tmp_path):
    file = onnx_file.read(unet(tmp_path / "m.onnx"))
    graphs.need_size(file, 64, 72)
    with pytest.raises(Error, match="64x70: give sides that are multiples of 8, such as 64x72"):
        graphs.need_size(file, 64, 70)
    graphs.need_size(onnx_file.read(denoiser(tmp_path / "d.onnx")), 61, 7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the input features is batchxlength: give its shape, as in --input features=1x8"),
        (["features=1x"], "no input 'features=1x': give its name and its shape, as in mask=1x77"),
        (["features"], "no input 'features'"),
        (["nothing=1x2"], "has no input nothing: its inputs are features, x, mask"),
        (["x=1x3x2x4"], "the input x takes the picture"),
        (["mask=1x2x2x4"], "the input mask is batchx1xheightxwidth, not 1x2x2x4"),
        (["features=7"], "the input features is batchxlength, not 7"),
    ],
)
def test_shapes_of_inputs(tmp_path, given, said):
    with pytest.raises(Error, match=said):
        fed(gated(tmp_path / "m.onnx"), given=given)


def test_what_takes_no_picture(tmp_path):
    with pytest.raises(Error, match="takes no picture, as a batch of them or one alone: its inputs are x batchxlength"):
        onnx_file.read(classifier(tmp_path / "m.onnx", shape=("batch", "length"), layout="none"))
    (tmp_path / "n.onnx").write_text("no model")
    with pytest.raises(Error, match="not an ONNX file, or cut short"):
        onnx_file.read(tmp_path / "n.onnx")


# Trials


def outputs_of(path, arrays):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, arrays)


@pytest.mark.parametrize(
    ("build", "inputs", "variant"),
    [(unet, (), "onnx"), (classifier, (), "onnx-lean"), (gated, ("features=1x5",), "lever.onnx-shrinking")],
)
def test_a_trial_gives_every_output(tmp_path, build, inputs, variant):
    path = build(tmp_path / "m.onnx")
    one = trial.Trial(variant, 32, 40, 1, runs=1, model=str(path), inputs=inputs)
    result = trial.run(one, keep_output=True)
    assert (result.status, result.error) == ("ok", "")
    assert {row["weights"] for row in result.rows} == {"m.onnx"}
    assert one.name == f"{variant}/32x40/t1/r0/m.onnx"
    expected = outputs_of(path, fed(path, 32, 40, inputs).arrays(reference.picture(32, 40)))
    assert len(result.outputs) == len(expected)
    for made, right in zip(result.outputs, expected, strict=True):
        np.testing.assert_allclose(made, right, atol=1e-5)


def test_weights_in_a_second_file(tmp_path):
    build = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    path = denoiser(tmp_path / "m.onnx")
    import onnx

    onnx.save(onnx.load(path), path, **build)
    one = trial.Trial("onnx", 32, 40, 1, runs=0, model=str(path))
    assert trial.run(one).status == "ok"
    (tmp_path / "m.data").unlink()
    with pytest.raises(Error, match=r"its weights are in a second file, m\.data; put that beside it"):
        trial.run(one)


def test_a_variant_that_takes_no_model(tmp_path):
    path = str(denoiser(tmp_path / "m.onnx"))
    for variant in ("pytorch", "onnx-tiled", "lever.onnx-split"):
        with pytest.raises(Error, match=f"{variant} runs UDnet alone: choose onnx"):
            trial.run(trial.Trial(variant, 32, 40, 1, model=path))
    with pytest.raises(Error, match="give weights for UDnet, or a model in its place"):
        trial.run(trial.Trial("onnx", 32, 40, 1, weights="default", model=path))
    with pytest.raises(Error, match="mask=1x2: an input of no model: name an ONNX file"):
        trial.run(trial.Trial("onnx", 32, 40, 1, inputs=("mask=1x2",)))


def test_measure_from_a_shell_and_in_python(tmp_path, capsys):
    path = str(gated(tmp_path / "m.onnx"))
    assert main(["measure", path, "--size", "32x40", "--input", "features=1x5", "--threads", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["variant"], said["status"]) == (path, "onnx", "ok")
    assert main(["measure", path, "--size", "32x40"]) == 2
    assert "the input features is batchxlength: give its shape" in capsys.readouterr().err
    rows = udnet.measure("onnx", "32x40", threads=1, model=path, inputs=["features=1x5"])
    assert set(rows.status) == {"ok"}
    assert set(rows.weights) == {"m.onnx"}


# Studies


GRID = """
seed = 1
[[trials]]
variants = ["onnx", "pytorch", "onnx-lean"]
sizes = ["32x40", "64x64"]
threads = [1]
repeats = 1
runs = 0
"""


def test_a_study_of_a_model(tmp_path, monkeypatch):
    path = str(denoiser(tmp_path / "m.onnx"))
    (tmp_path / "grid.toml").write_text(GRID)
    read = grid.read_grid(tmp_path / "grid.toml", model=path)
    assert {one.variant for one in read.trials} == {"onnx", "onnx-lean"}  # PyTorch does not read the file
    monkeypatch.setattr(study, "_reference", lambda one: None)
    done = study.run(read, tmp_path / "out", progress=False, model=path)
    assert set(done.trials.status) == {"ok"}
    assert set(done.parity.error) == {"skipped: no other runtime is installed that takes this file"}
    assert done.machine["weights"].startswith("weights: m.onnx (sha256 ")
    assert done.machine["files"].keys() == {"onnx"}


def test_a_study_of_a_model_with_a_free_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "_reference", lambda one: None)
    build = Builder()
    y = build.add("Identity", "x")
    inputs = {"x": (TensorProto.FLOAT, FREE), "m": (TensorProto.FLOAT, ("b", "k"))}
    path = build.save(tmp_path / "m.onnx", inputs, {y: TensorProto.FLOAT})
    (tmp_path / "grid.toml").write_text(GRID)
    command = ["study", "--grid", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out"), "--model", str(path)]
    assert main(command) == 2 and "give its shape, as in --input m=1x8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--input", "m=1x8"]) == 0
    assert main([*command, "--input", "m=1x9"]) == 2, "inputs are not mixed"
    assert "holds a study of another grid" in capsys.readouterr().err
    with pytest.raises(Error, match="m=1x8: an input of no model: name an ONNX file"):
        grid.read_grid(tmp_path / "grid.toml", inputs=["m=1x8"])
    (tmp_path / "grid.toml").write_text(f"{GRID}inputs = ['m=1x8']\n")
    with pytest.raises(Error, match="m=1x8: an input of no model: name an ONNX file"):
        grid.read_grid(tmp_path / "grid.toml")


def test_parity_of_a_model_with_another_runtime(tmp_path, monkeypatch):
    path = str(denoiser(tmp_path / "m.onnx"))
    (tmp_path / "grid.toml").write_text(GRID.replace(', "pytorch", "onnx-lean"', ""))
    monkeypatch.setattr(study, "_reference", lambda one: "load.onnx-unoptimised")  # as if it were another's
    done = study.run(grid.read_grid(tmp_path / "grid.toml", model=path), tmp_path / "out", progress=False)
    (row,) = done.parity.to_dict("records")
    assert (row["variant"], row["weights"], row["height"], row["width"]) == ("onnx", "m.onnx", 32, 40)
    assert 0 <= row["largest_difference"] < 1e-5
    assert set(done.trials.status) == {"ok"}


def test_a_model_whose_outputs_differ_is_not_measured(tmp_path, monkeypatch):
    path = str(denoiser(tmp_path / "m.onnx"))
    (tmp_path / "grid.toml").write_text(GRID.replace(', "pytorch", "onnx-lean"', ""))
    monkeypatch.setattr(study, "_reference", lambda one: "load.onnx-unoptimised")
    monkeypatch.setattr(study, "_difference", lambda outputs, expected, model: 1e-3)
    done = study.run(grid.read_grid(tmp_path / "grid.toml", model=path), tmp_path / "out", progress=False)
    assert set(done.trials.error) == {"its output differs from load.onnx-unoptimised's by 1.0e-03"}


def test_differences_of_outputs():
    one, other = np.float32([0.5, 40]), np.float32([0.5, 40.5])
    assert study._difference([one], [other], model="m.onnx") == pytest.approx(0.5 / 40.5)  # in the scale of the values
    assert study._difference([one], [other], model=None) == 0.5
    assert study._difference([np.array([True, False])], [np.array([True, True])], "m") == 1
    assert study._difference([np.zeros((0, 4))], [np.zeros((0, 4))], "m") == 0
    assert study._difference([np.zeros(3)], [np.zeros(4)], "m") == np.inf
    assert np.isnan(study._difference([], [other], "m"))


def test_models_of_a_grid(tmp_path):
    path = str(denoiser(tmp_path / "m.onnx"))
    text = GRID.replace(', "pytorch"', "") + f"models = [{path!r}]\n"
    (tmp_path / "grid.toml").write_text(text)
    assert {one.model for one in grid.read_grid(tmp_path / "grid.toml").trials} == {path}
    (tmp_path / "grid.toml").write_text(GRID + f"models = [{path!r}]\n")
    with pytest.raises(Error, match="pytorch runs UDnet alone"):
        grid.read_grid(tmp_path / "grid.toml")
    (tmp_path / "grid.toml").write_text(GRID.replace('"onnx", ', "").replace(', "onnx-lean"', ""))
    with pytest.raises(Error, match=r"no variant in it takes .*m\.onnx"):
        grid.read_grid(tmp_path / "grid.toml", model=path)
    (tmp_path / "grid.toml").write_text(text.replace("32x40", "33x40"))
    unet(tmp_path / "m.onnx")
    with pytest.raises(Error, match="takes no picture of 33x40: give sides that are multiples of 8, such as 40x40"):
        grid.read_grid(tmp_path / "grid.toml")


# The models in ../shared/models, which nobody here made


@pytest.mark.parametrize(("name", "size"), [("ppocr_det.onnx", (64, 96)), ("ppocr_cls.onnx", (48, 192))])
def test_models_of_others(shared, name, size):
    path = str(shared / "models" / name)
    result = trial.run(trial.Trial("onnx", *size, 1, runs=1, model=path), keep_output=True)
    assert result.status == "ok"
    expected = outputs_of(path, fed(path, *size).arrays(reference.picture(*size)))
    np.testing.assert_allclose(result.outputs[0], expected[0], atol=1e-5)


def test_a_detector_names_the_sizes_that_it_takes(shared):
    file = onnx_file.read(shared / "models" / "ppocr_det.onnx")
    with pytest.raises(Error, match="give sides that are multiples of 32, such as 704x1024"):
        graphs.need_size(file, 700, 1000)
