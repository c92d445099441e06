"""What the levers of whole-image runs save, in tables and sentences whose every number is computed."""

import pandas as pd

from . import levers, scaling
from .findings import NAMES
from .memory import MIB, mib
from .scaling import Estimate

NOT_MEASURED = "The levers were not measured in this study."
LITTLE = 0.05  # of the peak that a lever is against: what saves less hardly helps


def alone(study):
    """Each lever alone, and where its runtime's others are there already: MiB saved and times the time, by size."""
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    saved = found.saved[found.saved.place != "together"]
    rows = {}
    for one in saved.itertuples():
        row = rows.setdefault((NAMES[one.runtime], one.change), {})
        row[one.size, f"saved {one.place}, MiB"] = f"{_in_mib(one.saved):,.0f}"
        row[one.size, f"time {one.place}, times"] = f"{one.times:.2f}"
    order = [
        (size, f"{what} {place}, {unit}")
        for size in saved.sort_values("pixels")["size"].unique()
        for place in ("alone", "last")
        for what, unit in (("saved", "MiB"), ("time", "times"))
    ]
    rows = dict(sorted(rows.items(), key=lambda row: list(NAMES.values()).index(row[0][0])))
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=pd.MultiIndex.from_tuples(order))
    table.index = pd.MultiIndex.from_tuples(table.index, names=["runtime", "lever"])
    return table.dropna(axis="columns", how="all").fillna("")


def together(study):
    """What the levers save together at the largest size, by runtime."""
    return _said(study, _together, "**Levers.** At {}: ")


def each(study):
    """Which levers save alone at the largest size, and which where the others are there already, by runtime."""
    return _said(study, _each, "At {}: ")


def _said(study, say, opening):
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    here = found.saved[found.saved.pixels == found.saved.pixels.max()]
    costs = found.costs[found.costs.pixels == found.costs.pixels.max()]
    said = [say(here[here.runtime == runtime], costs, runtime) for runtime in levers.TOGETHER]
    return opening.format(here["size"].iloc[0]) + " ".join(filter(None, said)) if any(said) else NOT_MEASURED


def _together(saved, costs, runtime):
    every = saved[(saved.variant == levers.TOGETHER[runtime]) & (saved.place == "together")]
    if every.empty:
        return ""
    name, peaks = NAMES[runtime], costs.groupby("variant").peak_bytes.median()
    less = scaling.ratio(costs, "peak_bytes", costs.variant == runtime, costs.variant == levers.TOGETHER[runtime])
    return (
        f"{name}'s levers together need {mib(peaks[levers.TOGETHER[runtime]])}, {less:.2f} times less than the "
        f"{mib(peaks[runtime])} of {name} as it comes, and take {every.times.iloc[0]:.2f} times as long."
    )


def _each(saved, costs, runtime):
    peaks = costs.groupby("variant").peak_bytes.median()
    single = saved[(saved.place == "alone") & (saved.against == runtime) & saved.exact]
    last = saved[(saved.place == "last") & (saved.variant == levers.TOGETHER[runtime])]
    said = ""
    if len(single):
        best = single.loc[single.saved.map(lambda one: one.best).idxmax()]
        share = single.saved.map(lambda one: one.best) / peaks[runtime]
        more = (share < -LITTLE).sum()
        said = (
            f"{NAMES[runtime]}'s lever that saves most alone is *{best.change}* ({_in_mib(best.saved):,.0f} MiB); "
            f"{(share < LITTLE).sum()} of {len(single)} save less than {LITTLE:.0%}, and {more} of these "
            f"{'needs' if more == 1 else 'need'} more than {LITTLE:.0%} more."
        )
    if len(last):
        helps = last[last.saved.map(lambda one: one.best) >= LITTLE * peaks[levers.TOGETHER[runtime]]]
        listed = ", ".join(f"*{one.change}* {_in_mib(one.saved):,.0f} MiB" for one in helps.itertuples())
        rest = ", ".join(f"*{change}*" for change in last.change.drop(helps.index))
        said += " Where the others are there already, there save " + (listed or "none as much as that")
        said += f"; less than {LITTLE:.0%} of what is left: {rest}." if rest else "."
    return said


def less_exact(study):
    """What half and 8-bit save at the largest size, in which time, and what they cost in PSNR."""
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    here = found.saved[(found.saved.pixels == found.saved.pixels.max()) & found.saved.psnr.notna()]
    if here.empty:
        return "No precision below float32 was measured in this study."
    said = (
        f"{one.change} on `{one.against.removeprefix('lever.')}` {_saves(one.saved)} and takes {one.times:.2f} times "
        f"as long, at {one.psnr:.1f} dB"
        for one in here.itertuples()
    )
    return f"At {here['size'].iloc[0]}, with the PSNR of the 8-bit output against float32's: " + "; ".join(said) + "."


def _saves(estimate):
    saved = _in_mib(estimate)
    more = Estimate(-saved.best, -saved.high, -saved.low)
    return f"saves {saved:,.0f} MiB" if saved.best >= 0 else f"needs {more:,.0f} MiB more"


def _in_mib(estimate):
    return Estimate(*(value / MIB for value in estimate))
