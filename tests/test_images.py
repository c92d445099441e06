"""Photographs in and out: every mode and format, known answers, and what happens when something is wrong."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from udnet import Error
from udnet.pictures import images
from udnet.pictures.images import Picture, PictureError, enhance_file, enhance_path, read, to_batch, to_pixels, write

SUFFIXES = [".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"]
pytestmark = pytest.mark.filterwarnings("error")  # Pillow's warnings stay inside
LOSSLESS = {".png", ".tif", ".tiff", ".bmp"}


def identity(pixels):
    return pixels


def invert(pixels):
    return 255 - pixels


def gradient(height, width):
    """A smooth picture whose three channels, rows and columns all differ."""
    y, x = np.mgrid[:height, :width] / max(height, width, 2)
    return np.stack([20 + 200 * x, 30 + 180 * y, 220 - 100 * (x + y)], -1).astype(np.uint8)


def names(folder):
    """Every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The network's door


def mirrored(size, total):
    """Reference: the index that each row of a reflected picture repeats, walked step by step."""
    index, place, step = [], 0, 1
    for _ in range(total):
        index.append(place)
        if size > 1:
            step = -1 if place == size - 1 else 1 if place == 0 else step
            place += step
    return index


@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 33])
@pytest.mark.parametrize("width", [1, 2, 5, 8, 13, 16, 23, 31, 40])
def test_batch_against_float64_and_back(height, width):
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = (next(n for n in range(16, 64, 8) if n >= side) for side in (height, width))
    reference = pixels[mirrored(height, rows)][:, mirrored(width, columns)].transpose(2, 0, 1)[None] / 255.0
    batch = to_batch(pixels)
    assert batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, reference.astype(np.float32))
    np.testing.assert_array_equal(to_pixels(batch, height, width), pixels)


def test_every_level_survives():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_pixels(to_batch(pixels), 16, 16), pixels)


def test_output_is_clipped_and_rounded_half_up():
    batch = np.zeros((1, 3, 16, 16), np.float32)
    batch[0, :, 0, 0] = -3.0, 0.5, 7.0  # 0.5 x 255 = 127.5
    assert to_pixels(batch, 1, 1).tolist() == [[[0, 128, 255]]]
    values = np.random.default_rng(0).uniform(-0.1, 1.1, (1, 3, 64, 64)).astype(np.float32)
    halves = ((np.arange(256) + 0.5) / 255).astype(np.float32).reshape(4, 64)  # where float32 arithmetic would slip
    values[0, :, :8] = np.concatenate([halves, np.nextafter(halves, np.float32(0))])
    reference = np.floor(np.clip(values[0].astype(np.float64), 0, 1) * 255 + 0.5).transpose(1, 2, 0)
    np.testing.assert_array_equal(to_pixels(values, 64, 64), reference)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_finite(value):
    batch = np.zeros((1, 3, 16, 16), np.float32)
    batch[0, 1, 8, 8] = value
    with pytest.raises(PictureError, match="not finite"):
        to_pixels(batch, 16, 16)
    assert to_pixels(batch, 8, 8).max() == 0  # in the padding it does no harm


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_batch_of_something_else(array):
    with pytest.raises(PictureError, match="give uint8"):
        to_batch(array)


def test_a_trial_pays_for_numpy_alone():
    code = """
import sys, numpy
from udnet.pictures import images
images.to_pixels(images.to_batch(numpy.zeros((5, 5, 3), "uint8")), 5, 5)
print(sorted({"PIL", "torch", "onnxruntime", "tqdm", "pandas"} & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Formats and modes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (325, 500)])
@pytest.mark.parametrize("enhancer", [identity, invert])
def test_formats(tmp_path, suffix, size, enhancer):
    pixels = gradient(*size)
    write(Picture(pixels), tmp_path / f"in{suffix}")
    out = tmp_path / f"out{suffix}"
    assert enhance_path(enhancer, tmp_path / f"in{suffix}", out) == []
    result = read(out)
    assert result.pixels.shape == (*size, 3) and result.alpha is None
    difference = np.abs(result.pixels.astype(int) - enhancer(pixels))
    assert difference.max() == 0 if suffix in LOSSLESS else difference.mean() < 5


def kinds(size=(9, 11)):
    """One picture in every mode: name, Pillow image, the pixels and the alpha to be read."""
    pixels = gradient(*size)
    alpha = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    grey = pixels[..., 0]
    rgb = Image.fromarray(pixels)
    threes = np.stack([grey] * 3, -1)
    levels = np.array([[[0, 0, 0], [200, 10, 10]], [[10, 200, 10], [10, 10, 200]]], np.uint8)
    palette = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 3]))
    palette.putpalette(levels.tobytes())
    clear = palette.copy()
    clear.info["transparency"] = 2
    graded = palette.copy()
    graded.info["transparency"] = bytes([0, 80, 160, 255])
    yield "RGB", rgb, pixels, None
    yield "RGBA", Image.fromarray(np.dstack([pixels, alpha])), pixels, alpha
    yield "L", Image.fromarray(grey), threes, None
    yield "LA", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), threes, alpha
    yield "1", Image.fromarray(grey > 90), np.where(threes > 90, 255, 0), None
    yield "P", palette, levels, None
    yield "P, one colour clear", clear, levels, np.array([[255, 255], [0, 255]])
    yield "P, graded", graded, levels, np.array([[0, 80], [160, 255]])


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind[0])
@pytest.mark.parametrize("enhancer", [identity, invert])
def test_modes(tmp_path, kind, enhancer, capfd):
    _, image, pixels, alpha = kind
    image.save(tmp_path / "in.png")
    enhance_file(enhancer, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == ("RGB" if alpha is None else "RGBA")
        np.testing.assert_array_equal(np.asarray(out)[..., :3], enhancer(pixels))
        if alpha is not None:
            np.testing.assert_array_equal(np.asarray(out)[..., 3], alpha)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_alpha_is_kept_where_the_format_has_it(tmp_path, suffix):
    pixels, alpha = gradient(20, 30), np.full((20, 30), 77, np.uint8)
    write(Picture(pixels, alpha), tmp_path / f"out{suffix}")
    result = read(tmp_path / f"out{suffix}")
    assert np.abs(result.pixels.astype(int) - pixels).mean() < 2  # no background shines through
    if suffix in {".png", ".tif", ".tiff", ".webp"}:
        np.testing.assert_array_equal(result.alpha, alpha)
    else:
        assert result.alpha is None


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", ".png"), ("I;16", ".tif"), ("I;16B", ".tif")])
def test_16_bit_grey_is_scaled(tmp_path, mode, suffix):
    values = np.array([[0, 128, 129, 257, 32768, 65279, 65406, 65407, 65535]])
    order = ">u2" if mode.endswith("B") else "<u2"
    Image.frombytes(mode, (9, 1), values.astype(order).tobytes()).save(tmp_path / f"deep{suffix}")
    assert read(tmp_path / f"deep{suffix}").pixels[0, :, 1].tolist() == [0, 0, 1, 1, 128, 254, 254, 255, 255]


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


def tiff16(pixels):
    """A 16-bit RGB TIFF by hand: header, directory, three depths, one strip."""
    height, width, _ = pixels.shape
    depths = 8 + 2 + 9 * 12 + 4
    shorts = {256: width, 257: height, 258: depths, 259: 1, 262: 2, 273: depths + 6, 277: 3, 278: height}
    entries = [struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in shorts.items()]
    entries.append(struct.pack("<HHII", 279, 4, 1, pixels.nbytes))
    directory = struct.pack("<H", 9) + b"".join(entries) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<3H", 16, 16, 16) + pixels.astype("<u2").tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_scaled(tmp_path, suffix):
    values = np.random.default_rng(3).integers(0, 65536, (6, 7, 3), dtype=np.uint16)
    values[0, 0] = 0, 65535, 32768
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / f"deep{suffix}").write_bytes(png(7, 6, 16, 2, rows) if suffix == ".png" else tiff16(values))
    pixels = read(tmp_path / f"deep{suffix}").pixels
    assert pixels[0, 0].tolist() == [0, 255, 128]
    assert np.abs(pixels - values / 257).max() <= 1  # Pillow keeps the upper byte


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_has_no_white(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "deep.tif")
    with pytest.raises(PictureError, match="32-bit"):
        read(tmp_path / "deep.tif")


def test_cmyk(tmp_path):
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]
    colours = [(255, 255, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)]
    image = Image.new("CMYK", (5 * 16, 16))
    for place, ink in enumerate(inks):
        image.paste(ink, (place * 16, 0, place * 16 + 16, 16))
    for suffix, tolerance in [(".tif", 0), (".jpg", 6)]:
        image.save(tmp_path / f"inks{suffix}", quality=95)
        pixels = read(tmp_path / f"inks{suffix}").pixels.astype(int)
        assert np.abs(pixels[8, 8::16] - colours).max() <= tolerance


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".png"])
def test_first_frame(tmp_path, suffix):
    first, second = Image.new("RGB", (9, 5), (255, 0, 0)), Image.new("RGB", (9, 5), (0, 255, 0))
    first.save(tmp_path / f"two{suffix}", save_all=True, append_images=[second], lossless=True)
    assert (read(tmp_path / f"two{suffix}").pixels == (255, 0, 0)).all()


# Orientation and what the camera noted

STORED = {  # how each EXIF orientation stores an upright picture
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),  # its first row is the right-hand side
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),  # its first row is the left-hand side, from the bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_orientation(tmp_path, orientation, suffix):
    upright = gradient(24, 40)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    stored.save(tmp_path / f"in{suffix}", exif=exif, lossless=True, quality=98, subsampling=0)
    pixels = read(tmp_path / f"in{suffix}").pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= (5 if suffix == ".jpg" else 0)

    enhance_file(identity, tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as out:
        assert out.size == (40, 24)
        assert ExifTags.Base.Orientation not in out.getexif() or out.getexif()[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_date_and_place_are_kept(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "Reef camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "S"
    Image.fromarray(gradient(10, 20)).save(tmp_path / "in.jpg", exif=exif)
    enhance_file(identity, tmp_path / "in.jpg", tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as out:
        kept = out.getexif()
        assert kept[ExifTags.Base.Model] == "Reef camera"
        assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2024:01:02 03:04:05"
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "S"


def test_notes_do_not_become_tags_of_a_tiff(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Reef camera"
    Image.fromarray(gradient(10, 20)).save(tmp_path / "in.jpg", exif=exif)
    enhance_file(identity, tmp_path / "in.jpg", tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as out:
        assert ExifTags.Base.Model not in out.getexif()


@pytest.mark.parametrize("notes", [b"Exif\0\0", b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\xff" * 40])
def test_broken_notes_do_not_lose_the_picture(tmp_path, notes, capfd):
    Image.fromarray(gradient(10, 20)).save(tmp_path / "in.jpg", exif=notes)
    enhance_file(identity, tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert read(tmp_path / "out.jpg").pixels.shape == (10, 20, 3)
    assert capfd.readouterr() == ("", "")


# Colour profiles


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


def test_linear_profile_is_brightened(tmp_path):
    """Linear 128 / 255 = 0.502 is 188 in sRGB; the other direction would give 55."""
    Image.new("RGB", (8, 8), (128, 128, 128)).save(tmp_path / "in.png", icc_profile=rgb_profile(RED, GREEN, BLUE))
    assert np.abs(read(tmp_path / "in.png").pixels.astype(int) - 188).max() <= 1
    enhance_file(identity, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert "icc_profile" not in out.info  # else the next reader would convert once more


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_exchanged_primaries(tmp_path, suffix):
    image = Image.new("RGBA" if suffix == ".png" else "RGB", (16, 16), (255, 0, 0))
    image.save(tmp_path / f"in{suffix}", lossless=True, icc_profile=rgb_profile(BLUE, GREEN, RED))
    assert np.abs(read(tmp_path / f"in{suffix}").pixels.astype(int) - (0, 0, 255)).max() <= 5


def test_profile_of_a_palette(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0])
    image.save(tmp_path / "in.png", icc_profile=rgb_profile(BLUE, GREEN, RED))
    assert np.abs(read(tmp_path / "in.png").pixels.astype(int) - (0, 0, 255)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profile(tmp_path, mode):
    profile = icc(b"GRAY", WHITE | {b"kTRC": LINEAR})
    Image.new("L", (8, 8), 128).convert(mode).save(tmp_path / "in.png", icc_profile=profile)
    assert np.abs(read(tmp_path / "in.png").pixels.astype(int) - 188).max() <= 1


def test_cmyk_profile(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "in.tif", icc_profile=cmyk_black())
    assert read(tmp_path / "in.tif").pixels.max() == 0


def test_srgb_profile_changes_nothing(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "in.png", icc_profile=profile)
    np.testing.assert_array_equal(read(tmp_path / "in.png").pixels, pixels)


GREY_PROFILE = icc(b"GRAY", WHITE | {b"kTRC": LINEAR})


@pytest.mark.parametrize("profile", [b"rubbish", rgb_profile(BLUE, GREEN, RED)[:200], GREY_PROFILE])
def test_profile_that_is_broken_or_another_ones(tmp_path, profile, capfd):
    pixels = gradient(8, 9)
    Image.fromarray(pixels).save(tmp_path / "in.png", icc_profile=profile)
    np.testing.assert_array_equal(read(tmp_path / "in.png").pixels, pixels)
    assert capfd.readouterr() == ("", "")


# What cannot be read


def refused(path, capfd):
    """The one line with which a file is refused, and nothing else anywhere."""
    with pytest.raises(PictureError) as caught:
        read(path)
    message = str(caught.value)
    assert isinstance(caught.value, Error) and "\n" not in message and message.startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")
    return message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_cut_short_anywhere(tmp_path, suffix, capfd):
    """A file cut at any byte is refused, or nothing of the picture was lost."""
    write(Picture(gradient(24, 20)), tmp_path / f"whole{suffix}")
    whole, cut = read(tmp_path / f"whole{suffix}").pixels, tmp_path / f"cut{suffix}"
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for length in range(0, len(data), 1 + len(data) // 150):
        cut.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read(cut).pixels, whole)
            assert length > 0.8 * len(data)
        except PictureError:
            refused(cut, capfd)


def test_damaged_tiff_is_silent(tmp_path, capfd):
    """libtiff complains to the system's stderr, where Python's warnings do not pass."""
    write(Picture(gradient(24, 20)), tmp_path / "in.tif")
    data = bytearray((tmp_path / "in.tif").read_bytes())
    [tags] = struct.unpack_from("<I", data, 4)
    data[8:tags] = bytes(255 - byte for byte in data[8:tags])
    (tmp_path / "in.tif").write_bytes(data)
    assert "damaged" in refused(tmp_path / "in.tif", capfd)
    os.write(2, b"stderr is back")
    assert capfd.readouterr().err == "stderr is back"


def test_not_a_picture(tmp_path, capfd):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("Dear diary, today the water was green.\n")
    Image.new("RGB", (3, 3)).save(tmp_path / "moving.gif")
    assert "not a JPEG, PNG, TIFF, WEBP or BMP picture" in refused(tmp_path / "empty.jpg", capfd)
    assert "not a JPEG" in refused(tmp_path / "text.png", capfd)
    assert "not a JPEG" in refused(tmp_path / "moving.gif", capfd)
    assert "a folder" in refused(tmp_path, capfd)
    assert "no such file" in refused(tmp_path / "nowhere.jpg", capfd)
    assert "check its name" in refused(tmp_path / ("long" * 100), capfd)


def test_no_permission(tmp_path, capfd, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")  # root may read everything, so chmod shows nothing

    (tmp_path / "in.png").touch()
    monkeypatch.setattr(Image, "open", refuse)
    assert "(Permission denied): check its name and permissions" in refused(tmp_path / "in.png", capfd)


def test_bomb_is_refused_by_its_header(tmp_path, capfd):
    (tmp_path / "bomb.png").write_bytes(png(50_000, 50_000, 8, 2, b""))
    assert "more than 178 megapixels" in refused(tmp_path / "bomb.png", capfd)
    (tmp_path / "large.png").write_bytes(png(17_801, 10_000, 8, 2, b""))  # between our limit and Pillow's
    assert "more than 178 megapixels" in refused(tmp_path / "large.png", capfd)


def test_limit_is_exact(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 2_000_000)
    Image.new("L", (2000, 1000)).save(tmp_path / "just.png")
    Image.new("L", (2000, 1001)).save(tmp_path / "over.png")
    assert read(tmp_path / "just.png").pixels.shape == (1000, 2000, 3)
    assert "more than 2 megapixels" in refused(tmp_path / "over.png", capfd)


# Writing


def test_write_makes_folders_and_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write(Picture(gradient(4, 4)), tmp_path / "new" / "newer" / "out.PNG")
    finally:
        os.umask(old)
    assert names(tmp_path) == [os.path.join("new", "newer", "out.PNG")]
    if os.name == "posix":
        assert (tmp_path / "new" / "newer" / "out.PNG").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["out.gif", "out", "out.jpg.txt"])
def test_unknown_suffix_is_refused_before_any_work(tmp_path, name):
    write(Picture(gradient(4, 4)), tmp_path / "in.png")
    with pytest.raises(PictureError, match="end the name with"):
        enhance_path(lambda pixels: pytest.fail("worked"), tmp_path / "in.png", tmp_path / name)
    with pytest.raises(PictureError, match="end the name with"):
        write(Picture(gradient(4, 4)), tmp_path / name)
    assert names(tmp_path) == ["in.png"]


def test_source_is_never_overwritten(tmp_path):
    source = tmp_path / "in.png"
    write(Picture(gradient(4, 4)), source)
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    for out in (source, tmp_path / "link.png", tmp_path):
        with pytest.raises(PictureError, match="overwrite"):
            enhance_path(lambda pixels: pytest.fail("worked"), source, out)
    with pytest.raises(PictureError, match="overwrite"):
        write(read(source), source)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", ".udnet-1.png"), MemoryError(), KeyboardInterrupt()]
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    write(Picture(gradient(4, 4)), tmp_path / "out.png")
    before = (tmp_path / "out.png").read_bytes()
    monkeypatch.setattr(images.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else PictureError) as caught:
        write(Picture(gradient(9, 9)), tmp_path / "out.png")
    assert names(tmp_path) == ["out.png"] and (tmp_path / "out.png").read_bytes() == before
    assert ".udnet" not in str(caught.value)


def test_a_side_too_long_for_the_format(tmp_path, capfd):
    with pytest.raises(PictureError, match=r"out.webp: cannot be written"):
        write(Picture(gradient(1, 16_384)), tmp_path / "out.webp")
    assert names(tmp_path) == [] and capfd.readouterr() == ("", "")


# Files and folders


@pytest.fixture
def album(tmp_path):
    """A folder of four pictures with a subfolder, and what is not to be touched."""
    folder = tmp_path / "album"
    for place, name in enumerate(["a.jpg", "a.png", "reef/b.JPG", "reef/deep/c.tif"]):
        write(Picture(gradient(10 + place, 12)), folder / name)
    (folder / "notes.txt").write_text("notes")
    write(Picture(gradient(4, 4)), folder / ".hidden.png")
    write(Picture(gradient(4, 4)), folder / ".trash" / "d.png")
    return folder


ALBUM = sorted(os.path.join(*name.split("/")) for name in ["a.jpg", "a.png", "reef/b.JPG", "reef/deep/c.tif"])


def test_file_into_a_folder(tmp_path):
    write(Picture(gradient(5, 6)), tmp_path / "in.png")
    (tmp_path / "out").mkdir()
    assert enhance_path(invert, str(tmp_path / "in.png"), str(tmp_path / "out")) == []
    np.testing.assert_array_equal(read(tmp_path / "out" / "in.png").pixels, 255 - gradient(5, 6))


def test_folder_is_mirrored(album, tmp_path, capfd):
    assert enhance_path(invert, album, tmp_path / "out") == []
    assert names(tmp_path / "out") == ALBUM
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.png").pixels, 255 - gradient(11, 12))
    out, err = capfd.readouterr()
    assert out == "" and "4/4" in err  # the bar


def test_folder_inside_its_source_is_not_enhanced_again(album):
    for _ in range(2):
        assert enhance_path(invert, album, album / "out", progress=False) == []
        assert names(album / "out") == ALBUM


def test_one_bad_file_among_good_ones(album, tmp_path, capfd):
    (album / "a.png").write_bytes((album / "a.png").read_bytes()[:60])
    failures = enhance_path(identity, album, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == [name for name in ALBUM if name != "a.png"]
    [(path, message)] = failures
    assert path == album / "a.png"
    assert capfd.readouterr() == ("", f"udnet: {message}\n")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("allocation\nof 9 GB\nfailed"), PictureError("not finite")]
)
def test_an_enhancer_that_fails_once(album, tmp_path, capfd, error):
    def enhancer(pixels):
        if len(pixels) == 11:
            raise error
        return pixels

    [(path, message)] = enhance_path(enhancer, album, tmp_path / "out", progress=False)
    assert path == album / "a.png" and str(path) in message
    assert (" ".join(str(error).split()) or "not enough memory for 11x12") in message
    assert names(tmp_path / "out") == [name for name in ALBUM if name != "a.png"]
    assert capfd.readouterr() == ("", f"udnet: {message}\n")


def test_bad_file_alone(tmp_path, capfd):
    (tmp_path / "in.jpg").touch()
    [(path, message)] = enhance_path(identity, tmp_path / "in.jpg", tmp_path / "new" / "out.jpg")
    assert path == tmp_path / "in.jpg" and not (tmp_path / "new").exists()
    assert capfd.readouterr() == ("", f"udnet: {message}\n")


def test_interrupted(album, tmp_path):
    def enhancer(pixels):
        if len(pixels) == 12:
            raise KeyboardInterrupt
        return pixels

    with pytest.raises(KeyboardInterrupt):
        enhance_path(enhancer, album, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == ["a.jpg", "a.png"]  # those done before


def test_wrong_requests(album, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    for source, out, words in [
        (tmp_path / "nowhere", tmp_path / "out", "no such file or folder"),
        (tmp_path / "nothing", tmp_path / "out", "no pictures"),
        (album, album, "holds the pictures"),
        (album, tmp_path, "holds the pictures"),
        (album, tmp_path / "file", "not a folder that can be written into"),
        (album, tmp_path / "file" / "out", "not a folder that can be written into"),
        (album / "a.jpg", tmp_path / "file" / "out.jpg", "not a folder that can be written into"),
    ]:
        before = names(tmp_path)
        with pytest.raises(PictureError, match=words):
            enhance_path(lambda pixels: pytest.fail("worked"), source, out)
        assert names(tmp_path) == before


def test_folder_without_permission(album, tmp_path, monkeypatch):
    monkeypatch.setattr(images.os, "access", lambda path, mode: False)
    with pytest.raises(PictureError, match="not a folder that can be written into"):
        enhance_path(lambda pixels: pytest.fail("worked"), album, tmp_path / "out")


def test_photographs(shared, tmp_path):
    photographs = sorted((shared / "images").glob("*.jpg")) + sorted((shared / "images").glob("*.png"))
    for path in photographs:
        picture = read(path)
        with Image.open(path) as image:
            np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert enhance_path(identity, photographs[0], tmp_path / "out.png") == []
    np.testing.assert_array_equal(read(tmp_path / "out.png").pixels, read(photographs[0]).pixels)
