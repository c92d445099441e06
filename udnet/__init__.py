"""udnet: how much memory does an image-to-image network need, under which runtime, at which size, and why?

What most people need is here; the rest is reached through its room, as in `from udnet.analysis import scaling`.
Importing the package imports neither torch nor onnxruntime: a trial of one runtime must not pay for the other.
"""

import importlib

__version__ = "0.2.0"
PARITY_LIMIT = 1e-5  # the largest difference between two outputs that count as the same

_FACE = {
    "load": "variants.enhancer.load",
    "Enhancer": "variants.enhancer.Enhancer",
    "Variant": "variants.variant.Variant",
    "OnnxNetwork": "variants.variant.OnnxNetwork",
    "TorchNetwork": "variants.variant.TorchNetwork",
    "track": "system.memory.track",
    "measure": "trials.trial.measure",
    "run_study": "trials.study.run",
    "read_study": "trials.tables.read",
    "costs": "analysis.scaling.costs",
    "plan": "analysis.capacity.plan",
    "forecast": "experiments.forecast.forecast",
}


class Error(ValueError):
    """A request that cannot be met, in one line: what, where and what to do."""


class NotMeasured(Error):
    """A study has too little for what is asked."""


def __getattr__(name):
    """Import on first use, so that `import udnet` stays light."""
    if name in _FACE:
        module, _, attribute = _FACE[name].rpartition(".")
        return getattr(importlib.import_module(f"udnet.{module}"), attribute)
    raise AttributeError(f"module 'udnet' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_FACE])
