"""Whatever a person can give: each outcome is the right one or one `udnet.Error`, and nothing is left behind.

The examples are the same every time. For others, as many as one likes: pytest -m slow tests/test_fuzz.py
--hypothesis-profile=roam
"""

import io
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from own_variants import own
from picture_files import gradient, names, notes, png, rgb_profile, tiff
from PIL import Image

from udnet import Error
from udnet.__main__ import main
from udnet.network import checkpoint, prepared
from udnet.network.model import InferenceUDnet
from udnet.pictures import folders, images, photographs
from udnet.system import memory
from udnet.trials import grid, tables
from udnet.variants import enhancer

pytestmark = pytest.mark.slow
FEW = settings(max_examples=60)  # of what takes longer


@contextmanager
def one_line():
    """An `Error` is as good an outcome as any, if it is one line."""
    try:
        yield
    except Error as error:
        assert str(error).strip() and "\n" not in str(error)


@contextmanager
def folder():
    """An empty folder for one example."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@st.composite
def damaged(draw, wholes):
    """Bytes of one of several files, some of them changed, cut, put twice or put in."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, 5))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(1, 40))
        piece = draw(
            st.one_of(
                st.binary(max_size=40),
                st.just(bytes(data[at : at + size])),  # once more
                st.just(bytes(255 - byte for byte in data[at : at + size])),
                st.just(bytes(size)),
                st.just(b"\xff" * size),
            )
        )
        where = draw(st.sampled_from(["over", "in", "instead", "end"]))
        if where == "over":
            data[at : at + len(piece)] = piece
        elif where == "end":
            del data[at:]
        else:
            data[at : at + size * (where == "instead")] = piece
    return bytes(data)


# --- pictures ---


def photograph_files():
    """A small file of every format, and of what is peculiar about some."""
    upright, profile = Image.fromarray(gradient(20, 30)), rgb_profile((0.4, 0.2, 0), (0.4, 0.7, 0.1), (0.1, 0.1, 0.7))
    with_alpha = upright.copy()
    with_alpha.putalpha(upright.getchannel("R"))
    grey = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    for image, kind, options in [
        (upright, "JPEG", {"exif": notes(), "icc_profile": profile}),
        (upright, "JPEG", {"progressive": True}),
        (upright.convert("CMYK"), "JPEG", {}),
        (with_alpha, "PNG", {"icc_profile": profile, "exif": notes(orientation=8)}),
        (upright.quantize(7), "PNG", {"transparency": 3}),
        (grey, "PNG", {}),
        (upright, "TIFF", {"compression": "tiff_lzw", "tiffinfo": {274: 5}}),
        (grey, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (with_alpha, "WEBP", {"exif": notes(orientation=3)}),
        (upright, "WEBP", {"lossless": True}),
        (upright, "BMP", {}),
        (upright.quantize(9), "BMP", {}),
    ]:
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield file.getvalue()
    yield png(4, 3, 16, 2, bytes(3 * (1 + 4 * 6)))
    yield tiff(4, 4, (16,) * 3, 2, bytes(96), t254=1, t330=8)
    yield tiff(2, 4, (12,), 1, bytes(12))


@given(data=damaged(list(photograph_files())), suffix=st.sampled_from(sorted(photographs.KINDS)))
def test_files_of_photographs(data, suffix):
    before, photographs.MAX_PIXELS = photographs.MAX_PIXELS, 1_000_000  # a header may say any size
    try:
        with folder() as here:
            (here / "in.jpg").write_bytes(data)
            with one_line():
                folders.enhance_file(lambda picture: picture, here / "in.jpg", here / f"out{suffix}")
                picture = photographs.read(here / "in.jpg")
                header = photographs.header(here / "in.jpg", here / f"out{suffix}")
                assert picture.pixels.dtype == np.uint8
                assert picture.pixels.shape == (header.height, header.width, 3)
                assert picture.alpha is None or picture.alpha.shape == picture.pixels.shape[:2]
                assert photographs.read(here / f"out{suffix}").pixels.shape == picture.pixels.shape
                (here / f"out{suffix}").unlink()
            assert names(here) == ["in.jpg"]
    finally:
        photographs.MAX_PIXELS = before


@given(
    kind=st.one_of(arrays.integer_dtypes(), arrays.floating_dtypes(), st.just(np.dtype("uint8")), st.just("bool")),
    shape=st.one_of(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), st.just((9, 7, 3))),
    value=st.integers(0, 127),
)
def test_arrays(kind, shape, value):
    pixels = np.full(shape, value, kind)
    with one_line():
        assert (SAME(pixels) == pixels).all() and pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)


SAME = enhancer.load(own("SAME"))
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
)


@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    info=st.dictionaries(
        st.sampled_from(["exif", "icc_profile", "transparency", "xmp", "XML:com.adobe.xmp", "gamma"]),
        st.one_of(st.binary(max_size=30), st.text(max_size=30), st.integers(), st.none()),
    ),
)
def test_images_in_memory(mode, size, info):
    image = Image.new(mode, size)
    image.info.update(info)
    with one_line():
        assert SAME(image).size in (size, size[::-1])


# --- weights ---

PART = {name: tensor.clone() for name, tensor in list(InferenceUDnet().state_dict().items())[:3]}


def leaves():
    """What may stand for a tensor in a checkpoint."""
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool]
    shapes = st.one_of(st.just(tuple(next(iter(PART.values())).shape)), st.tuples(st.integers(0, 3), st.integers(0, 3)))
    tensors = st.builds(lambda kind, shape: torch.zeros(shape, dtype=kind), st.sampled_from(kinds), shapes)
    return st.one_of(tensors, st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


def keys():
    known = st.sampled_from([*PART, "state_dict", "model", "params_ema", "net", "optimizer", "decoder"])
    prefixed = st.builds(str.__add__, st.sampled_from(["module.", "net.", "_orig_mod.", "model."]), known)
    return st.one_of(known, prefixed, st.text(max_size=6), st.integers())


@given(
    state=st.recursive(leaves(), lambda inner: st.dictionaries(keys(), inner, max_size=4), max_leaves=12),
    name=st.sampled_from(["weights.pth", "weights.PT", "weights.onnx", "weights", "weights.safetensors"]),
)
def test_checkpoints(state, name):
    with folder() as here:
        torch.save(state, here / name)
        with one_line():
            tensors = checkpoint.read(here / name)
            assert tensors and all(type(tensor) is np.ndarray for tensor in tensors.values())
            with pytest.raises(Error, match="missing"):  # of 66 tensors no more than some are there
                checkpoint.load_into(InferenceUDnet(), tensors, here / name)
        assert names(here) == [name]


@pytest.fixture(scope="module")
def weights(exported):
    """The bytes of small files of weights: a checkpoint, and an ONNX file."""
    state, whole = io.BytesIO(), exported.read_bytes()
    torch.save(PART, state)
    return {"weights.pth": state.getvalue(), "weights.onnx": whole}


@FEW
@given(data=st.data(), name=st.sampled_from(["weights.pth", "weights.onnx"]))
def test_files_of_weights(weights, data, name):
    with folder() as here:
        (here / name).write_bytes(data.draw(damaged([weights[name]])))
        with one_line():
            found = prepared.find(here / name)
            assert checkpoint.read(found.path)
        assert names(here) == [name]


# --- this project's own files ---


@given(data=st.data(), told=st.booleans())
def test_files_of_the_cache(data, told, monkeypatch):
    """What is not as it was made is made again."""
    with folder() as here:
        monkeypatch.setattr(prepared, "cache_folder", lambda: here)
        path = prepared.cached("some/file.pth", lambda out: out.write_bytes(b"as it was made" * 9))
        changed = path.with_name(f"{path.name}.sha256") if told else path
        changed.write_bytes(data.draw(damaged([changed.read_bytes()])))
        again = prepared.cached("some/file.pth", lambda out: out.write_bytes(b"as it was made" * 9))
        assert again.read_bytes() == b"as it was made" * 9
        assert len(names(here)) == 2


@pytest.fixture(scope="module")
def study():
    """The files of a small study, as bytes: the published one's first rows."""
    trials = tables.PUBLISHED.joinpath("trials.csv").read_text().splitlines(keepends=True)
    files = {"trials.csv": "".join(trials[:40]).encode()}
    for name in ("machine.json", "parity.csv", "stages.csv", "instruments.csv", "capacity.csv"):
        files[name] = tables.PUBLISHED.joinpath(name).read_bytes()[:20_000]
    return files


@FEW
@given(data=st.data(), command=st.sampled_from(["plan", "claims"]))
def test_tables_of_a_study(study, data, command, capsys):
    with folder() as here:
        for name, content in study.items():
            (here / name).write_bytes(content)
        name = data.draw(st.sampled_from(sorted(study)))
        (here / name).write_bytes(data.draw(damaged([study[name]])))
        code = main([command, "--study", str(here), *(["--limit", "512MiB"] if command == "plan" else [])])
        said = capsys.readouterr()
        assert code in (0, 1, 2) and (code == 0) == (said.err == "")
        assert said.err.count("\n") <= 1
        assert names(here) == sorted(study)


def values():
    plain = st.one_of(st.integers(-3, 3), st.booleans(), st.floats(), st.text(max_size=4), st.none())
    known = st.sampled_from(["onnx", "pytorch", "64x64", "64x", "onnx-tiled@1MiB", "+jemalloc", 1, 2, 10**9])
    return st.one_of(plain, known, st.lists(known, max_size=3), st.lists(plain, max_size=3))


@given(
    head=st.dictionaries(
        st.sampled_from(["seed", "about", "timeout_seconds", "parity_limit", "parity_size", "else"]), values()
    ),
    block=st.dictionaries(
        st.sampled_from(["variants", "sizes", "threads", "repeats", "runs", "timeline", "weights", "else"]), values()
    ),
    whole=st.booleans(),
)
def test_grids(head, block, whole):
    if whole:
        head = {"seed": 1} | head
        block = {"variants": ["onnx"], "sizes": ["64x64"], "threads": [1], "repeats": 1} | block
    lines = [f"{name} = {json.dumps(value)}" for name, value in head.items()]
    lines += ["[[trials]]", *(f"{name} = {json.dumps(value)}" for name, value in block.items())]
    assume(all(ord(letter) < 0xD800 for letter in "".join(lines)))
    with folder() as here:
        (here / "grid.toml").write_text("\n".join(lines), encoding="utf-8")
        with one_line():
            read = grid.read_grid(here / "grid.toml")
            assert read.trials == [] or read.trials[0].height > 0


@given(data=damaged([path.read_bytes() for path in sorted(grid.GRIDS.glob("*.toml"))]))
def test_files_of_grids(data):
    with folder() as here:
        (here / "grid.toml").write_bytes(data)
        with one_line():
            grid.read_grid(here / "grid.toml")


# --- words ---


@given(text=st.one_of(st.text(), st.from_regex(r"\A-?[0-9.e]{1,6} ?[kMGTx]?i?[B0-9]*\Z")))
def test_sizes_and_limits(text):
    with one_line():
        height, width = images.parse_size(text)
        assert height * width <= images.MAX_PIXELS
    with one_line():
        assert memory.limit_bytes(text) >= memory.MIB


OPTIONS = ["--limit", "--size", "--study", "--variant", "--weights", "--threads", "--memory-limit", "--grid", "--out"]


@FEW
@given(
    command=st.sampled_from(["enhance", "plan", "measure", "export", "check", "strip", "scene", "claims", "notebook"]),
    words=st.lists(st.one_of(st.sampled_from([*OPTIONS, "none.jpg", "none/none.pth", "1MiB"]), st.text(max_size=8))),
)
def test_commands(command, words, capsys):
    """Nothing of it is there: each is refused in one line, argparse's own after the usage."""
    assume(not {"-h", "--help", "--"} & {*words} and not any(word.startswith("-h") for word in words))
    with folder() as here:
        named = [str(here / word) if word and not word.startswith("-") and "\0" not in word else word for word in words]
        try:
            code = main([command, *named])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        assert code in (0, 1, 2) and "Traceback" not in said.err
        if code:
            assert said.err.rstrip().split("\n")[-1].startswith("udnet")
