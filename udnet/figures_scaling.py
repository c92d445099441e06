"""Figures of memory and time across sizes, runs and threads."""

from pathlib import Path

import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import plots, scaling
from .memory import MIB
from .plots import look
from .scaling import NotEnoughData

DATA = Path(__file__).parent.parent / "data"


def headline(study):
    """What the report said and what was measured: peak memory of the whole process against the picture's size."""
    frame = scaling.select(study, ["pytorch-published", "pytorch", "onnx", "onnx-lean"])
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
        f"and {last:.1f} times at {large:.0f}x{large:.0f}"
    )
    axes.set_ylabel("peak memory of the whole process, MiB")
    figure.alt = (
        f"Peak memory against picture side, both logarithmic. PyTorch over ONNX Runtime falls from {first:.1f} at side "
        f"{small:.0f} to {last:.1f} at side {large:.0f}; crosses mark the original report's readings."
    )
    return figure


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
    """The fixed part and the growing part of every variant's peak, from the fits."""
    frame = scaling.fitted(scaling.select(study))
    names = plots.order(frame.variant.unique())[::-1]
    figure, (fixed, growing) = plots.new(9.2, 0.5 * len(names) + 1.7, ncols=2, sharey=True)
    slopes = {}
    for place, name in enumerate(names):
        fit = scaling.fit(frame[frame.variant == name])
        slopes[name] = fit.slope
        for axes, best, (low, high), unit in (
            (fixed, fit.fixed, fit.fixed_interval, MIB),
            (growing, fit.slope, fit.slope_interval, 1000),
        ):
            axes.plot([low / unit, high / unit], [place, place], color=look(name)["color"], lw=2.5, alpha=0.5)
            axes.plot(best / unit, place, ls="", **look(name))
            axes.annotate(
                f"{best / unit:,.0f}" if unit == MIB else f"{best / unit:.2f}",
                (best / unit, place),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    fixed.set_yticks(range(len(names)), names)
    fixed.set_ylim(-0.5, len(names) - 0.3)
    fixed.set_xlabel("fixed part, MiB")
    growing.set_xlabel("growing part, kB a pixel")
    for axes in (fixed, growing):
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
    most, least = max(slopes, key=slopes.get), min(slopes, key=slopes.get)
    plots.head(
        figure, f"A pixel costs {slopes[most] / 1000:.1f} kB in {most}, {slopes[least] / 1000:.1f} kB in {least}"
    )
    figure.alt = (
        "Two panels: fixed part in MiB and growing part in kB a pixel for each variant, with 95% intervals. "
        + "; ".join(f"{name} {slopes[name] / 1000:.2f} kB a pixel" for name in names[::-1])
    )
    return figure


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
        f"A second thread saves time ({time.min():.1f} to {time.max():.1f} times) and changes the peak little "
        f"({peak.min():.2f} to {peak.max():.2f})",
    )
    figure.alt = (
        f"One thread over two: time {time.min():.2f} to {time.max():.2f}, peak memory {peak.min():.2f} to "
        f"{peak.max():.2f}."
    )
    return figure
