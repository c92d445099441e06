"""What the audit of the original report says, in sentences and tables whose every number is computed."""

from html import escape

import numpy as np
import pandas as pd

from . import allocators, audit, claims, ladder, scaling
from .evidence import reported, shown
from .findings import DATA
from .memory import MIB, mib

SHRUNK = {"conv2": 4, "pr_UpConv2": 4, "conv3": 16, "pr_UpConv3": 16, "conv4": 64, "pr_conv": 64}  # in pixels, by block
NOT_AUDITED = "The report was not audited in this study."


def steps(study):
    """The ladder's largest step, its foot, and how much of the report's reading it explains."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    added = _added(found)
    before = {rung.variant: rung.before for rung in ladder.RUNGS}
    saved = {one: added[before[one]] - added[one] for one in added.index if before[one] in added.index}
    largest = sorted(saved, key=saved.get)[-2:][::-1]
    change = {rung.variant: rung.change for rung in ladder.RUNGS}
    said = reported("C06")
    top = added["pytorch-published"]
    torch = [rung.variant for rung in ladder.RUNGS if rung.variant in added.index and "onnx" not in rung.variant]
    onnx = [rung.variant for rung in ladder.RUNGS if rung.variant in added.index and "onnx" in rung.variant]
    return (
        f"As released, loading adds {mib(top)} at its top; the report read {said:,.1f}, which is "
        f"{abs(top / MIB / said - 1):.1%} off. The two steps that save most: "
        + ", ".join(f"{change[one]} ({mib(saved[one])})" for one in largest)
        + f". At the least PyTorch adds {added[torch].min() / MIB:.1f} MiB ({added[torch].idxmin()}), ONNX Runtime "
        f"{added[onnx].min() / MIB:.1f} ({added[onnx].idxmin()}), where the report read {reported('C07'):,.1f}: what "
        f"is between them is not explained here."
    )


def ladder_table(study):
    """Every rung: what it changes, what loading adds at its top, and what that saves on the rung before, in MiB."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    added, rows = _added(found) / MIB, []
    for rung in ladder.RUNGS:
        if rung.variant in added.index:
            saved = added[rung.before] - added[rung.variant] if rung.before in added.index else np.nan
            rows.append((rung.change, rung.variant, rung.before, added[rung.variant], saved))
    table = pd.DataFrame(rows, columns=["change", "variant", "against", "added, MiB", "saved, MiB"])
    return table.round(1).astype({"saved, MiB": object}).fillna("")


def _added(found):
    costs = found.ladder
    return (costs.load_peak_bytes - costs.import_bytes).groupby(costs.variant).median()


def checked(study):
    """Why the variant `pytorch` adds more than the rung that reads the same file."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    columns = ["added", "load_file_bytes"]
    frames = [
        frame.assign(added=frame.load_peak_bytes - frame.import_bytes) for frame in (scaling.costs(study), found.ladder)
    ]
    ours, rung = (
        frame[frame.variant == name][columns].median() / MIB
        for frame, name in zip(frames, ("pytorch", "load.stripped"), strict=True)
    )
    more = ours - rung
    return (
        f"The variant `pytorch` adds {ours.added:.1f} MiB and the rung that reads the same file {rung.added:.1f}: the "
        f"variant also checks each tensor's name and shape, and that all its values are finite. "
        f"{more.load_file_bytes:.1f} of the {more.added:.1f} MiB more are mapped from files: code of torch that the "
        f"check of the values is the first to run."
    )


def kept(study):
    """What stays after loading as released, by allocator."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    rows = found.allocators[found.allocators.base == "pytorch-published"]
    kept = rows.groupby("allocator").load_bytes.median().sort_values()
    said = ", ".join(f"{mib(value)} under {allocators.words(name)}" for name, value in kept.items())
    absent = "".join(f" Not run: {name} ({why})." for name, why in found.skipped.items())
    return (
        f"After the very same loading there stay {said}. The system's is {study.machine['allocator']}. The report read "
        f"{reported('C12'):,.1f} MB, on Windows, whose allocator we cannot run here: a reading after loading says what "
        f"an allocator keeps.{absent}"
    )


def multiply_adds():
    """Multiply-adds a pixel of the inference path, from the shapes of its 3x3 and 1x1 convolutions on whole maps."""
    tensors = pd.read_csv(DATA / "state_dict.csv")
    weights = tensors[tensors.role.eq("prior") & tensors.key.str.endswith(".weight")]
    kernels = weights[weights["shape"].str.endswith("x3x3") | weights.key.str.endswith("out_conv.2.weight")]
    shares = [1 / next((n for block, n in SHRUNK.items() if f".{block}." in key), 1) for key in kernels.key]
    return float((kernels.parameters * shares).sum())


def limit(study, side=1024):
    """How close each runtime comes to the machine's own limit of multiply-adds."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    said, most, costs = [], 0.0, scaling.costs(study)
    for threads, rows in found.limit.groupby("threads"):
        here = costs[(costs.threads == threads) & costs.variant.isin(["pytorch", "onnx", "onnx-lean"])]
        here = here[here.side == here.side[here.side <= side].max()]
        seconds = here.groupby("variant").seconds.median()
        least = multiply_adds() * here.pixels.iloc[0] / rows.per_second.median()
        words = ", ".join(f"{name} takes {value:.2f} s ({least / value:.0%})" for name, value in seconds.items())
        most = max(most, (least / seconds).max())
        counted = f"{threads} thread{'s' if threads > 1 else ''}"
        said.append(f"with {counted} at {here['size'].iloc[0]} at least {least:.2f} s, where {words}")
    return (
        f"The network takes {multiply_adds() / 1000:.0f} thousand multiply-adds a pixel. At the rate of a large matrix "
        f"product, which is this machine's limit, that is, {'; '.join(said)}. In brackets: the share of that rate "
        f"which is reached." + (" More than all of it: other work slowed the machine meanwhile." if most > 1 else "")
    )


# --- notebook 7 ---


def rule():
    """The rule of the verdicts, with its tolerances, as a list in Markdown."""
    return f"""
- *reproduced*: the fair value agrees, within a factor of {claims.AGREES:g} ({claims.TIME_AGREES:g} for ratios of time)
- *reproduced, other cause*: only the report's own protocol gives the number, under one allocator or another
- *refuted*: a ratio points the other way, a comparison or a limit is off by a factor of {claims.CONTRADICTS:g} and
  more, or a claim in words does not hold
- *not reproduced*: the fair value is another number without contradicting it, and no protocol gives the report's
- *not testable here*: seconds, which belong to the report's machine, or what this study has not measured
"""


def claims_table(study):
    """All of the report's claims: what it says, what is measured, the verdict and the cause."""
    if audit.read(study.folder) is None:
        return NOT_AUDITED
    judged = claims.judge(study)
    rows = [
        {
            "claim": _about(one),
            "report": one.reported,
            "measured fairly": one.measured,
            "by its protocol": _replayed(one),
            "verdict": one.verdict,
            "cause": escape(one.cause, quote=False),
        }
        for one in judged
    ]
    left = [{"selector": "td, th", "props": "text-align: left; vertical-align: top"}]
    return pd.DataFrame(rows, index=[one.id for one in judged]).style.set_table_styles(left)


def _about(claim):
    """What a claim is about, with its note in small print: HTML."""
    note = f"<br><small>{escape(claim.note, quote=False)}</small>" if claim.note else ""
    return f"{claim.quantity}, {claim.subject} {claim.resolution}".strip() + note


def _replayed(claim):
    """The value by the report's protocol, and under which allocator in small print; a file has none: HTML."""
    if claim.replayed is None:
        return ""
    under = "" if claim.section == "file size" else f"under {allocators.words(claim.allocator)}"
    return shown(claim.replayed, claim.unit) + (under and f"<br><small>{under}</small>")


def verdicts(study):
    """How many of the claims stand, and how many verdicts want for more than the study has."""
    if audit.read(study.folder) is None:
        return NOT_AUDITED
    judged = claims.judge(study)
    found, lacking = [one.verdict for one in judged], sum(one.left_out for one in judged)
    said = "; ".join(f"{found.count(verdict)} {verdict}" for verdict in claims.VERDICTS)
    left = (
        f" {len(found)} claims judged; {lacking} need sizes or allocators that this study left out." if lacking else ""
    )
    return f"**The report's {len(found)} claims, measured again:** {said}.{left}"


def drawn(study):
    """Which claims the figure of them shows."""
    if audit.read(study.folder) is None:
        return NOT_AUDITED
    judged = claims.judge(study)
    missing = sum(not one.measured for one in judged)
    words = sum(bool(one.measured) and one.fair is None for one in judged)
    absent = f"; {missing} were not measured in this study" if missing else ""
    return (
        f"{len(judged) - words - missing} of the {len(judged)} claims are drawn; the {words} claims in words are in "
        f"the table{absent}."
    )
