"""udnet: how much memory does an image-to-image network need, under which runtime, at which size, and why?

Importing the package imports neither torch nor onnxruntime: a trial of one runtime must not pay for the other.
"""

import importlib

__version__ = "0.1.0"
PARITY_LIMIT = 1e-5  # the largest difference between two outputs that count as the same

_PUBLIC = {"load": "variants", "Enhancer": "variants"}
_MODULES = {
    "allocators", "audit", "capacity", "checkpoint", "claims", "explore", "export", "exporters", "figures", "files",
    "findings", "findings_audit", "findings_capacity", "findings_levers", "forms", "guard", "images", "instruments",
    "kernels", "ladder", "levers", "locality", "memory", "model", "notebooks", "plans", "plots", "protocol", "publish",
    "quality", "report", "scaling", "scenes", "stages", "streams", "study", "tiling", "train", "trial", "variants",
    "water",
}  # fmt: skip


class Error(ValueError):
    """A request that cannot be met, in one line: what, where and what to do."""


def __getattr__(name):
    """Import on first use, so that `import udnet` stays light."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"udnet.{_PUBLIC[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"udnet.{name}")
    raise AttributeError(f"module 'udnet' has no attribute {name!r}")
