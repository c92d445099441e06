"""Weights in and out: the one gate for a file of anybody's. Imports neither PyTorch nor onnx before it reads one.

Whatever holds the weights (a checkpoint of a trainer's, an ONNX file, one with second files), what comes out is float32
tensors by UDnet's names. Everything else that loads weights loads what was read here and written again.
"""

import os
import re
import shutil
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath

from udnet import Error
from udnet.system.files import replacing, scratch

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
    """The tensors of a file by UDnet's names, `decoder.…` and `VGG16.…`; those of floating point as float32.

    path: a .pth, .pt or .ckpt, read with `weights_only=True` so that no code in it runs, its state dict however deep
    and behind whatever prefix; or an .onnx, read by its initializers.
    """
    path = Path(path)
    need_file(path)
    state, names = {}, {}
    for name, tensor in (_read_onnx if is_onnx(path) else _read_pth)(path).items():
        found = _NAME.fullmatch(name)
        short = found[1] if found else name
        if short in state:
            raise CheckpointError(f"{path}: holds {short} twice, as {names[short]} and {name}; save one network's")
        state[short], names[short] = _plain(tensor), name
    return state


def _plain(tensor):
    """A tensor as every runtime takes it: no parameter, dense, in one block, float32 if of floating point."""
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    kinds = torch.float16, torch.bfloat16, torch.float32, torch.float64  # smaller ones mean nothing without a scale
    return tensor.float().contiguous() if tensor.dtype in kinds else tensor


def is_onnx(path):
    """Whether a file is ONNX rather than a checkpoint: by its first byte where that tells, else by its name."""
    with path.open("rb") as file:
        start = file.read(1)
    # the tag of the IR version; of a zip archive; of a pickle, as torch.save once wrote
    return {b"\x08": True, b"P": False, b"\x80": False}.get(start, path.suffix.lower() == ".onnx")


def _read_pth(path):
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
    return found[averaged[0]] if averaged else next(iter(found.values()))


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
    import numpy as np
    import onnx
    import torch

    float_types = [getattr(onnx.TensorProto, kind) for kind in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")]
    state = {}
    for tensor in onnx_model(path).graph.initializer:
        if not (_NAME.fullmatch(tensor.name) and tensor.name.endswith((".weight", ".bias"))):
            continue
        if tensor.data_type not in float_types:
            raise CheckpointError(
                f"{path}: {tensor.name} is not of floating point; give the weights before quantisation"
            )
        try:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)  # a copy, which PyTorch may hold
        except ValueError:
            raise CheckpointError(f"{path}: {tensor.name} is cut short; get the file again") from None
        state[tensor.name] = torch.from_numpy(array)
    if not state:
        raise CheckpointError(f"{path}: an ONNX file without UDnet's weights by their names")
    return state


def onnx_model(path):
    """An ONNX file as onnx reads it, with what its second files hold; links are followed, as a hub's cache has them."""
    import onnx

    content = path.read_bytes()
    seconds = second_files(path, content)
    try:
        model = onnx.load_from_string(content)
    except Exception:  # protobuf's own kinds
        raise CheckpointError(f"{path}: not an ONNX file, or cut short; get the file again") from None
    if seconds:
        with scratch() as folder:  # onnx itself follows no link
            for name, second in seconds.items():
                copy = Path(folder, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(second, copy)
            try:
                onnx.load_external_data_for_model(model, os.fspath(folder))
            except (ValueError, onnx.checker.ValidationError):
                raise CheckpointError(
                    f"{path}: does not fit its second file, {few([*seconds])}; get both again"
                ) from None
    return model


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
    """Load tensors by name into a model, strictly; the error names what is missing, extra or of the wrong kind.

    What only training needs is left where the model has no place for it. source: the file, for errors.
    """
    wanted = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in wanted or not name.startswith(TRAINING_ONLY)}
    both = [name for name in wanted if name in state]
    usable = [name for name in both if state[name].dtype == wanted[name].dtype and not state[name].is_meta]
    problems = {
        "missing": [name for name in wanted if name not in state],
        "extra": [name for name in state if name not in wanted],
        "misshapen": [name for name in both if state[name].shape != wanted[name].shape],
        "without values of floating point": [name for name in both if name not in usable],
        "not finite": [name for name in usable if not state[name].isfinite().all()],
    }
    if any(problems.values()):
        said = "; ".join(f"{kind}: {few(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{source}: does not fit {type(model).__name__}: {said}")
    model.load_state_dict(state)


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

    from udnet.network.model import InferenceUDnet

    model = InferenceUDnet()
    load_into(model, read(path), path)
    with replacing(out, path) as part, part.open("wb") as file:
        np.savez(file, **{name.removeprefix("decoder."): one.numpy() for name, one in model.state_dict().items()})


def save(state, out, source=None):
    """Write tensors by name to a .pth file, which may not be their `source`; the bytes depend on the tensors alone."""
    import torch

    # given a path, torch.save writes its name into the file
    with replacing(out, source) as part, part.open("wb") as file:
        torch.save(dict(state), file)


def need_file(path):
    """`CheckpointError` where there is no file with something in it that may be read."""
    fault = ""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            fault = "is a folder, not a file of weights"
        elif not stat.S_ISREG(about.st_mode):  # to open a pipe would wait
            fault = "is a device or a pipe, not a file of weights"
        elif not about.st_size:
            fault = "is empty; get the file again"
        else:
            path.open("rb").close()
    except (FileNotFoundError, ValueError):  # no file can have a zero byte in its name
        fault = "there is no such file; name a .pth or an .onnx"
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); name another file"
    if fault:
        raise CheckpointError(f"{path}: {fault}")
