"""Picture files for the tests, made by hand where Pillow would not write them, and enhancers that do little."""

import struct
import zlib
from dataclasses import replace

import numpy as np

from udnet.pictures import done, folders

BY = "a variant", "the SHA-256 of its weights"


def enhance(enhancer, source, out, begin=None, **about):
    """The failures of enhancing a photograph, or a folder of them, in this process."""
    return folders.enhance_path(folders.one_by_one(enhancer, begin), source, out, BY, **about).failures


def identity(picture):
    return picture


def invert(picture):
    return replace(picture, pixels=255 - picture.pixels)


def gradient(height, width):
    """A smooth picture whose three channels, rows and columns all differ."""
    y, x = np.mgrid[:height, :width] / max(height, width, 2)
    return np.stack([20 + 200 * x, 30 + 180 * y, 220 - 100 * (x + y)], -1).astype(np.uint8)


def names(folder):
    """Every file below a folder, hidden ones too, but the table of what is done."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != done.FILE)
    return sorted(str(path.relative_to(folder)) for path in found)


def png(width, height, depth, colour, data):
    """A PNG file by hand: 16-bit colour and false headers are not for Pillow to write."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    crc = [struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks]
    parts = [
        struct.pack(">I", len(body)) + name + body + check for (name, body), check in zip(chunks, crc, strict=True)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(data, name, body, before_the_end=False):
    """A PNG file with one more chunk: behind its header, or before its end."""
    at = len(data) - 12 if before_the_end else 33
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:at] + chunk + data[at:]


def tiff(height, width, bits, photometric, data, **more):
    """A TIFF file by hand, uncompressed, in one strip; `bits`: a tuple, of every channel; `more`: tags, as t254=1."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: len(bits), 278: height}
    tags |= {279: len(data)} | {int(name[1:]): value for name, value in more.items()}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273], entries, behind = start + 2 * len(bits) * (len(bits) > 2), b"", b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        kind, packed = (3, struct.pack(f"<{len(values)}H", *values)) if max(values) < 1 << 16 else (4, b"")
        packed = packed or struct.pack("<I", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", start), packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + behind + data


def notes(*malformed, orientation=6):
    """EXIF by hand, with a model, an orientation and entries that are malformed: (tag, kind, value's bytes)."""
    entries = [(0x110, 2, b"Reef\0"), (0x112, 3, struct.pack("<H", orientation)), *malformed]
    start, table, behind = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, value in sorted(entries):
        count = len(value) if kind == 2 else 1
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(behind))
        behind += value if len(value) > 4 else b""
        table += struct.pack("<HHI", tag, kind, count) + place
    directory = struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + behind


def fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(space, tags, connection=b"XYZ "):
    """A minimal ICC profile (version 2) by hand, as Pillow makes sRGB, Lab and XYZ alone."""
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x02100000, kind, space, connection)
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values):
    return b"XYZ \0\0\0\0" + fixed(*values)


RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)  # sRGB's, under D50
LINEAR = b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)  # gamma 1.0
WHITE = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}


def rgb_profile(red, green, blue, curve=LINEAR):
    colours = {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue)}
    return icc(b"RGB ", WHITE | colours | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def cmyk_black():
    """A CMYK profile by which all inks, and bare paper, are black."""
    ramp = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    nodes = bytes([0, 128, 128]) * 2**4  # Lab
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + nodes + ramp * 3
    return icc(b"CMYK", WHITE | {b"A2B0": table}, connection=b"Lab ")
