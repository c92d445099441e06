"""What a variant is, and the networks that its `load` gives.

A variant is a runtime and what it loads, with which options. Its `load` function runs in a fresh process, imports its
own runtime there and returns the network: a callable from and to float32 arrays, batch x 3 x height x width.

Imported by every trial before anything is measured, so it imports next to nothing.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

RUNTIMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO", "mnn": "MNN", "ncnn": "ncnn"}
OF_ANY_GRAPH = {"onnx", "ort", "mnn", "ncnn-param", "ncnn-bin"}  # forms of `prepared` that any ONNX file can have


@dataclass(frozen=True)
class Variant:
    """One named way to run a model."""

    name: str
    runtime: str  # one of `RUNTIMES`
    summary: str  # one line for a person
    load: Callable  # load(threads, *files) -> network; `files` are those of `forms`, in order
    forms: tuple[str, ...] = ()  # the forms of the weights that it loads, see `prepared.prepared`
    imports: tuple[str, ...] = ()  # modules of the runtime, imported in a phase of their own
    schedule: str = "whole"  # "whole" or "tiled"
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of its process
    missing: str = ""  # why it cannot run here, and what to do

    @property
    def takes_models(self):
        """Whether it runs any ONNX file, not UDnet's weights alone."""
        return bool(self.forms) and OF_ANY_GRAPH.issuperset(self.forms)


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
            made = self.module(self.torch.from_numpy(x).contiguous(memory_format=self.memory_format))
            while not isinstance(made, self.torch.Tensor):  # the first of several, by their order or by their names
                made = next(iter(made.values() if isinstance(made, Mapping) else made))
            return made.numpy()

    def stages(self, begin):
        """Call `begin(name)` whenever a stage of the network begins: UDnet's own, or another model's children."""
        from udnet.network import model

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
        settings.log_severity_level = 4  # the exception says it
        for name, value in options.items():
            setattr(settings, name, value)
        for name, value in (entries or {}).items():
            settings.add_session_config_entry(name, value)
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _refused(error, path) from None
        self.input = self.session.get_inputs()[0].name

    def __call__(self, x):
        return self.run({self.input: x})[0]

    def run(self, inputs, options=None):
        """Every output for arrays by the inputs' names; `options`: the run's, ONNX Runtime's own."""
        try:
            return self.session.run(None, inputs, options)
        except Exception as error:
            given = " and ".join(f"{name} of {_by(x.shape)}" for name, x in inputs.items())
            raise _refused(error, given, "give a size, and inputs, that it takes") from None


def _by(shape):
    return "x".join(map(str, shape))


def _refused(error, *about):
    from udnet.network.sessions import refused  # in a trial only where something failed

    return refused(error, *about)


def inference_module(path, form=None):
    """The inference-only network with the weights of a checkpoint file; `form`: its class, where not the usual one."""
    from udnet.network import checkpoint, model

    module = (form or model.InferenceUDnet)()
    checkpoint.load_into(module, checkpoint.read(path), source=path)
    return module


def enhance(network, pixels, beside=0, progress=None):
    """One picture through a network: uint8 height x width x 3 in and out; any size, padded and cropped back.

    `beside`: bytes that the process holds beside the picture, for a network that plans by a memory limit. `progress`:
    what a network that takes the picture in pieces calls with the fraction that is done.
    """
    from udnet.pictures import images

    images.need_pixels(pixels)
    if hasattr(network, "enhance"):
        return network.enhance(pixels, beside, progress)
    height, width = pixels.shape[:2]
    output = network(images.to_batch(pixels))
    if not images.is_batch(output, height, width):
        raise images.PictureError(f"the network makes {_by(output.shape)} of a picture of {height}x{width}: no picture")
    return images.to_pixels(output, height, width)
