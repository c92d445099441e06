"""Figures of needing less memory."""

from itertools import pairwise

import numpy as np
from matplotlib.ticker import FuncFormatter

from . import findings_less, plots, scaling
from .findings import LARGE
from .lifetimes import SCHEDULES, peak, per_pixel
from .memory import MIB, mib

STAGES = {  # by the block of the network whose weights a node reads
    **dict.fromkeys(["pr_encoder"], "encoder"),
    **dict.fromkeys(["pr_conv", "pr_UpConv3", "pr_UpConv2"], "decoder"),
    **dict.fromkeys(["compute_z_pr", "conv_u", "conv_s"], "normalise"),
    **dict.fromkeys(["pr_UpConv1"], "UpConv1"),
    **dict.fromkeys(["out_conv"], "output blocks"),
}
OPENING = ("Pad", "MaxPool", "Resize", "Concat")  # these belong to the stage of the next weights, others to the last


def lifetimes(study):
    """What the graph's tensors take node by node in the file's order: each in memory of its own, and in place."""
    path = findings_less.graph(study)
    stored, in_place, best = (peak(path, LARGE, LARGE, schedule) for schedule in SCHEDULES)
    figure, axes = plots.new(9.2, 4.8)
    ceiling = stored.bytes / MIB * 1.22
    for place, (stage, first, last) in enumerate(_bands(stored.profile)):
        axes.axvspan(first, last, color=("#f2f2f2", "#ffffff")[place % 2], lw=0)
        axes.text((first + last) / 2, ceiling * 0.98, stage, ha="center", va="top", fontsize=9)
    nodes, (new, over) = np.arange(len(stored.profile) + 1), (top.profile.bytes / MIB for top in (stored, in_place))
    axes.stairs(over, nodes, fill=True, color="#F6DDA8", label="written in place where that is possible")
    axes.stairs(new, nodes, baseline=None, color="#0072B2", lw=1.6, label="a new tensor for every output")
    axes.axhline(best.bytes / MIB, color="#009E73", lw=1.2, ls="--", label="peak in place, in the best order")
    maps, fewer = findings_less.largest(stored), findings_less.largest(best)
    where = stored.profile.index.get_loc(stored.node)
    axes.text(
        where - 2,
        stored.bytes / MIB,
        f"{', '.join(one.operator for one in maps)}: {len(maps)} maps of {maps[0].shape[1]} channels,\n"
        f"{mib(maps[0].bytes)} each; with the rest {mib(stored.bytes)}",
        ha="right",
        va="top",
        fontsize=8.5,
    )
    makers = ", ".join(one.operator for one in fewer)
    axes.text(1, best.bytes / MIB + 8, f"{mib(best.bytes)} ({makers}): no order takes less", va="bottom", fontsize=8.5)
    axes.set_xlim(0, len(stored.profile))
    axes.set_ylim(0, ceiling)
    axes.yaxis.set_major_formatter(FuncFormatter(plots.plain))
    axes.set_xlabel("nodes of the graph, in the file's order")
    axes.set_ylabel("held by tensors, MiB (weights not included)")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    axes.set_title(
        f"At {LARGE}x{LARGE} the file's order holds {len(maps)} maps of {maps[0].shape[1]} channels at once: "
        f"{mib(stored.bytes)};\nthe best order of the same nodes holds {len(fewer)}: {mib(best.bytes)}"
    )
    figure.alt = (
        f"What the tensors of the exported graph hold at {LARGE}x{LARGE}, node by node in the file's order: at most "
        f"{mib(stored.bytes)} at {stored.node}, where {', '.join(one.name for one in maps)} hold {mib(maps[0].bytes)} "
        f"each; written in place {mib(in_place.bytes)}, in the best order {mib(best.bytes)}."
    )
    return figure


def floors(study, axes, sides):
    """Lines, with labels, of what a session holds before its first picture and the graph's tensors on top of it.

    In the file's order, each in memory of its own; and in place, in the best order: none is below that.
    """
    costs, lines = scaling.select(study), []
    loaded = costs[costs.runtime == "onnx"].load_bytes.median()
    for schedule, words, style in (("stored", "graph, file's order", "--"), ("best order", "graph, best order", "-.")):
        slope = per_pixel(findings_less.graph(study), schedule)
        lines += axes.plot(sides, (loaded + slope * sides**2) / MIB, color="black", lw=0.9, ls=style, label=words)
    return lines


def _bands(profile):
    """The stages of the network, each with its first node and the one after its last."""
    named = profile.weight.str.extract(r"decoder\.(\w+)\.")[0].map(STAGES)
    opening = profile.operator.isin(OPENING)
    stages = named.where(~opening, named.bfill()).ffill().to_numpy()
    edges = [0, *(np.flatnonzero(stages[1:] != stages[:-1]) + 1), len(stages)]
    return [(stages[first], first, last) for first, last in pairwise(edges)]
