"""The named ways to run the model: the one place where one is added.

A variant is a runtime and what it loads, with which options. Its `load` function runs in a fresh process, imports its
own runtime there and returns the network: a callable from and to float32 arrays, batch x 3 x height x width. To add a
way to run the model, or another model, write one `Variant`, here or in a file of your own (`my_model.py:name`).

Imported by every trial before anything is measured, so it imports next to nothing.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from . import Error, memory


@dataclass(frozen=True)
class Variant:
    """One named way to run a model."""

    name: str
    runtime: str  # "pytorch" or "onnx"
    summary: str  # one line for a person
    load: Callable  # load(threads, *files) -> network; `files` are those of `forms`, in order
    forms: tuple[str, ...] = ()  # the forms of the weights that it loads, see `checkpoint.prepared`
    imports: tuple[str, ...] = ()  # modules of the runtime, imported in a phase of their own
    schedule: str = "whole"  # "whole" or "tiled"
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of its process
    missing: str = ""  # why it cannot run here, and what to do


class TorchNetwork:
    """A PyTorch module as a function of arrays, without gradients."""

    def __init__(self, module, memory_format=None):
        import torch

        self.torch = torch
        self.module = module.eval()
        self.memory_format = memory_format or torch.contiguous_format
        self.module.to(memory_format=self.memory_format)

    def __call__(self, x):
        with self.torch.inference_mode():
            x = self.torch.from_numpy(x).contiguous(memory_format=self.memory_format)
            return self.module(x).numpy()

    def stages(self, begin):
        """Call `begin(name)` whenever a stage of the network begins: UDnet's own, or another model's children."""
        from . import model

        ours = isinstance(self.module, (model.InferenceUDnet, model.UDnet))
        for name, module in model.stages(self.module) if ours else self.module.named_children():
            module.register_forward_pre_hook(lambda *_, name=name: begin(name))


class OnnxNetwork:
    """An ONNX Runtime session as a function of arrays.

    `options` are attributes of its `SessionOptions`, `entries` its configuration entries, by their documented names.
    """

    def __init__(self, path, threads, entries=None, **options):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3  # errors alone
        for name, value in options.items():
            setattr(settings, name, value)
        for name, value in (entries or {}).items():
            settings.add_session_config_entry(name, value)
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own kinds of them, one for each way in which a file can be wrong
            if "Protobuf" not in type(error).__name__:
                raise
            raise Error(f"{path}: not an ONNX file, or cut short; get the file again") from None
        self.input = self.session.get_inputs()[0].name

    def __call__(self, x):
        return self.session.run(None, {self.input: x})[0]


def load_pytorch_published(threads, full, vgg):
    """As released: the whole training network, VGG16 and its ImageNet checkpoint included, for inference too."""
    import torch

    from . import model

    torch.set_num_threads(threads)
    network = model.UDnet(vgg_checkpoint=vgg)
    network.load_state_dict(torch.load(full, map_location="cpu", weights_only=True), strict=False)
    return TorchNetwork(network)


def load_pytorch(threads, checkpoint):
    """The inference path alone."""
    import torch

    torch.set_num_threads(threads)
    return TorchNetwork(inference_module(checkpoint))


def load_pytorch_lean(threads, checkpoint):
    """Channels-last activations, and freed memory goes back to the system at once."""
    import torch

    memory.return_freed_memory()
    torch.set_num_threads(threads)
    return TorchNetwork(inference_module(checkpoint), torch.channels_last)


def load_pytorch_compiled(threads, checkpoint):
    """`torch.compile` with its defaults; the compiler works during the first run and needs a C++ compiler."""
    import torch

    torch.set_num_threads(threads)
    return TorchNetwork(torch.compile(inference_module(checkpoint)))


def inference_module(path, form=None):
    """The inference-only network with the weights of a checkpoint file; `form`: its class, where not the usual one."""
    from . import checkpoint, model

    module = (form or model.InferenceUDnet)()
    checkpoint.load_into(module, checkpoint.read(path), source=path)
    return module


def load_onnx(threads, path):
    """A session as it comes."""
    return OnnxNetwork(path, threads)


def load_onnx_no_pattern(threads, path):
    """The memory pattern off: no block is planned for later runs."""
    return OnnxNetwork(path, threads, enable_mem_pattern=False)


def load_onnx_no_arena(threads, path):
    """The memory arena off, as its documentation advises against growth."""
    return OnnxNetwork(path, threads, enable_cpu_mem_arena=False)


def load_onnx_lean(threads, path):
    """The arena off, freed memory back to the system at once; the memory pattern stays: one block, few page faults."""
    memory.return_freed_memory()
    return OnnxNetwork(path, threads, enable_cpu_mem_arena=False)


def load_pytorch_tiled(threads, checkpoint, limit=None):
    """The exact tiled schedule by PyTorch; `limit`: bytes of the whole process (None: the leanest plan)."""
    from . import checkpoint as checkpoints
    from . import kernels, tiling

    state = checkpoints.read(checkpoint)
    weights = {name.removeprefix("decoder."): tensor.numpy() for name, tensor in state.items()}
    return tiling.TiledNetwork(kernels.TorchKernels(), weights, threads, limit)


def load_onnx_tiled(threads, path, limit=None):
    """The exact tiled schedule by ONNX Runtime; `limit`: bytes of the whole process (None: the leanest plan)."""
    from . import kernels, tiling

    with np.load(path) as file:
        arrays = dict(file)
    graphs = {name[6:]: arrays.pop(name).tobytes() for name in list(arrays) if name.startswith("graph.")}
    return tiling.TiledNetwork(kernels.OnnxKernels(graphs), arrays, threads, limit)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "pytorch-published",
            "pytorch",
            "built and loaded as the released code does, VGG16 and all",
            load_pytorch_published,
            ("full", "vgg16"),
            ("torch",),
        ),
        Variant("pytorch", "pytorch", "the inference path alone", load_pytorch, ("inference",), ("torch",)),
        Variant(
            "pytorch-lean",
            "pytorch",
            "channels-last, freed memory returned to the system at once",
            load_pytorch_lean,
            ("inference",),
            ("torch",),
        ),
        Variant(
            "pytorch-compiled",
            "pytorch",
            "torch.compile: the first run compiles",
            load_pytorch_compiled,
            ("inference",),
            ("torch",),
        ),
        Variant("onnx", "onnx", "a session as it comes, as the report ran it", load_onnx, ("onnx",), ("onnxruntime",)),
        Variant(
            "onnx-no-pattern",
            "onnx",
            "memory pattern off: no block is planned for later runs",
            load_onnx_no_pattern,
            ("onnx",),
            ("onnxruntime",),
        ),
        Variant("onnx-no-arena", "onnx", "memory arena off", load_onnx_no_arena, ("onnx",), ("onnxruntime",)),
        Variant(
            "onnx-lean",
            "onnx",
            "memory arena off, freed memory returned to the system at once",
            load_onnx_lean,
            ("onnx",),
            ("onnxruntime",),
        ),
        Variant(
            "pytorch-tiled",
            "pytorch",
            "strip by strip, exact; the leanest plan, NAME@512MiB: the fastest within a limit",
            load_pytorch_tiled,
            ("inference",),
            ("torch",),
            "tiled",
        ),
        Variant(
            "onnx-tiled",
            "onnx",
            "strip by strip, exact; the leanest plan, NAME@512MiB: the fastest within a limit",
            load_onnx_tiled,
            ("stages",),
            ("onnxruntime",),
            "tiled",
        ),
    )
}


def find(name):
    """The variant of that name, or `FILE.py:NAME`, a `Variant` that a file of the user's own defines.

    `NAME+ALLOCATOR` is the variant under another allocator (`allocators`), `NAME@SIZE` a tiled one with the plan for a
    memory limit; `load.NAME` is a rung of the `ladder`, `lever.NAME` one of the `levers`.
    """
    if "+" in name and ":" not in name:
        from . import allocators

        base, _, allocator = name.rpartition("+")
        return allocators.under(find(base), allocator)
    if "@" in name and ":" not in name:
        base, _, size = name.rpartition("@")
        return replace(within(find(base), memory.parse_bytes(size)), name=name)
    if ":" in name:
        path, _, attribute = name.rpartition(":")
        return _from_file(Path(path), attribute)
    known = family(name.partition(".")[0])
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, 3, 0)
        raise Error(f"no variant {name!r}: did you mean {', '.join(near)}? `udnet variants` lists all")
    return known[name]


def family(name):
    """Variants by name: the rungs of the ladder ("load"), the levers ("lever"), by any other name those compared."""
    if name == "load":
        from .ladder import VARIANTS as known
    elif name == "lever":
        from .levers import VARIANTS as known
    else:
        known = VARIANTS
    return known


def within(variant, limit):
    """A tiled variant with the fastest plan that keeps its process within `limit` bytes."""
    if variant.schedule != "tiled":
        raise Error(f"{variant.name} has no plan for a memory limit: choose a tiled variant")
    return replace(variant, load=partial(variant.load, limit=limit))


def _from_file(path, attribute):
    if not path.is_file() or path.suffix != ".py":
        raise Error(f"no Python file {path}: give your own variant as FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        variant = getattr(module, attribute)
    except Exception as error:
        raise Error(f"{path} gives no variant {attribute!r}: {type(error).__name__}: {error}") from error
    if not isinstance(variant, Variant):
        raise Error(f"{attribute!r} in {path} is a {type(variant).__name__}: make it a udnet.variants.Variant")
    return variant


class Enhancer:
    """A loaded network, called with a picture: a Pillow image or a uint8 array, height x width x 3.

    Returns the enhanced picture, same kind and size; `network(x)` takes and returns float32 arrays, batch x 3 x height
    x width, unclipped. `variant` and `weights` say what runs.
    """

    def __init__(self, variant, network, weights):
        self.variant, self.network, self.weights = variant, network, weights

    def __call__(self, picture):
        if isinstance(picture, np.ndarray):
            return enhance(self.network, picture)
        from PIL import Image

        return Image.fromarray(enhance(self.network, np.asarray(picture.convert("RGB"))))

    def __repr__(self):
        return f"<Enhancer {self.variant.name}, {self.weights.caption}>"


def enhance(network, pixels):
    """One picture through a network: uint8 height x width x 3 in and out; any size, padded and cropped back."""
    from . import images

    if hasattr(network, "enhance"):
        return network.enhance(pixels)
    height, width = pixels.shape[:2]
    return images.to_pixels(network(images.to_batch(pixels)), height, width)


def load(variant=None, weights=None, threads=None, memory_limit=None):
    """A model ready to enhance pictures, as an `Enhancer`.

    `variant` is a name from `VARIANTS` (None: the tiled schedule, by ONNX Runtime where it is installed, else by
    PyTorch), `weights` a `.pth` or `.onnx` file (None: what is in `data/weights`, else the embedded default), `threads`
    a number (None: all cores), `memory_limit` the bytes that the process may take, for a tiled variant (None: half of
    what is free, where no variant is named).
    """
    from . import checkpoint, guard

    if memory_limit and "@" in (variant or ""):
        raise Error(f"{variant} names a memory limit already: give it once")
    chosen = find(variant or ("onnx-tiled" if importlib.util.find_spec("onnxruntime") else "pytorch-tiled"))
    limit = memory_limit or (None if variant else guard.free() // 2)
    if limit:
        chosen = within(chosen, limit)
    found = checkpoint.find(weights)
    files = [checkpoint.prepared(found, form) for form in chosen.forms]
    return Enhancer(chosen, chosen.load(threads or os.cpu_count(), *files), found)
