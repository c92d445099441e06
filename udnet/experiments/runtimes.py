"""Other runtimes beside PyTorch and ONNX Runtime: what each takes, and how far its output is from PyTorch's."""

from pathlib import Path

from udnet import PARITY_LIMIT, NotMeasured
from udnet.analysis import scaling
from udnet.trials import study, tables
from udnet.variants.runtimes import VARIANTS

FOLDER = "runtimes"  # within the folder of the study that they belong to; the grid's name, too


def missing():
    """What is not installed of them and how to install it, in one line, or an empty one."""
    return "; ".join(dict.fromkeys(one.missing for one in VARIANTS.values() if one.missing))


def run(folder):
    """Run what is missing of the grid `runtimes` into `folder`/runtimes and return `read` of it."""
    study.run(FOLDER, Path(folder) / FOLDER)
    return read(folder)


def read(folder):
    """Costs, a row a trial, as `scaling.costs` with the columns `difference`, the largest of an output from PyTorch's
    at that size, and `exact`: whether it is within the limit of parity. `NotMeasured` where there are none."""
    if not (Path(folder) / FOLDER).exists():
        raise NotMeasured("no other runtimes were measured")
    done = tables.read(Path(folder) / FOLDER)
    costs, key = scaling.costs(done.trials), ["variant", "height", "width"]
    differences = done.parity.set_index(key).largest_difference.rename("difference")
    costs = costs.join(differences, on=key)
    return costs.assign(exact=costs.difference <= PARITY_LIMIT)
