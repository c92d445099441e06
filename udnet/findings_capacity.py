"""What fits where, in tables and sentences whose every number is computed."""

import pandas as pd

from . import capacity, levers, plans, scaling, variants
from .findings import LARGE, NAMES, NOT_MEASURED, runs_each
from .findings_audit import multiply_adds
from .findings_less import FRAME
from .memory import MIB, mib, parse_bytes
from .plots import order

SHOWN = ((512, 512), (1080, 1920), FRAME, (4320, 7680))  # sizes that tables are for
BUDGETS = tuple(size * MIB for size in (128, 256, 512, 1024, 2048, 4096, 8192))
WITHIN = 0.10  # what a prediction may be off
NEAR = 0.10  # by which a time counts as the same as another
GOALS = {  # MiB of the whole process, by variant and size: what the tiled schedule was built to keep within
    ("onnx-tiled", (512, 512)): 150,
    ("onnx-tiled", (1080, 1920)): 200,
    ("onnx-tiled", FRAME): 350,
}


def frame(study):
    """What a 4K frame takes, strip by strip and whole."""
    costs, size = _costs(study), _text(FRAME)
    here = costs[costs["size"] == size]
    peak, seconds = (here.groupby("variant")[name].median() for name in ("process_peak_bytes", "first_seconds"))
    if "onnx-tiled" not in peak:
        return f"No frame of {size} was measured in this study."
    limits = [name for name in peak.index if name.startswith("onnx-tiled@")]
    limits.sort(key=lambda name: parse_bytes(name.partition("@")[2]))
    whole = [name for name in peak.index if "tiled" not in name]
    said = (
        f"**{size} in {mib(peak['onnx-tiled'])}.** That is the whole process, by the tiled schedule{_parity(study)}. "
    )
    said += f"It takes {seconds['onnx-tiled']:.0f} s"
    said += "".join(
        f", with a limit of {mib(parse_bytes(name.partition('@')[2]))} {seconds[name]:.0f} s" for name in limits
    )
    if whole:
        said += ". Whole, it takes " + ", ".join(
            f"{mib(peak[name])} and {seconds[name]:.0f} s with `{name}`" for name in order(whole)
        )
    return f"{said}, by {runs_each(here.groupby('variant').size())}."


def _parity(study):
    """How near the tiled schedule's output is to the whole image's, at the largest size where that was measured."""
    rows = capacity.parity(study)
    rows = rows[rows.variant.str.contains("tiled")]
    if rows.empty:
        return ""
    size = rows[["height", "width"]].apply(tuple, axis=1)
    rows = rows[size == size.max()]
    return f", whose output is within {rows.largest_difference.max():.0e} of the whole image's at {_text(size.max())}"


def deploy(study):
    """What to deploy, beside the leanest and the fastest that take the whole image at once."""
    costs = _costs(study)
    here = costs[costs["size"] == _text((LARGE, LARGE))]
    cost = here.groupby("variant")[["process_peak_bytes", "first_seconds", "seconds"]].median()
    whole = cost[~cost.index.str.contains("tiled")]
    if not {"onnx-tiled", "onnx-tiled@512MiB"} <= set(cost.index) or whole.empty:
        return NOT_MEASURED

    def said(name):
        row = cost.loc[name]
        return f"{mib(row.process_peak_bytes)} ({row.first_seconds:.1f} s, later {row.seconds:.1f} s)"

    lean, fast = whole.process_peak_bytes.idxmin(), whole.seconds.idxmin()
    return (
        f"**Deploy the tiled schedule with a limit:** `udnet.load(memory_limit=512 * 2**20)`. At {LARGE}x{LARGE} its "
        f"process takes {said('onnx-tiled@512MiB')}, and {said('onnx-tiled')} with the leanest plan; its peak hardly "
        f"grows with the picture. Of the whole image the leanest variant, `{lean}`, takes {said(lean)}, the fastest, "
        f"`{fast}`, {said(fast)}, and both grow with every pixel. In brackets the seconds of the first picture and of "
        f"a later one of the same size."
    )


def tiled(study):
    """Peak and time of the tiled schedule by size, its plan, and the default session beside it."""
    costs = _costs(study)
    names = [name for name in order(costs.variant.unique()) if "tiled" in name]
    rows = []
    for size, here in costs.sort_values("pixels").groupby("size", sort=False):
        default = here[here.variant == "onnx"]
        for name in names:
            own = here[here.variant == name]
            if own.empty:
                continue
            height, width = own.height.iloc[0], own.width.iloc[0]
            times = scaling.quotient(own.first_seconds, default.first_seconds) if len(default) else ""
            goal = GOALS.get((name, (height, width)))
            rows.append(
                {
                    "size": size,
                    "variant": name,
                    "runs": len(own),
                    "peak, MiB": f"{scaling.typical(own.process_peak_bytes / MIB):,.0f}",
                    "goal, MiB": f"{goal:,.0f}" if goal else "",
                    "first picture, s": f"{own.first_seconds.median():.1f}",
                    "times the default session's first": f"{times:.2f}" if times else "",
                    "of its peak": f"{own.process_peak_bytes.median() / default.process_peak_bytes.median():.0%}"
                    if len(default)
                    else "",
                }
            )
    return pd.DataFrame(rows).set_index(["size", "variant"]) if rows else NOT_MEASURED


def price(study):
    """What the least memory costs in time, and how much of that a budget buys back."""
    costs = _costs(study)
    here = costs[costs["size"] == _text((LARGE, LARGE))]
    names = ("onnx", "onnx-tiled", "onnx-tiled@512MiB", "pytorch-tiled", "pytorch-tiled@512MiB")
    seconds, peak = (
        {name: here[here.variant == name][value] for name in names} for value in ("seconds", "process_peak_bytes")
    )
    if any(seconds[name].empty for name in names):
        return NOT_MEASURED
    times = {name: scaling.quotient(seconds[name], seconds["onnx"]) for name in names}
    whole = plans.leanest(LARGE, LARGE, scaling.THREADS)
    more = whole.multiply_adds / (multiply_adds() * LARGE**2)
    return (
        f"**The price.** A later picture of {LARGE}x{LARGE} takes, with the leanest plan, {times['onnx-tiled']:.2f} "
        f"times as long as in ONNX Runtime's default session, for {more:.1f} times the multiply-adds, in "
        f"{peak['onnx-tiled'].median() / peak['onnx'].median():.1%} of its memory; with a limit of 512 MiB "
        f"{times['onnx-tiled@512MiB']:.2f} times as long. In PyTorch the schedule takes, beside that same session, "
        f"{times['pytorch-tiled']:.2f} and {times['pytorch-tiled@512MiB']:.2f} times as long."
    )


def flat(study):
    """How the tiled schedule's peak grows with the picture, beside what its plans hold."""
    costs = _costs(study)
    costs = costs[(costs.variant == "onnx-tiled") & (costs.height >= 512)]
    if costs["size"].nunique() < 2:
        return NOT_MEASURED
    peaks = costs.groupby(["pixels", "height", "width"]).process_peak_bytes.median()
    (_, *first), (_, *last) = peaks.index[0], peaks.index[-1]
    small, large = (plans.leanest(*size, scaling.THREADS) for size in (first, last))
    grown, planned = peaks.iloc[-1] - peaks.iloc[0], large.bytes - small.bytes
    pictures = 6 * (last[0] * last[1] - first[0] * first[1])
    times = last[0] * last[1] / (first[0] * first[1])
    return (
        f"**It hardly grows.** From {_text(first)} to {_text(last)}, {times:.0f} times the pixels, the peak grows from "
        f"{mib(peaks.iloc[0])} to {mib(peaks.iloc[-1])}, by {mib(grown)}: {mib(pictures)} are the two pictures "
        f"themselves in bytes, and the plans say {mib(planned)} in all."
    )


def largest(study):
    """The largest square picture within each budget of memory, whole process, by variant."""
    known, rows = capacity.models(study), {}
    for budget in BUDGETS:
        table = capacity.among(known, budget)
        rows[mib(budget)] = {row.variant: f"{row.height}x{row.width}" for row in table.itertuples()}
    table = pd.DataFrame(rows, dtype=object)
    table = table.reindex(index=order(table.index)).fillna("none")
    table.index.name = "variant"
    return table


def fastest(study):
    """The fastest variants for a size within each budget of memory, with the seconds of the first picture.

    All that are within `NEAR` of the fastest; the seconds are measured where that was, else predicted, marked by a ~.
    """
    costs = _costs(study)
    measured = costs.groupby(["variant", "size"]).first_seconds.median()
    known, rows = capacity.models(study), {}
    for size in SHOWN:
        row = rows[_text(size)] = {}
        for budget in BUDGETS:
            table = capacity.among(known, budget, size)
            took = []
            for one in table.itertuples():
                own = f"{one.variant}@{_unit(budget)}" if known[one.variant].tiled else one.variant
                seen = measured.get((own, _text(size)))
                took.append((seen or one.seconds, one.variant, "" if seen else "~"))
            took.sort()
            near = [name for seconds, name, _ in took if seconds <= took[0][0] * (1 + NEAR)]
            row[mib(budget)] = f"{' or '.join(near)}, {took[0][2]}{took[0][0]:.1f} s" if took else "nothing"
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "size"
    return table


def least(study):
    """The least limit for each size, by variant, in MiB, and in brackets the peak that was measured, where it was."""
    by = ["variant", "size"]
    measured = _costs(study).groupby(by).process_peak_bytes.median()
    if found := levers.read(study.folder):
        measured = measured.combine_first(found.costs.groupby(by).process_peak_bytes.median())
    measured /= MIB
    known, rows = capacity.models(study), {}
    for size in SHOWN:
        for row in capacity.among(known, size=size).itertuples():
            seen = measured.get((row.variant, _text(size)))
            said = f"{row.limit_bytes / MIB:,.0f}" + (f" ({seen:,.0f})" if seen is not None else "")
            rows.setdefault(row.variant, {})[_text(size)] = said
    if not rows:
        return NOT_MEASURED
    table = pd.DataFrame.from_dict(rows, orient="index").loc[order(rows)]
    table.index.name = "variant"
    return table.reindex(columns=[_text(size) for size in SHOWN]).fillna("")


def predicted(study):
    """How far the models' predictions of sizes that were left out are from what was measured."""
    table = capacity.held_out(study)
    if table.empty:
        return NOT_MEASURED
    off, absent = table[table.error.abs() > WITHIN], sorted(set(capacity.models(study)) - set(table.variant))
    said = (
        f"**Predicted.** Of {len(table)} variants at a size, each left out of the fit that predicts it, "
        f"{len(table) - len(off)} are within {WITHIN:.0%} of what was measured; the median is off by "
        f"{table.error.abs().median():.1%}."
    )
    if absent:
        said += f" Too few sizes to leave one out: {', '.join(f'`{name}`' for name in order(absent))}."
    if off.empty:
        return said
    named = ", ".join(
        f"`{row.variant}` at {_text((row.height, row.width))} ({row.error:+.1%})" for row in off.itertuples()
    )
    return f"{said} Off by more: {named}. A limit leaves room for the most that any size was above its model."


def timed(study):
    """How far the seconds that are predicted of sizes and plans that were left out are from what was measured."""
    table = capacity.held_out(study)
    if table.empty:
        return NOT_MEASURED
    worst = table.loc[table.seconds_error.abs().idxmax()]
    plans_off = table[table.variant.str.contains("@")].seconds_error
    said = (
        f"**Timed.** Seconds are less sure than bytes. Left out, half of the sizes and plans are timed within "
        f"{table.seconds_error.abs().median():.0%}, nine in ten within {table.seconds_error.abs().quantile(0.9):.0%}; "
        f"the worst is `{worst.variant}` at {_text((worst.height, worst.width))} ({worst.seconds_error:+.0%})."
    )
    if len(plans_off):
        said += f" Plans for a limit are off by {plans_off.min():+.0%} to {plans_off.max():+.0%}."
    return said


def proved(study):
    """What happened under real limits."""
    try:
        table = capacity.read(study.folder)
    except scaling.NotEnoughData:
        return "Nothing was run under a limit in this study."
    skipped = table.status.str.startswith("skipped")
    if skipped.all():
        return f"Not proved here: {table.status.iloc[0].partition(': ')[2]}."
    right = table.status == table.expected
    sizes = table[["variant", "height", "width"]].drop_duplicates()
    said = (
        f"**Proved.** Of {len(sizes)} variants, each at a size that no fit has seen, the kernel held the process to "
        f"what the model predicts plus 10%, and to 25% less: {right.sum()} of {len(table)} runs ended as predicted, "
        f"the first kind well, the second killed."
    )
    if absent := [name for name in order(capacity.models(study)) if name not in set(table.variant)]:
        said += f" Not run under a limit: {', '.join(f'`{name}`' for name in absent)}."
    if right.all():
        return said
    wrong = table[~right]
    return (
        said
        + " Not so: "
        + ", ".join(
            f"`{row.variant}` at {row.height}x{row.width}, {row.case} ({row.status})" for row in wrong.itertuples()
        )
        + "."
    )


def proofs(study):
    """What was predicted, what the limit was, and how the process ended."""
    try:
        table = capacity.read(study.folder)
    except scaling.NotEnoughData:
        return NOT_MEASURED
    return pd.DataFrame(
        {
            "variant": table.variant,
            "picture": [_text(size) for size in zip(table.height, table.width, strict=True)],
            "predicted to be counted, MiB": (table.predicted_bytes / MIB).map("{:,.0f}".format),
            "limit": table["case"],
            "limit, MiB": (table.limit_bytes / MIB).map("{:,.0f}".format),
            "ended": table.status.replace("oom", "killed"),
            "as predicted": table.status == table.expected,
        }
    )


def models(study):
    """The models: fixed part, what grows, and how far the sizes are from it."""
    rows = {}
    for name, model in capacity.models(study).items():
        rows[name] = {
            "runtime": NAMES[variants.find(name).runtime],
            "fixed part, MiB": f"{model.fixed / MIB:,.0f}",
            "grows by": "its plan" if model.tiled else f"{model.slope:,.0f} bytes a pixel",
            "mapped from files, MiB": f"{model.files / MIB:,.0f}",
            "above it at most": f"{max(0.0, model.excess):.0%}",
        }
    table = pd.DataFrame.from_dict(rows, orient="index").loc[order(rows)]
    table.index.name = "variant"
    return table


def _costs(study):
    """The rows of a study and of its large pictures, on the threads that are compared."""
    costs = capacity.costs(study)
    return costs[costs.threads == scaling.THREADS]


def _unit(size):
    """A budget as variants name it: 512MiB, 2GiB."""
    return f"{size // MIB}MiB" if size < 1024 * MIB else f"{size // MIB // 1024}GiB"


def _text(size):
    return "x".join(map(str, size))
