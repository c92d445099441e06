"""The initializers of ONNX files as onnx itself reads them, and what is damaged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from udnet.network import checkpoint, initializers
from udnet.network.checkpoint import CheckpointError
from udnet.network.initializers import Damaged

KINDS = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE]
VALUES = np.array([[0, -0.0, 1.5], [-2.25, np.inf, 6.1e-5]], np.float32)
NAME = "decoder.conv_u.weight"


def whole(*tensors):
    """An ONNX file with these initializers, as bytes."""
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [], [y], initializer=tensors)).SerializeToString()


def tensor(kind=TensorProto.FLOAT, values=VALUES, raw=False):
    """An initializer with its values as numbers, or as raw data."""
    made = helper.make_tensor(NAME, kind, values.shape, values.ravel())
    if raw:
        data = numpy_helper.to_array(made).tobytes()
        made = TensorProto(name=NAME, data_type=kind, dims=values.shape, raw_data=data)
    return made


def read(content):
    """Name and array of each."""
    return [(one.name, one.array(one.data)) for one in initializers.read(content)]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_that_onnx_reads(kind, raw):
    made = tensor(kind, raw=raw)
    ((name, array),) = read(whole(made))
    assert name == NAME and array.dtype == np.float32 and array.flags.writeable
    assert array.tobytes() == numpy_helper.to_array(made).astype(np.float32).tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 1, 1)])
def test_shapes(shape):
    ((_, array),) = read(whole(tensor(values=np.ones(shape, np.float32))))
    assert array.shape == shape and (array == 1).all()


def test_all_are_given_in_order_and_what_is_no_float_is_told_by_its_kind():
    others = [numpy_helper.from_array(np.ones(3, kind), kind) for kind in ("int8", "int64", "uint64", "bool")]
    given_ = [*others, helper.make_tensor("text", TensorProto.STRING, [1], [b"x"]), tensor()]
    found = list(initializers.read(whole(*given_)))
    assert [(one.name, one.kind, one.shape) for one in found] == [
        (one.name, one.data_type, tuple(one.dims)) for one in given_
    ]


def test_numbers_one_by_one_are_those_of_a_piece():
    """A writer may give each number of a repeated field a key of its own."""
    fields = b"\x08\x02\x08\x01" + b"\x10\x0a" + b"\x28\x80\x78\x28\x80\xf8\x01"  # dims 2, 1; float16; 0x3c00, 0x7c00
    ((_, array),) = read(b"\x3a" + bytes([len(fields) + 2]) + b"\x2a" + bytes([len(fields)]) + fields)
    np.testing.assert_array_equal(array, [[1], [np.inf]])


def test_a_double_beyond_float32_is_not_finite():
    ((_, array),) = read(whole(tensor(TensorProto.DOUBLE, np.array([1e300, -1e300]))))
    assert not np.isfinite(array).any()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [[2, 2], [2, 4], [7], [-2, -3], [6, -1], [1] * 70 + [6], [2**62, 4], []])
def test_values_more_or_fewer_than_said(kind, raw, dims):
    made = tensor(kind, raw=raw)
    del made.dims[:]
    made.dims.extend(dims)
    with pytest.raises(Damaged):
        read(whole(made))


def test_a_half_beyond_sixteen_bits():
    made = tensor(TensorProto.FLOAT16)
    for number in (2**16, -1):
        made.int32_data[0] = number
        with pytest.raises(Damaged):
            read(whole(made))


@pytest.mark.parametrize(
    "content",
    [
        b"\x08",  # a key without its value
        b"\x0a\x05abc",  # a length that runs over
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x09\x00\x00",  # eight bytes, of which two are there
        b"\x0b\x0c",  # a group, which no ONNX file has
        b"\x0e\x00",
        b"\x02\x01a",  # a field of number 0
        b"\x08" + b"\xff" * 10 + b"\x01",  # an integer without an end
        b"\x08" + b"\xff" * 9 + b"\x7f",  # and one of 70 bits
        b"\x38\x01",  # a number where the graph belongs
        b"\x3a\x02\x28\x01",  # where an initializer does
        b"\x3a\x04\x2a\x02\x40\x01",  # where its name does
        b"\x3a\x04\x2a\x02\x48\x01",  # where its bytes do
        b"\x3a\x05\x2a\x03\x12\x01\x01",  # bytes where its kind does
        b"\x3a\x05\x2a\x03\x42\x01\xff",  # a name that is no text
        b"\x3a\x05\x2a\x03\x0a\x01\x80",  # a side without an end
        b"\x3a\x07\x2a\x05\x68\x01\x70\x01\x08",  # a number where a second file belongs, and cut short
    ],
)
def test_what_is_no_file(content):
    with pytest.raises(Damaged):
        list(initializers.read(content))


def test_a_file_that_is_cut_short():
    content = whole(tensor(raw=True), tensor(TensorProto.FLOAT16))
    for size in range(content.index(b"\x3a") + 1, content.rindex(b"\x42")):  # within the graph
        with pytest.raises(Damaged):
            read(content[:size])


@given(data=st.data())
def test_whatever_changes_it_is_read_or_damaged(data):
    content = bytearray(whole(tensor(raw=True), tensor(TensorProto.BFLOAT16), tensor(TensorProto.DOUBLE)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        for one in initializers.read(bytes(content)):
            if one.kind in initializers.WRITTEN and one.data is not None:
                assert one.array(one.data).shape == one.shape
    except Damaged:
        pass


# Values in second files


@pytest.fixture
def parted(tmp_path):
    """A file with six values at byte 8 of a second file, and a function that changes what it says of them."""

    def write(**entries):
        made = TensorProto(name=NAME, data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
        for key, value in ({"location": "w.data", "offset": 8, "length": 24} | entries).items():
            if value is not None:
                made.external_data.add(key=key, value=str(value))
        (tmp_path / "w.onnx").write_bytes(whole(made))
        return tmp_path / "w.onnx"

    (tmp_path / "w.data").write_bytes(bytes(8) + VALUES.tobytes())
    return write


@pytest.mark.parametrize("entries", [{}, {"length": None}, {"checksum": "any"}])
def test_values_of_a_second_file(parted, entries):
    np.testing.assert_array_equal(checkpoint.read(parted(**entries))[NAME], VALUES)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": 9},
        {"offset": None},
        {"offset": 4, "length": None},
        {"offset": -24},
        {"offset": 10**30},
        {"offset": "eight"},
        {"length": 20},
        {"length": -1},
        {"length": 10**30},
    ],
)
def test_what_does_not_fit_its_second_file(parted, entries):
    if entries == {"offset": None}:
        entries |= {"length": 28}
    with pytest.raises(CheckpointError, match=r"w\.onnx: does not fit its second file, w\.data; get both again"):
        checkpoint.read(parted(**entries))


def test_a_second_file_that_is_empty(parted, tmp_path):
    (tmp_path / "w.data").write_bytes(b"")
    with pytest.raises(CheckpointError, match="does not fit its second file"):
        checkpoint.read(parted())


def test_a_name_twice_is_refused(tmp_path):
    (tmp_path / "w.onnx").write_bytes(whole(tensor(), tensor()))
    with pytest.raises(CheckpointError, match=f"holds {NAME} twice"):
        checkpoint.read(tmp_path / "w.onnx")


def test_values_that_are_cut_short_are_named(tmp_path):
    made = tensor(raw=True)
    made.raw_data = made.raw_data[:-1]
    (tmp_path / "w.onnx").write_bytes(whole(made))
    with pytest.raises(CheckpointError, match=rf"w\.onnx: {NAME} is cut short; get the file again"):
        checkpoint.read(tmp_path / "w.onnx")


def test_of_a_large_file_only_what_is_asked_for_is_read(tmp_path):
    """It may be larger than memory: what is of another model is passed over."""
    skipped, mine = 2**33, tensor().SerializeToString()
    other, mine = b"\x4a" + _varint(skipped), b"\x2a" + _varint(len(mine)) + mine
    head = b"\x2a" + _varint(len(other) + skipped) + other
    with (tmp_path / "w.onnx").open("wb") as file:
        file.write(b"\x08\x0a\x3a" + _varint(len(head) + skipped + len(mine)) + head)
        file.seek(skipped, 1)  # a hole
        file.write(mine)
    assert list(checkpoint.read(tmp_path / "w.onnx")) == [NAME]


def _varint(number):
    """An integer as a message has it."""
    low = b""
    while number > 127:
        low, number = low + bytes([number & 127 | 128]), number >> 7
    return low + bytes([number])
