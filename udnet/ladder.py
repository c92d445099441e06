"""Ways to load the network that differ from the one before in one thing: from the released code to the least possible.

Each rung is a variant of its own, measured as any other, so that what a step saves is the difference of two peaks. The
rungs between `pytorch-published` and `pytorch` load the same weights and compute the same output.
"""

from dataclasses import dataclass

from .variants import OnnxNetwork, TorchNetwork, Variant


@dataclass(frozen=True)
class Rung:
    """A variant of the ladder, the one that it differs from, and in what."""

    variant: str
    before: str
    change: str


def load_no_imagenet(threads, full):
    """VGG16 is constructed, classifier and all; its ImageNet checkpoint is not read."""
    import torch

    from . import model

    network = _without_vgg(torch, model)
    network.VGG16 = model.PerceptualLoss(model.VGG16().features)
    return _read_into(torch, threads, network, full)


def load_no_classifier(threads, full):
    """Of VGG16 only the features are constructed."""
    import torch

    from . import model

    return _read_into(torch, threads, model.UDnet(), full)


def load_no_vgg(threads, full):
    """The training path without VGG16."""
    import torch

    from . import model

    return _read_into(torch, threads, _without_vgg(torch, model), full)


def load_no_posterior(threads, full):
    """The inference path, from the full checkpoint."""
    import torch

    from . import model

    return _read_into(torch, threads, model.InferenceUDnet(), full)


def load_stripped(threads, inference):
    """The inference path, from a checkpoint of nothing else."""
    return load_no_posterior(threads, inference)


def load_mmap(threads, inference):
    """The checkpoint mapped instead of read."""
    import torch

    from . import model

    return _read_into(torch, threads, model.InferenceUDnet(), inference, mmap=True)


def load_assign(threads, inference):
    """The mapped tensors taken as they are, not copied into the network's own."""
    import torch

    from . import model

    return _read_into(torch, threads, model.InferenceUDnet(), inference, mmap=True, assign=True)


def load_meta(threads, inference):
    """The network constructed without memory."""
    import torch

    from . import model

    with torch.device("meta"):
        network = model.InferenceUDnet()
    return _read_into(torch, threads, network, inference, mmap=True, assign=True)


def load_any_pickle(threads, full, vgg):
    """As released, with `weights_only=False`: the files are the project's own stand-ins."""
    import torch

    from . import model

    torch.set_num_threads(threads)
    network = _without_vgg(torch, model)
    network.VGG16 = model.PerceptualLoss(model.imagenet_features(vgg, weights_only=False))
    network.load_state_dict(torch.load(full, map_location="cpu", weights_only=False), strict=False)
    return TorchNetwork(network)


def _without_vgg(torch, model):
    network = model.UDnet.__new__(model.UDnet)
    torch.nn.Module.__init__(network)
    network.decoder = model.Decoder(training_path=True)
    return network


def _read_into(torch, threads, network, path, mmap=False, assign=False):
    torch.set_num_threads(threads)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    network.load_state_dict(state, strict=False, assign=assign)
    return TorchNetwork(network)


def load_onnx_no_prepacking(threads, path):
    """Weights are not packed for the processor when the session is made."""
    return OnnxNetwork(path, threads, {"session.disable_prepacking": "1"})


def load_onnx_unoptimised(threads, path):
    """The graph is run as it is in the file."""
    import onnxruntime

    return OnnxNetwork(path, threads, graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def load_ort(threads, path):
    """ONNX Runtime's own file format, optimised beforehand: no parser, no optimiser."""
    return OnnxNetwork(path, threads)


def _variant(name, runtime, load, *forms):
    imports = ("torch",) if runtime == "pytorch" else ("onnxruntime",)
    return Variant(f"load.{name}", runtime, load.__doc__.rstrip("."), load, forms, imports)


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("any-pickle", "pytorch", load_any_pickle, "full", "vgg16"),
        _variant("no-imagenet", "pytorch", load_no_imagenet, "full"),
        _variant("no-classifier", "pytorch", load_no_classifier, "full"),
        _variant("no-vgg", "pytorch", load_no_vgg, "full"),
        _variant("no-posterior", "pytorch", load_no_posterior, "full"),
        _variant("stripped", "pytorch", load_stripped, "inference"),
        _variant("mmap", "pytorch", load_mmap, "inference"),
        _variant("assign", "pytorch", load_assign, "inference"),
        _variant("meta", "pytorch", load_meta, "inference"),
        _variant("onnx-no-prepacking", "onnx", load_onnx_no_prepacking, "onnx"),
        _variant("onnx-unoptimised", "onnx", load_onnx_unoptimised, "onnx"),
        _variant("onnx-ort", "onnx", load_ort, "ort"),
    )
}

RUNGS = (
    Rung("pytorch-published", "", "as released"),
    Rung("load.no-imagenet", "pytorch-published", "VGG16's checkpoint not read"),
    Rung("load.no-classifier", "load.no-imagenet", "VGG16's classifier not constructed"),
    Rung("load.no-vgg", "load.no-classifier", "VGG16 not constructed"),
    Rung("load.no-posterior", "load.no-vgg", "posterior and reference map not constructed"),
    Rung("load.stripped", "load.no-posterior", "a checkpoint of the inference path alone"),
    Rung("load.mmap", "load.stripped", "mmap=True"),
    Rung("load.assign", "load.mmap", "assign=True"),
    Rung("load.meta", "load.assign", "constructed on the meta device"),
    Rung("load.any-pickle", "pytorch-published", "weights_only=False"),
    Rung("onnx", "", "a session as it comes"),
    Rung("load.onnx-no-prepacking", "onnx", "prepacking off"),
    Rung("load.onnx-unoptimised", "onnx", "graph optimisation off"),
    Rung("load.onnx-ort", "onnx", "ONNX Runtime's own format, optimised beforehand"),
)
