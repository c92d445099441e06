"""What fits, proved: variants run under a real limit, a little over and well under what their models say they need."""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from udnet.analysis import capacity
from udnet.system import files, guard, memory
from udnet.trials import tables, trial

PROOF = {"10% over": (1.10, "ok"), "25% under": (0.75, "oom")}  # of what is predicted to be counted: what should happen
PROVED = (  # sizes that no grid has
    ("onnx-lean", 896, 896),
    ("pytorch-lean", 896, 896),
    ("pytorch-tiled", 1440, 1440),
    ("onnx-tiled", 1440, 2560),
    ("onnx-tiled@512MiB", 1440, 2560),
    ("onnx-scratch", 1440, 2560),
)
FILE = "capacity.csv"
COLUMNS = ("variant", "height", "width", "threads", "predicted_bytes", "case", "limit_bytes", "expected", "status")


def prove(model, variant, height, width, weights=None):
    """Run a variant under limits a little over and well under what its model says it needs: a row a case.

    `variant`: the model's own, or of a tiled one the plan for a limit, NAME@512MiB. The limit that it is run under
    is the kernel's, on a memory control group; where none can be made the rows say `skipped`.
    """
    size = variant.partition("@")[2]
    counted = model.peak(height, width, memory.parse_bytes(size) if size else None) - model.files
    rows = []
    for case, (factor, expected) in PROOF.items():
        limit = int(counted * factor)
        if guard.ControlGroup.possible():
            one = trial.Trial(variant, height, width, model.threads, runs=1, weights=weights)
            status = trial.run(one, limit=limit).status
        else:
            status = "skipped: this process may not make a memory control group"
        rows.append((variant, height, width, model.threads, counted, case, limit, expected, status))
    return pd.DataFrame(rows, columns=COLUMNS)


def run(folder, proved=PROVED, weights=None, progress=True):
    """Prove the models of a study at sizes that it did not measure, into `capacity.csv` of its folder.

    What is there is kept. Returns the table, with the columns of `prove`.
    """
    path, known = Path(folder) / FILE, capacity.models(tables.read(folder))
    table = read(folder) if path.exists() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(table.variant, table.height, table.width, strict=True))
    todo = [case for case in proved if case not in done and case[0].partition("@")[0] in known]
    for name, height, width in tqdm(todo, desc="proof under a limit", disable=not progress or not todo):
        proofs = prove(known[name.partition("@")[0]], name, height, width, weights)
        table = pd.concat([table, proofs], ignore_index=True)
        files.write_csv(path, table)
    return table


def read(folder):
    """The proofs in a study's folder."""
    return tables.read_table(Path(folder) / FILE, COLUMNS, "nothing was proved under a limit")
