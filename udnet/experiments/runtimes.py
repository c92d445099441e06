"""Other runtimes beside PyTorch and ONNX Runtime: what each takes, and how far its output is from PyTorch's."""

from pathlib import Path

from udnet.analysis import capacity
from udnet.trials import study
from udnet.variants.runtimes import VARIANTS


def missing():
    """What is not installed of them and how to install it, in one line, or an empty one."""
    return "; ".join(dict.fromkeys(one.missing for one in VARIANTS.values() if one.missing))


def run(folder):
    """Run what is missing of the grid `runtimes` into `folder`/runtimes and return their costs."""
    folder = Path(folder)
    study.run(capacity.RUNTIMES, folder / capacity.RUNTIMES)
    return capacity.runtimes(folder)
