"""The original report's 39 claims against the study: two values, a verdict by a rule, and the cause in a sentence.

A claim is measured twice: as the report did it (`protocol`: single readings between steps, whatever else ran along) and
fairly (fresh processes, the kernel's peak, the same input and baseline). Every number is computed; nothing here knows
what the outcome should be.

The rule, in this order. A value that belongs to the report's machine alone, such as a time in seconds, is `not testable
here`. If the fair value agrees with the report's it is `reproduced`. If only the report's own protocol gives it, under
the system's allocator or another, it is `reproduced, other cause`. If the fair value contradicts it, by pointing the
other way or by a factor of two and more where the claim is a comparison or a limit, it is `refuted`; else it is `not
reproduced`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import Error, audit, causes, scaling
from .evidence import Evidence, onnx_first, slopes, spread
from .scaling import Estimate

FILE = Path(__file__).parent.parent / "data" / "claims.csv"

REPRODUCED = "reproduced"
OTHER_CAUSE = "reproduced, other cause"
NOT_REPRODUCED = "not reproduced"
REFUTED = "refuted"
NOT_TESTABLE = "not testable here"
VERDICTS = (REPRODUCED, OTHER_CAUSE, NOT_REPRODUCED, REFUTED, NOT_TESTABLE)

AGREES = 1.25  # a factor: another system and other versions move memory by as much
TIME_AGREES = 2.0  # single runs of the report's authors, in two reports, differ by 1.9
CONTRADICTS = 2.0  # a factor, from which a comparison is another one
OPEN = ("x", "GB", "%")  # units of comparisons and of what to plan for: what can be contradicted


@dataclass(frozen=True)
class Claim:
    """One claim, and what was found."""

    id: str
    section: str
    quantity: str
    subject: str
    resolution: str
    unit: str
    reported: str  # with its unit
    value: float | None  # None where the report says it in words
    fair: Estimate | None
    replayed: Estimate | None  # by the report's own protocol
    allocator: str  # under which it was replayed; empty: the system's
    verdict: str
    cause: str


def judge(study, table=None):
    """Every claim of the report, judged by a study with its audit: a list of `Claim`, in the report's order."""
    found = audit.read(study.folder)
    if found is None:
        raise Error(f"{study.folder} has no audit: run udnet.audit.run on it")
    evidence = Evidence(study, found)
    claims = pd.read_csv(FILE, keep_default_na=False) if table is None else table
    return [_judge_one(row, evidence) for row in claims.itertuples()]


def _judge_one(row, evidence):
    measure = MEASURES[row.id]
    try:
        fair = measure.fair(evidence)
        replays = {name: measure.replay(evidence.under(name)) for name in evidence.allocators} if measure.replay else {}
        cause = measure.cause(evidence)
    except scaling.NotEnoughData as reason:
        fair, replays, cause = None, {}, f"not measured in this study: {reason}"
    value = _number(row.value)
    about_time = "time" in row.quantity
    if isinstance(fair, bool):  # a statement holds or not
        verdict, fair = (REPRODUCED if fair else REFUTED), None
    else:
        verdict = decide(value, row.unit, about_time, fair, list(replays.values()))
    closest = min(replays, key=lambda name: _distance(value, replays[name]), default="")
    agreeing = replays and verdict == OTHER_CAUSE
    shown = closest if agreeing else ""
    return Claim(
        **{name: getattr(row, name) for name in ("id", "section", "quantity", "subject", "resolution", "unit")},
        reported=row.value if row.unit in ("verdict", "rule") else f"{row.value} {row.unit}",
        value=value,
        fair=fair,
        replayed=replays.get(shown),
        allocator=shown,
        verdict=verdict,
        cause=cause,
    )


def as_dict(claim):
    """A claim as plain data: estimates are objects with best, low and high; None where there is none."""

    def plain(estimate):
        return estimate and {name: None if np.isnan(edge) else edge for name, edge in estimate._asdict().items()}

    return asdict(claim) | {"fair": plain(claim.fair), "replayed": plain(claim.replayed)}


def as_text(claim):
    """A claim for a terminal, in two lines."""
    measured = f"here {claim.fair:.3g}" if claim.fair else "here in words"
    about = f"{claim.quantity}, {claim.subject} {claim.resolution}".rstrip()
    return f"{claim.id} {claim.verdict}: {about}: report {claim.reported}, {measured}\n    {claim.cause}"


def decide(value, unit, about_time, fair, replays):
    """The verdict on a number: what the report says, its unit, the fair value and those of the report's protocol."""
    if fair is None or (about_time and unit == "s"):
        return NOT_TESTABLE
    factor = TIME_AGREES if about_time else AGREES
    if agrees(value, fair, factor):
        return REPRODUCED
    if any(agrees(value, replay, factor) for replay in replays):
        return OTHER_CAUSE
    if unit in OPEN and contradicts(value, fair):
        return REFUTED
    return NOT_REPRODUCED


def agrees(value, estimate, factor):
    """Whether a value lies within an estimate's interval, or by no more than a factor beside it."""
    low, high = _edges(estimate)
    return low / factor <= value <= high * factor


def contradicts(value, fair):
    """Whether a fair value points the other way from 1, or is off by the factor from which it is another statement."""
    low, high = _edges(fair)
    if (value > 1 and high < 1) or (value < 1 and low > 1):
        return True
    return value >= high * CONTRADICTS or value <= low / CONTRADICTS


def _edges(estimate):
    return (estimate.best, estimate.best) if np.isnan(estimate.low) else (estimate.low, estimate.high)


def _distance(value, estimate):
    return abs(np.log(max(estimate.best, 1e-9) / value)) if value else 0.0


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Measure:
    """How one claim is measured: fairly, as the report did it, and the sentence that names the cause."""

    fair: callable
    replay: callable
    cause: callable


# --- the claims ---

_t, _q = scaling.typical, scaling.quotient


def _plain(sample):
    return lambda e: _t(sample(e))


def _gib(sample):
    return lambda e: _t(sample(e) / 1024)


def _over(top, bottom):
    return lambda e: _q(np.atleast_1d(top(e)), np.atleast_1d(bottom(e)))


def _file(form):
    return lambda e: e.file(form)


def _size(form):
    return lambda e: e.file(form).best


def _peak_of(variant, side):
    return lambda e: e.sample("process_peak_bytes", variant, side)


def _highest(script, side):
    return lambda e: e.highest(script, side)


def _worst(e):
    return e.sample("process_peak_bytes", "onnx").max(keepdims=True)


def _loaded(script):
    return lambda e: e.loaded(script)


def _added(variant):
    return lambda e: e.added(variant)


def _after_load(script):
    return lambda e: e.reading(script, "load")


_LOAD_RATIO = Measure(
    _over(_added("pytorch"), _added("onnx")), _over(_loaded("pytorch"), _loaded("onnx")), causes.like_for_like
)
_TOTAL_RATIO = Measure(
    _over(lambda e: e.sample("load_bytes", "pytorch"), lambda e: e.sample("load_bytes", "onnx")),
    _over(_after_load("pytorch"), _after_load("onnx")),
    causes.total,
)
_SCALES = Measure(lambda e: bool(slopes(e).high < 1), None, causes.growth)


def _load_over_file(variant, form, script, released):
    return Measure(
        _over(_added(variant), _size(form)),
        _over(_loaded(script), _size(released)),
        causes.like_for_like,
    )


def _efficiency(e):
    return (e.added("pytorch").mean() / e.file("inference").best) / (np.median(e.added("onnx")) / e.file("onnx").best)


MEASURES = {
    "C01": Measure(_file("full"), _file("full"), causes.files),
    "C02": Measure(_file("onnx"), _file("onnx"), causes.files),
    "C03": Measure(_over(_size("inference"), _size("onnx")), _over(_size("full"), _size("onnx")), causes.files),
    "C04": Measure(
        _plain(lambda e: e.sample("import_bytes", "pytorch")),
        _plain(lambda e: e.reading("pytorch", "start")),
        causes.imports,
    ),
    "C05": Measure(
        _plain(lambda e: e.sample("import_bytes", "onnx")), _plain(lambda e: e.reading("onnx", "start")), causes.imports
    ),
    "C06": Measure(_plain(_added("pytorch")), _plain(_loaded("pytorch")), causes.kept),
    "C07": Measure(_plain(_added("onnx")), _plain(_loaded("onnx")), causes.session),
    "C08": _LOAD_RATIO,
    "C09": _load_over_file("pytorch", "inference", "pytorch", "full"),
    "C10": _load_over_file("onnx", "onnx", "onnx", "onnx"),
    "C11": Measure(
        lambda e: Estimate(float(_efficiency(e)), np.nan, np.nan),
        lambda e: _q(e.loaded("pytorch") / e.file("full").best, e.loaded("onnx") / e.file("onnx").best),
        causes.like_for_like,
    ),
    "C12": Measure(_plain(lambda e: e.sample("load_bytes", "pytorch")), _plain(_after_load("pytorch")), causes.kept),
    "C13": Measure(_plain(lambda e: e.sample("load_bytes", "onnx")), _plain(_after_load("onnx")), causes.session),
    "C14": _TOTAL_RATIO,
    "C15": Measure(
        _plain(lambda e: e.sample("load_seconds", "pytorch")),
        _plain(lambda e: e.reading("pytorch", "load", column="seconds")),
        causes.load_time,
    ),
    "C16": Measure(
        _plain(lambda e: e.sample("load_seconds", "onnx")),
        _plain(lambda e: e.reading("onnx", "load", column="seconds")),
        causes.load_time,
    ),
    "C17": Measure(
        _over(lambda e: e.sample("load_seconds", "pytorch"), lambda e: e.sample("load_seconds", "onnx")),
        _over(
            lambda e: e.reading("pytorch", "load", column="seconds"),
            lambda e: e.reading("onnx", "load", column="seconds"),
        ),
        causes.load_time,
    ),
    "C18": Measure(
        _plain(lambda e: e.grown("pytorch", 256)),
        _plain(lambda e: e.reading("pytorch", "inference", 256) - e.reading("pytorch", "load")),
        causes.reading("pytorch", 256),
    ),
    "C19": Measure(
        _plain(lambda e: e.grown("onnx", 256)),
        _plain(lambda e: e.reading("onnx", "inference", 256) - e.reading("onnx", "load")),
        causes.reading("onnx", 256),
    ),
    "C20": Measure(
        _plain(lambda e: e.grown("onnx", 512)),
        _plain(lambda e: e.reading("onnx", "inference", 512) - e.reading("onnx", "inference", 256)),
        causes.reading("onnx", 512),
    ),
    "C21": Measure(_plain(_peak_of("pytorch", 256)), _plain(_highest("pytorch", 256)), causes.peak),
    "C22": Measure(_plain(_peak_of("onnx", 256)), _plain(_highest("onnx", 256)), causes.later_runs(256)),
    "C23": Measure(_plain(_peak_of("onnx", 512)), _plain(_highest("onnx", 512)), causes.later_runs(512)),
    "C24": Measure(
        _over(_peak_of("pytorch", 256), _peak_of("onnx", 256)),
        _over(_highest("pytorch", 256), _highest("onnx", 256)),
        causes.peak,
    ),
    "C25": Measure(
        _plain(lambda e: e.sample("seconds", "pytorch", 256)),
        _plain(lambda e: e.reading("pytorch", "inference", 256, "seconds")),
        causes.time,
    ),
    "C26": Measure(
        _plain(lambda e: e.sample("seconds", "onnx", 256)),
        _plain(lambda e: e.reading("onnx", "inference", 256, "seconds")),
        causes.time,
    ),
    "C27": Measure(
        _over(lambda e: e.sample("seconds", "pytorch", 256), lambda e: e.sample("seconds", "onnx", 256)),
        _over(
            lambda e: e.reading("pytorch", "inference", 256, "seconds"),
            lambda e: e.reading("onnx", "inference", 256, "seconds"),
        ),
        causes.time,
    ),
    "C28": Measure(_plain(_peak_of("pytorch", 512)), _plain(_highest("pytorch-512", 512)), causes.extrapolated),
    "C29": Measure(
        _over(_peak_of("onnx", 512), _peak_of("onnx", 256)),
        _over(_highest("onnx", 512), _highest("onnx", 256)),
        causes.growth,
    ),
    "C30": Measure(
        _over(_peak_of("pytorch", 512), _peak_of("pytorch", 256)),
        _over(_highest("pytorch-512", 512), _highest("pytorch", 256)),
        causes.extrapolated,
    ),
    "C31": _SCALES,
    "C32": Measure(_gib(_peak_of("pytorch", 256)), _gib(_highest("pytorch", 256)), causes.peak),
    "C33": Measure(_gib(_worst), _gib(_highest("onnx", 512)), causes.maximum),
    "C34": Measure(
        _over(_peak_of("pytorch", 512), _peak_of("onnx", 512)),
        _over(_highest("pytorch", 256), _highest("onnx", 512)),
        causes.growth,
    ),
    "C35": Measure(_gib(_worst), None, causes.maximum),
    "C36": Measure(lambda e: bool(spread(e).max() <= 50), None, causes.buffer),
    "C37": Measure(onnx_first, None, causes.rule),
    "C38": _TOTAL_RATIO,
    "C39": _SCALES,
}
