"""Figures of what fits where: every variant's peak up to 8K, and how well sizes are predicted."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from . import capacity, figures_less, plots, scaling
from .findings_capacity import FRAME, WITHIN
from .memory import MIB, mib, parse_bytes
from .plots import look
from .scaling import NotEnoughData

SIDES = 16 * np.unique(np.geomspace(16, 360, 91).round().astype(int))  # 256 to 5760, as many pixels as 8K
LIMITED = (":", "none"), ("--", "left"), ((0, (1, 3)), "top")  # line and filling of plans for a limit, by its order
NAMED = {"8K": 4320 * 7680, "4K": 2160 * 3840, "1080p": 1080 * 1920}


def sizes(study):
    """Peak of the whole process against size for all variants, up to 8K, beside the machine's memory and the floor."""
    models, costs = capacity.models(study), capacity.costs(study)
    costs = costs[(costs.threads == scaling.THREADS) & (costs.side >= SIDES[0])]
    limited = _limited([name for name in costs.variant.unique() if name.partition("@")[0] in models])
    figure, axes = plots.new(9.6, 6.2)
    for name in [*plots.order(models), *limited]:
        base, _, limit = name.partition("@")
        line, fill = limited.get(name, ("-", "full"))
        model, style = models[base], look(base) | {"fillstyle": fill}
        measured = costs[costs.variant == name].groupby("side").process_peak_bytes.median() / MIB
        limit = parse_bytes(limit) if limit else None
        peaks = np.array([model.peak(side, side, limit) for side in SIDES]) / MIB
        axes.plot(SIDES, peaks, lw=1.4, ls=line, color=style["color"])
        axes.plot(measured.index, measured, ls="", **style)
        axes.plot([], [], label=name, ls=line, **style)
    memory = study.machine["memory_bytes"]
    axes.axhline(memory / MIB, color="black", lw=1.2)
    axes.text(SIDES[0], memory / MIB * 1.05, f"this machine's memory, {mib(memory)}", fontsize=8.5)
    figures_less.floors(study, axes, SIDES)
    plots.side_axis(axes, SIDES)
    sides = {name: pixels**0.5 for name, pixels in NAMED.items()}
    above = axes.secondary_xaxis("top")
    above.xaxis.set_major_locator(FixedLocator(list(sides.values())))
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xticklabels(list(sides))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([2**n for n in range(6, 18)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(plots.plain))
    axes.set_ylim(64, memory / MIB * 3)
    axes.set_ylabel("peak memory of the whole process, MiB")
    plots.legend(axes)
    size = "x".join(map(str, FRAME))
    frame = costs[costs["size"] == size].groupby("variant").process_peak_bytes.median()
    whole = pd.Series({name: model.peak(*FRAME) for name, model in models.items() if not model.tiled})
    whole = frame[~frame.index.str.contains("tiled")].combine_first(whole).dropna()
    if "onnx-tiled" not in frame or whole.empty:
        raise NotEnoughData(f"no frame of {size} by the tiled schedule, or no whole-image variant to put beside it")
    least = whole.idxmin()
    axes.set_title(
        f"A frame of {size} takes {mib(frame['onnx-tiled'])} strip by strip;\n"
        f"of the whole image the leanest variant takes {whole[least] / frame['onnx-tiled']:.0f} times as much"
    )
    known = [f"{name} {mib(value)}, measured" for name, value in frame.items()]
    known += [f"{name} {mib(value)} by its line" for name, value in whole.items() if name not in frame]
    figure.alt = (
        f"Peak memory of the whole process against picture side, both logarithmic, up to 8K. At {size} "
        f"{'; '.join(known)}. The machine has {mib(memory)}."
    )
    return figure


def predictions(study):
    """What was predicted of sizes left out, against what was measured; and what happened under real limits."""
    table = capacity.held_out(study)
    if table.empty:
        raise NotEnoughData("no size of any variant can be left out")
    table["side"] = (table.height * table.width) ** 0.5
    try:
        proofs = capacity.read(study.folder)
    except NotEnoughData:
        proofs = pd.DataFrame(columns=capacity.COLUMNS)
    figure, (left, right) = plots.new(9.8, 4.4, ncols=2, width_ratios=[1.6, 1])
    left.axhspan(-WITHIN, WITHIN, color="#009E73", alpha=0.10, lw=0)
    left.axhline(0, color="black", lw=0.8)
    limited = _limited(table.variant.unique())
    for name in plots.order(table.variant.unique()):
        rows, fill = table[table.variant == name], limited.get(name, ("", "full"))[1]
        left.plot(rows.side, rows.error, ls="", label=name, fillstyle=fill, **look(name))
    plots.side_axis(left, table.side)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set_ylabel("predicted, against measured")
    rows = proofs[["variant", "height", "width"]].drop_duplicates()
    for place, row in enumerate(rows.itertuples()):
        here = proofs[(proofs.variant == row.variant) & (proofs.height == row.height) & (proofs.width == row.width)]
        right.plot([0.7, 1.15], [place, place], color="#dddddd", lw=1, zorder=0)
        right.plot(1, place, marker="|", ms=14, color="black")
        for case in here.itertuples():
            at, killed = case.limit_bytes / case.predicted_bytes, case.status == "oom"
            colour = look(row.variant)["color"]
            right.plot(at, place, marker="X" if killed else "o", ms=8, color=colour, ls="")
            words = "killed" if killed else "ran" if case.status == "ok" else case.status.partition(":")[0]
            right.annotate(words, (at, place), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8)
    right.set_yticks(range(len(rows)), [f"{row.variant}\n{row.height}x{row.width}" for row in rows.itertuples()])
    right.set_ylim(-0.6, max(1, len(rows)) - 0.3)
    right.set_xlabel("kernel's limit / predicted")
    right.grid(axis="y", visible=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8.5)
    near, worst = (table.error.abs() <= WITHIN), table.loc[table.error.abs().idxmax()]
    kept = proofs.status.eq(proofs.expected)
    said = (
        f"{near.sum()} of {len(table)} variants at a size are predicted within {WITHIN:.0%} without a fit to that size"
    )
    proved = f"{kept.sum()} of {len(proofs)} limits did as predicted" if len(proofs) else "no limit was tried"
    plots.head(figure, f"{said};\n{proved}")
    figure.alt = (
        f"Left: the relative error of each predicted peak, by picture side; {said}, the worst {worst.error:+.0%} with "
        f"{worst.variant} at {worst.height}x{worst.width}. Right: runs under real limits; {proved}."
    )
    return figure


def _limited(names):
    """Line and filling of the variants with a limit, by their names in the order of the limits."""
    size = {name: parse_bytes(name.partition("@")[2]) for name in names if "@" in name}
    looks = dict(zip(sorted(set(size.values())), cycle(LIMITED)))
    return {name: looks[size[name]] for name in sorted(size, key=lambda name: (size[name], name))}
