"""What the levers of whole-image runs save, in tables and sentences whose every number is computed."""

import pandas as pd

from . import levers, scaling
from .findings import NAMES, NOT_MEASURED, runs_each
from .memory import MIB, mib
from .scaling import Estimate

LITTLE = 0.05  # of the peak that a lever is against: what saves less hardly helps


def alone(study):
    """Each lever alone, and where its runtime's others are there already: MiB saved and times the time, by size.

    By its variant's name; a graph that adds to another is against that one.
    """
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    saved = found.saved[found.saved.place != "together"].sort_values("pixels", kind="stable")
    first = saved[saved.place == "alone"].drop_duplicates(["runtime", "change"]).set_index(["runtime", "change"])
    runs = found.costs.groupby(["size", "variant"]).size()
    headings = {size: f"{size}, {runs_each(runs[size])}" for size in saved["size"].unique()}
    rows = {}
    for one in saved.itertuples():
        name, against = first.loc[(one.runtime, one.change), ["variant", "against"]]
        words = one.change + (f", against {_short(against)}" if against != one.runtime else "")
        row = rows.setdefault((NAMES[one.runtime], _short(name), words), {})
        row[headings[one.size], f"saved {one.place}, MiB"] = f"{_in_mib(one.saved):,.0f}"
        row[headings[one.size], f"time {one.place}, times"] = f"{one.times:.2f}"
    order = [
        (heading, f"{what} {place}, {unit}")
        for heading in headings.values()
        for place in ("alone", "last")
        for what, unit in (("saved", "MiB"), ("time", "times"))
    ]
    rows = dict(sorted(rows.items(), key=lambda row: list(NAMES.values()).index(row[0][0])))
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=pd.MultiIndex.from_tuples(order))
    table.index = pd.MultiIndex.from_tuples(table.index, names=["runtime", "variant", "lever"])
    return table.dropna(axis="columns", how="all").fillna("")


def _short(name):
    return name.removeprefix("lever.")


def together(study):
    """What the levers save together at the largest size, by runtime."""
    return _said(study, _together, "**Levers.** ")


def each(study):
    """Which levers save alone at the largest size, and which where the others are there already, by runtime."""
    return _said(study, _each)


def _said(study, say, opening=""):
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    here = found.saved[found.saved.pixels == found.saved.pixels.max()]
    costs = found.costs[found.costs.pixels == found.costs.pixels.max()]
    runs = runs_each(costs.groupby("variant").size())
    said = [say(here[here.runtime == runtime], costs, runtime) for runtime in levers.TOGETHER]
    if not any(said):
        return NOT_MEASURED
    return f"{opening}At {here['size'].iloc[0]}, {runs}: " + " ".join(filter(None, said))


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
    saved = saved[saved.exact]
    saved = saved.assign(best=[one.best for one in saved.saved])
    saved = saved.assign(share=saved.best / saved.against.map(peaks))
    single, last = saved[saved.place == "alone"], saved[saved.place == "last"]
    said = ""
    if len(single):
        best, more = single.loc[single.best.idxmax()], (single.share < -LITTLE).sum()
        said = (
            f"{NAMES[runtime]}'s exact lever that saves most alone is *{best.change}* ({_in_mib(best.saved):,.0f} "
            f"MiB); {(single.share < LITTLE).sum()} of {len(single)} save less than {LITTLE:.0%} of what they are "
            f"against, and {more} of these {'needs' if more == 1 else 'need'} more than {LITTLE:.0%} more."
        )
    if len(last):
        helps, harms = last[last.share >= LITTLE], last[last.share <= -LITTLE]
        little = last.change.drop([*helps.index, *harms.index])
        parts = [f"*{one.change}* saves {_in_mib(one.saved):,.0f} MiB" for one in helps.itertuples()]
        parts += [f"*{one.change}* needs {-one.best / MIB:,.0f} MiB more" for one in harms.itertuples()]
        said += f" On top of the others {', '.join(parts) or 'none saves as much as that'}"
        rest = ", ".join(f"*{change}*" for change in little)
        said += f"; less than {LITTLE:.0%} either way: {rest}." if rest else "."
    return said


def less_exact(study):
    """What half and 8-bit save at the largest size, in which time, and what they cost in PSNR."""
    found = levers.read(study.folder)
    if found is None:
        return NOT_MEASURED
    here = found.saved[(found.saved.pixels == found.saved.pixels.max()) & found.saved.psnr.notna()]
    if here.empty:
        return NOT_MEASURED
    said = (
        f"{one.change} on `{_short(one.against)}` {_saves(one.saved)} and takes {one.times:.2f} times "
        f"as long, at {one.psnr:.1f} dB"
        for one in here.itertuples()
    )
    psnr = "x".join(str(side) for side in levers.psnr(study.folder)[["height", "width"]].iloc[0])
    return (
        f"At {here['size'].iloc[0]}, with the PSNR of the picture that is written, against float32's, at {psnr}: "
        f"{'; '.join(said)}."
    )


def _saves(estimate):
    saved = _in_mib(estimate)
    more = Estimate(-saved.best, -saved.high, -saved.low)
    return f"saves {saved:,.0f} MiB" if saved.best >= 0 else f"needs {more:,.0f} MiB more"


def _in_mib(estimate):
    return Estimate(*(value / MIB for value in estimate))
