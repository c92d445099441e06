"""What the audit of the original report says, in sentences and tables whose every number is computed."""

import numpy as np
import pandas as pd

from . import audit, claims, ladder, scaling
from .evidence import reported
from .findings import DATA
from .memory import MIB
from .plots import mib

SHRUNK = {"conv2": 4, "pr_UpConv2": 4, "conv3": 16, "pr_UpConv3": 16, "conv4": 64, "pr_conv": 64}  # in pixels, by block
BUDGETS = tuple(size * MIB for size in (256, 512, 1024, 2048, 4096, 8192))
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
        f"{added[onnx].min() / MIB:.1f} ({added[onnx].idxmin()})."
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


def kept(study):
    """What stays after loading as released, by allocator."""
    found = audit.read(study.folder)
    if found is None:
        return NOT_AUDITED
    rows = found.allocators[found.allocators.base == "pytorch-published"]
    kept = rows.groupby("allocator").load_bytes.median().sort_values()
    said = ", ".join(f"{mib(value)} with {name or 'glibc as it comes'}" for name, value in kept.items())
    absent = "".join(f" Not run: {name} ({why})." for name, why in found.skipped.items())
    return (
        f"After the very same loading there stay {said}. The report read {reported('C12'):,.1f} MB, on Windows, whose "
        f"allocator we cannot run here: a reading after loading says what an allocator keeps.{absent}"
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
    said, costs = [], scaling.costs(study)
    for threads, rows in found.limit.groupby("threads"):
        here = costs[(costs.threads == threads) & costs.variant.isin(["pytorch", "onnx", "onnx-lean"])]
        here = here[here.side == here.side[here.side <= side].max()]
        seconds = here.groupby("variant").seconds.median()
        least = multiply_adds() * here.pixels.iloc[0] / rows.per_second.median()
        words = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
        size = f"{here.height.iloc[0]}x{here.width.iloc[0]}"
        said.append(f"with {threads} thread{'s' if threads > 1 else ''} at {size} at least {least:.2f} s: {words}")
    return (
        f"The network takes {multiply_adds() / 1000:.0f} thousand multiply-adds a pixel. At the rate of a large matrix "
        f"product that is, {'; '.join(said)}."
    )


def claims_table(study):
    """All of the report's claims: what it says, what is measured, the verdict and the cause."""
    if audit.read(study.folder) is None:
        return NOT_AUDITED
    judged = claims.judge(study)
    rows = [
        {
            "claim": f"{one.quantity}, {one.subject} {one.resolution}".strip(),
            "report": one.reported,
            "measured fairly": claims.shown(one.fair),
            "by its protocol": f"{claims.shown(one.replayed)} {one.allocator and f'with {one.allocator}'}".strip(),
            "verdict": one.verdict,
            "cause": one.cause,
        }
        for one in judged
    ]
    left = [{"selector": "td, th", "props": "text-align: left; vertical-align: top"}]
    return pd.DataFrame(rows, index=[one.id for one in judged]).style.set_table_styles(left)


def verdicts(study):
    """How many of the claims stand."""
    if audit.read(study.folder) is None:
        return NOT_AUDITED
    found = [one.verdict for one in claims.judge(study)]
    said = "; ".join(f"{found.count(verdict)} {verdict}" for verdict in claims.VERDICTS)
    return f"**The report's {len(found)} claims, measured again:** {said}."


def what_fits(study):
    """The largest picture measured within a budget of memory, by variant, and which variant does it fastest."""
    costs = scaling.select(study)
    costs = costs.assign(size=costs.height.astype(str) + "x" + costs.width.astype(str))
    cases = (
        costs.groupby(["variant", "pixels", "size"])
        .agg(peak=("process_peak_bytes", "max"), seconds=("seconds", "median"))
        .reset_index()
    )
    rows = []
    for budget in BUDGETS:
        fits = cases[cases.peak <= budget]
        if fits.empty:
            continue
        largest = fits[fits.pixels == fits.pixels.max()]
        best = largest.loc[largest.seconds.idxmin()]
        reached = {name: part.loc[part.pixels.idxmax(), "size"] for name, part in fits.groupby("variant")}
        rows.append(
            {"budget": mib(budget), **{name: reached.get(name, "none") for name in ("pytorch", "onnx", "onnx-lean")},
             "take": best.variant, "seconds": round(best.seconds, 2)}
        )  # fmt: skip
    return pd.DataFrame(rows)
