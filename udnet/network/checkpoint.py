"""Weights in and out: PyTorch checkpoints and the initializers of an ONNX file. Imports neither before it reads one."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from udnet import Error
from udnet.system.files import replacing

# keys of a full checkpoint that inference does not need
TRAINING_ONLY = ("decoder.po_", "decoder.compute_z_po.", "decoder.colornet.", "VGG16.")


class CheckpointError(Error):
    """Weights that cannot be used, in one line: what, where and what to do."""


# --- reading and writing ---


def read(path):
    """The tensors of a checkpoint by name, `decoder.…` and `VGG16.…`, without the prefixes `net.` and `module.`.

    path: a .pth, read with `weights_only=True` so that no code in it runs, or an .onnx, read by its initializers.
    """
    path = Path(path)
    need_file(path)
    state = _read_onnx(path) if path.suffix == ".onnx" else _read_pth(path)
    return {re.sub(r"^((net|module)\.)+", "", name): tensor for name, tensor in state.items()}


def _read_pth(path):
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # the error says enough
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has an exception of its own for each way in which bytes can be wrong
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: refused, it holds Python code besides tensors; save its state_dict"
            ) from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or cut short; get the file again") from None
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not (isinstance(state, Mapping) and state and all(isinstance(t, torch.Tensor) for t in state.values())):
        raise CheckpointError(f"{path}: not a state dict (tensors by name); save the model's state_dict")
    return state


def _read_onnx(path):
    import onnx
    import torch

    try:
        tensors = [t for t in onnx.load(path).graph.initializer if re.search(r"decoder\..*\.(weight|bias)$", t.name)]
        state = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in tensors}
    except onnx.checker.ValidationError:
        raise CheckpointError(f"{path}: its weights are in a second file; put that beside it") from None
    except Exception:  # protobuf, onnx and NumPy each have exceptions of their own
        raise CheckpointError(f"{path}: not an ONNX file, or cut short; get the file again") from None
    if not state:
        raise CheckpointError(f"{path}: an ONNX file without UDnet's weights by their names")
    return state


def load_into(model, state, source):
    """Load tensors by name into a model, strictly; the error names what is missing, extra, misshapen or not finite.

    An `InferenceUDnet` takes a full checkpoint too and leaves what only training needs. source: the file, for errors.
    """
    wanted = model.state_dict()
    if not any(name.startswith(TRAINING_ONLY) for name in wanted):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(TRAINING_ONLY)}
    both = wanted.keys() & state.keys()
    problems = {
        "missing": [name for name in wanted if name not in state],
        "extra": [name for name in state if name not in wanted],
        "misshapen": [name for name in wanted if name in both and state[name].shape != wanted[name].shape],
        "not finite": [name for name in wanted if name in both and not state[name].isfinite().all()],
    }
    if any(problems.values()):
        said = "; ".join(f"{kind}: {_few(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{source}: does not fit {type(model).__name__}: {said}")
    model.load_state_dict(state)


def _few(names, most=3):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def strip(path, out):
    """Write the 66 tensors that inference needs, from any checkpoint: 61.5 MiB to 3.2 MiB, same output."""
    from udnet.network.model import InferenceUDnet

    if Path(out).suffix != ".pth":
        raise CheckpointError(f"{out}: what is written is a PyTorch checkpoint; end its name in .pth")
    model = InferenceUDnet()
    load_into(model, read(path), path)
    save(model.state_dict(), out, path)


def save(state, out, source=None):
    """Write tensors by name to a .pth file, which may not be their `source`; the bytes depend on the tensors alone."""
    import torch

    # given a path, torch.save writes its name into the file
    with replacing(out, source) as part, part.open("wb") as file:
        torch.save(dict(state), file)


def need_file(path):
    """`CheckpointError` where there is no file with something in it."""
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: is a folder, not a file of weights")
    if not path.stat().st_size:
        raise CheckpointError(f"{path}: is empty; get the file again")
