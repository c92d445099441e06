"""Every published figure: a study's tables to a figure whose title states what was found.

Each entry of `FIGURES` draws one from a `Study`; titles and the texts for those who cannot see them are computed. The
same study gives the same bytes.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import exporters, plots, scaling
from .memory import MIB
from .plots import look, mib
from .scaling import NotEnoughData

REPO = Path(__file__).parent.parent
FOLDER = REPO / "figures"
THREADS = 2


def _costs(study, variants=None, threads=THREADS):
    frame = scaling.costs(study)
    frame = frame[frame.threads == threads]
    if variants is not None:
        frame = frame[frame.variant.isin(variants)]
    if frame.empty:
        raise NotEnoughData("no finished trials of " + (", ".join(variants) if variants else "any variant"))
    return frame


def _fitted(study):
    """The costs of the variants that were measured at enough sizes for a line."""
    frame = _costs(study)
    frame = frame[frame.groupby("variant").pixels.transform("nunique") >= 4]
    if frame.empty:
        raise NotEnoughData("no variant at 4 sizes")
    return frame


def _claimed_peaks():
    """The report's peaks, from its claims: variant, side, mib and whether it was estimated rather than measured."""
    claims = pd.read_csv(REPO / "data" / "claims.csv")
    claims = claims[claims.quantity.eq("peak memory") & claims.resolution.notna()]
    side = claims.resolution.str.split("x").str[0].astype(int)
    size = claims.value.astype(float) * claims.unit.map({"MB": 1, "GB": 1024})  # the report's MB are MiB
    variant = claims.subject.replace("pytorch", "pytorch-published")
    return pd.DataFrame(
        {"variant": variant, "side": side, "mib": size, "estimated": claims.kind == "estimated"}
    ).itertuples()


def files(study):
    """What is in each file: its tensors by the part of the network that they belong to."""
    sizes = study.machine.get("files", {})
    if not {"full", "inference", "onnx"} <= sizes.keys():
        raise NotEnoughData("the sizes of the files were not recorded")
    roles = pd.read_csv(REPO / "data" / "state_dict.csv").groupby("role").parameters.sum() * 4 / MIB
    colours = {"prior": "#009E73", "posterior": "#56B4E9", "reference-map": "#CC79A7", "perceptual-loss": "#E69F00"}
    bars = {
        "checkpoint (.pth)": ("full", list(colours)),
        "stripped (.pth)": ("inference", ["prior"]),
        "ONNX": ("onnx", ["prior"]),
    }
    figure, axes = plots.new(8.8, 2.8)
    for place, (form, parts) in enumerate(reversed(bars.values())):
        left = 0.0
        for part in parts:
            axes.barh(
                place, roles[part], left=left, color=colours[part], height=0.6, label=part if len(parts) > 1 else None
            )
            left += roles[part]
        axes.annotate(
            f"{sizes[form] / MIB:.2f} MiB", (left, place), xytext=(5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(bars)), list(bars)[::-1])
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, sizes["full"] / MIB * 1.15)
    axes.set_xlabel("MiB of tensors by role (the number: the file)")
    axes.legend(loc="center right")
    axes.set_title(
        f"{roles['perceptual-loss'] * MIB / sizes['full']:.0%} of the checkpoint is VGG16, which only training uses"
    )
    figure.alt = (
        f"Bars of file sizes: full checkpoint {sizes['full'] / MIB:.1f} MiB, stripped "
        f"{sizes['inference'] / MIB:.2f}, ONNX {sizes['onnx'] / MIB:.2f}."
    )
    return figure


def exporting(study):
    """Peak and time of the candidates for the export, in a default session and in a lean one."""
    costs = exporters.read(study.folder)
    if costs is None:
        raise NotEnoughData("the exporters were not measured")
    figure, panels = plots.new(9.2, 3.2, ncols=2, sharey=True)
    names = list(exporters.CANDIDATES)[::-1]
    for axes, (value, unit, words) in zip(
        panels, (("peak_bytes", MIB, "peak memory, MiB"), ("seconds", 1, "seconds, second run")), strict=True
    ):
        for variant in ("onnx", "onnx-lean"):
            rows = costs[costs.variant == variant]
            axes.plot(
                rows[value] / unit,
                [names.index(name) for name in rows.candidate],
                ls="",
                alpha=0.7,
                label=variant,
                **look(variant),
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(words)
    panels[0].set_yticks(range(len(names)), names)
    panels[1].legend(loc="best")
    peaks = costs.groupby(["variant", "candidate"]).peak_bytes.median()
    spread = peaks["onnx"].max() / peaks["onnx"].min()
    plots.head(figure, f"The same network, exported differently, needs up to {spread:.2f} times the memory")
    figure.alt = (
        f"Peak memory and time of {len(names)} exports of the same network; the highest default peak is "
        f"{spread:.2f} times the lowest."
    )
    return figure


def headline(study):
    """What the report said and what was measured: peak memory of the whole process against the picture's size."""
    frame = _costs(study, ["pytorch-published", "pytorch", "onnx", "onnx-lean"])
    figure, axes = plots.new(9.2, 5.0)
    plots.scaling_curves(frame, axes, "process_peak_bytes", fits=False)
    for row in _claimed_peaks():
        axes.plot(row.side, row.mib, marker="x", ms=9, mew=2.2, ls="", color=look(row.variant)["color"])
        axes.annotate(
            f"report: {row.mib:,.0f}" + (" (estimated)" if row.estimated else ""),
            (row.side, row.mib),
            xytext=(-7, 6),
            textcoords="offset points",
            ha="right",
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


def loading(study):
    """Where the memory goes before the first picture: resident memory after each phase, and the peak on the way."""
    frame = _costs(study)
    side = min(256, frame.side.min()) if 256 not in frame.side.values else 256
    frame = frame[frame.side == side]
    names = plots.order(frame.variant.unique())[::-1]
    if "pytorch-published" not in names:
        raise NotEnoughData("no trials of pytorch-published")
    figure, axes = plots.new(8.8, 0.55 * len(names) + 1.6)
    steps = {"interpreter": "interpreter_bytes", "import": "import_bytes", "load": "load_bytes"}
    for place, name in enumerate(names):
        rows = frame[frame.variant == name]
        before = 0.0
        for phase, column in steps.items():
            after = rows[column].median() / MIB
            axes.barh(
                place,
                after - before,
                left=before,
                color=plots.PHASES[phase],
                height=0.55,
                label=phase if not place else None,
            )
            before = after
        peak = rows.load_peak_bytes / MIB
        axes.plot(peak, [place] * len(rows), marker="|", ms=15, mew=1.6, color="black", ls="", alpha=0.6)
        axes.annotate(
            f"{peak.median():,.0f}", (peak.median(), place), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("resident memory, MiB (the black bar and its number: highest until the model is loaded)")
    axes.legend(loc="lower right", title="resident after")
    extra, own = (
        scaling.median(frame, "load_peak_bytes", name, side) - scaling.median(frame, "import_bytes", name, side)
        for name in ("pytorch-published", "pytorch")
    )
    axes.set_title(f"Loading as released adds {mib(extra)}; the path that inference needs adds {mib(max(own, 0))}")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.04)
    figure.alt = (
        f"Bars of resident memory after interpreter, import and load for {len(names)} variants. As released, loading "
        f"peaks {mib(extra)} above the import; the inference path alone {mib(max(own, 0))}."
    )
    return figure


def _timeline(study, variant):
    marked = study.timelines[study.timelines.trial.str.startswith(f"{variant}/")]
    if marked.empty:
        raise NotEnoughData(f"no timeline of {variant}")
    largest = max(marked.trial.unique(), key=lambda name: np.prod([int(n) for n in name.split("/")[1].split("x")]))
    return marked[marked.trial == largest], largest


def loading_timeline(study):
    """Memory while the released code loads, sampled every 10 ms, phase by phase."""
    samples, name = _timeline(study, "pytorch-published")
    rows = study.trials[study.trials.trial == name].set_index("phase")
    figure, axes = plots.new(8.8, 4.2)
    plots.timeline(axes, samples, rows, look("pytorch-published")["color"])
    after, peak = rows.rss_end_bytes["load"], rows.peak_bytes["load"]
    axes.set_title(f"As released: {mib(peak)} at the top of loading, {mib(after)} once it is done")
    figure.alt = (
        f"Timeline of resident memory: import, then loading up to {mib(peak)}, down to {mib(after)}, then inference."
    )
    return figure


def timeline(study):
    """ONNX Runtime's memory from start to end, sampled, with the kernel's peak of each phase."""
    samples, name = _timeline(study, "onnx")
    rows = study.trials[study.trials.trial == name].set_index("phase")
    figure, axes = plots.new(8.8, 4.2)
    plots.timeline(axes, samples, rows, look("onnx")["color"])
    size = name.split("/")[1]
    first, later = rows.peak_bytes["first"], rows.peak_bytes["steady"]
    axes.set_title(f"ONNX Runtime at {size}: {mib(first)} in the first inference, {mib(later)} in the second")
    figure.alt = (
        f"Timeline of resident memory of ONNX Runtime at {size}, phase by phase, with the kernel's peaks as "
        "dashed lines."
    )
    return figure


def stages(study):
    """Which block of the network holds the peak: PyTorch's stages on a timeline of its inference."""
    samples, name = _timeline(study, "pytorch")
    marks = study.stages[study.stages.trial == name]
    if marks.empty:
        raise NotEnoughData("no stages of pytorch")
    last = marks.iloc[np.flatnonzero(marks.stage == marks.stage.iloc[0])[-1] :]
    start, end = last.start.iloc[0], last.end.iloc[-1]
    samples = samples[(samples.seconds >= start) & (samples.seconds <= end)]
    figure, axes = plots.new(9.2, 4.6)
    shade = ["#f2f2f2", "#ffffff"]
    for place, mark in enumerate(last.itertuples()):
        axes.axvspan(mark.start - start, mark.end - start, color=shade[place % 2], lw=0)
        axes.plot([mark.start - start, mark.end - start], [mark.peak_bytes / MIB] * 2, color="#0072B2", lw=2.2)
        axes.text(
            (mark.start + mark.end) / 2 - start,
            mark.peak_bytes / MIB,
            f" {mark.stage}",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=8,
        )
    axes.plot(samples.seconds - start, samples.rss_bytes / MIB, color=look("pytorch")["color"], lw=1.3)
    axes.set_xlim(0, end - start)
    low = min(samples.rss_bytes.min(), last.peak_bytes.min()) / MIB
    high = last.peak_bytes.max() / MIB
    axes.set_ylim(low - (high - low) * 0.08, high + (high - low) * 0.45)
    axes.set_xlabel("seconds since the network began (sampled: not a measure of time)")
    axes.set_ylabel("resident memory, MiB")
    top = last.loc[last.peak_bytes.idxmax()]
    size = name.split("/")[1]
    axes.set_title(f"At {size} the peak is in {top.stage}: {mib(top.peak_bytes)}")
    figure.alt = (
        f"Timeline of one inference of PyTorch at {size} with 13 stages; {top.stage} holds the peak, "
        f"{mib(top.peak_bytes)}."
    )
    return figure


def scaling_memory(study):
    """Peak memory of inference against size: raw points, fits with 95% bands."""
    frame = _fitted(study)
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
    frame = _costs(study)
    names = [n for n in plots.order(frame.variant.unique()) if frame[frame.variant == n].pixels.nunique() >= 4][::-1]
    if not names:
        raise NotEnoughData("no variant at 4 sizes")
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
    frame = _fitted(study)
    figure, axes = plots.new(9.2, 5.0)
    plots.scaling_curves(frame, axes, "seconds", 1)
    axes.set_ylabel(f"seconds an inference, after the first ({THREADS} threads)")
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
    frame = _costs(study)
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


def repeatability(study):
    """How far equal trials differ: the peak of each against the median of its repeats."""
    frame = _costs(study)
    groups = frame.groupby(["variant", "pixels"])
    frame = frame.assign(
        off=frame.peak_bytes / groups.peak_bytes.transform("median") - 1, repeats=groups.peak_bytes.transform("size")
    )
    frame = frame[frame.repeats > 1]
    if frame.empty:
        raise NotEnoughData("no repeats")
    figure, axes = plots.new(8.8, 3.8)
    for name in plots.order(frame.variant.unique()):
        rows = frame[frame.variant == name]
        axes.plot(rows.side, rows.off * 100, ls="", alpha=0.6, mec="none", label=name, **look(name))
    for edge in (-2, 2):
        axes.axhline(edge, color="black", lw=0.8, ls="--")
    plots.side_axis(axes, frame.side)
    axes.set_ylabel("peak against the median of\nits repeats, per cent")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    inside = (frame.off.abs() <= 0.02).mean()
    axes.set_title(f"{inside:.0%} of the trials are within 2% of their repeats' median peak")
    figure.alt = (
        f"Deviation of each trial's peak from its repeats' median; {inside:.0%} lie within 2%, the largest is "
        f"{frame.off.abs().max():.1%}."
    )
    return figure


def instruments(study):
    """A planted spike as each instrument sees it: the kernel's peak, and memory-profiler at 10 and 100 ms."""
    seen = study.instruments
    seen = seen[seen.question == "spike"] if len(seen) else seen
    if not len(seen):
        raise NotEnoughData("the instruments were not tested")
    figure, axes = plots.new(8.8, 4.2)
    looks = {
        "kernel's peak": ("#009E73", "D"),
        "memory-profiler, 10 ms": ("#0072B2", "o"),
        "memory-profiler, 100 ms": ("#D55E00", "^"),
    }
    sizes = sorted(seen.planted_bytes.unique())
    for shift, (name, (colour, marker)) in enumerate(looks.items()):
        rows = seen[seen.instrument == name]
        places = [sizes.index(size) + (shift - 1) * 0.2 for size in rows.planted_bytes]
        axes.plot(
            places,
            rows.seen_bytes / rows.planted_bytes * 100,
            ls="",
            color=colour,
            marker=marker,
            alpha=0.7,
            mec="none",
            label=name,
        )
    axes.axhline(100, color="black", lw=0.8)
    axes.set_xticks(range(len(sizes)), [mib(size) for size in sizes])
    axes.set_xlabel("planted: held for 15 ms, then given back")
    axes.set_ylabel("seen, per cent of what was planted")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    shares = (seen.seen_bytes / seen.planted_bytes).groupby(seen.instrument)
    kernel = (shares.get_group("kernel's peak") - 1).abs().max()
    missed = (shares.get_group("memory-profiler, 100 ms") < 0.5).mean()
    axes.set_title(
        f"The kernel's peak is within {kernel:.1%}; samples every 100 ms miss most of {missed:.0%} of the spikes"
    )
    figure.alt = (
        f"Planted spikes and what was seen of them: kernel within {kernel:.1%}, memory-profiler at 100 ms "
        f"misses most of {missed:.0%}."
    )
    return figure


FIGURES = {
    "headline": headline,
    "files": files,
    "exporters": exporting,
    "timeline": timeline,
    "instruments": instruments,
    "repeatability": repeatability,
    "loading": loading,
    "loading-timeline": loading_timeline,
    "scaling-memory": scaling_memory,
    "parts": parts,
    "first-and-steady": first_and_steady,
    "stages": stages,
    "scaling-time": scaling_time,
    "threads": threads,
}


def draw(name, study):
    """One figure of `FIGURES`, in the workbench's style; `NotEnoughData` where the study cannot give it."""
    with rc_context(plots.STYLE):
        return FIGURES[name](study)


def show(name, study):
    """Draw a figure in a notebook, with its alt text, and save it into $UDNET_FIGURES or figures/."""
    try:
        figure = draw(name, study)
    except NotEnoughData as reason:
        print(f"{name}: not drawn from this study: {reason}")
        return
    plots.save(figure, os.environ.get("UDNET_FIGURES", FOLDER), name)
    plots.display(figure)
