"""The convolutions of the tiled schedule, by either runtime: arrays in, arrays out, weights given at run time.

A kernel takes a block of rows, channels x (n + 2) x (columns + 2), borders included, and returns channels x n x columns.
`empty` gives it its block, in the layout that its runtime likes best.
"""

import numpy as np

SLOPE = 0.01  # of every LeakyReLU


class TorchKernels:
    """By PyTorch, channels last in memory."""

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    @staticmethod
    def empty(channels, rows, columns):
        return np.empty((rows, columns, channels), np.float32).transpose(2, 0, 1)

    def convolution(self, weight, bias):
        """A convolution and its LeakyReLU."""
        return self._kernel(weight, bias, lambda y: self.torch.nn.functional.leaky_relu_(y, SLOPE))

    def residual(self, weight, bias):
        """A convolution, to which rows are added."""
        return self._kernel(weight, bias, lambda y, rows: y.add_(rows))

    def head(self, weight, bias, last_weight, last_bias):
        """A convolution to which rows are added, and a 1x1 convolution of that."""
        conv2d = self.torch.nn.functional.conv2d
        last = self.torch.from_numpy(last_weight), self.torch.from_numpy(last_bias)
        return self._kernel(weight, bias, lambda y, rows: conv2d(y.add_(rows), *last))

    def _kernel(self, weight, bias, then):
        torch = self.torch
        weight = torch.from_numpy(np.float32(weight)).contiguous(memory_format=torch.channels_last)
        bias = torch.from_numpy(np.float32(bias))

        def run(*arrays):
            block, *rows = (torch.from_numpy(array)[None] for array in arrays)
            with torch.inference_mode():
                return then(torch.nn.functional.conv2d(block, weight, bias), *rows)[0].numpy()

        return Kernel(run, weight.shape[1], self.empty)


class OnnxKernels:
    """By ONNX Runtime: a session a convolution, of the exported stage graphs, with these weights in place of theirs."""

    def __init__(self, threads, graphs):
        import onnxruntime

        self.runtime = onnxruntime
        self.graphs = graphs  # bytes by name
        self.settings = {"intra_op_num_threads": threads, "log_severity_level": 3, "enable_cpu_mem_arena": False}
        self.settings["enable_mem_pattern"] = False

    @staticmethod
    def empty(channels, rows, columns):
        return np.empty((channels, rows, columns), np.float32)

    def convolution(self, weight, bias):
        """A convolution and its LeakyReLU."""
        return self._kernel(f"convolution{weight.shape[1]}", weight, bias)

    def residual(self, weight, bias):
        """A convolution, to which rows are added."""
        return self._kernel("residual", weight, bias)

    def head(self, *weights):
        """A convolution to which rows are added, and a 1x1 convolution of that."""
        return self._kernel("head", *weights)

    def _kernel(self, name, *weights):
        options = self.runtime.SessionOptions()
        for key, value in self.settings.items():
            setattr(options, key, value)
        values = [self.runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(one, np.float32)) for one in weights]
        for key, value in zip(("weight", "bias", "last_weight", "last_bias"), values, strict=False):
            options.add_initializer(key, value)
        session = self.runtime.InferenceSession(self.graphs[name], options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(*arrays):
            feed = {key: np.ascontiguousarray(one)[None] for key, one in zip(names, arrays, strict=True)}
            return session.run(None, feed)[0][0]

        run.weights = values  # the session does not hold them
        return Kernel(run, weights[0].shape[1], self.empty)


class Kernel:
    """One convolution of a runtime."""

    def __init__(self, run, channels, empty):
        self.run, self.channels, self._empty = run, channels, empty

    def __call__(self, *arrays):
        return self.run(*arrays)

    def empty(self, rows, columns):
        """A block of its input, to be filled."""
        return self._empty(self.channels, rows, columns)
