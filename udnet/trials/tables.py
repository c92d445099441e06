"""The tables of a study's folder, read back.

A study is a folder: `trials.csv`, a row a phase of a trial; `machine.json`, what it ran on; `parity.csv`, how far each
variant's output is from the reference; `timelines.csv` and `stages.csv` of the trials that were sampled.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from udnet import Error
from udnet.system import files

RESULTS = files.DATA / "results"
PUBLISHED = files.PUBLISHED
LOCAL = RESULTS / "local"

PHASE_COLUMNS = [
    *("phase", "runs", "start_seconds", "end_seconds", "seconds", "rss_start_bytes", "rss_end_bytes"),
    *("private_end_bytes", "file_end_bytes", "peak_bytes", "peak_is_exact", "sampled_peak_bytes", "status", "error"),
]
COLUMNS = [
    *("study", "trial", "variant", "runtime", "schedule", "weights", "height", "width", "threads", "repeat"),
    *PHASE_COLUMNS,
]
WHOLE_NUMBERS = [name for name in COLUMNS if name.endswith("_bytes")] + ["runs"]


@dataclass
class Study:
    """The tables of a study's folder."""

    folder: Path
    trials: pd.DataFrame
    machine: dict
    parity: pd.DataFrame
    timelines: pd.DataFrame
    stages: pd.DataFrame

    @property
    def finished(self):
        """Whether every trial of the grid has its rows."""
        return self.trials.trial.nunique() >= self.machine["trials"]


def typed(frame):
    """Rows of trials with all `COLUMNS`, in their types: whole bytes, true or false, text where there is none."""
    frame = frame.reindex(columns=COLUMNS)
    frame[WHOLE_NUMBERS] = frame[WHOLE_NUMBERS].astype("Int64")
    frame["peak_is_exact"] = frame["peak_is_exact"].astype("boolean")
    for name in ("weights", "phase", "error"):
        frame[name] = frame[name].astype(object).fillna("")
    return frame


DAMAGED = "put it back, or remove its folder and run the study again"


def read(folder=PUBLISHED):
    """The `Study` in a folder; tables that are not there yet are empty."""
    folder = Path(folder)
    if not (folder / "machine.json").exists():
        raise Error(f"no study in {folder}: run python -m udnet study --out {folder}")
    empty = {
        "trials": COLUMNS,
        "parity": ["variant", "weights", "height", "width", "largest_difference", "error"],
        "timelines": ["trial", "seconds", "rss_bytes"],
        "stages": ["study", "trial", "stage", "start", "end", "peak_bytes"],
    }
    tables = {name: _read_table(folder / f"{name}.csv", columns) for name, columns in empty.items()}
    with files.reading(folder / "trials.csv", DAMAGED):
        tables["trials"] = typed(tables["trials"])
    return Study(folder, machine=files.read_json(folder / "machine.json", DAMAGED), **tables)


def _read_table(path, columns):
    if not path.exists():
        return pd.DataFrame(columns=columns)
    measured = [name for name in columns if name.endswith(("_bytes", "seconds"))]
    blank = {name: [""] for name in (*measured, "runs", "peak_is_exact", "largest_difference") if name in columns}
    with files.reading(path, DAMAGED):
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise EOFError("cut short")
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=blank)
        table[measured].astype(float)  # no text among the numbers
        return table
