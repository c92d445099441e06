"""The convolutions of the tiled schedule, by either runtime: arrays in, arrays out, weights given at run time.

A kernel takes a block of rows with its borders, channels x (n + 2) x (columns + 2), to channels x n x columns. Each
call runs on one thread: the strips of a picture run side by side, which keeps every core busy where convolutions of
small blocks could not.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from udnet.network import winograd
from udnet.system.memory import MIB

GRAPHS = Path(__file__).parent / "graphs"  # of `network.stages`, as `export.export_stages` writes them
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
    AT_ONCE = 1  # rows, at the least

    def __init__(self):
        import torch

        from udnet.network import stages

        self.torch, self.stages = torch, stages

    def begin_thread(self):
        """To be called in every thread that runs kernels: PyTorch keeps its number of threads by thread."""
        self.torch.set_num_threads(1)

    def end_picture(self):
        """To be called when a picture is done: here nothing is held for the next one."""

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
    AT_ONCE = 1

    def __init__(self):
        import onnxruntime

        self.runtime = onnxruntime
        # without it, what calls need for a moment lies in the heaps of two threads, whose holes move the peak by 20 MiB
        share_arena(arena_extend_strategy=1)

    def begin_thread(self):
        """To be called in every thread that runs kernels: here a session knows its number of threads."""

    def end_picture(self):
        """To be called when a picture is done: what the arena holds for calls of its size goes back to the system."""
        options = self.runtime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._smallest.run(None, {"block": np.zeros((1, 3, 3, 3), np.float32)}, options)

    @cached_property
    def _smallest(self):
        weight = np.zeros((winograd.WIDTH, 3, 3, 3))
        return self._session(_shipped("convolution3"), [weight, weight[:, 0, 0, 0]])

    @staticmethod
    def arranged(flat, channels, rows, columns):
        """A flat array as channels x rows x columns, in the layout that ONNX Runtime takes."""
        return flat.reshape(channels, rows, columns)

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        graph = self.by_graph(_shipped(f"{stage}{weights[0].shape[1]}"), weights)

        def run(out, *arrays):
            graph(out[None], *(np.ascontiguousarray(one[None]) for one in arrays))
            return out

        return Kernel(run, weights[0].shape[1], len(weights[-1]))

    @staticmethod
    def winograd():
        """The kernels that are faster, in more memory."""
        return WinogradKernels()

    def by_graph(self, graph, weights=()):
        """What runs a graph of a stage, as bytes, with these weights in place of those that it names.

        `run(out, *arrays)` takes its inputs in order and fills `out`, which is contiguous.
        """
        session = self._session(graph, weights)
        names = [one.name for one in session.get_inputs()]

        def run(out, *arrays):
            binding = session.io_binding()
            for name, one in zip(names, arrays, strict=True):
                binding.bind_input(name, "cpu", 0, np.float32, one.shape, one.ctypes.data)
            binding.bind_output("out", "cpu", 0, np.float32, out.shape, out.ctypes.data)
            session.run_with_iobinding(binding)

        return run

    def _session(self, graph, weights):
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.add_session_config_entry(*SHARED)
        weights = [np.ascontiguousarray(one, np.float32) for one in weights]
        values = [self.runtime.OrtValue.ortvalue_from_numpy(one) for one in weights]
        options.add_external_initializers(["weight", "bias", "last_weight", "last_bias"][: len(values)], values)
        session = self.runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        session.held = values  # it does not hold them itself
        return session


class WinogradKernels(OnnxKernels):
    """By ONNX Runtime and Winograd's algorithm, a few rows at a time; maps have their rows one after another."""

    AT_ONCE = len(winograd.FOUR) - 1

    @staticmethod
    def arranged(flat, channels, rows, columns):
        """A flat array as channels x rows x columns, every row in one piece."""
        return _rows_first(flat.reshape(rows, channels, columns))

    def make(self, stage, *weights):
        """The kernel of a stage with these weights, by their order in `stages`."""
        channels, channels_out = weights[0].shape[1], len(weights[-1])
        if channels == 3:  # there is little to compute
            direct = super().make(stage, *weights)
            return replace(direct, run=lambda out, block: direct.run(_rows_first(out).reshape(out.shape), block))
        held = [*winograd.products(winograd.FOUR, *weights[:2]), *(one.reshape(one.shape[:3]) for one in weights[2:])]
        graph = self.by_graph(_shipped(f"{stage}{channels}-winograd"), held)

        def run(out, *arrays):
            count = out.shape[1]
            most = max(count, self.AT_ONCE)
            out, block, *rows = (_of_rows(_rows_first(one), most - count) for one in (out, *arrays))
            for top in (*range(0, most - self.AT_ONCE, self.AT_ONCE), most - self.AT_ONCE):  # the last ones may overlap
                end = top + self.AT_ONCE
                graph(out[top:end], block[top : end + 2], *(one[top:end] for one in rows))
            return _rows_first(out[:count])

        return Kernel(run, channels, channels_out)


def _of_rows(one, more):
    """A contiguous array with so many more rows, of zeros."""
    return np.pad(one, ((0, more), (0, 0), (0, 0))) if more else np.ascontiguousarray(one)


def _rows_first(one):
    """Channels x rows x columns as rows x channels x columns, or back."""
    return one.transpose(1, 0, 2)


def _shipped(name):
    return (GRAPHS / f"{name}.onnx").read_bytes()


RUNTIMES = {"pytorch": TorchKernels, "onnx": OnnxKernels}


@cache
def share_arena(**settings):
    """One arena with these settings of `OrtArenaCfg`, for all sessions that ask for it by `SHARED`."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    about = onnxruntime.OrtMemoryInfo("Cpu", *kind)
    onnxruntime.create_and_register_allocator(about, onnxruntime.OrtArenaCfg(settings))
