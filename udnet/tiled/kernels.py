"""The convolutions of the tiled schedule, by either runtime: arrays in, arrays out, weights given at run time.

A kernel takes a block of rows with its borders, channels x (n + 2) x (columns + 2), to channels x n x columns. Each
call runs on one thread: the strips of a picture run side by side, which keeps every core busy where convolutions of
small blocks could not.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from udnet.network import winograd
from udnet.system.memory import MIB

GRAPHS = Path(__file__).parent / "graphs"  # of `network.stages`, as `export.export_stages` writes them
AT_ONCE = len(winograd.FOUR) - 1  # rows that a graph of `winograd` gives at once
SHARED = "session.use_env_allocators", "1"  # what a session asks with for the arena of `share_arena`


@dataclass(frozen=True)
class Kernel:
    """One convolution of a runtime: `run(out, block)`, or `run(out, block, rows)`, returns its output.

    It may be written to `out`, which has its shape, and is good until the next call of the same strip.
    """

    run: callable
    channels: int  # of the block
    channels_out: int


class TorchKernels:
    """By the modules of `stages` in PyTorch, channels last in memory."""

    START = 28 * MIB  # what the first run adds that is no picture's, as measured

    def __init__(self):
        import torch

        from udnet.network import stages

        self.torch, self.stages = torch, stages

    def begin_thread(self):
        """To be called in every thread that runs kernels: PyTorch keeps its number of threads by thread."""
        self.torch.set_num_threads(1)

    @staticmethod
    def arranged(flat, channels, rows, columns):
        """A flat array as channels x rows x columns, in the layout that PyTorch likes best."""
        return flat.reshape(rows, columns, channels).transpose(2, 0, 1)

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        torch = self.torch
        module = self.stages.STAGES[stage](*weights[0].shape[:2])
        for own, weight in zip(module.parameters(), weights, strict=True):
            own.data = torch.from_numpy(np.array(weight, np.float32))
        module.to(memory_format=torch.channels_last)

        def run(out, *arrays):
            with torch.inference_mode():
                return module(*(torch.from_numpy(array)[None] for array in arrays))[0].numpy()

        return Kernel(run, weights[0].shape[1], len(weights[-1]))


class OnnxKernels:
    """By ONNX Runtime: a session a convolution, of the graphs of `stages`, with these weights in place of theirs."""

    START = 8 * MIB

    def __init__(self):
        import onnxruntime

        self.runtime = onnxruntime
        # without it, what calls need for a moment lies in the heaps of two threads, whose holes move the peak by 20 MiB
        share_arena(arena_extend_strategy=1)

    def begin_thread(self):
        """To be called in every thread that runs kernels: here a session knows its number of threads."""

    @staticmethod
    def arranged(flat, channels, rows, columns):
        """A flat array as channels x rows x columns, in the layout that ONNX Runtime takes."""
        return flat.reshape(channels, rows, columns)

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        run = self.by_graph((GRAPHS / f"{stage}{weights[0].shape[1]}.onnx").read_bytes(), weights)
        return Kernel(run, weights[0].shape[1], len(weights[-1]))

    def make_winograd(self, stage, *weights):
        """The same, by Winograd's algorithm down the rows where their number allows it: faster, in more memory."""
        direct = self.make(stage, *weights)
        path = GRAPHS / f"{stage}{direct.channels}-winograd.onnx"
        if not path.exists():  # of three channels there is little to compute
            return direct
        products = winograd.products(winograd.FOUR, *weights[:2])
        faster = self.by_graph(path.read_bytes(), [*products, *weights[2:]])

        def run(out, *arrays):
            return (direct.run if out.shape[1] % AT_ONCE else faster)(out, *arrays)

        return replace(direct, run=run)

    def by_graph(self, graph, weights=()):
        """What runs a graph of a stage, as bytes, with these weights in place of those that it names."""
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.add_session_config_entry(*SHARED)
        weights = [np.ascontiguousarray(one, np.float32) for one in weights]
        values = [self.runtime.OrtValue.ortvalue_from_numpy(one) for one in weights]
        options.add_external_initializers(["weight", "bias", "last_weight", "last_bias"][: len(values)], values)
        session = self.runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(out, *arrays):
            arrays = [np.ascontiguousarray(one) for one in arrays]
            binding = session.io_binding()
            for name, one in zip(names, arrays, strict=True):
                binding.bind_input(name, "cpu", 0, np.float32, (1, *one.shape), one.ctypes.data)
            binding.bind_output("out", "cpu", 0, np.float32, (1, *out.shape), out.ctypes.data)
            session.run_with_iobinding(binding)
            return out

        run.held = values  # the session does not hold them
        return run


RUNTIMES = {"pytorch": TorchKernels, "onnx": OnnxKernels}


@cache
def share_arena(**settings):
    """One arena with these settings of `OrtArenaCfg`, for all sessions that ask for it by `SHARED`."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    about = onnxruntime.OrtMemoryInfo("Cpu", *kind)
    onnxruntime.create_and_register_allocator(about, onnxruntime.OrtArenaCfg(settings))
