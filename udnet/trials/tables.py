"""The tables of a study's folder, read back.

A study is a folder: `trials.csv`, a row a phase of a trial; `machine.json`, what it ran on; `parity.csv`, how far each
variant's output is from the reference; `timelines.csv` and `stages.csv` of the trials that were sampled.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from udnet import Error, NotMeasured
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

    @property
    def counted(self):
        """How many trials it has, in words, and of how many where it is not finished."""
        asked = self.machine["trials"]
        return f"{asked} trials" if self.finished else f"{self.trials.trial.nunique()} of {asked} trials"


def typed(frame):
    """Rows of trials with all `COLUMNS`, in their types: whole bytes, true or false, text where there is none."""
    frame = frame.reindex(columns=COLUMNS)
    frame[WHOLE_NUMBERS] = frame[WHOLE_NUMBERS].astype("Int64")
    frame["peak_is_exact"] = frame["peak_is_exact"].astype("boolean")
    for name in ("weights", "phase", "error"):
        frame[name] = frame[name].astype(object).fillna("")
    return frame


DAMAGED = "put it back, or remove its folder and run the study again"
AGAIN = "put it back, or remove it, and it is made again"


def read(folder=PUBLISHED):
    """The `Study` in a folder; other tables than the trials' may not be there, and are empty."""
    folder = Path(folder)
    if not (folder / "machine.json").exists():
        raise Error(f"no study in {folder}: run `udnet study --out {folder}`")
    if not (folder / "trials.csv").exists():  # a study begins with it
        raise Error(f"{folder / 'trials.csv'}: is missing: {DAMAGED}")
    columns = {
        "trials": COLUMNS,
        "parity": ["variant", "weights", "height", "width", "largest_difference", "error"],
        "timelines": ["trial", "seconds", "rss_bytes"],
        "stages": ["study", "trial", "stage", "start", "end", "peak_bytes"],
    }
    tables = {name: _read_own(folder / f"{name}.csv", own) for name, own in columns.items()}
    with files.reading(folder / "trials.csv", DAMAGED):
        tables["trials"] = typed(tables["trials"])
    return Study(folder, machine=files.read_json(folder / "machine.json", DAMAGED), **tables)


def _read_own(path, columns):
    if not path.exists():
        return pd.DataFrame(columns=columns)
    others = ("runs", "peak_is_exact", "largest_difference")
    blank = {name: [""] for name in columns if _is_measured(name) or name in others}
    return read_table(path, columns, remedy=DAMAGED, keep_default_na=False, na_values=blank)


def read_table(path, columns, absent="", remedy=AGAIN, **options):
    """A table as `files.write_csv` wrote it; `Error` where it is cut short, lacks a column, or has text for a number.

    `absent`: what was not measured where there is no such file, which is then `NotMeasured`; `remedy`: what to do
    about a damaged one; `options`: pandas.read_csv's.
    """
    if absent and not path.exists():
        raise NotMeasured(absent)
    with files.reading(path, remedy):
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise EOFError("cut short")
        table = pd.read_csv(io.StringIO(text), **options)
        table[[*columns]]  # they are there
        table[[*filter(_is_measured, columns)]].astype(float)
        return table


def _is_measured(column):
    return column.endswith(("_bytes", "seconds"))
