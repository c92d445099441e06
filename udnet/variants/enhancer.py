"""A model ready to enhance pictures."""

import importlib.util
from dataclasses import replace

import numpy as np

from udnet import Error
from udnet.system import memory
from udnet.variants.catalogue import find, with_scratch, within
from udnet.variants.variant import enhance


class Enhancer:
    """A loaded network, called with a picture: a uint8 array, height x width x 3, or a Pillow image of any mode.

    Returns the enhanced picture, same kind and size; an image upright, as RGB or RGBA. A tiled network counts `beside`
    bytes, which its process holds besides, within its limit, and calls `progress` with the fraction that is done; what
    that raises ends the picture. `network(x)` takes and returns float32 arrays, batch x 3 x height x width, unclipped.
    `variant` and `weights` say what runs.
    """

    def __init__(self, variant, network, weights):
        self.variant, self.network, self.weights = variant, network, weights

    def __call__(self, picture, beside=0, progress=None):
        if isinstance(picture, np.ndarray):
            return enhance(self.network, picture, beside, progress)
        from udnet.pictures import photographs

        given = picture if isinstance(picture, photographs.Picture) else photographs.of(picture)
        done = replace(given, pixels=enhance(self.network, given.pixels, beside + given.beside, progress))
        return done if given is picture else done.image

    @property
    def held(self):
        """Bytes that this process holds now beside what a tiled network's plans count; none for a whole image."""
        return max(0, memory.resident() - self.network.floor) if self.variant.schedule == "tiled" else 0

    def __repr__(self):
        return f"<Enhancer {self.variant.name}, {self.weights.caption}>"


def load(variant=None, weights=None, threads=None, memory_limit=None, scratch=None):
    """A model ready to enhance pictures, as an `Enhancer`.

    `variant` is a name that `udnet variants` lists, or FILE.py:NAME (None: the tiled schedule, by ONNX Runtime where it
    is installed, else by PyTorch), `weights` a `.pth` or `.onnx` file (None: what is in `data/weights`, else the
    embedded default), `threads` a number (None: all cores), `memory_limit` what the process may take, for a tiled
    variant: bytes, or a size such as "512MiB" (None: half of what is free, where no variant is named). `scratch` is a
    folder for the scratch file of large pictures, for a tiled variant, where that saves time (None: where no variant is
    named, the system's for temporary files, if that is on a disk; "none": no such file).
    """
    from udnet.network import prepared
    from udnet.system import machine

    threads = machine.threads(threads)
    chosen = choose(variant, memory_limit, scratch)
    found = prepared.find(weights)
    files = [prepared.prepared(found, form) for form in chosen.forms]
    return Enhancer(chosen, chosen.load(threads, *files), found)


def choose(variant=None, memory_limit=None, scratch=None):
    """The `Variant` that `load` loads for these."""
    from udnet.system import guard

    default = "onnx-tiled" if importlib.util.find_spec("onnxruntime") else "pytorch-tiled"
    chosen = find(default if variant is None else variant)
    if chosen.missing:
        raise Error(f"{variant} cannot run here: {chosen.missing}")
    if memory_limit is not None:
        chosen = within(chosen, memory.limit_bytes(memory_limit))
    elif variant is None:
        chosen = within(chosen, guard.free() // 2)
    if scratch is not None or variant is None:
        chosen = with_scratch(chosen, scratch)
    return chosen
