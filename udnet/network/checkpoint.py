"""Weights in and out: the one gate for a file of anybody's. Imports PyTorch for a checkpoint alone, NumPy to read.

Whatever holds the weights (a checkpoint of a trainer's, an ONNX file, one with second files), what comes out is float32
arrays by UDnet's names. Everything else that loads weights loads what was read here and written again.
"""

import csv
import importlib.util
import mmap
import os
import re
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath

from udnet import Error
from udnet.system.files import DATA, replacing

# keys of a full checkpoint that inference does not need
TRAINING_ONLY = ("decoder.po_", "decoder.compute_z_po.", "decoder.colornet.", "VGG16.")
SUFFIXES = (".onnx", ".pth", ".pt", ".ckpt")  # in any case; what has none of them is read as a .pth

# a name from UDnet's first part on, or from that of VGG16's own checkpoint; before it stands what trainers wrap with
_NAME = re.compile(r"(?:[^.]+\.)*?((?:decoder|VGG16|features|classifier)\..+)")
# how the entry of an ONNX tensor begins that names another file: the key, and the length of the name
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])", re.DOTALL)


class CheckpointError(Error):
    """Weights that cannot be used, in one line: what, where and what to do."""


# --- reading ---


def read(path):
    """The tensors of a file by UDnet's names, `decoder.…` and `VGG16.…`, as arrays; those of floating point float32.

    path: a .pth, .pt or .ckpt, read with `weights_only=True` so that no code in it runs, its state dict however deep
    and behind whatever prefix; or an .onnx, read by its initializers.
    """
    path = Path(path)
    need_file(path)
    state, names = {}, {}
    for name, array in (_read_onnx if is_onnx(path) else _read_pth)(path):
        found = _NAME.fullmatch(name)
        short = found[1] if found else name
        if short in state:
            raise CheckpointError(f"{path}: holds {short} twice, as {names[short]} and {name}; save one network's")
        state[short], names[short] = array, name
    return state


def _plain(tensor):
    """A tensor of PyTorch's as an array: dense, in one block, float32; false throughout if not of floating point."""
    import numpy as np
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    kinds = torch.float16, torch.bfloat16, torch.float32, torch.float64  # smaller ones mean nothing without a scale
    if tensor.dtype not in kinds or tensor.is_meta:
        return np.broadcast_to(np.False_, tensor.shape)
    return tensor.float().contiguous().numpy()


def is_onnx(path):
    """Whether a file is ONNX rather than a checkpoint: by its first byte where that tells, else by its name."""
    with path.open("rb") as file:
        start = file.read(1)
    # the tag of the IR version; of a zip archive; of a pickle, as torch.save once wrote
    return {b"\x08": True, b"P": False, b"\x80": False}.get(start, path.suffix.lower() == ".onnx")


def need_pytorch(path):
    """`CheckpointError` where a file is a checkpoint of PyTorch's, and that is not installed to read it."""
    if importlib.util.find_spec("torch") is None and not is_onnx(path):
        raise CheckpointError(f"{path}: takes PyTorch to read, which is not installed; install it, or give an .onnx")


def _read_pth(path):
    need_pytorch(path)
    import torch

    if path.suffix.lower() == ".safetensors":
        raise CheckpointError(
            f"{path}: no .safetensors is read; make a .pth: torch.save(safetensors.torch.load_file(FILE), 'w.pth')"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says enough
            value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has an exception of its own for each way in which bytes can be wrong
        if "GLOBAL" in str(error) or "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: refused, it holds Python code besides tensors; save its state_dict"
            ) from None
        raise CheckpointError(
            f"{path}: not a PyTorch checkpoint as torch.save writes it, or cut short; get or save it again"
        ) from None
    found = dict(_state_dicts(value, set()))
    averaged = [at for at in found if "ema" in at.lower()]  # what a trainer means to be used
    if len(found) > 1 and len(averaged) != 1:
        raise CheckpointError(f"{path}: holds several networks, {few(list(found))}; save the state_dict of one")
    if not found:
        raise CheckpointError(
            f"{path}: not a state dict (tensors by names such as decoder.conv_u.weight); save the network's state_dict"
        )
    state = found[averaged[0]] if averaged else next(iter(found.values()))
    return [(name, _plain(tensor)) for name, tensor in state.items()]


def _state_dicts(value, seen, at=""):
    """The mappings within that hold tensors by UDnet's names, each once: yields (where, tensors by name)."""
    import torch

    if not isinstance(value, Mapping) or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, torch.Tensor)}
    if any(map(_NAME.fullmatch, tensors)):
        yield at, tensors
        return
    for key, one in value.items():
        yield from _state_dicts(one, seen, f"{at}.{key}".lstrip("."))


def _read_onnx(path):
    from udnet.network import initializers

    state = []
    try:
        for one in initializers.read(_mapped(path)):
            if _NAME.fullmatch(one.name) and one.name.endswith((".weight", ".bias")):
                state.append((one.name, _values(one, path)))
    except initializers.Damaged:
        raise CheckpointError(f"{path}: not an ONNX file, or cut short; get the file again") from None
    if not state:
        raise CheckpointError(f"{path}: no weights of UDnet by their names: give one of its exports")
    return state


def _mapped(path):
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # gone with the last view of it


def _values(one, path):
    """The values of an initializer as an array, from the ONNX file itself or from the second file that it names."""
    from udnet.network import initializers

    if one.kind not in initializers.WRITTEN:
        raise CheckpointError(f"{path}: {one.name} is not of floating point; give the weights before quantisation")
    if one.data is not None:
        try:
            return one.array(one.data)
        except initializers.Damaged:
            raise CheckpointError(f"{path}: {one.name} is cut short; get the file again") from None
    name = one.second.get("location", "")
    second = _second_file(path, name)
    try:
        content = memoryview(_mapped(second))
        start = int(one.second.get("offset", 0))
        end = start + int(one.second.get("length", len(content) - start))
        if not 0 <= start <= end <= len(content):
            raise initializers.Damaged
        return one.array(content[start:end])
    except (ValueError, initializers.Damaged):  # ValueError: no number, or nothing in the file to map
        raise CheckpointError(f"{path}: does not fit its second file, {name}; get both again") from None


def second_files(path, content):
    """The files beside an ONNX file that hold some of its tensors: paths by the names that it gives, in their order.

    content: its bytes, or a mapping of them; the names are looked for there, which needs no package and reads once.
    """
    names = set()
    for match in _LOCATION.finditer(content):
        size = sum((byte & 127) << 7 * place for place, byte in enumerate(match[1]))
        names.add(os.fsdecode(content[match.end() : match.end() + size]))
    return {name: _second_file(path, name) for name in sorted(names)}


def _second_file(path, name):
    if not name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise CheckpointError(f"{path}: refused, it names a second file outside its folder, {name!r}")
    places = [folder / name for folder in (path.parent, path.resolve().parent)]
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None and os.path.islink(places[0]):
        raise CheckpointError(
            f"{path}: its second file {name} is a link to {os.readlink(places[0])}, which is not there"
        )
    if found is None and os.path.exists(places[0]):
        raise CheckpointError(f"{path}: its second file {name} is a folder, a device or a pipe; put the file there")
    if found is None:
        raise CheckpointError(f"{path}: its weights are in a second file, {name}; put that beside it")
    return found


# --- into a network, and writing ---


def load_into(model, state, source):
    """Load arrays by name (or tensors) into a model, strictly, as `fitting` has them. source: the file, for errors."""
    import numpy as np
    import torch

    arrays = {name: np.asarray(one) for name, one in state.items()}
    shapes = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    arrays = fitting(arrays, shapes, source, type(model).__name__)
    model.load_state_dict({name: torch.from_numpy(one) for name, one in arrays.items()})


def fitting(state, shapes, source, network="InferenceUDnet"):
    """The arrays that a network takes, in its order; the error names what is missing, extra or of the wrong kind.

    What only training needs is left where the network has no place for it. shapes: by name; source: the file, for
    errors.
    """
    import numpy as np

    both = [name for name in shapes if name in state]
    usable = [name for name in both if state[name].dtype == np.float32]
    problems = {
        "missing": [name for name in shapes if name not in state],
        "extra": [name for name in state if name not in shapes and not name.startswith(TRAINING_ONLY)],
        "misshapen": [name for name in both if state[name].shape != shapes[name]],
        "without values of floating point": [name for name in both if name not in usable],
        "not finite": [name for name in usable if not np.isfinite(state[name]).all()],
    }
    if any(problems.values()):
        said = "; ".join(f"{kind}: {few(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{source}: does not fit {network}: {said}")
    return {name: state[name] for name in shapes}


def inference_shapes():
    """The shapes of the tensors that inference needs, by name, in the network's order."""
    with (DATA / "state_dict.csv").open(newline="", encoding="utf-8") as file:
        tensors = [one for one in csv.DictReader(file) if one["role"] == "prior"]
    return {one["key"]: tuple(map(int, one["shape"].split("x"))) for one in tensors}


def few(names, most=3):
    """Names in a sentence: the first, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def strip(path, out):
    """Write the 66 tensors that inference needs, from any checkpoint: 61.5 MiB to 3.2 MiB, same output."""
    from udnet.network.model import InferenceUDnet

    if Path(out).suffix.lower() != ".pth":
        raise CheckpointError(f"{out}: what is written is a PyTorch checkpoint; end its name in .pth")
    model = InferenceUDnet()
    load_into(model, read(path), path)
    save(model.state_dict(), out, path)


def write_arrays(path, out):
    """Write the tensors that inference needs as NumPy's .npz, by name without `decoder.`, from any checkpoint."""
    import numpy as np

    arrays = fitting(read(path), inference_shapes(), path)
    with replacing(out, path) as part, part.open("wb") as file:
        np.savez(file, **{name.removeprefix("decoder."): one for name, one in arrays.items()})


def save(state, out, source=None):
    """Write tensors by name to a .pth file, which may not be their `source`; the bytes depend on the tensors alone."""
    import torch

    # given a path, torch.save writes its name into the file
    with replacing(out, source) as part, part.open("wb") as file:
        torch.save(dict(state), file)


def need_file(path, kinds="a .pth or an .onnx"):
    """`CheckpointError` where there is no file with something in it that may be read; `kinds`: what to name."""
    fault = ""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            fault = f"is a folder; name {kinds}"
        elif not stat.S_ISREG(about.st_mode):  # to open a pipe would wait
            fault = f"is a device or a pipe; name {kinds}"
        elif not about.st_size:
            fault = "is empty; get the file again"
        else:
            path.open("rb").close()
    except (FileNotFoundError, ValueError):  # no file can have a zero byte in its name
        fault = f"there is no such file; name {kinds}"
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); name another file"
    if fault:
        raise CheckpointError(f"{path}: {fault}")
