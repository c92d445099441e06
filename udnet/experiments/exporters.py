"""Which exporter, which opset, which form of the graph: the candidates for `export`, measured like any other variant.

The graph decides how long ONNX Runtime keeps each activation, so a file that computes the same can cost another peak.
Each candidate is written into the cache and measured in the default session and in the lean one; `export` uses the
best of those whose output stays within its tolerance.
"""

from itertools import product

import numpy as np
import pandas as pd

from udnet import PARITY_LIMIT
from udnet.analysis import scaling
from udnet.network import checkpoint, export, prepared
from udnet.system import files
from udnet.trials import study, tables, trial
from udnet.trials.grid import Grid, interleaved

FOLDER = "exporters"  # within the folder of the study that they belong to
CANDIDATES = {  # by PyTorch's newer exporter (dynamo) or its older one, opset, whether the norm is by columns
    "torchscript-12": (False, 12, False),
    "torchscript-17": (False, 17, False),
    "torchscript-17-columns": (False, 17, True),
    "dynamo-18": (True, 18, False),
    "dynamo-18-columns": (True, 18, True),
    "dynamo-22-columns": (True, 22, True),
}
CHOSEN = "dynamo-18-columns"  # what `export` writes
DIFFERENCES = ["candidate", "size", "largest_difference"]
SIDE = 512
PARITY_SIZES = ((1, 264, 136), (1, 784, 1040))  # the larger is where float32 sums over a whole image show


def run(folder, repeats=3, weights=None, progress=True):
    """Measure every candidate, made from `weights`, into `folder`/exporters and return the `Study` there."""
    found = prepared.find(weights)
    graphs = {name: made(name, found) for name in CANDIDATES}
    trials = [
        trial.Trial(variant, SIDE, SIDE, 2, repeat, runs=1, weights=str(path))
        for repeat, variant, path in product(range(repeats), ("onnx", "onnx-lean"), graphs.values())
    ]
    # an inexact one's cost is told too, marked
    grid = Grid("exporters", interleaved(trials, seed=0), seed=0, parity_limit=np.inf)
    done = study.run(grid, folder / FOLDER, weights, progress)
    if not (folder / FOLDER / "differences.csv").exists():
        files.write_csv(folder / FOLDER / "differences.csv", _differences(graphs, found))
    return done


def _differences(graphs, weights):
    """Each candidate's largest difference from PyTorch's output, by size; a tidy frame."""
    model = _model(weights, columns=False)
    rows = []
    for name, path in graphs.items():
        for size, difference in export.differences(model, path, PARITY_SIZES):
            rows.append((name, size, difference))
    return pd.DataFrame(rows, columns=DIFFERENCES)


def read(folder):
    """Costs of the candidates, a row a trial, as `scaling.costs` with the columns `candidate`, and `exact`: whether
    its output is within the limit of parity at every size. `NotMeasured` where there are none."""
    path = folder / FOLDER / "differences.csv"
    differences = tables.read_table(path, DIFFERENCES, "the exporters were not measured")
    costs = scaling.costs(tables.read(folder / FOLDER).trials)
    differences = differences.groupby("candidate").largest_difference.max()
    candidate = costs.weights.str.removesuffix(".onnx")
    return costs.assign(candidate=candidate, exact=candidate.map(differences) <= PARITY_LIMIT)


def made(name, weights):
    """The ONNX file of a candidate, with these weights, in the cache."""
    dynamo, opset, columns = CANDIDATES[name]

    def write(path):
        with files.replacing(path) as part:
            export.write(_model(weights, columns), part, dynamo, opset)

    return prepared.cached(f"{weights.sha256[:12]}/{name}.onnx", write)


def _model(weights, columns):
    model = (export.OnnxUDnet if columns else export.InferenceUDnet)()
    return export.load(model, checkpoint.read(weights.path), weights.name)
