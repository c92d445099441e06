"""What tensors take at once: small graphs counted by hand, every order tried, and the network's own graphs."""

from itertools import permutations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from udnet import Error
from udnet.analysis import scaling
from udnet.network import graphs, lifetimes
from udnet.network.lifetimes import SCHEDULES, peak, per_pixel
from udnet.trials import tables

MAP = 4 * 4 * 8 * 8  # bytes of 4 channels of 8x8 in float32
PICTURE = 3 * 4 * 8 * 8
SUMS = 4 * 4  # of 4 channels, one value each
WEIGHTS = {f"w{cin}{cout}": np.ones((cout, cin, 1, 1), np.float32) for cin, cout in ((3, 4), (4, 4), (8, 4))}
WEIGHTS |= {"rows": np.array([2, 3]), "flat": np.array([1, 4, -1])}


def written(folder, *nodes, out="y", name="graph.onnx"):
    """An ONNX file of (operator, inputs, output, attributes): from pictures x, with `WEIGHTS`."""
    made = [helper.make_node(operator, read, [to], to, **attributes) for operator, read, to, attributes in nodes]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    result = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()]
    graph = helper.make_graph(made, "tiny", [picture], [result], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / name)
    return folder / name


def can_run(order):
    """Whether each node comes after those that make what it reads."""
    made = {"x", *WEIGHTS}
    for _, read, to, _ in order:
        if not made.issuperset(read):
            return False
        made.add(to)
    return True


# a chain with a skip: each node with what is held while it runs, stored and in place
CHAIN = [
    (("Conv", ["x", "w34"], "a", {}), PICTURE + MAP, PICTURE + MAP),  # x, a
    (("LeakyRelu", ["a"], "b", {}), PICTURE + 2 * MAP, PICTURE + MAP),  # x, a, b: b over a
    (("Conv", ["b", "w44"], "c", {}), PICTURE + 2 * MAP, PICTURE + 2 * MAP),  # x, b, c
    (("LeakyRelu", ["c"], "d", {}), PICTURE + 3 * MAP, PICTURE + 2 * MAP),  # x, b, c, d: d over c
    (("Concat", ["b", "d"], "e", {"axis": 1}), PICTURE + 4 * MAP, PICTURE + 2 * MAP),  # x, b, d, e: e is b and d
    (("Conv", ["e", "w84"], "y", {}), PICTURE + 3 * MAP, PICTURE + 3 * MAP),  # x, e, y
]

# squares before the other reader of what is squared: only another order can write them over it
SQUARES = [
    ("Conv", ["x", "w34"], "s", {}),
    ("Mul", ["s", "s"], "m", {}),
    ("ReduceMean", ["m", "rows"], "a", {}),
    ("ReduceL2", ["s", "rows"], "l", {}),
    ("Add", ["a", "l"], "y", {}),
]

# two branches from one map, joined; one through a view
BRANCHES = [
    ("Conv", ["x", "w34"], "s", {}),
    ("Reshape", ["s", "flat"], "v", {}),
    ("Relu", ["v"], "r", {}),
    ("ReduceMean", ["r"], "m", {"keepdims": 0}),
    ("Conv", ["s", "w44"], "c", {}),
    ("Concat", ["s", "c"], "e", {"axis": 1}),
    ("Mul", ["e", "m"], "y", {}),
]


def test_a_chain_with_a_skip_is_counted_as_by_hand(tmp_path):
    path = written(tmp_path, *(node for node, *_ in CHAIN))
    stored, in_place, best = (peak(path, 8, 8, schedule) for schedule in SCHEDULES)
    assert list(stored.profile.bytes) == [held for _, held, _ in CHAIN]
    assert list(in_place.profile.bytes) == [held for *_, held in CHAIN]
    assert list(best.profile.bytes) == list(in_place.profile.bytes), "there is one order alone"
    assert (stored.bytes, stored.node) == (PICTURE + 4 * MAP, "e")
    assert [(one.name, one.bytes) for one in stored.tensors] == [("x", PICTURE), ("b", MAP), ("d", MAP), ("e", 2 * MAP)]
    assert [(one.name, one.bytes) for one in in_place.tensors] == [("x", PICTURE), ("e", 2 * MAP), ("y", MAP)]
    assert stored.weights == 4 * (3 * 4 + 4 * 4 + 8 * 4) + 8 * (2 + 3)
    assert list(stored.profile.weight) == ["w34", "", "w44", "", "", "w84"]


def test_bytes_a_pixel_are_those_of_large_pictures(tmp_path):
    path = written(tmp_path, *(node for node, *_ in CHAIN))
    assert [per_pixel(path, one) for one in SCHEDULES] == [4 * (3 + 4 * 4), 4 * (3 + 3 * 4), 4 * (3 + 3 * 4)]
    table = lifetimes.table(path, 1024, 2048)
    assert list(table["peak, MiB"]) == [152, 120, 120]  # 2 MiPixels
    assert table["held there, MiB"]["in-place"] == "x 24.0, e 64.0, y 32.0"


def test_another_order_can_take_less(tmp_path):
    path = written(tmp_path, *SQUARES)
    stored, in_place, best = (peak(path, 8, 8, schedule) for schedule in SCHEDULES)
    assert stored.bytes == in_place.bytes == PICTURE + 2 * MAP + SUMS  # x, s, m, a
    assert best.bytes == PICTURE + MAP + 2 * SUMS  # x, m (over s), l, a
    assert list(best.profile.index) == ["s", "l", "m", "a", "y"]


def test_what_is_read_later_is_not_written_over(tmp_path):
    profile = peak(written(tmp_path, *BRANCHES), 8, 8, "in-place").profile.bytes
    assert profile["v"] == PICTURE + MAP, "a view takes nothing"
    assert profile["r"] == PICTURE + 2 * MAP, "v dies here, but s, which it is a view of, does not"
    assert profile["e"] == PICTURE + 2 * MAP + 4, "c and s end here: x, their two halves, m"
    twice = [("Conv", ["x", "w34"], "s", {}), ("Concat", ["s", "s"], "e", {"axis": 1}), ("Add", ["e", "e"], "y", {})]
    assert list(peak(written(tmp_path, *twice), 8, 8, "in-place").profile.bytes - PICTURE) == [MAP, 2 * MAP, 2 * MAP]
    over_the_picture = [("Relu", ["x"], "a", {}), ("Relu", ["a"], "y", {})]
    assert list(peak(written(tmp_path, *over_the_picture), 8, 8, "in-place").profile.bytes) == [2 * PICTURE] * 2


@pytest.mark.parametrize("nodes", [SQUARES, BRANCHES], ids=["squares", "branches"])
def test_the_best_order_is_the_best_of_all(nodes, tmp_path):
    peaks = [peak(written(tmp_path, *one), 8, 8, "in-place").bytes for one in permutations(nodes) if can_run(one)]
    found = peak(written(tmp_path, *nodes), 8, 8, "best order")
    assert found.bytes == min(peaks) and len(peaks) > 1


def test_bad_requests_are_one_line(tmp_path):
    path = written(tmp_path, *SQUARES)
    with pytest.raises(Error, match="no schedule 'tiled': choose from stored, in-place, best order"):
        peak(path, 8, 8, "tiled")
    open_ended = written(tmp_path, ("NonZero", ["x"], "n", {}), ("Cast", ["n"], "y", {"to": TensorProto.FLOAT}))
    with pytest.raises(Error, match="the shape of n does not follow from the picture's size"):
        peak(open_ended, 8, 8)


# The network's own graphs. A full-size map of 128 channels takes 512 bytes a pixel, the picture 12.


def test_every_shape_is_that_of_onnx_runtime(exported, tmp_path):
    graph = graphs.read(exported, 16, 24)
    proto = onnx.load(exported)
    made = [name for name, one in graph.tensors.items() if one.operator]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(made, {"input": np.zeros((1, 3, 16, 24), np.float32)})
    seen = {name: (value.shape, value.nbytes) for name, value in zip(made, values, strict=True)}
    assert seen == {name: (graph.tensors[name].shape, graph.tensors[name].bytes) for name in made}
    assert 4 * 832_227 <= graph.weights < 4 * 832_227 + 2048, "the parameters, and some numbers"


def test_the_largest_tensors_are_the_full_size_maps_of_128_channels(exported):
    tensors = graphs.read(exported, 64, 64).tensors.values()
    full = [one for one in tensors if one.bytes >= 128 * 64 * 64 * 4]
    assert {one.shape for one in full} == {(1, 128, 64, 64), (1, 128, 66, 66)}
    assert [one.operator for one in full] == ["Concat", "Sub", "Mul", "Mul", "Add", "Pad"]


def test_what_the_export_takes(exported):
    """In the file's order the latent statistics hold the decoder's map, that less its columns' means, and its squares.
    The norm reads the map less the means once more, later: so the squares cannot be written over it, unless the norm's
    node runs first. UpConv1's first pad reads one such map and writes another, which takes as much in any order."""
    stored, in_place, best = (peak(exported, 64, 64, schedule) for schedule in SCHEDULES)
    picture, full, columns, values = (4 * n for n in (3 * 64 * 64, 128 * 64 * 64, 128 * 64, 128))
    assert stored.bytes == in_place.bytes == picture + 3 * full + 2 * columns + values  # two rows of columns' means
    assert (stored.node, best.node) == ("node_ReduceMean_40", "node_pad_14")
    assert best.bytes == picture + full + 4 * 128 * 66 * 66
    assert best.searched > len(best.profile)
    assert [per_pixel(exported, one) for one in SCHEDULES] == pytest.approx([1548, 1548, 1036], abs=0.01)


def test_what_the_published_file_takes(published):
    """There nothing reads the map less the means again, so that writing in place is enough."""
    assert [per_pixel(published, one) for one in SCHEDULES] == pytest.approx([1548, 1036, 1036], abs=0.01)
    with pytest.raises(Error, match="its Concat /Concat takes other sides"):
        peak(published, 60, 60)


# Beside what was measured


@pytest.mark.skipif(not tables.PUBLISHED.exists(), reason="no study is published yet: make publish")
def test_no_measured_peak_is_below_the_floor(exported):
    costs = scaling.select(scaling.costs(tables.read().trials))
    whole = costs[costs.variant.isin(["onnx", "onnx-no-pattern", "onnx-no-arena", "onnx-lean"])]
    sizes = whole.groupby(["height", "width"]).peak_bytes.min()
    for (height, width), measured in sizes.items():
        best = peak(exported, height, width, "best order")
        assert measured > best.bytes + best.weights, (height, width)
    lean = scaling.fit(costs[costs.variant == "onnx-lean"])
    assert len(sizes) >= scaling.SIZES and lean.slope > per_pixel(exported, "best order")
