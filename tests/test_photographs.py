"""Photographs in and out: every mode and format, known answers, and what happens when something is wrong."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from picture_files import (
    BLUE,
    GREEN,
    LINEAR,
    RED,
    WHITE,
    cmyk_black,
    enhance,
    gradient,
    icc,
    identity,
    invert,
    names,
    notes,
    png,
    rgb_profile,
    tiff,
    with_chunk,
)
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from udnet import Error
from udnet.pictures import photographs
from udnet.pictures.folders import enhance_file
from udnet.pictures.images import PictureError
from udnet.pictures.photographs import Picture, read, write
from udnet.system.memory import MIB

SUFFIXES = list(photographs.KINDS)
pytestmark = pytest.mark.filterwarnings("error")  # Pillow's warnings stay inside
LOSSLESS = {".png", ".tif", ".tiff", ".bmp"}


# Formats and modes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (325, 500)])
@pytest.mark.parametrize("enhancer", [identity, invert])
def test_formats(tmp_path, suffix, size, enhancer):
    pixels = gradient(*size)
    write(Picture(pixels), tmp_path / f"in{suffix}")
    out = tmp_path / f"out{suffix}"
    assert enhance(enhancer, tmp_path / f"in{suffix}", out) == []
    result = read(out)
    assert result.pixels.shape == (*size, 3) and result.alpha is None
    difference = np.abs(result.pixels.astype(int) - enhancer(Picture(pixels)).pixels)
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
        np.testing.assert_array_equal(np.asarray(out)[..., :3], 255 - pixels if enhancer is invert else pixels)
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_scaled(tmp_path, suffix):
    values = np.random.default_rng(3).integers(0, 65536, (6, 7, 3), dtype=np.uint16)
    values[0, 0] = 0, 65535, 32768
    data = tiff(6, 7, (16,) * 3, 2, values.astype("<u2").tobytes())
    if suffix == ".png":
        data = png(7, 6, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    (tmp_path / f"deep{suffix}").write_bytes(data)
    pixels = read(tmp_path / f"deep{suffix}").pixels
    assert pixels[0, 0].tolist() == [0, 255, 128]
    assert np.abs(pixels - values / 257).max() <= 1  # Pillow keeps the upper byte


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (16, 65_535)])
def test_white_of_a_grey_tiff(tmp_path, bits, white):
    values = np.array([0, 1, 700, 2048, 4094, 4095]) * white // 4095
    data = values.astype("<u2").tobytes()
    if bits == 12:  # two values in three bytes
        data = b"".join(struct.pack(">I", first << 12 | second)[1:] for first, second in values.reshape(3, 2).tolist())
    (tmp_path / "grey.tif").write_bytes(tiff(1, 6, (bits,), 1, data))
    assert read(tmp_path / "grey.tif").pixels[0, :, 0].tolist() == [0, 0, 44, 128, 255, 255]


def test_16_bit_grey_where_0_is_white(tmp_path):
    values = np.array([0, 5535, 60_000, 65_535], "<u2")
    (tmp_path / "film.tif").write_bytes(tiff(1, 4, (16,), 0, values.tobytes()))
    assert read(tmp_path / "film.tif").pixels[0, :, 2].tolist() == [255, 233, 22, 0]


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


MALFORMED = {
    "a resolution below 0": (0x11A, 10, struct.pack("<ii", -1, 0)),
    "a resolution of 1 / 0": (0x11A, 5, struct.pack("<II", 1, 0)),
    "a unit of 32 bits": (0x128, 4, struct.pack("<I", 70_000)),
}


@pytest.mark.parametrize("malformed", [[one] for one in MALFORMED.values()] + [list(MALFORMED.values())])
def test_malformed_notes_beside_an_orientation(tmp_path, malformed):
    """The picture is turned and the other notes are kept."""
    Image.fromarray(gradient(10, 20)).save(tmp_path / "in.jpg", exif=notes(*malformed))
    assert read(tmp_path / "in.jpg").pixels.shape == (20, 10, 3)
    enhance_file(identity, tmp_path / "in.jpg", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.size == (10, 20)
        assert out.getexif()[ExifTags.Base.Model] == "Reef" and ExifTags.Base.Orientation not in out.getexif()


def test_notes_that_a_jpeg_has_no_room_for(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Reef camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(70_000)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:01:02 03:04:05"
    Image.fromarray(gradient(10, 20)).save(tmp_path / "in.png", exif=exif)
    for suffix, left_out in ((".png", 0), (".webp", 0), (".jpg", 1)):
        assert enhance_file(identity, tmp_path / "in.png", tmp_path / f"out{suffix}") == left_out
        with Image.open(tmp_path / f"out{suffix}") as out:
            inner = out.getexif().get_ifd(ExifTags.IFD.Exif)
            assert out.getexif()[ExifTags.Base.Model] == "Reef camera"
            assert inner[ExifTags.Base.DateTimeOriginal] == "2024:01:02 03:04:05"
            assert (ExifTags.Base.MakerNote in inner) == (suffix != ".jpg")


LONG = zlib.compress(b"a" * 1_100_000)


@pytest.mark.parametrize(
    ("name", "body", "before_the_end"),
    [
        (b"zTXt", b"Comment\0\0" + LONG, False),
        (b"zTXt", b"Comment\0\0" + LONG, True),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG, False),
        (b"iCCP", b"large\0\0" + LONG, False),
    ],
)
def test_long_texts_of_a_png(tmp_path, name, body, before_the_end):
    """Editors write more than Pillow takes by itself, whose bound stays what it was."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    write(Picture(gradient(8, 9)), tmp_path / "in.png")
    data = (tmp_path / "in.png").read_bytes()
    (tmp_path / "in.png").write_bytes(with_chunk(data, name, body, before_the_end))
    np.testing.assert_array_equal(read(tmp_path / "in.png").pixels, gradient(8, 9))
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


# Pictures in memory


def every_file(folder):
    """A file of every mode, turned by each orientation, with a profile and without."""
    for name, image, _, _ in kinds((24, 40)):
        for orientation in STORED:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            path = folder / f"{name}-{orientation}.png"
            image.save(path, exif=exif, icc_profile=rgb_profile(BLUE, GREEN, RED) if orientation % 2 else None)
            yield path
    Image.fromarray(gradient(24, 40)).convert("CMYK").save(folder / "cmyk.jpg", exif=notes())
    yield folder / "cmyk.jpg"
    Image.fromarray(np.arange(0, 60_000, 1000, np.uint16).reshape(6, 10)).save(folder / "deep.tif", tiffinfo={274: 6})
    yield folder / "deep.tif"
    (folder / "film.tif").write_bytes(tiff(1, 4, (16,), 0, bytes(range(8))))
    yield folder / "film.tif"


def test_an_image_in_memory_is_what_its_file_is(tmp_path):
    for path in every_file(tmp_path):
        right = read(path)
        with Image.open(path) as lazy, Image.open(path) as loaded:
            loaded.load()
            for image in (lazy, loaded):
                picture = photographs.of(image)
                np.testing.assert_array_equal(picture.pixels, right.pixels, err_msg=str(path))
                assert (picture.alpha is None) == (right.alpha is None)
                np.testing.assert_array_equal(picture.alpha, right.alpha)
                np.testing.assert_array_equal(np.asarray(picture.image)[..., :3], right.pixels)
                assert picture.image.mode == ("RGB" if right.alpha is None else "RGBA")


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "RGBX", "RGBa", "La", "PA", "I;16B", "I;16L"])
def test_modes_that_are_seldom_in_files(mode):
    """Each made of a grey picture, which all of them can hold, is that picture."""
    grey = np.arange(0, 256, 5, np.uint8).reshape(4, 13)
    deep = {"I;16B": ">u2", "I;16L": "<u2"}
    if mode in deep:
        image = Image.frombytes(mode, (13, 4), (grey.astype(int) * 257).astype(deep[mode]).tobytes())
    elif mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(Image.fromarray(grey).convert("RGB"), *profiles, outputMode="LAB")
    else:
        via = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode, "RGB")
        image = Image.fromarray(grey).convert(via).convert(mode)
    picture = photographs.of(image)
    assert np.abs(picture.pixels.astype(int) - grey[..., None]).max() <= (2 if mode in ("LAB", "YCbCr") else 0)
    assert picture.alpha is None or (picture.alpha == 255).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Image.new("F", (4, 4)), "the image: 32-bit values"),
        (Image.new("RGB", (0, 4)), "the image: 0x4 pixels"),
        (np.zeros((4, 4), np.uint8), "give uint8"),
        (np.ma.masked_array(np.zeros((4, 4, 3), np.uint8)), "a MaskedArray is no picture"),
        ([[[1, 2, 3]]], "a list is no picture"),
        ("photo.jpg", "a str is no picture"),
        (None, "a NoneType is no picture"),
    ],
)
def test_what_is_no_picture(value, words):
    with pytest.raises(PictureError, match=words):
        photographs.of(value)


# What the header tells


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_header_tells_the_upright_size(tmp_path, orientation, suffix):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](gradient(24, 40))))
    stored.save(tmp_path / f"in{suffix}", exif=notes(orientation=orientation))
    header = photographs.header(tmp_path / f"in{suffix}", tmp_path / "out.png")
    assert (header.height, header.width) == (24, 40)


@pytest.mark.parametrize(
    ("name", "out", "options", "a_pixel"),
    [
        ("plain.jpg", "o.png", {}, 4 + 3),  # Pillow's four bytes and the picture's three
        ("grey.jpg", "o.png", {}, 3 + 4),  # one and three; more to write: three, and Pillow's four
        ("progressive.jpg", "o.png", {"progressive": True, "subsampling": 0}, 4 + 2 * 3),
        ("subsampled.jpg", "o.png", {"progressive": True, "subsampling": 2}, 4 + 2 * 1.5),
        ("alpha.png", "o.png", {}, 4 + 3 + 1),
        ("turned.tif", "o.png", {"exif": notes()}, 4 + 4),
        ("plain.jpg", "o.webp", {}, 3 + 14),
    ],
)
def test_the_header_tells_what_reading_and_writing_hold(tmp_path, name, out, options, a_pixel):
    image = Image.fromarray(gradient(400, 500))
    image = image.convert("L") if name == "grey.jpg" else image.convert("RGBA") if name == "alpha.png" else image
    image.save(tmp_path / name, **options)
    header = photographs.header(tmp_path / name, tmp_path / out)
    assert header.in_and_out == pytest.approx(a_pixel * 400 * 500, rel=0.01)
    assert header.beside == photographs.BESIDE + (400 * 500 if name == "alpha.png" else 0)


def test_reading_holds_what_the_header_tells(tmp_path):
    """A turned JPEG of six megapixels with a profile, in a process of its own: nothing of it is there twice."""
    path = tmp_path / "in.jpg"
    profile = rgb_profile(BLUE, GREEN, RED)
    Image.fromarray(gradient(2000, 3000)).save(path, exif=notes(), icc_profile=profile)
    code = (
        "import sys; from udnet.pictures import photographs; from udnet.system import memory\n"
        "photographs.read(sys.argv[2]); memory.reset_peak(); before = memory.resident()\n"
        "photographs.read(sys.argv[1]); print(memory.lifetime_peak() - before)"
    )
    write(Picture(gradient(8, 8)), tmp_path / "small.jpg")  # the libraries are there already
    run = [sys.executable, "-c", code, path, tmp_path / "small.jpg"]
    held = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    told = photographs.header(path, tmp_path / "out.png").in_and_out
    assert told - MIB < held < told + 6 * MIB


# Colour profiles


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


def raw(**tags):
    return tiff(4, 4, (8,) * 3, 2, bytes(48), **tags)


@pytest.mark.parametrize(
    ("name", "data"),
    [("in.tif", raw(t254=1, t330=8)), ("in.tif", raw(t50706=257)), ("in.NEF", raw())],
)
def test_a_camera_raw_is_not_its_preview(tmp_path, name, data, capfd):
    (tmp_path / name).write_bytes(data)
    assert "develop it to a TIFF or JPEG first" in refused(tmp_path / name, capfd)


def test_a_small_copy_alone_is_a_picture(tmp_path):
    (tmp_path / "in.tif").write_bytes(raw(t254=1))
    assert read(tmp_path / "in.tif").pixels.shape == (4, 4, 3)


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
    monkeypatch.setattr(photographs, "MAX_PIXELS", 2_000_000)
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
        enhance(lambda picture: pytest.fail("worked"), tmp_path / "in.png", tmp_path / name)
    with pytest.raises(PictureError, match="end the name with"):
        write(Picture(gradient(4, 4)), tmp_path / name)
    assert names(tmp_path) == ["in.png"]


def test_source_is_never_overwritten(tmp_path):
    source = tmp_path / "in.png"
    write(Picture(gradient(4, 4)), source)
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    for out in (source, tmp_path / "link.png", tmp_path):
        with pytest.raises(Error, match="is the file that it would be made from"):
            enhance(lambda picture: pytest.fail("worked"), source, out)
    with pytest.raises(Error, match="is the file that it would be made from"):
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
    monkeypatch.setattr(photographs.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else PictureError) as caught:
        write(Picture(gradient(9, 9)), tmp_path / "out.png")
    assert names(tmp_path) == ["out.png"] and (tmp_path / "out.png").read_bytes() == before
    assert ".udnet" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files, as Linux sets it")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_a_disk_that_is_full(tmp_path, suffix, capfd):
    """With every amount of room but enough: one line, and what was there stays."""
    import resource

    picture, out = Picture(gradient(40, 50)), tmp_path / f"out{suffix}"
    write(picture, out)
    whole = out.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (*range(0, len(whole) - 1, max(1, len(whole) // 20)), len(whole) - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(PictureError, match="cannot be written") as caught:
                write(picture, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "\n" not in str(caught.value)
        assert out.read_bytes() == whole and names(tmp_path) == [out.name]
    assert capfd.readouterr() == ("", "")


def test_a_side_too_long_for_the_format(tmp_path, capfd):
    with pytest.raises(PictureError, match=r"out.webp: WEBP holds sides of 16,383 pixels at most, not 1x16384"):
        write(Picture(gradient(1, 16_384)), tmp_path / "out.webp")
    assert names(tmp_path) == [] and capfd.readouterr() == ("", "")
