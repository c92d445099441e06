"""Other runtimes: the output of ONNX Runtime, threads as told, and one line where a runtime does not take a graph."""

import gc
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from udnet import Error
from udnet.network import converters, prepared
from udnet.network.converters import NotTaken
from udnet.pictures import images, reference
from udnet.system import machine
from udnet.trials import trial
from udnet.variants import catalogue, compared, enhancer, runtimes

NAMES = list(runtimes.VARIANTS)


def write(path, nodes, inputs="x", outputs="y", opset=18, **tensors):
    """Write a graph of float32 pictures of any size; `tensors`: its constants."""
    ends = [
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one in names.split()]
        for names, shape in ((inputs, ["batch", 3, "height", "width"]), (outputs, None))
    ]
    constants = [numpy_helper.from_array(np.asarray(one), name) for name, one in tensors.items()]
    graph = helper.make_graph(nodes, "tiny", *ends, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("nobody", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def convolved():
    """Nodes from `x` to `y`, and their weights."""
    random = np.random.default_rng(0)
    one, two = (random.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 3, 3, 3), (3, 8, 3, 3)))
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "two"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return nodes, {"one": one, "two": two}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two convolutions: from a picture to one."""
    nodes, weights = convolved()
    return write(tmp_path_factory.mktemp("tiny") / "tiny.onnx", nodes, **weights)


def loaded(name, path, folder, threads=1):
    """A variant's network with an ONNX file."""
    variant = catalogue.find(name)
    if variant.missing:
        pytest.skip(variant.missing)
    files = [path]
    if "onnx" not in variant.forms:
        files = [Path(folder, f"{path.stem}.{form}") for form in variant.forms]
        for form, out in zip(variant.forms, files, strict=True):
            converters.convert(path, out, form)
    return variant.load(threads, *files)


def expected(path, inputs):
    return onnxruntime.InferenceSession(path).run(None, inputs)


def picture(*shape):
    return np.random.default_rng(1).random(shape, np.float32)


# What is computed


@pytest.mark.parametrize("name", NAMES)
def test_the_output_is_onnx_runtime_s_at_any_size(name, tiny, tmp_path):
    network, kept = loaded(name, tiny, tmp_path), []
    for size in ((16, 24), (33, 17), (16, 24)):
        x = picture(1, 3, *size)
        y = network(x)
        assert (y.shape, y.dtype) == (x.shape, np.float32)
        np.testing.assert_allclose(y, expected(tiny, {"x": x})[0], rtol=0, atol=1e-5)
        kept.append((y, y.copy()))
    assert all(np.array_equal(y, before) for y, before in kept), "an output is the caller's own"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ncnn"])
def test_a_batch_is_computed(name, tiny, tmp_path):
    x = picture(2, 3, 16, 24)
    np.testing.assert_allclose(loaded(name, tiny, tmp_path)(x), expected(tiny, {"x": x})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_go_by_their_names_and_outputs_in_the_file_s_order(name, tmp_path):
    nodes = [helper.make_node("Sub", ["first", "second"], ["late"]), helper.make_node("Abs", ["late"], ["early"])]
    path = write(tmp_path / "two.onnx", nodes, "second first", "early late")
    inputs = {"first": picture(1, 3, 16, 24), "second": picture(1, 3, 16, 24)[..., ::-1]}
    given, outputs = expected(path, inputs), loaded(name, path, tmp_path).run(inputs)
    assert len(outputs) == 2 and given[1].min() < 0
    np.testing.assert_allclose(outputs, given, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["openvino", "openvino-fixed", "mnn"])
def test_whole_numbers_go_in(name, tmp_path):
    nodes = [helper.make_node("Gather", ["table", "rows"], ["y"])]
    path = write(tmp_path / "rows.onnx", nodes, "rows", table=picture(5, 4))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    rows = np.arange(24).reshape(1, 3, 2, 4) % 5
    (y,) = loaded(name, path, tmp_path).run({"rows": rows})
    np.testing.assert_array_equal(y, expected(path, {"rows": rows})[0])


@pytest.mark.parametrize("kind", [*converters.MISREAD, "ReduceMean", "ReduceMax"])
@pytest.mark.parametrize("name", ["openvino", "mnn"])
def test_a_reduction_by_axes_that_are_an_input(name, kind, tmp_path):
    nodes = [helper.make_node(kind, ["x", "axes"], ["y"])]
    path, x = write(tmp_path / "sum.onnx", nodes, axes=[2]), picture(1, 3, 16, 24)
    np.testing.assert_allclose(loaded(name, path, tmp_path)(x), expected(path, {"x": x})[0], rtol=1e-5)


def test_ncnn_enhances_as_onnx_runtime_does(exported):
    weights = prepared.find("seeded")
    if missing := catalogue.find("ncnn").missing:
        pytest.skip(missing)
    network = catalogue.find("ncnn").load(1, *(prepared.prepared(weights, form) for form in converters.NCNN))
    for size in ((64, 72), (104, 48)):
        x = picture(1, 3, *size)
        np.testing.assert_allclose(network(x), expected(exported, {"input": x})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 3, 96, 160), (1, 3, 48, 192)], ids=["detector", "classifier"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_is_not_ours(name, size, shared, tmp_path):
    path = shared / "models" / ("ppocr_cls.onnx" if size[2] == 48 else "ppocr_det.onnx")
    x = images.to_batch(reference.picture(*size[2:])).astype(np.float32)
    (y,), (known,) = loaded(name, path, tmp_path).run({"x": x}), expected(path, {"x": x})
    np.testing.assert_allclose(y, known, rtol=0, atol=1e-3)


# How


def test_openvino_has_the_threads_and_the_precision(tiny, tmp_path):
    request = loaded("openvino", tiny, tmp_path).request.get_compiled_model()
    said = [request.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")]
    assert said == [1, 1] and request.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_openvino_fixed_compiles_once_a_size(tiny, tmp_path):
    network, seen = loaded("openvino-fixed", tiny, tmp_path), []
    for size in ((16, 24), (16, 24), (16, 32)):
        network(picture(1, 3, *size))
        seen.append(network.request)
    assert seen[0] is seen[1] is not seen[2]
    assert list(network.request.get_compiled_model().inputs[0].shape) == [1, 3, 16, 32]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux alone")
@pytest.mark.skipif(machine.cores() < 2, reason="a second thread takes a second core")
def test_mnn_has_the_threads(tiny, tmp_path):
    gc.collect()  # sessions of other tests have threads, too
    counts, networks = [len(os.listdir("/proc/self/task"))], []
    for threads in (1, 2):
        networks.append(loaded("mnn", tiny, tmp_path, threads))
        networks[-1](picture(1, 3, 16, 24))
        counts.append(len(os.listdir("/proc/self/task")))
    assert counts == [counts[0], counts[0], counts[0] + 1]


def test_ncnn_has_the_threads_and_the_precision(tiny, tmp_path):
    options = loaded("ncnn", tiny, tmp_path, threads=3).net.opt
    assert options.num_threads == 3
    assert not any(getattr(options, name) for name in dir(options) if "fp16" in name or "bf16" in name)


# Refused in one line


def test_a_runtime_that_is_not_there_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    variant = runtimes._variant("ncnn", "", None, (), "ncnn", "pnnx")
    remedy = "make extras, or pip install -c requirements.lock -e '.[runtimes]'"
    assert variant.missing == f"ncnn and pnnx not installed: {remedy}"
    monkeypatch.setitem(compared.VARIANTS, "ncnn", variant)
    for use in (lambda: trial.run(trial.Trial("ncnn", 16, 16, 1)), lambda: enhancer.load("ncnn")):
        with pytest.raises(Error, match="ncnn cannot run here: ncnn and pnnx not installed"):
            use()


def refusal(run, *arguments):
    with pytest.raises(Error) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("openvino", "nobody.Mystery"), ("mnn", "Mystery"), ("ncnn", "Mystery")])
def test_an_operator_that_is_not_there(name, said, tmp_path):
    path = write(tmp_path / "odd.onnx", [helper.make_node("Mystery", ["x"], ["y"], domain="nobody")])
    assert said in refusal(loaded, name, path, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_that_does_not_fit(name, tiny, tmp_path):
    shape, said = ((2, 3, 16, 24), "ncnn takes float32 alone") if name == "ncnn" else ((1, 4, 16, 24), "refuses it")
    said_of = refusal(loaded(name, tiny, tmp_path), picture(*shape))
    assert said_of.startswith(f"x of {'x'.join(map(str, shape))}: ") and said in said_of


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_none(name, tmp_path):
    variant = catalogue.find(name)
    if variant.missing:
        pytest.skip(variant.missing)
    path = tmp_path / "wrong.onnx"
    path.write_text("nonsense")
    assert "wrong.onnx: " in refusal(variant.load, 1, *[path] * len(variant.forms))


def test_ncnn_does_not_take_what_pnnx_would_misread(tmp_path):
    path = write(tmp_path / "sum.onnx", [helper.make_node("ReduceMean", ["x", "axes"], ["y"])], axes=[2])
    assert "pnnx drops the axes that ReduceMean takes" in refusal(loaded, "ncnn", path, tmp_path)


@pytest.mark.parametrize("name", ["mnn", "ncnn"])
def test_axes_that_are_not_known_are_not_dropped(name, tmp_path):
    nodes = [helper.make_node("Identity", ["axes"], ["same"]), helper.make_node("ReduceL2", ["x", "same"], ["y"])]
    path = write(tmp_path / "sum.onnx", nodes, axes=[2])
    assert "drops the axes that ReduceL2 takes" in refusal(loaded, name, path, tmp_path)


def test_ncnn_has_weights_that_lie_in_another_file(tiny, tmp_path):
    path = tmp_path / "apart.onnx"
    onnx.save(onnx.load(tiny), path, save_as_external_data=True, location="apart.data", size_threshold=0)
    x = picture(1, 3, 16, 24)
    np.testing.assert_allclose(loaded("ncnn", path, tmp_path)(x), expected(tiny, {"x": x})[0], rtol=0, atol=1e-5)


def test_ncnn_does_not_take_a_layer_that_it_has_not(tmp_path):
    path = write(tmp_path / "det.onnx", [helper.make_node("Det", ["x"], ["y"])])
    assert "it has no layer for Det" in refusal(loaded, "ncnn", path, tmp_path)


# In trials


@pytest.mark.parametrize("name", NAMES)
def test_a_trial(name, tiny):
    if missing := catalogue.find(name).missing:
        pytest.skip(missing)
    result = trial.run(trial.Trial(name, 16, 24, 1, weights=str(tiny)), keep_output=True)
    assert (result.status, result.error, result.rows[0]["runtime"]) == ("ok", "", name.partition("-")[0])
    plain = trial.run(trial.Trial("onnx", 16, 24, 1, weights=str(tiny)), keep_output=True)
    np.testing.assert_allclose(result.outputs[0], plain.outputs[0], rtol=0, atol=1e-5)


def test_a_graph_that_is_not_taken_is_a_row(tmp_path):
    if missing := catalogue.find("ncnn").missing:
        pytest.skip(missing)
    nodes, weights = convolved()
    nodes[-1].output[0] = "c"
    nodes += [helper.make_node("ReduceMean", ["c", "axes"], ["d"]), helper.make_node("Add", ["c", "d"], ["y"])]
    path = write(tmp_path / "mean.onnx", nodes, axes=[2], **weights)
    with pytest.raises(NotTaken, match="ReduceMean"):
        prepared.prepared(prepared.find(path), "ncnn-param")
    result = trial.run(trial.Trial("ncnn", 16, 24, 1, weights=str(path)))
    (row,) = result.rows
    assert (row["status"], row["phase"], row["variant"]) == ("error", "load", "ncnn")
    assert "pnnx drops the axes that ReduceMean takes" in row["error"] and "\n" not in row["error"]
