"""The variants that are compared: each runtime as released, as it comes, lean, by the tiled schedule; others beside.

To add one for everybody, write it here; one of your own can stand in any file (`my_model.py:name`).
"""

from functools import partial

import numpy as np

from udnet.system import memory
from udnet.variants import runtimes
from udnet.variants.variant import OnnxNetwork, TorchNetwork, Variant, inference_module


def load_pytorch_published(threads, full, vgg):
    """As released: the whole training network, VGG16 and its ImageNet checkpoint included, for inference too."""
    import torch

    from udnet.network import model

    torch.set_num_threads(threads)
    network = model.UDnet(vgg_checkpoint=vgg)
    network.load_state_dict(torch.load(full, map_location="cpu", weights_only=True))
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


def load_pytorch_tiled(threads, checkpoint, limit=None, folder="none"):
    """The exact tiled schedule by PyTorch; `limit`: bytes of the whole process (None: the leanest plan).

    `folder`: for a scratch file, as `scratch.find` takes it.
    """
    from udnet.network import checkpoint as checkpoints
    from udnet.tiled import kernels, schedule, scratch

    state = checkpoints.read(checkpoint)
    weights = {name.removeprefix("decoder."): array for name, array in state.items()}
    return schedule.TiledNetwork(kernels.TorchKernels(), weights, threads, limit, scratch.find(folder))


def load_onnx_tiled(threads, path, limit=None, folder="none"):
    """The exact tiled schedule by ONNX Runtime, with the same options."""
    from udnet.tiled import kernels, schedule, scratch

    with np.load(path) as file:
        weights = dict(file)
    return schedule.TiledNetwork(kernels.OnnxKernels(), weights, threads, limit, scratch.find(folder))


def _variant(name, summary, load, *forms, schedule="whole"):
    runtime = name.partition("-")[0]
    return Variant(name, runtime, summary, load, forms, ("torch" if runtime == "pytorch" else "onnxruntime",), schedule)


LEAN = "freed memory returned to the system at once"
TILED = "exact; the leanest plan, NAME@512MiB: the fastest within a limit"
SCRATCH = "the same with a scratch file, where the disk is faster than to compute again"
VARIANTS = {
    variant.name: variant
    for variant in (
        _variant(
            "pytorch-published",
            "built and loaded as the released code does, VGG16 and all",
            load_pytorch_published,
            "full",
            "vgg16",
        ),
        _variant("pytorch", "the inference path alone", load_pytorch, "inference"),
        _variant("pytorch-lean", f"channels-last, {LEAN}", load_pytorch_lean, "inference"),
        _variant("pytorch-compiled", "torch.compile: the first run compiles", load_pytorch_compiled, "inference"),
        _variant("onnx", "a session as it comes, as the report ran it", load_onnx, "onnx"),
        _variant(
            "onnx-no-pattern", "memory pattern off: no block is planned for later runs", load_onnx_no_pattern, "onnx"
        ),
        _variant("onnx-no-arena", "memory arena off", load_onnx_no_arena, "onnx"),
        _variant("onnx-lean", f"memory arena off, {LEAN}", load_onnx_lean, "onnx"),
        _variant("pytorch-tiled", TILED, load_pytorch_tiled, "inference", schedule="tiled"),
        _variant("onnx-tiled", TILED, load_onnx_tiled, "arrays", schedule="tiled"),
        _variant("pytorch-scratch", SCRATCH, partial(load_pytorch_tiled, folder=None), "inference", schedule="tiled"),
        _variant("onnx-scratch", SCRATCH, partial(load_onnx_tiled, folder=None), "arrays", schedule="tiled"),
    )
} | runtimes.VARIANTS
