"""Levers: what each setting and each rewrite of the network saves while the network sees the whole picture at once.

Each lever is a variant, `lever.NAME`, that differs from another in one thing: alone from the runtime as it comes, and
last, from all of its runtime's levers together but this one. What is alone need not help, since the peak moves to
where another lever would have to act. The exact ones compute the same output; the cost of the others is their PSNR.

How they are measured is in `experiments.levers`. Imported by trials, so it imports next to nothing.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

from udnet.system import memory
from udnet.tiled import kernels
from udnet.variants import allocators
from udnet.variants.variant import OnnxNetwork, TorchNetwork, Variant, inference_module

# --- what can be changed, and how a sentence says it ---

PYTORCH = {  # those that are together
    "early": "skip connections and inputs freed with their last use",
    "split": "convolution of a concatenation as the sum of two",
    "unpadded": "no padded copies: borders computed from strips",
    "folded": "normalisation folded into the next convolution",
    "inplace": "activations, sums and normalisation in place",
    "channels-last": "channels-last activations",
    "trimmed": "freed memory back to the system at once",
    "hugepages": "huge pages for large blocks",
}
ONNX = {  # those that are together, with the graph `split`
    "no-arena": "memory arena off",
    "no-pattern": "memory pattern off",
    "trimmed": PYTORCH["trimmed"],
    "hugepages": PYTORCH["hugepages"],
}
SETTINGS = {  # attribute of the session's options, and its value or the name of it
    "no-arena": ("enable_cpu_mem_arena", False),
    "no-pattern": ("enable_mem_pattern", False),
    "no-reuse": ("enable_mem_reuse", False),
    "parallel": ("execution_mode", "ExecutionMode.ORT_PARALLEL"),
    "priority": ("execution_order", "ExecutionOrder.PRIORITY_BASED"),
    "unoptimised": ("graph_optimization_level", "GraphOptimizationLevel.ORT_DISABLE_ALL"),
    "basic": ("graph_optimization_level", "GraphOptimizationLevel.ORT_ENABLE_BASIC"),
    "extended": ("graph_optimization_level", "GraphOptimizationLevel.ORT_ENABLE_EXTENDED"),
}
ARENAS = {"as-requested": {"arena_extend_strategy": 1}, "first-chunk": {"initial_chunk_size_bytes": 64 * memory.MIB}}
OTHERS = {
    "no-reuse": "reuse of buffers off",
    "shrinking": "arena shrunk after each run",
    "as-requested": "arena grows by what is requested",
    "first-chunk": "arena begins with 64 MiB",
    "parallel": "branches run in parallel",
    "priority": "nodes run by priority",
    "unoptimised": "graph not optimised",
    "basic": "basic graph optimisation alone",
    "extended": "graph optimised without the blocked layout",
}
GRAPHS = {  # a graph of `forms.EXPORTED`: the one that it differs from, and in what
    "shared": ("", "spread and norm from the same deviations"),
    "split": ("shared", PYTORCH["split"]),
    "stitched": ("shared", "no padded copies: borders joined to the inside"),
    "folded": ("shared", PYTORCH["folded"]),
    "split-folded": ("split", "normalisation folded, with the graph split"),
}
ONE_THREAD = {"one-thread": "one thread"}
REDUCED = {"float16": "float16", "int8": "8-bit"}  # made by `export`
INEXACT = REDUCED | {"bfloat16": "bfloat16"}
CHANGES = PYTORCH | ONNX | OTHERS | ONE_THREAD | INEXACT | {name: change for name, (_, change) in GRAPHS.items()}
ALLOCATORS = tuple(allocators.LIBRARIES)


# --- how they are loaded ---


class HalfNetwork(TorchNetwork):
    """A PyTorch module in bfloat16, from and to float32 arrays."""

    def __init__(self, module, memory_format):
        import torch

        super().__init__(module.to(torch.bfloat16), memory_format)

    def __call__(self, x):
        torch = self.torch
        with torch.inference_mode():
            x = torch.from_numpy(x).to(torch.bfloat16, memory_format=self.memory_format)
            return self.module(x).float().numpy()


class ShrinkingNetwork(OnnxNetwork):
    """A session whose arena gives back, after each run, what is free in it."""

    def run(self, inputs):
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return super().run(inputs, options)


def load_pytorch(threads, checkpoint, levers=()):
    """The inference path with these levers."""
    import torch

    from udnet.network import forms

    if "trimmed" in levers:
        memory.return_freed_memory()
    torch.set_num_threads(1 if "one-thread" in levers else threads)
    chosen = [name for name in levers if name in forms.FORMS]
    module = inference_module(checkpoint, forms.compose(*chosen) if chosen else None)
    memory_format = torch.channels_last if "channels-last" in levers else torch.contiguous_format
    return (HalfNetwork if "bfloat16" in levers else TorchNetwork)(module, memory_format)


def load_onnx(threads, path, levers=()):
    """A session with these levers; the graph is the file's."""
    import onnxruntime

    if "trimmed" in levers:
        memory.return_freed_memory()
    options, entries = {}, {}
    for name in levers:
        if name in SETTINGS:
            option, value = SETTINGS[name]
            kind, _, member = value.partition(".") if isinstance(value, str) else ("", "", "")
            options[option] = getattr(getattr(onnxruntime, kind), member) if kind else value
        if name in ARENAS:  # the process's own arena, in place of the session's
            kernels.share_arena(**ARENAS[name])
            entries.update([kernels.SHARED])
    network = ShrinkingNetwork if "shrinking" in levers else OnnxNetwork
    return network(path, 1 if "one-thread" in levers else threads, entries, **options)


# --- the variants, and what each is compared with ---


def _variant(name, levers):
    """`lever.NAME`: with these levers, of which one may be a graph."""
    runtime = name.partition("-")[0]
    summary = "; ".join(CHANGES[one] for one in levers)
    if runtime == "pytorch":
        load, form, library = load_pytorch, "inference", "torch"
    else:
        graph = next((one for one in levers if one in GRAPHS or one in REDUCED), "")
        load, form, library = load_onnx, f"onnx-{graph}" if graph else "onnx", "onnxruntime"
    environment = allocators.SETTINGS["hugepages"] if "hugepages" in levers else {}
    load = partial(load, levers=levers)
    return Variant(f"lever.{name}", runtime, summary, load, (form,), (library,), environment=environment)


def _but(levers, name):
    return tuple(other for other in levers if other != name)


VARIANTS = {
    f"lever.{name}": _variant(name, tuple(levers))
    for name, levers in {
        **{f"pytorch-{one}": (one,) for one in (*PYTORCH, *ONE_THREAD, "bfloat16")},
        **{f"pytorch-all-but-{one}": _but(PYTORCH, one) for one in PYTORCH},
        "pytorch-together": PYTORCH,
        "pytorch-together-bfloat16": (*PYTORCH, "bfloat16"),
        **{f"onnx-{one}": (one,) for one in ("trimmed", "hugepages", *OTHERS, *ONE_THREAD, *GRAPHS, *REDUCED)},
        **{f"onnx-bare-{graph}": (*ONNX, graph) for graph in GRAPHS if graph != "split"},
        **{f"onnx-all-but-{one}": (*_but(ONNX, one), "split") for one in ONNX},
        "onnx-bare": ONNX,
        "onnx-lean-split": ("no-arena", "trimmed", "split"),
        "onnx-together": (*ONNX, "split"),
        "onnx-together-no-reuse": (*ONNX, "split", "no-reuse"),
    }.items()
}
TILED = ("onnx-tiled", "onnx-tiled@512MiB", "pytorch-tiled")  # measured beside them, in the same hour
TOGETHER = {"pytorch": "lever.pytorch-together", "onnx": "lever.onnx-together"}


@dataclass(frozen=True)
class Lever:
    """A variant, the one that it differs from, and in what.

    `place`: "alone", of the runtime as it comes; "last", where the runtime's other levers are there already;
    "together", several at once.
    """

    variant: str
    against: str
    change: str
    place: str


def _alone():
    for name in (*PYTORCH, *ONE_THREAD, "bfloat16"):
        yield Lever(f"lever.pytorch-{name}", "pytorch", CHANGES[name], "alone")
    yield Lever("pytorch-compiled", "pytorch", "torch.compile", "alone")
    for name in (*ONNX, *OTHERS, *ONE_THREAD, *REDUCED):
        known = name in ("no-arena", "no-pattern")  # in `compared`
        yield Lever(f"onnx-{name}" if known else f"lever.onnx-{name}", "onnx", CHANGES[name], "alone")
    for graph, (before, change) in GRAPHS.items():
        yield Lever(f"lever.onnx-{graph}", f"lever.onnx-{before}" if before else "onnx", change, "alone")
    for runtime, allocator in product(TOGETHER, ALLOCATORS):
        yield Lever(f"{runtime}+{allocator}", runtime, f"allocator: {allocator}", "alone")


def _last():
    for name in PYTORCH:
        yield Lever(TOGETHER["pytorch"], f"lever.pytorch-all-but-{name}", CHANGES[name], "last")
    yield Lever("lever.pytorch-together-bfloat16", TOGETHER["pytorch"], CHANGES["bfloat16"], "last")
    for name in ONNX:
        yield Lever(TOGETHER["onnx"], f"lever.onnx-all-but-{name}", CHANGES[name], "last")
    yield Lever("lever.onnx-together-no-reuse", TOGETHER["onnx"], CHANGES["no-reuse"], "last")
    bare = {graph: f"lever.onnx-bare-{graph}" for graph in GRAPHS} | {"split": TOGETHER["onnx"]}
    for graph, (before, change) in GRAPHS.items():
        yield Lever(bare[graph], bare[before] if before else "lever.onnx-bare", change, "last")


LEVERS = (
    *_alone(),
    *_last(),
    Lever("pytorch-lean", "pytorch", "lean: channels-last, freed memory back", "together"),
    Lever(TOGETHER["pytorch"], "pytorch", "all of them", "together"),
    Lever("onnx-lean", "onnx", "lean: arena off, freed memory back", "together"),
    Lever("lever.onnx-lean-split", "onnx", "lean, and the split graph", "together"),
    Lever("lever.onnx-bare", "onnx", "bare: all of the session's", "together"),
    Lever(TOGETHER["onnx"], "onnx", "all of them", "together"),
)
