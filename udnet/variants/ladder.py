"""Ways to load the network that differ from the one before in one thing: from the released code to the least possible.

Each rung is a variant of its own, measured as any other, so that what a step saves is the difference of two peaks. The
rungs between `pytorch-published` and `pytorch` load the same weights and compute the same output.
"""

from dataclasses import dataclass
from functools import partial

from udnet.variants.compared import load_onnx
from udnet.variants.variant import OnnxNetwork, TorchNetwork, Variant


@dataclass(frozen=True)
class Rung:
    """A variant of the ladder, the one that it differs from, and in what."""

    variant: str
    before: str
    change: str


# --- PyTorch: what is constructed, and how the checkpoint comes into it ---


def without_vgg(model):
    """The training path without VGG16."""
    import torch

    network = model.UDnet.__new__(model.UDnet)
    torch.nn.Module.__init__(network)
    network.decoder = model.Decoder(training_path=True)
    return network


def with_classifier(model):
    """The training path with VGG16 constructed, classifier and all."""
    network = without_vgg(model)
    network.VGG16 = model.PerceptualLoss(model.VGG16().features)
    return network


def on_meta(model):
    """The inference path, constructed without memory."""
    import torch

    with torch.device("meta"):
        return model.InferenceUDnet()


def load(threads, checkpoint, build, mmap=False, assign=False):
    """The network that `build(model)` constructs, with those tensors of a checkpoint that it has a place for."""
    import torch

    from udnet.network import model

    torch.set_num_threads(threads)
    network = build(model)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mmap)
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=assign)
    return TorchNetwork(network)


def load_any_pickle(threads, full, vgg):
    """As released, with `weights_only=False`: whosever the weights are, `prepared` wrote the files."""
    import torch

    from udnet.network import model

    torch.set_num_threads(threads)
    network = without_vgg(model)
    network.VGG16 = model.PerceptualLoss(model.imagenet_features(vgg, weights_only=False))
    network.load_state_dict(torch.load(full, map_location="cpu", weights_only=False))
    return TorchNetwork(network)


# --- ONNX Runtime ---


def load_onnx_no_prepacking(threads, path):
    """Weights are not packed for the processor when the session is made."""
    return OnnxNetwork(path, threads, {"session.disable_prepacking": "1"})


def load_onnx_unoptimised(threads, path):
    """The graph is run as it is in the file."""
    import onnxruntime

    return OnnxNetwork(path, threads, graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def _inference(model):
    return model.InferenceUDnet()


def _whole(model):
    return model.UDnet()


def _variant(name, summary, load, *forms):
    runtime, library = ("onnx", "onnxruntime") if name.startswith("onnx") else ("pytorch", "torch")
    return Variant(f"load.{name}", runtime, summary, load, forms, (library,))


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("any-pickle", "as released, with weights_only=False", load_any_pickle, "full", "vgg16"),
        _variant(
            "no-imagenet",
            "VGG16 is constructed, classifier and all; its ImageNet checkpoint is not read",
            partial(load, build=with_classifier),
            "full",
        ),
        _variant("no-classifier", "of VGG16 only the features are constructed", partial(load, build=_whole), "full"),
        _variant("no-vgg", "the training path without VGG16", partial(load, build=without_vgg), "full"),
        _variant(
            "no-posterior", "the inference path, from the full checkpoint", partial(load, build=_inference), "full"
        ),
        _variant("stripped", "from a checkpoint of nothing else", partial(load, build=_inference), "inference"),
        _variant(
            "mmap", "the checkpoint mapped instead of read", partial(load, build=_inference, mmap=True), "inference"
        ),
        _variant(
            "assign",
            "the mapped tensors taken as they are, not copied into the network's own",
            partial(load, build=_inference, mmap=True, assign=True),
            "inference",
        ),
        _variant(
            "meta",
            "the network constructed without memory",
            partial(load, build=on_meta, mmap=True, assign=True),
            "inference",
        ),
        _variant("onnx-no-prepacking", "weights are not packed for the processor", load_onnx_no_prepacking, "onnx"),
        _variant("onnx-unoptimised", "the graph is run as it is in the file", load_onnx_unoptimised, "onnx"),
        _variant("onnx-ort", "ONNX Runtime's own format, optimised beforehand", load_onnx, "ort"),
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
