"""The initializers of an ONNX file, read from its bytes with NumPy alone: of protobuf's format what that takes.

A message is a row of fields: a key, which is the field's number and how its value is written, and the value. A file is
a ModelProto, which holds a GraphProto, which holds a TensorProto an initializer; the numbers below are onnx.proto's.
What is skipped is not touched, so of a file that is mapped only what is asked for is read.
"""

import math
import operator
from dataclasses import dataclass, field

import numpy as np

GRAPH, INITIALIZER = 7, 5
DIMS, KIND, FLOATS, INTEGERS, NAME, RAW, DOUBLES, SECOND, PLACE = 1, 2, 4, 5, 8, 9, 10, 13, 14
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16  # kinds; their values as `raw_data` has them:
WRITTEN = {FLOAT: "<f4", FLOAT16: "<f2", DOUBLE: "<f8", BFLOAT16: "<u2"}
ELSEWHERE = 1  # the place of what is in a second file


class Damaged(Exception):
    """Bytes that are no message, or a part of one, or values that are more or fewer than said."""


@dataclass(frozen=True)
class Initializer:
    """A tensor of the file, its values not read yet."""

    name: str
    kind: int
    shape: tuple[int, ...]
    data: bytes | memoryview | None  # its values as they are written; None where they are in a second file
    second: dict[str, str] = field(default_factory=dict)  # then: location, and, where it says so, offset and length

    def array(self, data):
        """These bytes as its values: float32, in memory of their own; `Damaged` where they are too many or too few."""
        written = np.dtype(WRITTEN[self.kind])
        if min(self.shape, default=0) < 0 or len(data) != math.prod(self.shape) * written.itemsize:
            raise Damaged
        try:
            values = np.frombuffer(data, written).reshape(self.shape)
        except ValueError:  # of more dimensions than an array has
            raise Damaged from None
        if self.kind == BFLOAT16:  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is not finite
            return values.astype(np.float32)


def read(content):
    """The initializers of an ONNX file, in its order: yields each `Initializer`; `Damaged` where the file is.

    content: its bytes, or a view of them.
    """
    for graph in _messages(memoryview(content), GRAPH):
        yield from map(_initializer, _messages(graph, INITIALIZER))


def _initializer(message):
    found = {number: [] for number in (DIMS, FLOATS, INTEGERS, DOUBLES, SECOND)}
    found |= {KIND: 0, NAME: b"", RAW: None, PLACE: 0}
    for number, value in _fields(message):
        if isinstance(found.get(number), list):
            found[number].append(value)
        elif number in found:
            found[number] = value
    data = found[RAW]
    try:
        kind, name = operator.index(found[KIND]), str(found[NAME], "utf-8")
        shape = tuple(_integers(found[DIMS]).tolist())
        if found[PLACE] == ELSEWHERE:
            pairs = [dict(_fields(one)) for one in found[SECOND]]
            second = {str(one.get(1, b""), "utf-8"): str(one.get(2, b""), "utf-8") for one in pairs}
            return Initializer(name, kind, shape, None, second)
        if data is None and kind in (FLOAT, DOUBLE):
            data = b"".join(found[FLOATS if kind == FLOAT else DOUBLES])
        elif data is None and kind in (FLOAT16, BFLOAT16):
            data = _halves(found[INTEGERS])
        return Initializer(name, kind, shape, memoryview(data or b""))
    except (TypeError, UnicodeDecodeError):  # a number where bytes belong, or the reverse, or no text
        raise Damaged from None


def _halves(values):
    """Halves, which a message has as integers, as they are written elsewhere."""
    numbers = _integers(values)
    if not ((numbers >= 0) & (numbers < 2**16)).all():
        raise Damaged
    return numbers.astype("<u2").tobytes()


def _messages(message, wanted):
    """The messages within that are fields of one number."""
    for number, value in _fields(message):
        if number == wanted:
            if isinstance(value, int):
                raise Damaged
            yield value


def _fields(message):
    """The fields of a message: yields (number, value), the value an integer or a view of its bytes."""
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        number, written = key >> 3, key & 7
        if written == 0:
            value, at = _integer(message, at)
            yield number, value
            continue
        if written == 2:
            size, at = _integer(message, at)
        else:
            size = {1: 8, 5: 4}.get(written, math.inf)  # no other is in use
        if not number or size > len(message) - at:
            raise Damaged
        yield number, message[at : at + size]
        at += size


def _integer(message, at):
    """The integer that begins there, and where it ends: seven bits a byte, lowest first, the last byte below 128."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128 and value < 2**64:
            return value, at + place + 1
    raise Damaged


def _integers(values):
    """The integers of a repeated field, one by one or many in a piece: an array of int64."""
    pieces = [np.array([one], np.uint64) if isinstance(one, int) else _unpacked(one) for one in values]
    return np.concatenate([np.zeros(0, np.uint64), *pieces]).astype(np.int64)


def _unpacked(piece):
    """All integers of a piece at once, as halves have a million of them."""
    written = np.frombuffer(piece, np.uint8)
    ends = np.flatnonzero(written < 128)
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    if len(written) and (not len(ends) or ends[-1] != len(written) - 1 or (ends - starts).max() > 9):
        raise Damaged
    values = np.zeros(len(ends), np.uint64)
    for place in range((ends - starts).max(initial=0) + 1):
        there = starts + place <= ends
        values[there] |= (written[starts[there] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values
