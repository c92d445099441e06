"""Studies of several machines side by side, never pooled: ratios of costs, crossings, and which findings hold where.

Ratios of two variants' costs travel between machines; bytes do on machines of a kind, and seconds do not. What is
compared are cases, a size on so many threads, that the machines have in common.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from udnet import Error, NotMeasured
from udnet.analysis import scaling
from udnet.analysis.scaling import THREADS, Estimate
from udnet.trials import tables

MEMORY, TIME = "memory", "time"
AGREES = 0.10  # how far apart ratios of memory may be that agree
CROSSING = "crossing: onnx, pytorch"
LABELS = {"load_peak_bytes": "load", "peak_bytes": "peak", "seconds": "time"}
COMPARED = (  # a column of `scaling.costs`, of which variant, over which one's
    ("load_peak_bytes", "pytorch-published", "pytorch"),
    ("load_peak_bytes", "onnx", "pytorch"),
    ("peak_bytes", "onnx", "pytorch"),
    ("peak_bytes", "pytorch-lean", "pytorch"),
    ("peak_bytes", "onnx-lean", "onnx"),
    ("peak_bytes", "onnx-tiled", "onnx-lean"),
    ("seconds", "onnx", "pytorch"),
    ("seconds", "onnx-lean", "onnx"),
)

VARIANTS = tuple(dict.fromkeys(name for _, *pair in COMPARED for name in pair))


# --- ratios ---


def ratios(studies):
    """Every ratio of `COMPARED` that two machines at least have, and the crossing, a row a machine.

    `studies`: `Study` by the machine's name. Columns: kind (memory or time), quantity, the two variants (over, under),
    machine, and its estimate: best, low, high, of the side in pixels for the crossing.
    """
    frames, rows = {name: _costs(one) for name, one in studies.items()}, []
    for value, *pair in COMPARED:
        kind = TIME if value == "seconds" else MEMORY
        cases = {name: _cases(frame, *pair) for name, frame in frames.items()}
        by_size = sorted(set().union(*cases.values()), key=lambda case: (case[0] * case[1], case[2]))
        groups = {_words(*case): {case} for case in by_size}
        if value == "load_peak_bytes":  # it does not depend on the picture
            groups = {"": set.intersection(*(own for own in cases.values() if own))} if by_size else {}
        for words, group in groups.items():
            has = [name for name, own in cases.items() if group and group <= own]
            if len(has) > 1:
                quantity = f"{LABELS[value]}{words}: {' / '.join(pair)}"
                rows += [(kind, quantity, *pair, name, *_ratio(frames[name], value, *pair, group)) for name in has]
    sides = crossings(studies)
    if len(sides) > 1:
        rows += [(MEMORY, CROSSING, "onnx", "pytorch", name, *side) for name, side in sides.items()]
    return pd.DataFrame(rows, columns=["kind", "quantity", "over", "under", "machine", "best", "low", "high"])


def agreement(table):
    """Of `ratios`: a row a quantity, an `Estimate` a machine, how far they are `apart`, and whether that `agrees`.

    `apart`: the largest over the smallest, less 1. Memory agrees where that is no more than `AGREES`, or all intervals
    meet. Time is not judged: None.
    """
    rows = []
    for (kind, quantity), own in table.groupby(["kind", "quantity"], sort=False):
        apart = own.best.max() / own.best.min() - 1
        meet = own.low.max() <= own.high.min()  # not where one has no interval
        agrees = bool(apart <= AGREES or meet) if kind == MEMORY else None
        each = {one.machine: Estimate(one.best, one.low, one.high) for one in own.itertuples()}
        rows.append({"kind": kind, "quantity": quantity} | each | {"apart": apart, "agrees": agrees})
    return pd.DataFrame(rows)


def crossings(studies):
    """The side from which a default session needs more memory than PyTorch, an `Estimate` by machine.

    By lines through the sizes that all machines have; a machine without such a side, or all without enough sizes, are
    left out.
    """
    frames = {name: _costs(one) for name, one in studies.items()}
    shared = set.intersection(*(_cases(frame, "pytorch", "onnx") for frame in frames.values()))
    found = {}
    for name, frame in frames.items():
        frame = frame[frame.case.isin([case for case in shared if case[2] == THREADS])]
        try:
            met = scaling.crossing(*(scaling.fit(frame[frame.variant == one]) for one in ("pytorch", "onnx")))
        except NotMeasured:
            continue
        if met:
            found[name] = met.side
    return found


def _costs(study):
    frame = scaling.costs(study.trials)
    return frame.assign(case=list(zip(frame.height, frame.width, frame.threads, strict=True)))


def _cases(frame, *variants):
    """The cases that all of some variants have."""
    return set.intersection(*(set(frame.case[frame.variant == name]) for name in variants))


def _ratio(frame, value, over, under, cases):
    inside = frame.case.isin(cases)
    return scaling.ratio(frame, value, inside & frame.variant.eq(over), inside & frame.variant.eq(under))


def _words(height, width, threads):
    counted = f", {threads} thread{'s' if threads > 1 else ''}"
    return f" {height}x{width}" + (counted if threads != THREADS else "")


# --- findings ---


class Finding(NamedTuple):
    """A finding as a ratio: a column of `scaling.costs` of one variant over a column of another, above 1 or below."""

    says: str
    kind: str
    over: tuple[str, str]  # variant, column
    under: tuple[str, str]
    above: bool
    most: int  # pixels of the side of the largest square at which it is asked


def _of(variant, column="peak_bytes"):
    return variant, column


FINDINGS = (
    Finding(
        "Loaded as released, PyTorch's peak is above that of loading what inference needs",
        MEMORY,
        _of("pytorch-published", "load_peak_bytes"),
        _of("pytorch", "load_peak_bytes"),
        True,
        256,
    ),
    Finding(
        "A small picture takes less in ONNX Runtime's default session than in PyTorch",
        MEMORY,
        _of("onnx"),
        _of("pytorch"),
        False,
        256,
    ),
    Finding("A large one takes more", MEMORY, _of("onnx"), _of("pytorch"), True, 1024),
    Finding("A lean session needs less than a default one", MEMORY, _of("onnx-lean"), _of("onnx"), False, 1024),
    Finding("A lean session needs less than PyTorch", MEMORY, _of("onnx-lean"), _of("pytorch"), False, 1024),
    Finding(
        "The tiled schedule needs less than a lean session", MEMORY, _of("onnx-tiled"), _of("onnx-lean"), False, 1024
    ),
    Finding(
        "A later picture takes longer in PyTorch than in a default session",
        TIME,
        _of("pytorch", "seconds"),
        _of("onnx", "seconds"),
        True,
        1024,
    ),
    Finding(
        "A lean session's first picture takes longer than its later ones",
        TIME,
        _of("onnx-lean", "first_seconds"),
        _of("onnx-lean", "seconds"),
        True,
        1024,
    ),
    Finding(
        "A later picture takes less with the tiled schedule in 512 MiB than in a default session",
        TIME,
        _of("onnx-tiled@512MiB", "seconds"),
        _of("onnx", "seconds"),
        False,
        1024,
    ),
)
HOLDS, NOT, UNCLEAR, ABSENT = "holds", "does not hold", "not clear", "not measured"
EVERYWHERE = "holds on every machine"


def findings(studies, threads=THREADS):
    """Every finding asked of every machine, at the largest square that all have that measured it: a row a machine.

    Columns: finding, kind, machine, side (pixels), best, low, high of its ratio, and `verdict`: it holds where the
    whole interval is on its side of 1, and is not clear where 1 is within, or where a time has no interval.
    """
    frames, rows = {name: _costs(one) for name, one in studies.items()}, []
    for one in FINDINGS:
        squares = {
            name: {h for h, w, t in _cases(frame, one.over[0], one.under[0]) if h == w <= one.most and t == threads}
            for name, frame in frames.items()
        }
        shared = set.intersection(*filter(None, squares.values())) if any(squares.values()) else set()
        side = max(shared, default=None)
        for name, frame in frames.items():
            found = Estimate(np.nan, np.nan, np.nan)
            if side in squares[name]:
                here = frame[frame.case == (side, side, threads)].set_index("variant")
                found = scaling.quotient(*(here.loc[[variant], column] for variant, column in (one.over, one.under)))
            rows.append((one.says, one.kind, name, side, *found, _verdict(found, one.kind, one.above)))
    columns = ["finding", "kind", "machine", "side", "best", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _verdict(found, kind, above):
    if np.isnan(found.best):
        return ABSENT
    if np.isnan(found.low) and kind == TIME:  # trials without repeats: memory hardly differs between them, time does
        return UNCLEAR
    low, high = (found.best, found.best) if np.isnan(found.low) else (found.low, found.high)
    if low <= 1 <= high:
        return UNCLEAR
    return HOLDS if (low > 1) == above else NOT


def where(table):
    """Of `findings`: by finding, in words, on which machines it holds."""
    said = {}
    for finding, own in table.groupby("finding", sort=False):
        by = {verdict: list(own.machine[own.verdict == verdict]) for verdict in (HOLDS, NOT, UNCLEAR, ABSENT)}
        if len(by[ABSENT]) == len(own):
            said[finding] = ABSENT
        elif len(by[HOLDS]) == len(own) > 1:
            said[finding] = EVERYWHERE
        else:
            said[finding] = "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in by.items() if names)
    return pd.Series(said)


# --- for people ---


def read(folders):
    """The studies of folders, each once, by names: the folder's own, with its parent's where two are alike."""
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    names = [folder.name for folder in folders]
    if len(folders) < 2:
        raise Error("give two studies at least, each of a machine of its own")
    names = [
        name if names.count(name) == 1 else f"{folder.parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]
    return {name: tables.read(folder) for name, folder in zip(names, folders, strict=True)}


def as_text(studies):
    """The comparison of several machines, for a terminal of 100 columns or a little more."""
    table, found = ratios(studies), findings(studies)
    parts = ["Machines\n" + described(studies).to_string()]
    for kind in (MEMORY, TIME):
        own = agreement(table[table.kind == kind])
        if len(own):
            parts.append(f"Ratios of {kind}\n" + shown(own, studies).to_string(index=False))
        asked = found[found.kind == kind]
        held = where(asked)
        lines = [f"- {finding}: {words}" for finding, words in held.items()]
        parts.append(f"Findings about {kind}, on {THREADS} threads\n" + "\n".join(lines))
    return "\n\n".join(parts)


def described(studies):
    """What each machine is and what was run on it, a column a machine."""
    facts = {
        "processor": lambda one: f"{one.machine['processor']}, {one.machine['cores']} cores",
        "memory": lambda one: f"{one.machine['memory_bytes'] / 2**30:.1f} GiB",
        "system": lambda one: f"{one.machine['system']} {one.machine['kernel']}, {one.machine['allocator']}",
        "study": lambda one: f"{one.machine['grid']}, {one.counted}, {one.machine['date'][:10]}",
        "weights": lambda one: one.machine["weights"].removeprefix("weights: "),
        "commit": lambda one: one.machine["commit"],
    }
    return pd.DataFrame({name: {fact: tell(one) for fact, tell in facts.items()} for name, one in studies.items()})


def shown(table, studies):
    """`agreement` as people read it."""
    columns = {"quantity": table.quantity}
    for name in studies:
        if name in table:
            columns[name] = ["" if not isinstance(one, Estimate) else f"{one:.3g}" for one in table[name]]
    columns["apart"] = table.apart.map("{:.0%}".format)
    if table.agrees.notna().any():
        columns["agrees"] = table.agrees.map({True: "yes", False: "no"})
    return pd.DataFrame(columns)
