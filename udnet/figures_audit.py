"""Figures of the audit: loading step by step, what allocators keep, and the report's claims beside fair measurement."""

import numpy as np

from . import audit, claims, ladder, plots
from .memory import MIB
from .plots import look, mib
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
    axes.set_xlabel("MiB added by loading, at its top (bars are medians, marks the trials)")
    medians = added.groupby(costs.variant).median()
    least = medians.filter(like="load.").drop(index=medians.filter(like="onnx").index, errors="ignore").min()
    axes.set_title(
        f"Loading PyTorch's model takes {medians['pytorch-published']:,.0f} MiB as released, {least:,.1f} at the least"
    )
    figure.alt = "Memory added by loading: " + "; ".join(
        f"{rung.change} {medians[rung.variant]:,.1f} MiB" for rung in rungs[::-1]
    )
    return figure


def keeping(study):
    """What stays resident after loading, by allocator."""
    costs = _audit(study).allocators
    names = plots.order(costs.base.unique())
    allocators = [name for name in ("", *audit.allocators.NAMES) if (costs.allocator == name).any()]
    if len(allocators) < 2:
        raise NotEnoughData("one allocator alone")
    figure, axes = plots.new(9.2, 4.0)
    width = 0.8 / len(names)
    for shift, name in enumerate(names):
        medians = costs[costs.base == name].groupby("allocator").load_bytes.median() / MIB
        places = np.arange(len(allocators)) + (shift - (len(names) - 1) / 2) * width
        axes.bar(places, medians.reindex(allocators), width * 0.92, label=name, color=look(name)["color"])
    axes.set_xticks(range(len(allocators)), [name or "glibc, as it comes" for name in allocators])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("resident once loaded, MiB")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    kept = costs[costs.base == "pytorch-published"].groupby("allocator").load_bytes.median()
    axes.set_title(
        f"After the same loading {mib(kept.min())} stay with {kept.idxmin() or 'glibc'}, "
        f"{mib(kept.max())} with {kept.idxmax() or 'glibc'}"
    )
    figure.alt = "Resident memory after loading as released, by allocator: " + ", ".join(
        f"{name or 'glibc'} {mib(value)}" for name, value in kept.items()
    )
    return figure


def judged(study):
    """Each of the report's numbers beside the fair one, as a factor."""
    _audit(study)
    found = [one for one in claims.judge(study) if one.value and one.fair]
    if not found:
        raise NotEnoughData("no claim could be measured")
    figure, axes = plots.new(9.4, 0.27 * len(found) + 1.6)
    for place, one in enumerate(reversed(found)):
        colour = VERDICT_COLOURS[one.verdict]
        axes.plot([1, one.fair.best / one.value], [place, place], color=colour, lw=1.4, alpha=0.6)
        axes.plot(one.fair.best / one.value, place, "o", color=colour)
        if one.replayed:
            axes.plot(one.replayed.best / one.value, place, "x", color=colour, mew=1.8)
    axes.axvline(1, color="black", lw=0.9)
    axes.axvspan(1 / claims.AGREES, claims.AGREES, color="black", alpha=0.06, lw=0)
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(found)),
        [f"{one.quantity}, {one.subject} {one.resolution}".rstrip() + f": {one.reported}" for one in reversed(found)],
        fontsize=7.5,
    )
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("measured here / in the report (dot: fairly; cross: by the report's own protocol)")
    for verdict, colour in VERDICT_COLOURS.items():
        axes.plot([], [], "o", color=colour, label=f"{verdict} ({sum(one.verdict == verdict for one in found)})")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5)
    stand = sum(one.verdict == claims.REPRODUCED for one in found)
    plots.head(figure, f"Of {len(found)} numbers in the report, {stand} stand when they are measured fairly")
    figure.alt = f"{len(found)} numbers of the report against fair measurement; " + ", ".join(
        f"{sum(one.verdict == verdict for one in found)} {verdict}" for verdict in claims.VERDICTS
    )
    return figure
