"""Weights in and out: every form that is read, every fault that is named, and what is made on demand."""

import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
import torch
from conftest import REPO
from onnx import TensorProto, helper, numpy_helper

from udnet import Error, __version__
from udnet.network import checkpoint, model, prepared
from udnet.network.checkpoint import CheckpointError
from udnet.system import files, guard


@pytest.fixture(scope="module")
def state():
    return prepared.seeded()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    folder = tmp_path / "own cache"
    monkeypatch.setenv("UDNET_CACHE", str(folder))
    return folder


@pytest.fixture
def at_once(monkeypatch):
    """What is made for the cache is made by this process, which has PyTorch already."""

    def run(command, **_):
        try:
            prepared._make(*command[3:])
        except Error as error:
            return subprocess.CompletedProcess(command, 1, stderr=str(error))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(prepared.subprocess, "run", run)


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """An empty folder in place of data/weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(prepared, "WEIGHTS_FOLDER", folder)
    return folder


def save(value, path):
    torch.save(value, path)
    return path


def same(one, other):
    """Whether arrays or tensors by name are the same, bit for bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def renamed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def graph_of(state, **more):
    tensors = [numpy_helper.from_array(t.numpy(), name) for name, t in state.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["y"], value_floats=[1.0])
    return helper.make_model(helper.make_graph([constant], "g", [], [y], initializer=tensors), **more)


# --- reading ---


@pytest.mark.parametrize(
    "prefix", ["", "net.", "module.net.", "module._orig_mod.", "_orig_mod.module.", "model.net_g."]
)
def test_prefixes_are_removed(tmp_path, state, prefix):
    assert same(checkpoint.read(save(renamed(state, prefix), tmp_path / "w.pth")), state)


@pytest.mark.parametrize("suffix", ["pth", "PTH", "pt", "ckpt", "", "onnx", "ONNX"])
def test_a_suffix_is_read_in_any_case(tmp_path, state, suffix):
    path = tmp_path / f"w.{suffix}"
    onnx.save_model(graph_of(state), path, "protobuf") if suffix.lower() == "onnx" else save(state, path)
    assert same(checkpoint.read(path), state)


def test_a_file_is_read_as_what_it_is_whatever_its_name(tmp_path, state):
    save(state, tmp_path / "checkpoint.onnx")
    torch.save(state, tmp_path / "old.onnx", _use_new_zipfile_serialization=False)
    onnx.save_model(graph_of(state), tmp_path / "graph.pth", "protobuf")
    for name in ("checkpoint.onnx", "old.onnx", "graph.pth"):
        assert same(checkpoint.read(tmp_path / name), state)


def test_a_state_dict_is_found_however_deep(tmp_path, state):
    other = {name: tensor + 1 for name, tensor in state.items()}
    for value in (
        {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        {"model": {"params": {"weights": renamed(state, "module.")}}},
        {"params": other, "params_ema": state},
        {"epoch": 3, **state},
        {"model": state, "state_dict": state},
        {"state_dict": {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}},
    ):
        read = checkpoint.read(save(value, tmp_path / "w.pth"))
        assert same(read, state)
        assert {(type(array), array.dtype.name) for array in read.values()} == {(np.ndarray, "float32")}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, state, kind):
    changed = {name: tensor.to(kind) for name, tensor in state.items()}
    expected = {name: tensor.float() for name, tensor in changed.items()}
    assert same(checkpoint.read(save(changed, tmp_path / "w.pth")), expected)
    onnx_kind = onnx.TensorProto.DataType.Value({"float64": "DOUBLE"}.get(str(kind)[6:], str(kind)[6:].upper()))
    graph = graph_of({})
    for name, tensor in expected.items():
        one = helper.make_tensor(name, onnx_kind, tensor.shape, tensor.numpy().ravel())
        graph.graph.initializer.append(one)
    onnx.save(graph, tmp_path / "w.onnx")
    assert same(checkpoint.read(tmp_path / "w.onnx"), expected)


def test_other_layouts_become_dense(tmp_path, state):
    name = "decoder.pr_encoder.conv1.conv.1.weight"
    for tensor in (
        state[name].to(memory_format=torch.channels_last),
        state[name].to_sparse(),
        state[name][:, :1].expand(-1, 3, -1, -1),
    ):
        (read,) = checkpoint.read(save({name: tensor}, tmp_path / "w.pth")).values()
        assert np.array_equal(read, tensor.to_dense() if tensor.is_sparse else tensor)
        assert read.flags.c_contiguous


def test_what_is_not_of_floating_point_keeps_its_shape(tmp_path):
    """It is told of where it is asked for."""
    odd = [torch.ones(3, 2, dtype=torch.int32), torch.ones(4, device="meta"), torch.ones(5).to(torch.float8_e5m2)]
    read = checkpoint.read(save({f"decoder.{place}.bias": one for place, one in enumerate(odd)}, tmp_path / "w.pth"))
    assert [(one.shape, one.dtype) for one in read.values()] == [((3, 2), bool), ((4,), bool), ((5,), bool)]


def test_the_shapes_are_those_of_the_network():
    shapes = [(name, tuple(one.shape)) for name, one in model.InferenceUDnet().state_dict().items()]
    assert list(checkpoint.inference_shapes().items()) == shapes


def test_an_onnx_file_is_read_by_its_initializers(tmp_path, state):
    onnx.save(graph_of(renamed(state, "net.") | {"scale": torch.ones(4)}), tmp_path / "w.onnx")
    assert same(checkpoint.read(tmp_path / "w.onnx"), state)


def test_the_published_file_is_read(published):
    tensors = checkpoint.read(published)
    assert len(tensors) == 66
    checkpoint.load_into(model.InferenceUDnet(), tensors, published)


def test_a_full_checkpoint_goes_both_ways(tmp_path, state):
    whole = model.UDnet()
    path = save(renamed(whole.state_dict(), "module."), tmp_path / "w.pth")
    again, inference = model.UDnet(), model.InferenceUDnet()
    checkpoint.load_into(again, checkpoint.read(path), path)
    checkpoint.load_into(inference, checkpoint.read(path), path)
    assert same(again.state_dict(), whole.state_dict())
    assert same(inference.state_dict(), {name: whole.state_dict()[name] for name in inference.state_dict()})


# --- faults: each is one line that names the file and the fault ---


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def faults(folder, state):
    """For each fault: a file that has it, and a word of the line that says so."""
    whole = save(state, folder / "whole.pth").read_bytes()
    onnx.save(graph_of(state), folder / "whole.onnx")
    graph = (folder / "whole.onnx").read_bytes()
    onnx.save(graph_of(state), folder / "parted.onnx", save_as_external_data=True, location="parted.data")
    (folder / "parted.data").unlink()
    (folder / "folder.pth").mkdir()
    contents = {
        "empty.pth": b"",
        "text.pth": b"<html>404: not found</html>",
        "cut short.pth": whole[: len(whole) // 2],
        "cut at the end.pth": whole[:-100],
        "empty.onnx": b"",
        "text.onnx": b"<html>404: not found</html>",
        "cut short.onnx": graph[: len(graph) // 2],
        "pickle.pth": pickle.dumps(Evil(folder / "ran"), protocol=2),
        "new pickle.pth": pickle.dumps(Evil(folder / "ran")),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    save({"decoder.conv_u.weight": Evil(folder / "ran")}, folder / "evil.pth")
    save(Evil(folder / "ran"), folder / "evil alone.pth")
    save(model.ChannelAttention(16), folder / "module.pth")
    save([1, 2], folder / "list.pth")
    save({"epoch": 3}, folder / "no tensors.pth")
    save({}, folder / "nothing.pth")
    save(dict(enumerate(state.values())), folder / "numbers for names.pth")
    save({"a": state, "b": dict(state)}, folder / "two.pth")
    save(state | renamed(state, "ema."), folder / "twice.pth")
    (folder / "w.safetensors").write_bytes(b"1")
    quantised = graph_of({})
    quantised.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.int8), "decoder.conv_u.weight"))
    onnx.save(quantised, folder / "quantised.onnx")
    os.mkfifo(folder / "pipe.pth")
    onnx.save(graph_of({"other": torch.ones(3)}), folder / "another model.onnx")
    return {
        "absent.pth": "no such file",
        "absent.onnx": "no such file",
        "folder.pth": "folder",
        "empty.pth": "empty",
        "empty.onnx": "empty",
        "text.pth": "not a PyTorch checkpoint",
        "cut short.pth": "cut short",
        "cut at the end.pth": "cut short",
        "text.onnx": "not an ONNX file",
        "cut short.onnx": "cut short",
        "parted.onnx": "second file",
        "another model.onnx": "no weights of UDnet",
        "evil.pth": "refused",
        "evil alone.pth": "refused",
        "pickle.pth": "refused",
        "new pickle.pth": "not a PyTorch checkpoint",
        "module.pth": "refused",
        "list.pth": "not a state dict",
        "no tensors.pth": "not a state dict",
        "nothing.pth": "not a state dict",
        "numbers for names.pth": "not a state dict",
        "two.pth": "several networks, a, b; save the state_dict of one",
        "twice.pth": "twice, as decoder.pr_encoder.conv1.conv.1.weight and ema.decoder.pr_encoder.conv1.conv.1.weight",
        "w.safetensors": "make a .pth",
        "quantised.onnx": "decoder.conv_u.weight is not of floating point",
        "pipe.pth": "pipe",
        f"{'x' * 300}.pth": "File name too long",
        "zero\0byte.pth": "no such file",
    }


def test_a_file_that_cannot_be_read_is_one_line_and_nothing_in_it_runs(tmp_path, state, recwarn):
    for name, said in faults(tmp_path, state).items():
        with pytest.raises(CheckpointError) as error:
            checkpoint.read(tmp_path / name)
        line = str(error.value)
        assert line.startswith(str(tmp_path / name)) and said in line and "\n" not in line, line
    assert not (tmp_path / "ran").exists() and not recwarn.list


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder.conv_u.bias": None}, "missing: decoder.conv_u.bias"),
        ({"decoder.conv_v.bias": torch.ones(3)}, "extra: decoder.conv_v.bias"),
        ({"decoder.conv_u.weight": torch.ones(128, 20)}, "misshapen: decoder.conv_u.weight"),
        ({"decoder.conv_u.weight": torch.full((128, 20, 1, 1), torch.nan)}, "not finite: decoder.conv_u.weight"),
        ({"decoder.conv_s.bias": torch.full((128,), torch.inf)}, "not finite: decoder.conv_s.bias"),
        (
            {"decoder.conv_s.bias": torch.ones(128, dtype=torch.int32)},
            "without values of floating point: decoder.conv_s.bias",
        ),
        ({"decoder.po_other.bias": torch.ones(3), "VGG16.other.bias": torch.ones(3)}, None),
    ],
)
def test_what_does_not_fit_is_named(state, change, said):
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    if said is None:
        checkpoint.load_into(model.InferenceUDnet(), changed, "w.pth")
        return
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_into(model.InferenceUDnet(), changed, "w.pth")
    assert str(error.value) == f"w.pth: does not fit InferenceUDnet: {said}"


def test_a_long_list_is_cut(state):
    with pytest.raises(CheckpointError, match=r"missing: decoder\.po_encoder\S+, \S+, \S+ and 93 more$"):
        checkpoint.load_into(model.UDnet(), state, "w.pth")


# --- an ONNX file with second files ---


@pytest.fixture
def parted(tmp_path, state):
    """A folder with an ONNX file, m.onnx, and its weights beside it, sub/m.data."""
    folder = tmp_path / "parted"
    (folder / "sub").mkdir(parents=True)
    onnx.save(graph_of(state), folder / "m.onnx", save_as_external_data=True, location="sub/m.data", size_threshold=0)
    return folder


def moved(value, folder):
    """The second file with another value in every place; the ONNX file stays."""
    size = (folder / "sub" / "m.data").stat().st_size
    (folder / "sub" / "m.data").write_bytes(np.full(size // 4, value, np.float32).tobytes())


def test_second_files_are_read_and_count_in_the_checksum_and_the_caption(parted, state):
    assert same(checkpoint.read(parted / "m.onnx"), state)
    before = prepared.find(parted / "m.onnx")
    assert before.seconds == ("sub/m.data",)
    assert before.caption == f"weights: m.onnx with sub/m.data (sha256 {before.sha256[:8]})"
    assert prepared.find(parted / "m.onnx") == before
    moved(0.5, parted)
    assert prepared.find(parted / "m.onnx").sha256 != before.sha256
    assert {value for array in checkpoint.read(parted / "m.onnx").values() for value in np.unique(array)} == {0.5}


def test_links_of_a_hub_are_followed(parted, tmp_path, state):
    hub = tmp_path / "hub"
    (hub / "sub").mkdir(parents=True)
    (hub / "m.onnx").symlink_to(parted / "m.onnx")
    weights = prepared.find(parted / "m.onnx")
    for linked in (False, True):  # the data beside what is linked to, and a link of its own
        if linked:
            (hub / "sub" / "m.data").symlink_to("../../parted/sub/m.data")
        assert same(checkpoint.read(hub / "m.onnx"), state)
        assert prepared.find(hub / "m.onnx").sha256 == weights.sha256
    (parted / "sub" / "m.data").unlink()
    with pytest.raises(
        CheckpointError, match=r"m\.onnx: its second file sub/m\.data is a link to \S+, which is not there"
    ):
        prepared.find(hub / "m.onnx")
    with pytest.raises(
        CheckpointError, match=r"m\.onnx: its weights are in a second file, sub/m\.data; put that beside it"
    ):
        prepared.find(parted / "m.onnx")


def test_a_second_file_that_is_cut_short_is_one_line(parted):
    (parted / "sub" / "m.data").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match=r"does not fit its second file, sub/m\.data; get both again"):
        checkpoint.read(parted / "m.onnx")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_a_second_file_elsewhere_is_refused(tmp_path, state, name):
    (tmp_path / "secret").write_bytes(b"1" * 10**7)
    graph = graph_of(state)
    onnx.external_data_helper.set_external_data(graph.graph.initializer[0], name)
    graph.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.onnx").write_bytes(graph.SerializeToString())
    for ask in (prepared.find, checkpoint.read):
        with pytest.raises(CheckpointError, match="outside its folder"):
            ask(tmp_path / "in" / "m.onnx")


def test_a_long_name_of_a_second_file_is_read_whole(tmp_path, state):
    name = "/".join(["x" * 100] * 3)
    content = b"...\x0a\x08location\x12" + bytes([len(name) & 127 | 128, len(name) >> 7]) + name.encode() + b"more"
    with pytest.raises(CheckpointError, match=f"a second file, {name}; put"):
        checkpoint.second_files(tmp_path / "m.onnx", content)


# --- writing ---


def test_strip_keeps_the_output_and_a_twentieth_of_the_bytes(tmp_path):
    whole = model.UDnet().eval()
    path, out = save(renamed(whole.state_dict(), "net."), tmp_path / "full.pth"), tmp_path / "inference.pth"
    checkpoint.strip(path, out)
    assert path.stat().st_size > 61.4 * 2**20 and out.stat().st_size < 3.3 * 2**20
    stripped = model.InferenceUDnet().eval()
    stripped.load_state_dict(torch.load(out, weights_only=True))
    x = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(stripped(x), whole(x))
    with pytest.raises(CheckpointError, match=r"\.pth"):
        checkpoint.strip(path, tmp_path / "inference.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full.pth", "inference.pth"]


def test_strip_onto_its_source_is_refused(tmp_path, state):
    path, link = save(state, tmp_path / "w.pth"), tmp_path / "link.pth"
    link.symlink_to(path)
    before = path.read_bytes()
    for out in (path, link):
        with pytest.raises(Error, match="made from"):
            checkpoint.strip(path, out)
    assert path.read_bytes() == before and link.is_symlink()


def test_the_bytes_depend_on_the_tensors_alone(tmp_path, state):
    checkpoint.save(state, tmp_path / "one.pth")
    checkpoint.save(prepared.seeded(), tmp_path / "another.pth")
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "another.pth").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    out = tmp_path / "w.pth"
    out.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(out) as part:
        part.write_text("ne")
        raise RuntimeError
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]
    with pytest.raises(Error, match="cannot be written"), files.replacing(out):
        raise OSError(28, "No space left on device")
    with pytest.raises(Error, match="no folder"), files.replacing(tmp_path / "no" / "w.pth"):
        pass


# --- the embedded default ---


def test_seeded_weights_are_the_same_everywhere(state):
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest() == "0749b5c00f3db6d4d1c89537d15e79a2887e828215e05a64ac07d92bf8e6e675"
    assert not same(prepared.seeded(seed=1), state)


def test_seeded_weights_balance_the_colours(state):
    network = model.InferenceUDnet().eval()
    checkpoint.load_into(network, state, "seeded")
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 96), indexing="ij")
    picture = torch.stack([0.05 + 0.05 * y, 0.6 + 0.3 * x, 0.4 + 0.2 * x * y])[None]
    with torch.no_grad():
        output = network(picture)
    assert output.mean((2, 3)).flatten().tolist() == pytest.approx([0.5] * 3, abs=0.03)
    assert output.std((2, 3)).flatten().tolist() == pytest.approx([0.25] * 3, abs=0.03)
    assert output.min() > -0.5 and output.max() < 1.5


# --- which weights ---


def test_the_weights_named_go_before_those_in_the_folder_and_those_before_the_default(tmp_path, weights_folder):
    assert prepared.find() == prepared.find("default")
    assert prepared.find().caption.startswith("weights: the embedded default (sha256 ")
    assert prepared.find("seeded").caption.startswith("weights: seeded random weights (seed 0) (sha256 ")
    for name in ("b.pth", "a.pth", ".c.onnx"):
        (weights_folder / name).write_bytes(b"1")
    assert prepared.find().path == weights_folder / "a.pth"
    (weights_folder / "z.onnx").write_bytes(b"2")
    found = prepared.find()
    assert (found.name, found.path) == ("z.onnx", weights_folder / "z.onnx")
    assert found.caption == f"weights: z.onnx (sha256 {hashlib.sha256(b'2').hexdigest()[:8]})"
    (tmp_path / "mine.pth").write_bytes(b"3")
    assert prepared.find(str(tmp_path / "mine.pth")).name == "mine.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        prepared.find(tmp_path / "none.pth")


def test_a_file_of_anybodys_is_written_again_and_the_project_s_own_is_used_as_it_is(
    tmp_path, own_cache, at_once, state
):
    assert prepared.prepared(prepared.find("default"), "inference") == prepared.DEFAULT
    seeded = prepared.find("seeded")
    assert prepared.prepared(seeded, "inference") == seeded.path
    whole = model.UDnet().state_dict()
    weights = prepared.find(save({"state_dict": whole}, tmp_path / "full.pth"))
    for form, expected in (("full", whole), ("inference", {name: whole[name] for name in state})):
        path = prepared.prepared(weights, form)
        assert path == own_cache / weights.sha256[:12] / f"{form}.pth"
        assert same(torch.load(path, weights_only=True), expected)
    with pytest.raises(CheckpointError, match="no such form"):
        prepared.prepared(weights, "tflite")


def test_no_code_of_a_user_s_file_runs_whatever_is_made_of_it(tmp_path, own_cache, at_once, state):
    """`load.any-pickle` loads "full" with `weights_only=False`: what is in the cache, never the file itself."""
    whole = model.UDnet().state_dict()
    weights = prepared.find(save(whole | {"more": Evil(tmp_path / "ran")}, tmp_path / "evil.pth"))
    for form in ("full", "inference", "onnx", "arrays"):
        with pytest.raises(CheckpointError, match=r"evil\.pth: refused, it holds Python code"):
            prepared.prepared(weights, form)
    assert not (tmp_path / "ran").exists()
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


def test_what_the_cache_lost_is_made_anew(own_cache):
    made = []

    def ask():
        return prepared.cached("seeded/seeded.pth", lambda path: (made.append(1), path.write_bytes(b"whole")))

    path = ask()
    assert path == own_cache / "seeded" / "seeded.pth" and len(made) == 1
    for damage in (b"", b"who", b"other", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        assert ask().read_bytes() == b"whole"
        assert ask() == path
    assert len(made) == 5
    for damage in (b"", b"\xff 0", None):
        noted = path.with_name("seeded.pth.sha256")
        noted.unlink() if damage is None else noted.write_bytes(damage)
        assert ask() == path
    assert len(made) == 8
    assert noted.read_text() == f"{hashlib.sha256(b'whole').hexdigest()}  seeded.pth\n"  # as sha256sum takes it


@pytest.mark.parametrize("weights", [3, "", b"", 1.5, [1], {"state_dict": 1}, True])
def test_what_is_no_name_of_a_file_is_one_line(weights):
    with pytest.raises(CheckpointError, match=r"give the name of a \.pth or an \.onnx"):
        prepared.find(weights)


def test_a_name_in_bytes_is_taken(tmp_path, state):
    path = save(state, tmp_path / "w.pth")
    assert prepared.find(os.fsencode(path)) == prepared.find(path) == prepared.find(str(path))


def test_a_form_is_made_once(tmp_path, own_cache, at_once, state):
    weights = prepared.find(save(renamed(state, "net."), tmp_path / "w.pth"))
    made = prepared.prepared(weights, "inference")
    assert made == own_cache / weights.sha256[:12] / "inference.pth"
    before = made.stat().st_mtime_ns
    assert prepared.prepared(weights, "inference") == made and made.stat().st_mtime_ns == before
    assert same(torch.load(made, weights_only=True), state)


def test_arrays_of_an_onnx_file_take_no_process(tmp_path, own_cache, state, monkeypatch):
    """Nor PyTorch or onnx: `test_bare` makes them where there is neither."""
    monkeypatch.setattr(prepared.subprocess, "run", None)
    onnx.save(graph_of(state), tmp_path / "w.onnx")
    weights = prepared.find(tmp_path / "w.onnx")
    path = prepared.prepared(weights, "arrays")
    assert path == own_cache / weights.sha256[:12] / "inference.npz"
    with np.load(path) as arrays:
        assert same({f"decoder.{name}": array for name, array in arrays.items()}, state)
    onnx.save(graph_of({name: one for name, one in state.items() if "conv_u" not in name}), tmp_path / "w.onnx")
    with pytest.raises(CheckpointError) as error:
        prepared.prepared(prepared.find(tmp_path / "w.onnx"), "arrays")
    assert str(error.value).startswith(f"{tmp_path / 'w.onnx'}: does not fit InferenceUDnet: missing: decoder.conv_u")


def lacks(tmp_path, state, form):
    """Ask for a form of weights that lack a layer."""
    save({name: t for name, t in state.items() if "conv_u" not in name}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as error:
        prepared.prepared(prepared.find(tmp_path / "w.pth"), form)
    assert "missing: decoder.conv_u.weight" in str(error.value) and "\n" not in str(error.value)


def test_a_form_that_cannot_be_made_is_one_line(tmp_path, own_cache, state):
    lacks(tmp_path, state, "inference")
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("form", ["full", "onnx", "onnx-split", "arrays"])
def test_nothing_is_left_of_a_form_that_cannot_be_made(tmp_path, own_cache, at_once, state, form):
    lacks(tmp_path, state, form)
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


def test_a_cache_below_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UDNET_CACHE", "~/made")
    assert prepared.cache_folder() == tmp_path / "made"


def test_a_form_whose_process_the_kernel_killed_says_so(monkeypatch, own_cache):
    kills = iter(range(9))
    monkeypatch.setattr(guard, "kernel_kills", lambda: next(kills))
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(prepared.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(CheckpointError, match="out of memory: killed by the kernel"):
        prepared.find("seeded")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("UDNET_CACHE", str(tmp_path / "taken"))
    with pytest.raises(CheckpointError, match="UDNET_CACHE"):
        prepared.find("seeded")


def test_preparing_imports_no_runtime(own_cache):
    code = (
        "import sys; from udnet.network import prepared;"
        'print(prepared.prepared(prepared.find("seeded"), "inference"));'
        'print(*{"torch", "onnx", "onnxruntime", "pooch", "numpy"} & sys.modules.keys())'
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True, check=True).stdout
    (made,) = own_cache.rglob("*.pth")
    assert said == f"{made}\n\n" and made.name == f"seeded-{__version__}.pth"


def test_two_that_write_one_file_leave_one_whole(tmp_path):
    out = tmp_path / "w.pth"
    with files.replacing(out) as one, files.replacing(out) as other:
        one.write_text("one")
        other.write_text("other")
    assert out.read_text() == "one" and list(tmp_path.iterdir()) == [out]


# --- stand-ins ---


def test_the_stand_in_for_the_full_checkpoint(tmp_path, own_cache, at_once, state, capfd):
    weights = prepared.find(save(state, tmp_path / "w.pth"))
    path = prepared.prepared(weights, "full")
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "stand-in" in said and str(path) in said
    assert prepared.prepared(weights, "full") == path and not capfd.readouterr().err
    assert abs(path.stat().st_size / 2**20 - 61.5) < 0.1
    full = torch.load(path, weights_only=True)
    model.UDnet().load_state_dict(full, strict=True)
    assert same({name: full[name] for name in state}, state)
    assert full["VGG16.loss_network.28.weight"].std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.slow
def test_the_stand_in_for_vgg16_builds_the_network_as_released():
    path = prepared.prepared(prepared.find("default"), "vgg16")
    assert abs(path.stat().st_size / 2**20 - 527.8) < 0.1
    network = model.UDnet(vgg_checkpoint=path)
    kept = torch.load(path, mmap=True, weights_only=True)
    assert sum(t.numel() for t in kept.values()) == 138_357_544
    for name, tensor in network.VGG16.loss_network.state_dict().items():
        assert torch.equal(tensor, kept[f"features.{name}"])


def test_clean_removes_what_was_made_and_nothing_else(own_cache, at_once, state, tmp_path):
    prepared.prepared(prepared.find("seeded"), "inference")
    prepared.prepared(prepared.find(save(renamed(state, "net."), tmp_path / "w.pth")), "inference")
    others = [own_cache / "mine.pth", own_cache / "seeded" / "notes.txt", own_cache / "models" / "full.pth"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    ours = [path for path in own_cache.rglob("*.*") if path not in others]
    assert sorted(path.suffix for path in ours) == [".pth", ".pth", ".sha256", ".sha256"]
    size = sum(path.stat().st_size for path in ours)
    assert prepared.clean() == size > 6 * 2**20
    assert sorted(path for path in own_cache.rglob("*") if path.is_file()) == sorted(others)
    assert prepared.clean() == 0


def test_clean_leaves_what_is_being_written(own_cache):
    (own_cache / "seeded").mkdir(parents=True)
    with files.replacing(own_cache / "seeded" / "seeded-0.pth") as part:
        part.touch()
        dead = part.with_name(part.name.replace(str(os.getpid()), "4194304"))  # one more than any process's number
        dead.touch()
        assert prepared.clean() == 0
        assert part.exists() and not dead.exists()


# --- the published file ---


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A file server of this machine in place of GitHub."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "published.onnx").write_bytes(b"the published file")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "www")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as at:
        threading.Thread(target=at.serve_forever, daemon=True).start()
        monkeypatch.setattr(prepared, "PUBLISHED_URL", f"http://127.0.0.1:{at.server_port}/published.onnx")
        monkeypatch.setattr(prepared, "PUBLISHED_SHA256", hashlib.sha256(b"the published file").hexdigest())
        yield
        at.shutdown()


def test_fetch_puts_the_published_file_into_the_weights_folder(server, weights_folder, capfd):
    path = prepared.fetch()
    assert path == weights_folder / "published.onnx" and path.read_bytes() == b"the published file"
    assert prepared.fetch() == path
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", ["no server", "no file", "another file"])
def test_a_fetch_that_fails_says_what_to_do_and_leaves_nothing(server, weights_folder, monkeypatch, fault):
    if fault == "no server":
        monkeypatch.setattr(prepared, "PUBLISHED_URL", "http://127.0.0.1:9/published.onnx")
    elif fault == "no file":
        monkeypatch.setattr(prepared, "PUBLISHED_URL", f"{prepared.PUBLISHED_URL}.gone")
    else:
        monkeypatch.setattr(prepared, "PUBLISHED_SHA256", "0" * 64)
    with pytest.raises(CheckpointError) as error:
        prepared.fetch()
    line = str(error.value)
    assert "\n" not in line and all(s in line for s in (prepared.PUBLISHED_URL, prepared.PUBLISHED_SHA256, "by hand"))
    assert not list(weights_folder.iterdir())


def test_the_address_is_that_of_the_published_file(published):
    assert prepared.PUBLISHED_URL.endswith("/2af9b6da7a3c305ce35a314a942f2a853ee71b2b/UDnet_dynamic.onnx")
    assert hashlib.sha256(published.read_bytes()).hexdigest() == prepared.PUBLISHED_SHA256
    assert published.stat().st_size == 3_411_116


def test_a_fetch_into_a_folder_that_cannot_be_written(server, weights_folder, monkeypatch):
    (weights_folder / "a file").touch()
    monkeypatch.setattr(prepared, "WEIGHTS_FOLDER", weights_folder / "a file" / "weights")
    with pytest.raises(Error, match="cannot write into the folder"):
        prepared.fetch()


def test_the_default_is_the_same_for_numpy(tmp_path):
    checkpoint.write_arrays(prepared.DEFAULT, tmp_path / "default.npz")
    shipped = prepared.prepared(prepared.find("default"), "arrays")
    assert shipped.parent == prepared.DEFAULT.parent
    assert (tmp_path / "default.npz").read_bytes() == shipped.read_bytes()
    state = torch.load(prepared.DEFAULT, weights_only=True)
    with np.load(shipped) as arrays:
        assert {f"decoder.{name}" for name in arrays} == set(state)
        assert all((state[f"decoder.{name}"].numpy() == array).all() for name, array in arrays.items())
