"""A session whose memory arena is smaller in all its steps: what a large picture does to the usual arena, seen small.

ONNX Runtime's arena grows by blocks, each of twice the size of the last, from 1 MiB on, and cuts a block in two where
more than 128 MiB of it would lie idle. What a picture takes of it depends on where its tensors fall between those
sizes. With every size divided by the factor by which the tensors of a small picture are smaller, they fall alike.
"""

import re
from dataclasses import replace
from functools import partial

from udnet import Error
from udnet.system.memory import MIB
from udnet.tiled import kernels
from udnet.variants.variant import OnnxNetwork

SIZES = {  # of `OrtArenaCfg`, with ONNX Runtime's own values
    "initial_chunk_size_bytes": 1 * MIB,
    "initial_growth_chunk_size_bytes": 2 * MIB,
    "max_dead_bytes_per_chunk": 128 * MIB,
}
SESSIONS = {"onnx": {}, "onnx-no-pattern": {"enable_mem_pattern": False}}  # those with an arena: their options


def down(variant, text):
    """A variant with an arena, as `NAME/SCALE`: every size of that arena divided by the scale, a number from 1."""
    if variant.name not in SESSIONS:
        raise Error(f"{variant.name} has no arena to scale: choose {' or '.join(SESSIONS)}")
    if not re.fullmatch(r"[1-9]\d*(\.\d+)?", text):
        raise Error(f"no scale {text!r}: give a number from 1, as in {variant.name}/16")
    load = partial(_load, scale=float(text), **SESSIONS[variant.name])
    summary = f"{variant.summary}; sizes of the arena divided by {text}"
    return replace(variant, name=f"{variant.name}/{text}", summary=summary, load=load)


def _load(threads, path, scale, **options):
    kernels.share_arena(**{name: max(1, round(size / scale)) for name, size in SIZES.items()})
    return OnnxNetwork(path, threads, dict([kernels.SHARED]), **options)
