"""The original report's 39 claims against the study: two values, a verdict by a rule, and the cause in a sentence.

A claim is measured twice: as the report did it (`protocol`: single readings between steps, whatever else ran along) and
fairly (fresh processes, the kernel's peak, the same input and baseline). Every number is computed; nothing here knows
what the outcome should be.

The rule, in this order. A value that belongs to the report's machine alone, such as a time in seconds, or that the
study has not measured, is `not testable here`. If the fair value agrees with the report's it is `reproduced`. A
comparison whose fair value points the other way, to the other side of 1, is `refuted`, whatever the report's protocol
gives. If only that protocol gives the report's value, under the system's allocator or another, it is `reproduced, other
cause`. If the fair value is off by a factor of two and more where the claim is a comparison or a limit, it is
`refuted`; else it is `not reproduced`: another number, not another statement. A claim in words holds or is `refuted`.
"""

from dataclasses import asdict, dataclass

import numpy as np

from udnet import NotMeasured
from udnet.analysis import causes, scaling
from udnet.analysis.evidence import Evidence, Statement, claims_table, covered, onnx_first, scales_better, shown, worst
from udnet.analysis.scaling import Estimate

REPRODUCED = "reproduced"
OTHER_CAUSE = "reproduced, other cause"
NOT_REPRODUCED = "not reproduced"
REFUTED = "refuted"
NOT_TESTABLE = "not testable here"
VERDICTS = (REPRODUCED, OTHER_CAUSE, NOT_REPRODUCED, REFUTED, NOT_TESTABLE)

AGREES = 1.25  # a factor: another system and other versions move memory by as much
TIME_AGREES = 2.0  # single runs of the report's authors, in two reports, differ by 1.9
CONTRADICTS = 2.0  # a factor, from which a comparison is another one
EQUAL = 1.02  # a factor: what is nearer to 1 points neither way
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
    note: str  # of the one who copied the claims out
    reported: str  # with its unit
    value: float | None  # None where the report says it in words
    fair: Estimate | None
    measured: str  # the fair value with its unit; of a claim in words, what decides it
    replayed: Estimate | None  # by the report's own protocol
    allocator: str  # under which it was replayed; empty: the system's
    verdict: str
    cause: str
    left_out: bool  # whether the verdict wants for sizes or allocators that the study has not


def judge(study, audit):
    """Every claim of the report, judged by a study and its audit: a list of `Claim`, in the report's order."""
    evidence = Evidence(study, audit)
    return [_judge_one(row, evidence) for row in claims_table().itertuples()]


def _judge_one(row, evidence):
    measure, value, about_time = MEASURES[row.id], _number(row.value), "time" in row.quantity
    try:
        fair = measure.fair(evidence)
        replays = {name: measure.replay(evidence.under(name)) for name in evidence.allocators} if measure.replay else {}
        cause, left_out = measure.cause(evidence), False
    except NotMeasured as reason:
        fair, replays, cause, left_out = None, {}, f"Not measured in this study: {reason}.", True
    if isinstance(fair, Statement):
        verdict, measured, fair = REPRODUCED if fair.holds else REFUTED, fair.measured, None
    else:
        verdict = decide(value, row.unit, about_time, fair, replays.values())
        measured = shown(fair, row.unit) if fair else ""
    if len(replays) == 1 and not about_time:
        # would an allocator under which the protocol gives the report's number make another verdict?
        left_out = verdict != decide(value, row.unit, about_time, fair, [Estimate(value, np.nan, np.nan)])
        cause += " Other allocators were not run." if left_out else ""
    factor = TIME_AGREES if about_time else AGREES
    allocator = next((name for name, replay in replays.items() if agrees(value, replay, factor)), "")
    about = ("id", "section", "quantity", "subject", "resolution", "unit", "note")
    return Claim(
        **{name: getattr(row, name) for name in about},
        reported=_reported(row.value, row.unit),
        value=value,
        fair=fair,
        measured=measured,
        replayed=replays.get(allocator),
        allocator=allocator,
        verdict=verdict,
        cause=cause,
        left_out=left_out,
    )


def _reported(value, unit):
    if unit in ("verdict", "rule"):
        return value
    gap = "" if unit in ("x", "%") else " "
    return f"{float(value):,.10g}{gap}{unit}"


def as_dict(claim):
    """A claim as plain data: estimates are objects with best, low and high; None where there is none."""

    def plain(estimate):
        return estimate and {name: None if np.isnan(edge) else edge for name, edge in estimate._asdict().items()}

    return asdict(claim) | {"fair": plain(claim.fair), "replayed": plain(claim.replayed)}


def as_text(claim):
    """A claim for a terminal, in two lines."""
    about = f"{claim.quantity}, {claim.subject} {claim.resolution}".rstrip()
    here = f"measured fairly {claim.measured}" if claim.measured else "not measured here"
    here += f", by its protocol {shown(claim.replayed, claim.unit)}" if claim.replayed else ""
    return f"{claim.id} {claim.verdict}: {about}: report {claim.reported}, {here}\n    {claim.cause}"


def decide(value, unit, about_time, fair, replays):
    """The verdict on a number: what the report says, its unit, the fair value and those of the report's protocol."""
    if fair is None or (about_time and unit == "s"):
        return NOT_TESTABLE
    factor = TIME_AGREES if about_time else AGREES
    if agrees(value, fair, factor):
        return REPRODUCED
    if unit == "x" and reverses(value, fair):
        return REFUTED
    if any(agrees(value, replay, factor) for replay in replays):
        return OTHER_CAUSE
    if unit in OPEN and contradicts(value, fair):
        return REFUTED
    return NOT_REPRODUCED


def agrees(value, estimate, factor):
    """Whether a value lies within an estimate's interval, or by no more than a factor beside it."""
    low, high = _edges(estimate)
    return low / factor <= value <= high * factor


def reverses(value, fair):
    """Whether a fair ratio, with its whole interval, is on the other side of 1 than the report's."""
    low, high = _edges(fair)
    return (value > 1 and high < 1 / EQUAL) or (value < 1 and low > EQUAL)


def contradicts(value, fair):
    """Whether a fair value is off by the factor from which it is another statement."""
    low, high = _edges(fair)
    return value >= high * CONTRADICTS or value <= low / CONTRADICTS


def _edges(estimate):
    return (estimate.best, estimate.best) if np.isnan(estimate.low) else (estimate.low, estimate.high)


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


def _sample(column, variant, side=None):
    return lambda e: e.sample(column, variant, side)


def _peak(variant, side):
    return _sample("process_peak_bytes", variant, side)


def _added(variant):
    return lambda e: e.added(variant)


def _grown(variant, side):
    return lambda e: e.grown(variant, side)


def _efficiency(e):
    torch = np.median(e.added("pytorch")) / e.file("inference").best
    return Estimate(float(torch / (np.median(e.added("onnx")) / e.file("onnx").best)), np.nan, np.nan)


def _read(script, step, side=None, column="rss_bytes"):
    return lambda e: e.reading(script, step, side, column)


def _read_seconds(script, step, side=None):
    return _read(script, step, side, "seconds")


def _highest(script, side):
    return lambda e: e.highest(script, side)


def _loaded(script):
    return lambda e: e.loaded(script)


def _rise(script, side):
    """What a reading after an inference is above the reading before it."""
    before = ("load", None) if side == 256 else ("inference", 256)
    return lambda e: e.reading(script, "inference", side) - e.reading(script, *before)


_TOTAL_RATIO = Measure(
    _over(_sample("load_bytes", "pytorch"), _sample("load_bytes", "onnx")),
    _over(_read("pytorch", "load"), _read("onnx", "load")),
    causes.total,
)
_SCALES = Measure(scales_better, None, causes.growth)

MEASURES = {
    "C01": Measure(_file("full"), _file("full"), causes.full_file),
    "C02": Measure(_file("onnx"), _file("onnx"), causes.onnx_file),
    "C03": Measure(_over(_size("inference"), _size("onnx")), _over(_size("full"), _size("onnx")), causes.file_ratio),
    "C04": Measure(
        _plain(_sample("import_bytes", "pytorch")), _plain(_read("pytorch", "start")), causes.imported("pytorch", "C04")
    ),
    "C05": Measure(
        _plain(_sample("import_bytes", "onnx")), _plain(_read("onnx", "start")), causes.imported("onnx", "C05")
    ),
    "C06": Measure(_plain(_added("pytorch")), _plain(_loaded("pytorch")), causes.added_as_released),
    "C07": Measure(_plain(_added("onnx")), _plain(_loaded("onnx")), causes.session),
    "C08": Measure(
        _over(_added("pytorch"), _added("onnx")), _over(_loaded("pytorch"), _loaded("onnx")), causes.load_ratio
    ),
    "C09": Measure(
        _over(_added("pytorch"), _size("inference")), _over(_loaded("pytorch"), _size("full")), causes.load_over_file
    ),
    "C10": Measure(
        _over(_added("onnx"), _size("onnx")), _over(_loaded("onnx"), _size("onnx")), causes.session_over_file
    ),
    "C11": Measure(
        _efficiency,
        lambda e: _q(e.loaded("pytorch") / e.file("full").best, e.loaded("onnx") / e.file("onnx").best),
        causes.efficiency,
    ),
    "C12": Measure(_plain(_sample("load_bytes", "pytorch")), _plain(_read("pytorch", "load")), causes.kept_as_released),
    "C13": Measure(_plain(_sample("load_bytes", "onnx")), _plain(_read("onnx", "load")), causes.session_total),
    "C14": _TOTAL_RATIO,
    "C15": Measure(
        _plain(_sample("load_seconds", "pytorch")), _plain(_read_seconds("pytorch", "load")), causes.torch_load_time
    ),
    "C16": Measure(
        _plain(_sample("load_seconds", "onnx")), _plain(_read_seconds("onnx", "load")), causes.onnx_load_time
    ),
    "C17": Measure(
        _over(_sample("load_seconds", "pytorch"), _sample("load_seconds", "onnx")),
        _over(_read_seconds("pytorch", "load"), _read_seconds("onnx", "load")),
        causes.load_time_ratio,
    ),
    "C18": Measure(_plain(_grown("pytorch", 256)), _plain(_rise("pytorch", 256)), causes.torch_reading),
    "C19": Measure(_plain(_grown("onnx", 256)), _plain(_rise("onnx", 256)), causes.onnx_reading(256, "C19")),
    "C20": Measure(_plain(_grown("onnx", 512)), _plain(_rise("onnx", 512)), causes.onnx_reading(512, "C20")),
    "C21": Measure(_plain(_peak("pytorch", 256)), _plain(_highest("pytorch", 256)), causes.torch_peak("C21")),
    "C22": Measure(_plain(_peak("onnx", 256)), _plain(_highest("onnx", 256)), causes.later_runs(256, "C22")),
    "C23": Measure(_plain(_peak("onnx", 512)), _plain(_highest("onnx", 512)), causes.later_runs(512, "C23")),
    "C24": Measure(
        _over(_peak("pytorch", 256), _peak("onnx", 256)),
        _over(_highest("pytorch", 256), _highest("onnx", 256)),
        causes.peak_ratio,
    ),
    "C25": Measure(
        _plain(_sample("seconds", "pytorch", 256)),
        _plain(_read_seconds("pytorch", "inference", 256)),
        causes.torch_time,
    ),
    "C26": Measure(
        _plain(_sample("seconds", "onnx", 256)), _plain(_read_seconds("onnx", "inference", 256)), causes.onnx_time
    ),
    "C27": Measure(
        _over(_sample("seconds", "pytorch", 256), _sample("seconds", "onnx", 256)),
        _over(_read_seconds("pytorch", "inference", 256), _read_seconds("onnx", "inference", 256)),
        causes.time_ratio,
    ),
    "C28": Measure(_gib(_peak("pytorch", 512)), _gib(_highest("pytorch-512", 512)), causes.extrapolated),
    "C29": Measure(
        _over(_peak("onnx", 512), _peak("onnx", 256)),
        _over(_highest("onnx", 512), _highest("onnx", 256)),
        causes.onnx_growth,
    ),
    "C30": Measure(
        _over(_peak("pytorch", 512), _peak("pytorch", 256)),
        _over(_highest("pytorch-512", 512), _highest("pytorch", 256)),
        causes.quadrupled,
    ),
    "C31": _SCALES,
    "C32": Measure(_gib(_peak("pytorch", 256)), _gib(_highest("pytorch", 256)), causes.torch_peak("C32")),
    "C33": Measure(_gib(worst), None, causes.no_maximum),
    "C34": Measure(
        _over(_peak("pytorch", 512), _peak("onnx", 512)),
        _over(_highest("pytorch", 256), _highest("onnx", 512)),
        causes.unequal_sizes,
    ),
    "C35": Measure(_gib(worst), None, causes.sufficient),
    "C36": Measure(covered, None, causes.buffer),
    "C37": Measure(onnx_first, None, causes.rule),
    "C38": _TOTAL_RATIO,
    "C39": _SCALES,
}
