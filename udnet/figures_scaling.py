"""Figures of memory and time across sizes, runs and threads."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import figures_less, plots, scaling
from .memory import MIB, mib
from .plots import look
from .scaling import NotEnoughData

DATA = Path(__file__).parent.parent / "data"
PARTS = {"interpreter": "interpreter", "import": "import", "load": "model or session", "first": "first run, its peak"}


def headline(study):
    """What the report said and what was measured: peak memory of the whole process against the picture's size."""
    frame = scaling.select(study, ["pytorch-published", "pytorch", "onnx", "onnx-lean", "onnx-tiled"])
    figure, axes = plots.new(9.2, 5.0)
    plots.scaling_curves(frame, axes, "process_peak_bytes", fits=False)
    for row in _claimed_peaks():
        axes.plot(row.side, row.mib, marker="x", ms=9, mew=2.2, ls="", color=look(row.variant)["color"])
        axes.annotate(
            f"report: {row.mib:,.0f}" + (" (estimated)" if row.estimated else ""),
            (row.side, row.mib),
            xytext=(-7, 6) if row.variant == "pytorch-published" else (7, -9),
            textcoords="offset points",
            ha="right" if row.variant == "pytorch-published" else "left",
            fontsize=8,
            color=look(row.variant)["color"],
        )
    small, large = frame.side.min(), min(1024, frame.side.max())
    first = scaling.compare(frame, "process_peak_bytes", "pytorch", "onnx", small).best
    last = scaling.compare(frame, "process_peak_bytes", "pytorch", "onnx", large).best
    axes.set_title(
        f"Like for like PyTorch needs {first:.1f} times ONNX Runtime's memory at {small:.0f}x{small:.0f},\n"
        f"and {last:.1f} times at {large:.0f}x{large:.0f}{_strip_by_strip(frame, large)}"
    )
    axes.set_ylabel("peak memory of the whole process, MiB")
    figure.alt = (
        f"Peak memory against picture side, both logarithmic. PyTorch over ONNX Runtime falls from {first:.1f} at side "
        f"{small:.0f} to {last:.1f} at side {large:.0f}; crosses mark the original report's readings."
    )
    return figure


def _strip_by_strip(frame, side):
    """What the tiled schedule takes there, for a title."""
    try:
        return (
            f"; strip by strip onnx-tiled takes {mib(scaling.median(frame, 'process_peak_bytes', 'onnx-tiled', side))}"
        )
    except NotEnoughData:
        return ""


def _claimed_peaks():
    """The report's peaks, from its claims: variant, side, mib and whether it was estimated rather than measured."""
    claims = pd.read_csv(DATA / "claims.csv")
    claims = claims[claims.quantity.eq("peak memory") & claims.resolution.notna()]
    side = claims.resolution.str.split("x").str[0].astype(int)
    size = claims.value.astype(float) * claims.unit.map({"MB": 1, "GB": 1024})  # the report's MB are MiB
    variant = claims.subject.replace("pytorch", "pytorch-published")
    return pd.DataFrame(
        {"variant": variant, "side": side, "mib": size, "estimated": claims.kind == "estimated"}
    ).itertuples()


def scaling_memory(study):
    """Peak memory of inference against size: raw points, fits with 95% bands."""
    frame = scaling.fitted(scaling.select(study))
    figure, axes = plots.new(9.2, 5.2)
    plots.scaling_curves(frame, axes)
    sides = np.geomspace(frame.side.min(), frame.side.max(), 100)
    plots.legend(axes, [*axes.get_legend().legend_handles, *figures_less.floors(study, axes, sides)])
    axes.set_ylabel("peak memory of inference, MiB")
    crossing = scaling.crossing(*(scaling.fit(frame[frame.variant == name]) for name in ("pytorch", "onnx")))
    if crossing is None:
        axes.set_title("Peak memory grows in proportion to the pixels; PyTorch and ONNX Runtime do not cross")
        figure.alt = "Peak memory of inference against picture side for each variant, with fitted lines."
        return figure
    side, low, high = crossing.side
    axes.axvspan(low, high, color="#0072B2", alpha=0.08, lw=0)
    axes.axvline(side, color="#0072B2", lw=1, ls=":")
    axes.text(side, axes.get_ylim()[0] * 1.05, f" {side:.0f} ({low:.0f} to {high:.0f})", fontsize=8.5, color="#0072B2")
    axes.set_title(f"ONNX Runtime's default session needs more than PyTorch from {side:.0f}x{side:.0f} on")
    figure.alt = (
        f"Peak memory of inference against picture side with fitted lines. PyTorch and ONNX Runtime's default session "
        f"cross at side {side:.0f}, 95% interval {low:.0f} to {high:.0f}."
    )
    return figure


def parts(study):
    """The fixed part of every variant's peak, phase by phase, and the growing part, from the fits."""
    frame = scaling.fitted(scaling.select(study))
    names = plots.order(frame.variant.unique())[::-1]
    smallest = frame[frame.pixels == frame.pixels.min()]
    figure, (fixed, growing) = plots.new(9.6, 0.5 * len(names) + 2.2, ncols=2, sharey=True)
    slopes, library = {}, {}
    for place, name in enumerate(names):
        fit = scaling.fit(frame[frame.variant == name])
        slopes[name], colour = fit.slope, look(name)["color"]
        before = 0.0
        for phase, after in _after_phases(smallest[smallest.variant == name]).items():
            fixed.barh(place, (after - before) / MIB, left=before / MIB, height=0.5, color=plots.PHASES[phase])
            library[name] = after - before if phase == "import" else library.get(name, 0)
            before = after
        low, high = (edge / MIB for edge in fit.fixed_interval)
        fixed.plot([low, high], [place, place], color="black", lw=1.2)
        fixed.plot(fit.fixed / MIB, place, marker="D", color="white", mec="black", ms=5, ls="")
        _number(fixed, f"{before / MIB:,.0f}", max(high, before / MIB), place, (6, 0))
        growing.plot([edge / 1000 for edge in fit.slope_interval], [place, place], color=colour, lw=2.5, alpha=0.5)
        growing.plot(fit.slope / 1000, place, ls="", **look(name))
        _number(growing, f"{fit.slope / 1000:.2f}", fit.slope / 1000, place, (-8, 9))
    for phase in PARTS:
        fixed.bar(0, 0, color=plots.PHASES[phase], label=PARTS[phase])
    fixed.plot([], [], marker="D", color="black", mfc="white", ms=5, lw=1.2, label="fixed part of the fitted line")
    figure.legend(*fixed.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8.5)
    fixed.set_yticks(range(len(names)), names)
    fixed.set_ylim(-0.5, len(names) - 0.3)
    size = f"{smallest.height.iloc[0]}x{smallest.width.iloc[0]}"
    fixed.set_xlabel(f"memory at {size}, MiB (the number: first run's peak)")
    growing.set_xlabel("growing part, kB a pixel")
    for axes in (fixed, growing):
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
    most, least = max(slopes, key=slopes.get), min(slopes, key=slopes.get)
    plots.head(
        figure,
        f"The fixed part is the library ({mib(library['pytorch'])} for torch, {mib(library['onnx'])} for onnxruntime);"
        f"\na pixel costs {slopes[most] / 1000:.1f} kB in {most}, {slopes[least] / 1000:.1f} kB in {least}",
    )
    figure.alt = (
        f"Two panels: resident memory after interpreter, import, load and first run at {size}, beside the fitted fixed "
        "part; and the growing part in kB a pixel with 95% intervals. "
        + "; ".join(f"{name} {slopes[name] / 1000:.2f} kB a pixel" for name in names[::-1])
    )
    return figure


def _after_phases(rows):
    """Resident bytes after each phase, and the first run's peak: medians."""
    columns = {"interpreter": "interpreter_bytes", "import": "import_bytes", "load": "load_bytes"}
    return {phase: rows[column].median() for phase, column in (columns | {"first": "first_peak_bytes"}).items()}


def _number(axes, text, value, place, offset):
    axes.annotate(text, (value, place), xytext=offset, textcoords="offset points", va="center", fontsize=8)


def scaling_time(study):
    """Time of a later inference against size."""
    frame = scaling.fitted(scaling.select(study))
    figure, axes = plots.new(9.2, 5.0)
    plots.scaling_curves(frame, axes, "seconds", 1)
    axes.set_ylabel(f"seconds an inference, after the first ({scaling.THREADS} threads)")
    fits = {name: scaling.fit(frame[frame.variant == name], "seconds") for name in ("pytorch", "onnx")}
    ratio = fits["pytorch"].slope / fits["onnx"].slope
    faster, times = ("ONNX Runtime", ratio) if ratio > 1 else ("PyTorch", 1 / ratio)
    axes.set_title(f"Time is proportional to the pixels; {faster} is {times:.1f} times faster a pixel")
    figure.alt = (
        f"Seconds an inference against picture side with fitted lines; a pixel takes {ratio:.2f} times as long "
        "in PyTorch."
    )
    return figure


def first_and_steady(study):
    """Later runs against the first: peak memory and time, by variant."""
    frame = scaling.select(study)
    frame = frame.assign(
        peak=frame.steady_peak_bytes / frame.first_peak_bytes, time=frame.seconds / frame.first_seconds
    )
    frame = frame[frame.side >= 256]
    if "onnx" not in frame.variant.values:
        raise NotEnoughData("no trials of onnx from 256x256 on")
    names = plots.order(frame.variant.unique())
    figure, (left, right) = plots.new(9.4, 4.3, ncols=2)
    for axes, value in ((left, "peak"), (right, "time")):
        for name in names:
            rows = frame[frame.variant == name]
            medians = rows.groupby("side")[value].median()
            axes.plot(rows.side, rows[value], ls="", alpha=0.35, mec="none", **look(name))
            axes.plot(
                medians.index,
                medians,
                color=look(name)["color"],
                label=name,
                marker=look(name)["marker"],
                ms=4,
            )
        axes.axhline(1, color="black", lw=0.8)
        plots.side_axis(axes, frame.side)
        axes.set_xlabel("side of the picture, pixels")
    left.set_ylabel("peak of later runs / peak of the first")
    right.set_ylabel("time of a later run / time of the first")
    right.set_yscale("log")
    right.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(plots.plain))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
    worst = frame[frame.variant == "onnx"].groupby("side").peak.median()
    plots.head(figure, f"ONNX Runtime's later runs need up to {worst.max():.2f} times the memory of its first")
    figure.alt = (
        f"Ratio of later runs to the first, memory and time, by picture side; onnx reaches {worst.max():.2f} "
        f"at side {worst.idxmax():.0f}."
    )
    return figure


def threads(study):
    """One thread against two: time and peak memory."""
    frame = scaling.costs(study)
    both = frame.groupby(["variant", "side"]).threads.transform("nunique") > 1
    frame = frame[both]
    if frame.empty:
        raise NotEnoughData("one thread count alone")
    rows = []
    for (variant, side), group in frame.groupby(["variant", "side"]):
        for value in ("seconds", "peak_bytes"):
            rows.append((variant, side, value, *scaling.ratio(group, value, group.threads == 1, group.threads == 2)))
    ratios = pd.DataFrame(rows, columns=["variant", "side", "value", "ratio", "low", "high"])
    names = plots.order(ratios.variant.unique())
    figure, panels = plots.new(9.2, 3.9, ncols=2)
    for axes, (value, words) in zip(panels, (("seconds", "time"), ("peak_bytes", "peak memory")), strict=True):
        for shift, name in enumerate(names):
            part = ratios[(ratios.value == value) & (ratios.variant == name)]
            places = [
                sorted(ratios.side.unique()).index(side) + (shift - (len(names) - 1) / 2) * 0.14 for side in part.side
            ]
            axes.vlines(places, part.low, part.high, color=look(name)["color"], alpha=0.5, lw=2)
            axes.plot(places, part.ratio, ls="", label=name, **look(name))
        axes.axhline(1, color="black", lw=0.8)
        axes.set_xticks(range(ratios.side.nunique()), [f"{s:.0f}x{s:.0f}" for s in sorted(ratios.side.unique())])
        axes.set_ylabel(f"{words} with 1 thread / with 2")
        axes.set_ylim(0, max(2.2, ratios.high.max() * 1.05 if ratios.high.notna().any() else 2.2))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
    time, peak = (ratios[ratios.value == value].ratio for value in ("seconds", "peak_bytes"))
    plots.head(
        figure,
        f"One thread takes {time.min():.1f} to {time.max():.1f} times as long as two, "
        f"and {peak.min():.2f} to {peak.max():.2f} times the memory",
    )
    figure.alt = (
        f"One thread over two: time {time.min():.2f} to {time.max():.2f}, peak memory {peak.min():.2f} to "
        f"{peak.max():.2f}."
    )
    return figure
