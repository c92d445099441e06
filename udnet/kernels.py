"""The convolutions of the tiled schedule, by either runtime: arrays in, arrays out, weights given at run time.

A kernel takes a block of rows with its borders, channels x (n + 2) x (columns + 2), and returns channels x n x columns;
its `empty` makes such a block in the layout that its runtime likes best. Each call runs on one thread: the strips of a
picture run side by side, which keeps every core busy where convolutions of small blocks could not.
"""

import numpy as np


class Kernel:
    """One convolution of a runtime."""

    def __init__(self, run, channels, empty):
        self.run, self.channels, self._empty = run, channels, empty

    def __call__(self, *arrays):
        return self.run(*arrays)

    def empty(self, rows, columns):
        """A block of its input, to be filled."""
        return self._empty(self.channels, rows, columns)


class TorchKernels:
    """By the modules of `stages` in PyTorch, channels last in memory."""

    def __init__(self):
        import torch

        from . import stages

        torch.set_num_threads(1)
        self.torch, self.stages = torch, stages

    @staticmethod
    def empty(channels, rows, columns):
        return np.empty((rows, columns, channels), np.float32).transpose(2, 0, 1)

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        torch = self.torch
        module = self.stages.STAGES[stage](*weights[0].shape[:2])
        for own, weight in zip(module.parameters(), weights, strict=True):
            own.data = torch.from_numpy(np.float32(weight))
        module.to(memory_format=torch.channels_last)

        def run(*arrays):
            with torch.inference_mode():
                return module(*(torch.from_numpy(array)[None] for array in arrays))[0].numpy()

        return Kernel(run, weights[0].shape[1], self.empty)


class OnnxKernels:
    """By ONNX Runtime: a session a convolution, of the exported `stages`, with these weights in place of theirs."""

    def __init__(self, graphs):
        import onnxruntime

        self.runtime, self.graphs = onnxruntime, graphs  # bytes by name

    @staticmethod
    def empty(channels, rows, columns):
        return np.empty((channels, rows, columns), np.float32)

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        weights = [np.ascontiguousarray(one, np.float32) for one in weights]
        values = [self.runtime.OrtValue.ortvalue_from_numpy(one) for one in weights]
        options.add_external_initializers(["weight", "bias", "last_weight", "last_bias"][: len(values)], values)
        graph = self.graphs[f"{stage}{weights[0].shape[1]}"]
        session = self.runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(*arrays):
            given = {name: np.ascontiguousarray(one)[None] for name, one in zip(names, arrays, strict=True)}
            return session.run(None, given)[0][0]

        run.held = values  # the session does not hold them
        return Kernel(run, weights[0].shape[1], self.empty)
