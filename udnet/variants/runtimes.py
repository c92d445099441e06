"""Other runtimes, where they are installed: OpenVINO, MNN and ncnn, on the CPU, in float32.

Each loads the ONNX file that ONNX Runtime loads, or what its own converter has made of it (`network.converters`). None
sends anything: of OpenVINO only the runtime is used, and MNN's converter is called without the program around it.

Imported by trials, so it imports next to nothing.
"""

import importlib.util
import os
from contextlib import contextmanager

import numpy as np

from udnet import Error
from udnet.variants.variant import Variant

PACKAGES = {"openvino", "MNN", "ncnn"}
WINOGRAD = 3  # MNN's number of the hint that says which units its Winograd convolutions may have


class _Network:
    """A network as a function of arrays, which `run` takes by the names of its inputs, `inputs`."""

    def __call__(self, x):
        return self.run({self.inputs[0]: x})[0]


class OpenvinoNetwork(_Network):
    """An ONNX file in OpenVINO, compiled for any shapes, or, `fixed`, anew whenever other shapes come."""

    def __init__(self, path, threads, fixed=False):
        import openvino

        self.core, self.fixed, self.shapes = openvino.Core(), fixed, None
        # one stream: all threads work at one picture
        self.settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        with _one_line(path):
            self.model = self.core.read_model(os.fspath(path))
            self.inputs = [one.any_name for one in self.model.inputs]
            if not fixed:
                self._compile()
                self.model = None  # what is compiled has a copy of its own

    def _compile(self):
        self.request = self.core.compile_model(self.model, "CPU", self.settings).create_infer_request()

    def run(self, inputs):
        """The outputs, in the file's order, for arrays by the names of the inputs."""
        shapes = {name: list(one.shape) for name, one in inputs.items()}
        with _one_line(_shapes(inputs)):
            if self.fixed and shapes != self.shapes:
                self.request = self.shapes = None  # what was compiled for other shapes goes first
                self.model.reshape(shapes)
                self._compile()
                self.shapes = shapes
            results = self.request.infer(inputs, share_inputs=True)
        return [results[output] for output in self.request.model_outputs]


class MnnNetwork(_Network):
    """A file of MNN's; `winograd`: how large the units of its convolutions may be, MNN's own number (None: as it is).

    Arrays of whole numbers go in and come out with 32 bits.
    """

    def __init__(self, path, threads, winograd=None):
        import MNN

        self.expr = MNN.expr
        settings = {"backend": "CPU", "precision": "high", "numThread": threads}
        self.manager = MNN.nn.create_runtime_manager((settings,))
        if winograd is not None:
            self.manager.set_hint(WINOGRAD, winograd)
        try:
            self.module = MNN.nn.load_module_from_file(os.fspath(path), [], [], runtime_manager=self.manager)
        except SystemError:  # the reason is printed
            raise Error(f"{path}: MNN refuses it: not a file of MNN's, or cut short") from None
        self.inputs = self.module.get_info()["inputNames"]

    def run(self, inputs):
        """The outputs, in the file's order, for arrays by the names of the inputs."""
        outputs = self.module.onForward([self._given(inputs[name]) for name in self.inputs])
        if not outputs:
            raise Error(f"{_shapes(inputs)}: MNN refuses it, in what it printed")
        outputs = [self.expr.convert(one, self.expr.NCHW) for one in outputs]
        return [np.array(one.read()).reshape(one.shape) for one in outputs]

    def _given(self, x):
        whole = x.dtype.kind in "iub"
        x = np.ascontiguousarray(x, np.int32 if whole else np.float32)
        return self.expr.const(x, list(x.shape), self.expr.NCHW, self.expr.int if whole else self.expr.float)


class NcnnNetwork(_Network):
    """The two files of a network for ncnn, one picture at a time."""

    PRECISION = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")

    def __init__(self, layers, weights, threads):
        import ncnn

        self.ncnn, self.net = ncnn, ncnn.Net()
        self.net.opt.num_threads = threads
        for name in self.PRECISION:
            setattr(self.net.opt, name, False)
        for load, path in ((self.net.load_param, layers), (self.net.load_model, weights)):
            if load(os.fspath(path)):
                raise Error(f"{path}: ncnn refuses it: not a file of ncnn's, or cut short")
        self.inputs = self.net.input_names()
        self.outputs = sorted(self.net.output_names(), key=lambda name: int(name.removeprefix("out")))

    def run(self, inputs):
        """The outputs, in the file's order, for float32 arrays by the names of the inputs."""
        wrong = [one for one in inputs.values() if one.dtype != np.float32 or one.ndim < 2 or len(one) > 1]
        if wrong:
            raise Error(f"{_shapes(inputs)}: ncnn takes float32 alone, and one picture at a time")
        given = {name: np.ascontiguousarray(one[0]) for name, one in inputs.items()}  # ncnn copies nothing
        extractor = self.net.create_extractor()
        for name, one in given.items():
            extractor.input(name, self.ncnn.Mat(one))
        outputs = []
        for name in self.outputs:
            code, output = extractor.extract(name)
            if code:
                raise Error(f"{_shapes(inputs)}: ncnn refuses it, with code {code}")
            outputs.append(np.array(output)[None])
        return outputs


@contextmanager
def _one_line(what):
    """What OpenVINO says against a file, or against what it was given, becomes one line; about memory, it stays."""
    try:
        yield
    except RuntimeError as error:
        from udnet.network.sessions import OF_MEMORY  # in a trial only where something failed

        said = " ".join(str(error).split())
        if any(word in said.lower() for word in OF_MEMORY):
            raise
        raise Error(f"{what}: OpenVINO refuses it: {said[:300]}") from None


def _shapes(inputs):
    """What was given, for an error: its shapes by their names."""
    return ", ".join(f"{name} of {'x'.join(map(str, one.shape))}" for name, one in inputs.items())


def load_openvino(threads, path):
    """Compiled for any shapes."""
    return OpenvinoNetwork(path, threads)


def load_openvino_fixed(threads, path):
    """Compiled for the shapes of the picture, when the first of that size comes."""
    return OpenvinoNetwork(path, threads, fixed=True)


def load_mnn(threads, path):
    """As its converter makes it."""
    return MnnNetwork(path, threads)


def load_ncnn(threads, layers, weights):
    """As its converter makes it."""
    return NcnnNetwork(layers, weights, threads)


def _variant(name, summary, load, forms, module, converter=None):
    """A variant of the runtime whose module that is; `converter`: another module that its forms take."""
    lacking = [one for one in (module, converter) if one and importlib.util.find_spec(one) is None]
    remedy = "make extras, or pip install -c requirements.lock -e '.[runtimes]'"  # as for a cluster and for videos
    missing = f"{' and '.join(lacking)} not installed: {remedy}" if lacking else ""
    return Variant(name, name.partition("-")[0], summary, load, forms, (module,), missing=missing)


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("openvino", "compiled once for any size", load_openvino, ("onnx",), "openvino"),
        _variant(
            "openvino-fixed",
            "compiled for the size of the picture, in the first run of that size",
            load_openvino_fixed,
            ("onnx",),
            "openvino",
        ),
        _variant("mnn", "MNN at high precision, as its converter makes it", load_mnn, ("mnn",), "MNN"),
        _variant(
            "ncnn",
            "without 16-bit numbers, from a graph of its converter pnnx",
            load_ncnn,
            ("ncnn-param", "ncnn-bin"),
            "ncnn",
            "pnnx",
        ),
    )
}
