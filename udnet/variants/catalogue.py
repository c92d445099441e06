"""Every variant by its name. Imported by every trial before anything is measured, so it imports next to nothing."""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

from udnet import Error
from udnet.system import memory
from udnet.variants.variant import Variant

FAMILIES = {"": "compared", "load": "ladder", "lever": "levers"}  # by what stands before the dot of a name


def find(name):
    """The variant of that name, or `FILE.py:NAME`, a `Variant` that a file of the user's own defines.

    `NAME+ALLOCATOR` is the variant under another allocator (`allocators`), `NAME@SIZE` a tiled one with the plan for a
    memory limit, `NAME/SCALE` one whose arena is that much smaller (`scaled`); `load.NAME` is a rung of the `ladder`,
    `lever.NAME` one of the `levers`.
    """
    if not isinstance(name, str):
        raise Error(f"{name!r} is no variant's name: give one that `udnet variants` lists, or FILE.py:NAME")
    if "+" in name and ":" not in name:
        from udnet.variants import allocators

        base, _, allocator = name.rpartition("+")
        return allocators.under(find(base), allocator)
    if "@" in name and ":" not in name:
        base, _, size = name.rpartition("@")
        return replace(within(find(base), memory.parse_bytes(size)), name=name)
    if "/" in name and ":" not in name:
        from udnet.variants import scaled

        base, _, scale = name.rpartition("/")
        return scaled.down(find(base), scale)
    if ":" in name:
        path, _, attribute = name.rpartition(":")
        return _from_file(Path(path), attribute)
    family_of = family(name.partition(".")[0])
    if name not in family_of:
        import difflib

        near = difflib.get_close_matches(name, family_of, 3, 0)
        raise Error(f"no variant {name!r}: did you mean {', '.join(near)}? `udnet variants` lists all")
    return family_of[name]


def family(name):
    """The variants of a family by name: a key of `FAMILIES`; any other name stands for those that are compared."""
    module = FAMILIES.get(name, FAMILIES[""])
    return importlib.import_module(f"udnet.variants.{module}").VARIANTS


def that_take_models():
    """The compared variants that take any ONNX file, of the runtimes that are installed."""
    return [one for one in family("").values() if one.takes_models and not one.missing]


def within(variant, limit):
    """A tiled variant with the fastest plan that keeps its process within `limit` bytes."""
    if "@" in variant.name:
        raise Error(f"{variant.name} names a memory limit already: give it once")
    if variant.schedule != "tiled":
        raise Error(f"{variant.name} has no plan for a memory limit: choose a tiled variant")
    return replace(variant, load=partial(variant.load, limit=limit))


def with_scratch(variant, folder):
    """A tiled variant that may keep maps on a scratch file in a folder, as `scratch.find` takes it."""
    if variant.schedule != "tiled":
        raise Error(f"{variant.name} has no use for a scratch file: choose a tiled variant")
    return replace(variant, load=partial(variant.load, folder=folder))


def _from_file(path, attribute):
    if not path.is_file() or path.suffix != ".py":
        raise Error(f"no Python file {path}: give your own variant as FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        variant = getattr(module, attribute)
    except Exception as error:
        raise Error(f"{path} gives no variant {attribute!r}: {type(error).__name__}: {error}") from error
    if not isinstance(variant, Variant):
        raise Error(f"{attribute!r} in {path} is a {type(variant).__name__}: make it a udnet.Variant")
    if known(variant.name):
        raise Error(f"{attribute!r} in {path} is named {variant.name!r}, as one of udnet's own: give it another name")
    return variant


def known(name):
    """Whether a name is one of udnet's own variants: tables may hold others."""
    try:
        return ":" not in name and bool(find(name))
    except Error:
        return False
