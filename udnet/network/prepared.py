"""Which weights, and what is made from them: the files that runtimes load, the embedded default, the stand-ins.

No variant reads a file of anybody's: that is read once, by `checkpoint` and `sessions`, and what they make of it lies
in the cache under its checksum. What takes a runtime is done in a child process, so a process that runs one never pays
for the other.
"""

import errno
import functools
import hashlib
import math
import mmap
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from udnet import Error, __version__
from udnet.network import checkpoint, converters, sessions
from udnet.network.checkpoint import TRAINING_ONLY, CheckpointError
from udnet.system.files import DATA, make_folder, python_path, replacing, sha256, sweep, write_text

WEIGHTS_FOLDER = DATA / "weights"
DEFAULT = WEIGHTS_FOLDER / "default.pth"  # trained by `train` on drawn scenes
DEFAULT_NAME = "the embedded default"
SEEDED = "seeded random weights (seed 0)"

PUBLISHED_URL = (
    "https://raw.githubusercontent.com/adis737/Enhancement-Pipeline-streamlit/"
    "2af9b6da7a3c305ce35a314a942f2a853ee71b2b/UDnet_dynamic.onnx"
)
PUBLISHED_SHA256 = "45ec6c9fb79e2c1e6a7aa2bf8d97cd5f1986e5f4256f4ecbe0fa61f6845b85c0"

CHECK_SIZES = ((1, 64, 128), (2, 64, 64), (1, 256, 256), (1, 520, 776))
REDUCED = ("onnx-float16", "onnx-int8")  # forms of the exported file in less precision


# --- which weights ---


@dataclass(frozen=True)
class Weights:
    """The weights in use: a name to print, the file, the sha256 of its bytes and of those of its second files."""

    name: str
    path: Path
    sha256: str
    seconds: tuple[str, ...] = ()  # of an ONNX file: names of those beside it that hold its tensors
    ours: bool = False  # made by this project: loaded as it is
    graph: bool = False  # an ONNX file whose graph is run, whatever it computes

    @property
    def caption(self):
        """A short phrase for the caption of a picture: which weights made it."""
        more = f" with {checkpoint.few(self.seconds)}" if self.seconds else ""
        return f"weights: {self.name}{more} (sha256 {self.sha256[:8]})"


def find(weights=None):
    """The weights to use: the file named, else one of yours in data/weights/ (.onnx before others), else the default.

    Two words name files, too: "default", the embedded one, and "seeded", random weights, made on the spot into the
    cache.
    """
    if not (weights is None or isinstance(weights, str | bytes | os.PathLike)) or weights in ("", b""):
        raise CheckpointError(f"{weights!r} is no file of weights: give the name of a .pth or an .onnx")
    if weights is None:
        files = [path for path in sorted(WEIGHTS_FOLDER.glob("[!.]*")) if path.suffix.lower() in checkpoint.SUFFIXES]
        files.sort(key=lambda path: path.suffix.lower() != ".onnx")
        weights = next((path for path in files if path != DEFAULT), "default")
    if weights == "default":
        return Weights(DEFAULT_NAME, DEFAULT, sha256(DEFAULT), ours=True)
    if weights == "seeded":
        path = _made(f"seeded/seeded-{__version__}.pth", "seeded")
        return Weights(SEEDED, path, sha256(path), ours=True)
    path = Path(os.fsdecode(weights))
    checkpoint.need_file(path)
    return Weights(path.name, path.absolute(), *(_onnx_sha256(path) if checkpoint.is_onnx(path) else [sha256(path)]))


def model(path):
    """An ONNX file of anybody's as `Weights`, to run its graph as it is; `Error` where there is no such file."""
    found = find(path)
    if not checkpoint.is_onnx(found.path):
        raise CheckpointError(
            f"{path}: not an ONNX file; give a .onnx, or a PyTorch network as a variant, FILE.py:NAME"
        )
    return replace(found, graph=True)


def prepared(weights, form):
    """The file that a runtime loads, made from `weights` once and kept in the cache.

    weights: from `find`, or from `model` for the forms of any graph: "onnx", "ort" (ONNX Runtime's own format), "mnn"
    (MNN's), "ncnn-param" and "ncnn-bin" (ncnn's two files). Other forms: "onnx-NAME" (a graph of `forms.EXPORTED`,
    "onnx-float16" or "onnx-int8"), "arrays" (66 tensors as NumPy's, for the tiled schedule), "inference" (the same 66),
    "full" (162 tensors) or "vgg16" (VGG16's ImageNet checkpoint). The last two are stand-ins of the keys, shapes and
    size of what the released code loads and cannot be shipped: what the weights lack is seeded. The graph of an ONNX
    file stays as it is but for "onnx-NAME", and for ncnn, where its weights are UDnet's. `converters.NotTaken` where
    MNN or ncnn cannot have it.
    """
    folder = weights.sha256[:12]
    stem = f"{folder}/{'graph' if weights.graph else 'udnet'}-{__version__}"
    if form == "onnx" and weights.graph:
        return weights.path
    if form == "onnx":
        # the export depends on this project's code too: each version makes its own
        return _made(f"{folder}/udnet-{__version__}.onnx", form, weights.path)
    if form == "ort":
        return _made(f"{stem}.ort", form, prepared(weights, "onnx"))
    if form == "mnn":
        return _made(f"{stem}.mnn", form, prepared(weights, "onnx"))
    if form in converters.NCNN:
        counted = not weights.graph and _is_udnet(weights.path)
        source = prepared(weights, "onnx-counted" if counted else "onnx")
        return _made(f"{stem}.{form.removeprefix('ncnn-')}", form, source)
    if form.startswith("onnx-"):
        source = prepared(weights, "onnx") if form in REDUCED else weights.path
        return _made(f"{folder}/udnet-{form[5:]}-{__version__}.onnx", form, source)
    if form == "arrays":
        if weights.path == DEFAULT:  # without PyTorch, which would have to read it
            return DEFAULT.with_suffix(".npz")
        if checkpoint.is_onnx(weights.path):  # it takes no runtime
            return cached(f"{folder}/inference.npz", lambda out: checkpoint.write_arrays(weights.path, out))
        return _made(f"{folder}/inference.npz", form, weights.path)
    if form == "inference":
        return weights.path if weights.ours else _made(f"{folder}/inference.pth", form, weights.path)
    if form == "full":
        say = f"UDnet's full checkpoint (61.5 MiB: {weights.name}, what it lacks is seeded)"
        return _made(f"{folder}/full.pth", form, weights.path, say=say)
    if form == "vgg16":
        return _made("vgg16/vgg16.pth", form, say="VGG16's ImageNet checkpoint (527.8 MiB, seeded values)")
    raise CheckpointError(
        f"{form}: no such form of weights; choose onnx, onnx-NAME, ort, {', '.join(converters.FORMS)}, arrays, "
        "inference, full or vgg16"
    )


def _is_udnet(path):
    """Whether a file holds UDnet's weights: a checkpoint that is used does."""
    if checkpoint.is_onnx(path):
        try:
            checkpoint.fitting(checkpoint.read(path), checkpoint.inference_shapes(), path)
        except CheckpointError:
            return False
    return True


def cache_folder():
    """Where what is made from weights is kept: $UDNET_CACHE, else the user's cache folder for udnet."""
    if folder := os.environ.get("UDNET_CACHE"):
        return Path(folder).expanduser()
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise CheckpointError("no cache folder: name one in UDNET_CACHE, or install platformdirs") from None
    return user_cache_path("udnet", appauthor=False)


_OURS = re.compile(
    r"([0-9a-f]{12}|seeded|vgg16)/(seeded|inference|full|vgg16|udnet|graph|dynamo|torchscript)[-.\w]*"
    r"\.(pth|onnx|ort|mnn|param|bin|npz|sha256)"
)


def clean():
    """Remove from the cache every file that was made by this module; the bytes freed."""
    freed = 0
    for folder in cache_folder().glob("*/"):
        sweep(folder)  # and leave what is being written at this moment
    for path in cache_folder().glob("*/*"):
        if _OURS.fullmatch(path.relative_to(cache_folder()).as_posix()):
            try:
                freed += path.stat().st_size
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be removed ({error.strerror}); remove it by hand") from None
    return freed


def fetch():
    """The published ONNX file, downloaded into data/weights/ and checked; its path."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    out = WEIGHTS_FOLDER / PUBLISHED_URL.rpartition("/")[2]
    by_hand = f"download {PUBLISHED_URL} by hand to {out} (sha256 {PUBLISHED_SHA256})"
    make_folder(out.parent)  # else a folder that cannot be written looks like no network
    try:
        return Path(pooch.retrieve(PUBLISHED_URL, f"sha256:{PUBLISHED_SHA256}", out.name, out.parent))
    except OSError as error:  # what requests raises is one too
        raise CheckpointError(f"no network, or no such address ({type(error).__name__}): {by_hand}") from None
    except ValueError:
        raise CheckpointError(f"what {PUBLISHED_URL} sent is not the published file: {by_hand}") from None


def check(weights=None):
    """PyTorch against ONNX Runtime on real sizes: yields (size, largest difference).

    weights: as `find` takes them. The graph of an .onnx file runs as it is, at the sizes that it takes, against its own
    weights in PyTorch; a .pth file is exported first.
    """
    from udnet.network import export
    from udnet.network.model import InferenceUDnet

    found = find(weights)
    model = export.load(InferenceUDnet(), checkpoint.read(found.path), found.name)
    yield from export.differences(model, prepared(found, "onnx"), CHECK_SIZES)


# --- seeded values ---


def seeded(seed=0):
    """Seeded values: the 66 tensors of the inference path, by name; the same on every machine.

    Random features ride on a colour balance, so that the output is a picture: at full size the first three channels
    carry the picture's own colours through the instance norm, which takes each to mean 0.5 and standard deviation
    0.25; the last layer adds the random channels faintly.
    """
    from udnet.network.model import InferenceUDnet

    state = _draw(InferenceUDnet, seed)
    for layer in ("pr_encoder.conv1.conv.1", "pr_encoder.conv1.conv.4", "pr_UpConv1.conv.1", "pr_UpConv1.conv.4"):
        state[f"decoder.{layer}.weight"][:3] = 0
        state[f"decoder.{layer}.weight"][range(3), range(3), 1, 1] = 1
        state[f"decoder.{layer}.bias"][:3] = 0
    for layer, value in {"out_conv.0.body.4": 0, "out_conv.1.body.4": 0, "conv_u": 0.5, "conv_s": 0.25}.items():
        state[f"decoder.{layer}.weight"][:3] = 0
        state[f"decoder.{layer}.bias"][:3] = value
    state["decoder.out_conv.2.weight"] *= 0.01
    state["decoder.out_conv.2.weight"][range(3), range(3)] = 1
    return state


def _draw(network, seed):
    """Tensors for every name of a network: weights uniform with He's variance, 2 / fan-in, biases within 0.01."""
    import numpy as np
    import torch

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in network().state_dict().items()}
    generator = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        bound = math.sqrt(6 / math.prod(shape[1:])) if len(shape) > 1 else 0.01
        values = generator.random(shape, dtype=np.float32)  # uniform: the same bits on every machine
        values -= np.float32(0.5)
        values *= np.float32(2 * bound)
        state[name] = torch.from_numpy(values)
    return state


# --- what is made, into the cache ---


def cached(name, write, say=None):
    """The file `name` of the cache; where it is not there, or is not what was made, `write(path)` makes it.

    A checksum lies beside it. say: what is made, for a line on stderr.
    """
    out = cache_folder() / name
    noted = out.with_name(f"{out.name}.sha256")
    if not _is_as_made(out, noted):
        if say:
            print(f"udnet: making a stand-in for {say}: {out}", file=sys.stderr)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(out.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise CheckpointError(f"{out.parent}: {error.strerror}; name another cache folder in UDNET_CACHE") from None
        write(out)
        write_text(noted, f"{sha256(out)}  {out.name}\n")
    return out


def _is_as_made(out, noted):
    try:
        about = out.stat()
        return noted.read_bytes().split()[:1] == [_known_sha256(out, about.st_mtime_ns, about.st_size).encode()]
    except OSError:
        return False


@functools.cache
def _known_sha256(path, mtime_ns, size):
    """The checksum of a file as it is now: a study's trials ask for the same files again and again."""
    return sha256(path)


def _made(name, form, *weights, say=None):
    """The file `name` of the cache, made by `python -m udnet.network.prepared` where it has to be."""
    from udnet.system import guard

    for path in weights:
        checkpoint.need_pytorch(path)

    def write(out):
        kills = guard.kernel_kills()
        command = [sys.executable, "-m", "udnet.network.prepared", form, str(out), *map(str, weights)]
        environment = {**os.environ, "PYTHONPATH": python_path()}
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        if child.returncode:
            line = child.stderr.strip().rpartition("\n")[2]
            kind = converters.NotTaken if child.returncode == converters.EXIT else CheckpointError
            raise kind(line or f"{out}: the process that made it: {guard.ending(child.returncode, kills)}")

    return cached(name, write, say)


def _make(form, out, weights=None):
    """Write a form of `prepared`; weights: the file that it is made from."""
    try:
        if form in converters.FORMS:
            converters.convert(weights, out, form)
        elif form == "onnx" and checkpoint.is_onnx(Path(weights)):
            sessions.take(weights, out)
        elif form == "ort":
            _optimise(weights, out)
        else:
            _make_by_pytorch(form, out, weights)
    except Error:
        raise
    except Exception as error:  # each library's own kinds
        told = sessions.refused(error, weights)
        said = f"{weights}: cannot be made into {form}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise CheckpointError(said) if told is error else told from None


def _make_by_pytorch(form, out, weights):
    from udnet.network import export
    from udnet.network.model import VGG16, UDnet

    if form == "seeded":
        checkpoint.save(seeded(), out)
    elif form == "inference":
        checkpoint.strip(weights, out)
    elif form in REDUCED:
        (export.to_float16 if form == "onnx-float16" else export.to_int8)(weights, out)
    elif form.startswith("onnx"):
        export.export(weights, out, form[5:] or None)
    elif form == "arrays":
        checkpoint.write_arrays(weights, out)
    elif form == "full":
        model, state = UDnet(), checkpoint.read(weights)
        lacking = {name: value for name, value in _draw(UDnet, seed=0).items() if name.startswith(TRAINING_ONLY)}
        checkpoint.load_into(model, lacking | state, weights)
        checkpoint.save(model.state_dict(), out)
    elif form == "vgg16":
        checkpoint.save(_draw(VGG16, seed=0), out)


def _optimise(onnx, out):
    """Write an ONNX file as ONNX Runtime's own format, optimised for this machine."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.save_model_format", "ORT")
    with replacing(out) as part:
        settings.optimized_model_filepath = str(part)
        onnxruntime.InferenceSession(onnx, settings, providers=["CPUExecutionProvider"])


def _onnx_sha256(path):
    """The checksum of an ONNX file and of its second files, and their names; that file is read once for both."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        digest = hashlib.sha256(content)
        seconds = checkpoint.second_files(path, content)
    for name, second in seconds.items():
        digest.update(f"{name} {sha256(second)}".encode(errors="surrogateescape"))
    return digest.hexdigest(), tuple(seconds)


if __name__ == "__main__":
    try:
        _make(*sys.argv[1:])
    except Error as error:
        print(str(error).replace("\n", "\\n"), file=sys.stderr)
        sys.exit(converters.EXIT if isinstance(error, converters.NotTaken) else 1)
