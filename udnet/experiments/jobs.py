"""An experiment of many small jobs: each in a fresh process, its rows into a table that is kept up job by job."""

import json
import os
import subprocess
import sys

import pandas as pd
from tqdm import tqdm

from udnet.system import files
from udnet.trials import tables

WHOLE = {"operations", "trials"}  # columns of whole numbers, as bytes are, also where a row has none


def run(path, columns, jobs, measure, progress=True):
    """Add to a table what `measure(*job)` gives, a dict a row, for those jobs that it has not yet; returns nothing.

    `jobs`: tuples of what their first columns say; a table has every row of a job or none.
    """
    table = tables.read_table(path, columns) if path.exists() else pd.DataFrame(columns=columns)
    key = len(jobs[0])
    done = set(table[columns[:key]].itertuples(index=False, name=None))
    todo = [job for job in jobs if job not in done]
    for job in tqdm(todo, desc=path.stem, disable=not progress or not todo):
        about = dict(zip(columns[:key], job, strict=True))
        rows = pd.DataFrame([about | row for row in measure(*job)], columns=columns)
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        whole = [name for name in columns if name in WHOLE or name.endswith("_bytes")]
        files.write_csv(path, table.astype(dict.fromkeys(whole, "Int64")))


def fresh(module, *job):
    """What a module prints as JSON when it is run as a program for a job: in a process whose libraries are not loaded.

    NumPy has one thread there, as its products of matrices are the yardstick of one.
    """
    command = [sys.executable, "-m", module, json.dumps(job)]
    environment = os.environ | {"PYTHONPATH": files.python_path(), "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
