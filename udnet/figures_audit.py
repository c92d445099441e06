"""Figures of the audit: loading step by step, what allocators keep, and the report's claims beside fair measurement."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import allocators, audit, claims, ladder, plots
from .memory import MIB, mib
from .plots import look
from .scaling import NotEnoughData

VERDICT_COLOURS = {
    claims.REPRODUCED: "#009E73",
    claims.OTHER_CAUSE: "#0072B2",
    claims.NOT_REPRODUCED: "#E69F00",
    claims.REFUTED: "#D55E00",
    claims.NOT_TESTABLE: "#999999",
}


def _audit(study):
    found = audit.read(study.folder)
    if found is None:
        raise NotEnoughData("the report was not audited")
    return found


def climbing(study):
    """What loading adds at its top, from the released code to the least possible, one thing changed at a time."""
    costs = _audit(study).ladder
    added = (costs.load_peak_bytes - costs.import_bytes) / MIB
    rungs = [rung for rung in ladder.RUNGS if (costs.variant == rung.variant).any()][::-1]
    figure, axes = plots.new(9.4, 0.42 * len(rungs) + 1.6)
    for place, rung in enumerate(rungs):
        values = added[costs.variant == rung.variant]
        runtime = "onnx" if "onnx" in rung.variant else "pytorch"
        axes.barh(place, values.median(), height=0.6, color=look(runtime)["color"], alpha=0.75)
        axes.plot(values, [place] * len(values), marker="|", ms=12, color="black", ls="", alpha=0.6)
        axes.annotate(
            f"{values.median():,.1f}",
            (values.max(), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(rungs)), [f"{rung.change} ({rung.variant})" for rung in rungs], fontsize=8.5)
    axes.grid(axis="y", visible=False)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(plots.plain))
    axes.set_xlim(right=3 * added.max())
    axes.set_xlabel("MiB added by loading, at its top (bars are medians, marks the trials)")
    medians = added.groupby(costs.variant).median()
    least = medians.filter(like="load.").drop(index=medians.filter(like="onnx").index, errors="ignore").min()
    plots.head(
        figure, f"Loading adds {medians['pytorch-published']:,.0f} MiB as released, {least:,.1f} MiB at the least"
    )
    figure.alt = "Memory added by loading: " + "; ".join(
        f"{rung.change} {medians[rung.variant]:,.1f} MiB" for rung in rungs[::-1]
    )
    return figure


def keeping(study):
    """What stays resident after loading, by allocator."""
    costs = _audit(study).allocators
    names = plots.order(costs.base.unique())
    run = [name for name in ("", *allocators.NAMES) if (costs.allocator == name).any()]
    if len(run) < 2:
        raise NotEnoughData("one allocator alone")
    figure, axes = plots.new(9.2, 4.0)
    width = 0.8 / len(names)
    for shift, name in enumerate(names):
        medians = costs[costs.base == name].groupby("allocator").load_bytes.median().reindex(run) / MIB
        places = np.arange(len(run)) + (shift - (len(names) - 1) / 2) * width
        bars = axes.bar(places, medians, width * 0.92, label=name, color=look(name)["color"])
        axes.bar_label(bars, [f"{value:,.0f}" for value in medians], padding=2, fontsize=8)
    labels = [f"the system's\n({study.machine['allocator']})", *(_under(name) for name in run[1:])]
    axes.set_xticks(range(len(run)), labels)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("resident once loaded, MiB")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    kept = costs[costs.base == "pytorch-published"].groupby("allocator").load_bytes.median()
    axes.set_title(
        f"After the same loading {mib(kept.min())} stay under {allocators.words(kept.idxmin())}, "
        f"{mib(kept.max())} under {allocators.words(kept.idxmax())}"
    )
    figure.alt = "Resident memory after loading as released, by allocator: " + ", ".join(
        f"{allocators.words(name)} {mib(value)}" for name, value in kept.items()
    )
    return figure


def _under(allocator):
    """An allocator's name in two short lines."""
    return allocators.words(allocator).replace(" with ", "\nwith ")


def judged(study):
    """Each of the report's numbers beside the fair one, as a factor."""
    _audit(study)
    every = claims.judge(study)
    found = [one for one in every if one.value and one.fair][::-1]
    if not found:
        raise NotEnoughData("no claim could be measured")
    factors = [estimate.best / one.value for one in found for estimate in (one.fair, one.replayed) if estimate]
    left, right = min(factor for factor in factors if factor > 0) / 1.6, max(factors) * 1.6
    figure, axes = plots.new(9.4, 0.27 * len(found) + 1.8)
    for place, one in enumerate(found):
        colour, fair = VERDICT_COLOURS[one.verdict], one.fair.best / one.value
        axes.plot([1, fair], [place, place], color=colour, lw=1.4, alpha=0.6)
        if one.replayed:
            _cross(axes, one.replayed.best / one.value, place, left, colour)
        axes.plot(fair, place, "o", color=colour, ms=4.5)
    axes.axvline(1, color="black", lw=0.9)
    axes.axvspan(1 / claims.AGREES, claims.AGREES, color="black", alpha=0.06, lw=0)
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.xaxis.set_major_locator(FixedLocator([0.01, 0.1, 1, 10, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plots.plain))
    about = [f"{one.quantity}, {one.subject} {one.resolution}".rstrip() for one in found]
    labels = [f"{words}: {one.reported}  {one.id}" for words, one in zip(about, found, strict=True)]
    axes.set_yticks(range(len(found)), labels, fontsize=7.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("measured here / in the report")
    for verdict, colour in VERDICT_COLOURS.items():
        axes.fill_between([], [], [], color=colour, lw=0, label=verdict)
    axes.plot([], [], "o", color="black", ms=4.5, label="measured fairly")
    axes.plot([], [], "x", color="black", ms=8, mew=1.3, label="by the report's protocol")
    if min(factors) <= 0:
        axes.plot([], [], "<", color="black", label="the same, below zero")
    axes.fill_between([], [], [], color="black", alpha=0.1, lw=0, label=f"agrees: a factor of {claims.AGREES:g}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5)
    stand = sum(one.verdict == claims.REPRODUCED for one in every)
    plots.head(
        figure,
        f"Of the report's {len(every)} claims {stand} stand when they are measured fairly "
        f"({len(found)} of {len(every)} drawn)",
    )
    figure.alt = f"{len(found)} numbers of the report against fair measurement; " + ", ".join(
        f"{sum(one.verdict == verdict for one in found)} {verdict}" for verdict in claims.VERDICTS
    )
    return figure


def _cross(axes, factor, place, left, colour):
    """A value by the report's protocol; one that a logarithm cannot take is an arrow at the edge."""
    if factor > 0:
        axes.plot(factor, place, "x", color=colour, ms=8, mew=1.3)
    else:
        axes.plot(left, place, "<", color=colour, clip_on=False)
