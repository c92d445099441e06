"""A session whose allocator is smaller in all its steps: what a large picture does to the usual one, seen small.

ONNX Runtime's arena grows by blocks, each of twice the size of the last, from 1 MiB on, and cuts a block in two where
more than 128 MiB of it would lie idle. Without an arena, glibc's heap keeps freed blocks below 32 MiB, and hands larger
ones back. What a picture takes depends on where its tensors fall between those sizes. With every size divided by the
factor by which the tensors of a small picture are smaller, they fall alike.
"""

import re
from dataclasses import replace
from functools import partial

from udnet import Error
from udnet.system import memory
from udnet.system.memory import MIB
from udnet.tiled import kernels
from udnet.variants.variant import OnnxNetwork

SIZES = {  # of `OrtArenaCfg`, with ONNX Runtime's own values
    "initial_chunk_size_bytes": 1 * MIB,
    "initial_growth_chunk_size_bytes": 2 * MIB,
    "max_dead_bytes_per_chunk": 128 * MIB,
}
ARENAS = {"onnx": {}, "onnx-no-pattern": {"enable_mem_pattern": False}}  # sessions with an arena: their options
HEAPS = {"onnx-no-arena": {"enable_cpu_mem_arena": False}}  # those on the heap
SESSIONS = ARENAS | HEAPS  # those that keep memory


def down(variant, text):
    """A session as `NAME/SCALE`: every size of its allocator divided by the scale, a number from 1."""
    if variant.name not in SESSIONS:
        raise Error(f"{variant.name} has no allocator to scale: choose {', '.join(ARENAS)} or {', '.join(HEAPS)}")
    if not re.fullmatch(r"[1-9]\d*(\.\d+)?", text):
        raise Error(f"no scale {text!r}: give a number from 1, as in {variant.name}/16")
    kind, load = ("arena", _arena) if variant.name in ARENAS else ("heap", _heap)
    summary = f"{variant.summary}; sizes of the {kind} divided by {text}"
    load = partial(load, scale=float(text), **SESSIONS[variant.name])
    return replace(variant, name=f"{variant.name}/{text}", summary=summary, load=load)


def _arena(threads, path, scale, **options):
    kernels.share_arena(**{name: max(1, round(size / scale)) for name, size in SIZES.items()})
    return OnnxNetwork(path, threads, dict([kernels.SHARED]), **options)


def _heap(threads, path, scale, **options):
    network = OnnxNetwork(path, threads, **options)
    memory.trim_heaps()  # what loading leaves free is the same at any scale: small pictures would lie in it
    memory.keep_freed_memory(round(memory.KEPT / scale))
    return network
