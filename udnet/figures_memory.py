"""Figures of memory within one process: instruments, timelines, loading."""

import numpy as np

from . import findings, plots, scaling
from .memory import MIB, mib
from .plots import look
from .scaling import NotEnoughData


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
    kernel = (seen.seen_bytes - seen.planted_bytes).abs()[seen.instrument == "kernel's peak"].max() / MIB
    sampled = shares.get_group("memory-profiler, 100 ms")
    missed = f"less than half of {(sampled < 0.5).sum()} of {len(sampled)} spikes"
    axes.set_title(f"The kernel's peak is within {kernel:.2f} MiB;\nsamples every 100 ms see {missed}")
    figure.alt = (
        f"Planted spikes and what was seen of them: kernel within {kernel:.2f} MiB, at 100 ms "
        f"memory-profiler sees {missed}."
    )
    return figure


def repeatability(study):
    """How far equal trials differ: the peak of each against the median of its repeats."""
    frame = scaling.select(study)
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


def _timeline(study, variant):
    marked = study.timelines[study.timelines.trial.str.startswith(f"{variant}/")]
    if marked.empty:
        raise NotEnoughData(f"no timeline of {variant}")
    largest = max(marked.trial.unique(), key=lambda name: np.prod([int(n) for n in name.split("/")[1].split("x")]))
    return marked[marked.trial == largest], largest


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
    for names, part in _labels(last, narrow=0.03 * (end - start)):
        middle = (part.start.iloc[0] + part.end.iloc[-1]) / 2 - start
        top = part.peak_bytes.max() / MIB
        axes.text(middle, top, f" {names}", rotation=90, ha="center", va="bottom", fontsize=8)
    axes.plot(samples.seconds - start, samples.rss_bytes / MIB, color=look("pytorch")["color"], lw=1.3)
    axes.set_xlim(0, end - start)
    low = min(samples.rss_bytes.min(), last.peak_bytes.min()) / MIB
    high = last.peak_bytes.max() / MIB
    axes.set_ylim(low - (high - low) * 0.08, high + (high - low) * 0.45)
    axes.set_xlabel("seconds since the network began (sampled: not a measure of time)")
    axes.set_ylabel("resident memory, MiB")
    _, top = findings.highest_stages(study)
    size, stages = name.split("/")[1], " and ".join(top.index)
    axes.set_title(f"At {size} the peak is {mib(top.max())}; within 1% of it: {stages}")
    figure.alt = (
        f"Timeline of one inference of PyTorch at {size} with {len(last)} stages; within 1% of the peak, "
        f"{mib(top.max())}, are {stages}."
    )
    return figure


def _labels(marks, narrow):
    """Names of the stages for a chart, each with its rows; neighbours too narrow for a name share one."""
    wide = (marks.end - marks.start) > narrow
    groups = (wide | wide.shift(fill_value=True)).cumsum()
    for _, part in marks.groupby(groups):
        first, last = part.stage.iloc[0], part.stage.iloc[-1]
        yield first if first == last else f"{first} to {last}", part


def loading(study):
    """Where the memory goes before the first picture: resident memory after each phase, and the peak on the way."""
    frame = scaling.select(study)
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
    axes.set_title(f"Loading as released adds {mib(extra)};\nthe path that inference needs adds {mib(max(own, 0))}")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.04)
    figure.alt = (
        f"Bars of resident memory after interpreter, import and load for {len(names)} variants. As released, loading "
        f"peaks {mib(extra)} above the import; the inference path alone {mib(max(own, 0))}."
    )
    return figure


def loading_timeline(study):
    """Memory while the released code loads, sampled every 10 ms, with the levels that its tensors alone predict."""
    samples, name = _timeline(study, "pytorch-published")
    rows = study.trials[study.trials.trial == name].set_index("phase")
    end = rows.end_seconds["load"]
    samples = samples[samples.seconds <= end * 1.04]
    rows = rows.loc[["interpreter", "import", "load"]]
    figure, axes = plots.new(8.8, 4.2)
    plots.timeline(axes, samples, rows, look("pytorch-published")["color"])
    library, vgg = rows.rss_end_bytes["import"] / MIB, study.machine["files"]["vgg16"] / MIB
    levels = {
        "torch imported": library,
        "+ VGG16 constructed": library + vgg,
        "+ its checkpoint read": library + 2 * vgg,
    }
    for words, level in levels.items():
        axes.axhline(level, color="black", lw=0.8, ls=":")
        axes.annotate(
            f"{words}: {level:,.0f}", (0.01 * end, level), xytext=(0, 3), textcoords="offset points", fontsize=8.5
        )
    after, peak = rows.rss_end_bytes["load"], rows.peak_bytes["load"]
    axes.set_title(f"As released: {mib(peak)} at the top of loading, {mib(after)} once it is done")
    figure.alt = (
        f"Timeline of resident memory: import, then loading up to {mib(peak)}, down to {mib(after)}; dotted lines are "
        f"what VGG16 predicts, constructed {levels['+ VGG16 constructed']:,.0f} MiB, with its checkpoint read "
        f"{levels['+ its checkpoint read']:,.0f} MiB."
    )
    return figure
