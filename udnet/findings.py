"""What a study says, in sentences whose every number is computed: for the notebooks, the README and the report."""

from pathlib import Path

import pandas as pd

from . import PARITY_LIMIT, exporters, instruments, scaling
from .memory import MIB, mib
from .plots import order
from .variants import find

DATA = Path(__file__).parent.parent / "data"
MIDDLE, LARGE = 256, 1024  # sides of the report's first picture, and of the largest with repeats in a full study
NAMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime"}


class Missing(str):
    """A sentence in place of a table that a study has too little for; a notebook sets it as prose."""

    def _repr_markdown_(self):
        return f"*{self}*"


NOT_MEASURED = Missing("Too little of this was measured in this study.")


def runs_each(counts):
    """How many runs the numbers rest on, by the counts of what they are of."""
    least, most = counts.min(), counts.max()
    return f"{least} to {most} runs each" if least < most else f"{most} run{'s' if most > 1 else ''} each"


def sentences(study):
    """The findings, a sentence each, in Markdown; those that a small study cannot support are left out."""
    costs = scaling.costs(study)
    said = []
    for finding in (total, loading, growth, crossing, lean, first_picture, time):
        try:
            said.append(finding(costs))
        except scaling.NotEnoughData:
            continue
    return said


def total(costs):
    """The whole process at the report's size, as released and like for like."""
    peak = {
        name: scaling.median(costs, "process_peak_bytes", name, MIDDLE)
        for name in ("pytorch-published", "pytorch", "onnx", "onnx-lean")
    }
    released = scaling.compare(costs, "process_peak_bytes", "pytorch-published", "onnx", MIDDLE)
    fair = scaling.compare(costs, "process_peak_bytes", "pytorch", "onnx", MIDDLE)
    return (
        f"**Not 24 times.** At {MIDDLE}x{MIDDLE} the whole process peaks at {mib(peak['pytorch-published'])} in "
        f"PyTorch as released, {mib(peak['pytorch'])} with the inference path alone and {mib(peak['onnx'])} in ONNX "
        f"Runtime: {released:.1f} times as released, {fair:.2f} times like for like."
    )


def loading(costs):
    """What loading adds, as released and as needed."""
    added = costs.assign(added=costs.load_peak_bytes - costs.import_bytes)
    released, needed, onnx = (
        scaling.median(added, "added", name, MIDDLE) for name in ("pytorch-published", "pytorch", "onnx")
    )
    imported = scaling.median(costs, "import_bytes", "pytorch", MIDDLE)
    stays, kept = (scaling.median(costs, "load_bytes", name, MIDDLE) for name in ("pytorch", "pytorch-published"))
    return (
        f"**Loading is the training network.** As released it adds {mib(released)} at its top, above all for VGG16, "
        f"which only training uses; the path that inference needs adds {mib(needed)} in PyTorch, {mib(onnx)} in ONNX "
        f"Runtime. What stays of that path, {mib(stays)}, is above all the library: {mib(imported)} once torch is "
        f"imported. As released {mib(kept)} stay."
    )


def growth(costs):
    """Bytes a pixel."""
    torch, onnx = (_fit(costs, name) for name in ("pytorch", "onnx"))
    slope = scaling.Estimate(onnx.slope / 1000, *(edge / 1000 for edge in onnx.slope_interval))
    return (
        f"**A pixel costs** {torch.slope / 1000:.1f} kB in PyTorch and {slope:.1f} kB in ONNX Runtime's default "
        f"session, there in steps: up to {onnx.excess:.0%} more than the line."
    )


def crossing(costs):
    """Where ONNX Runtime's default session begins to need more than PyTorch."""
    met = scaling.crossing(_fit(costs, "pytorch"), _fit(costs, "onnx"))
    if met is None:
        return "**No crossing:** over the sizes measured one runtime needs less throughout."
    return (
        f"**The advantage reverses.** From about {met.side.best:.0f}x{met.side.best:.0f} on (95% interval of the side: "
        f"{met.side.low:.0f} to {met.side.high:.0f}) ONNX Runtime's default session needs more memory than PyTorch."
    )


def lean(costs):
    """What the lean session is and saves, and how much of that the arena alone does."""
    side = _largest_of(costs, "onnx", "onnx-lean", "onnx-no-arena", "pytorch")
    on_default, no_arena, on_torch = (
        scaling.compare(costs, "peak_bytes", over, under, side)
        for over, under in (("onnx", "onnx-lean"), ("onnx", "onnx-no-arena"), ("pytorch", "onnx-lean"))
    )
    return (
        f"**Two settings undo that.** A lean session has no memory arena, which keeps what is freed for later, and "
        f"returns freed memory to the system. A pixel costs {_fit(costs, 'onnx-lean').slope / 1000:.1f} kB in it; at "
        f"{side}x{side} it needs {on_default:.2f} times less than ONNX Runtime's default session ({no_arena:.2f} times "
        f"with the arena off alone) and {on_torch:.2f} times less than PyTorch."
    )


def first_picture(costs):
    """What the lean session costs in time: a later picture of a size, and the first."""
    side = _largest_of(costs, "onnx", "onnx-lean", "pytorch")
    on_default, on_torch = (scaling.compare(costs, "seconds", "onnx-lean", name, side) for name in ("onnx", "pytorch"))
    longer, usual = (
        scaling.median(costs, "first_seconds", name, side) / scaling.median(costs, "seconds", name, side)
        for name in ("onnx-lean", "onnx")
    )
    return (
        f"**The first picture pays for it.** At {side}x{side} a later picture of the same size takes a lean session "
        f"{on_default:.2f} times as long as ONNX Runtime's default session and {on_torch:.2f} times as long as "
        f"PyTorch. The first picture of a size takes a lean session {longer:.1f} times as long as a later one, a "
        f"default one {usual:.1f} times."
    )


def time(costs):
    """Time like for like."""
    side = _largest_of(costs, "pytorch", "onnx")
    ratio = scaling.compare(costs, "seconds", "pytorch", "onnx", side)
    return (
        f"**Time.** At {side}x{side}, on {scaling.THREADS} threads, PyTorch takes {ratio:.2f} times as long as ONNX "
        f"Runtime's default session, for a later picture of the same size."
    )


def _largest_of(costs, *variants):
    """The side of the largest square, up to `LARGE`, at which all of these variants were measured."""
    square = costs[(costs.height == costs.width) & (costs.height <= LARGE) & (costs.threads == scaling.THREADS)]
    shared = set.intersection(*(set(square.height[square.variant == name]) for name in variants))
    if not shared:
        raise scaling.NotEnoughData(f"no square size of {', '.join(variants)}")
    return max(shared)


# --- notebook 1: the files ---


def files(study):
    """The files' sizes, and what makes the difference."""
    size = study.machine["files"]
    return (
        f"**The ONNX file is {size['full'] / size['onnx']:.1f} times smaller because it holds less.** The checkpoint "
        f"carries the whole training network. With what inference needs alone it has {size['inference'] / MIB:.2f} "
        f"MiB, the ONNX file {size['onnx'] / MIB:.2f} MiB, and all variants agree within "
        f"{study.parity.largest_difference.max():.0e}."
    )


def predicted_sizes(study, used, every):
    """Four bytes a parameter against the files; `used` and `every`: numbers of parameters."""
    size = study.machine["files"]
    return (
        f"Predicted: {every * 4 / MIB:.2f} MiB for the checkpoint, {used * 4 / MIB:.2f} MiB for the inference path. "
        f"Found: {size['full'] / MIB:.2f} MiB for the full checkpoint, {size['inference'] / MIB:.2f} MiB stripped, "
        f"{size['onnx'] / MIB:.2f} MiB as ONNX. What is above four bytes a parameter is names, headers and, in the "
        f"ONNX file, the graph: {(size['onnx'] - used * 4) / 1024:.0f} KiB."
    )


def exporter(study):
    """What the measured candidates say about the one that `export` uses."""
    costs = exporters.read(study.folder)
    if costs is None:
        return "The exporters were not measured in this study."
    peaks = costs.groupby(["variant", "candidate"]).peak_bytes.median()
    chosen = exporters.CHOSEN
    exact = ", ".join(sorted(costs[costs.exact].candidate.unique()))
    return (
        f"Within {PARITY_LIMIT:.0e} of PyTorch at every size: {exact}. `export` writes {chosen}: a peak of "
        f"{mib(peaks['onnx', chosen])} in a default session and {mib(peaks['onnx-lean', chosen])} in a lean one at "
        f"{exporters.SIDE}x{exporters.SIDE}; over all candidates, exact or not, the range is "
        f"{mib(peaks['onnx'].min())} to {mib(peaks['onnx'].max())} and {mib(peaks['onnx-lean'].min())} to "
        f"{mib(peaks['onnx-lean'].max())}."
    )


# --- notebook 2: the instruments ---


def measuring(study):
    """How far off each instrument is."""
    table = study.instruments
    if table.empty:
        return "The instruments were not tested in this study."
    spikes = table[table.question == "spike"]
    shares = (spikes.seen_bytes / spikes.planted_bytes).astype(float).groupby(spikes.instrument)
    kernel = spikes[spikes.instrument == "kernel's peak"]
    off = (kernel.seen_bytes - kernel.planted_bytes).abs().max()
    middle, low, high = instruments.tracking_cost(table)
    return (
        f"**By the kernel's own high-water mark, in a fresh process, with repeats.** It reads a planted spike of "
        f"{instruments.SPIKE_SECONDS * 1000:.0f} ms within {off / MIB:.2f} MiB, from "
        f"{mib(spikes.planted_bytes.min())} to {mib(spikes.planted_bytes.max())}; samples every 10 ms see "
        f"{shares.get_group('memory-profiler, 10 ms').median():.0%} of it (median), samples every 100 ms "
        f"{shares.get_group('memory-profiler, 100 ms').median():.0%}, and readings between steps none. "
        f"Tracking changes a timed computation by {middle:+.2%} (95% interval {low:+.2%} to {high:+.2%})."
    )


def instrument_table(study):
    """What each instrument saw of each planted spike: median and range, in MiB."""
    spikes = study.instruments[study.instruments.question == "spike"]
    seen = (spikes.seen_bytes / MIB).astype(float)
    groups = seen.groupby([spikes.planted_bytes // MIB, spikes.instrument])
    table = groups.agg(["median", "min", "max"]).round(1)
    return table.rename_axis(["planted, MiB", "instrument"]).add_suffix(", MiB")


def disturbance_table(study):
    """The worker's floor and the parent's influence, in MiB."""
    rest = study.instruments[study.instruments.question.isin(["floor", "parent"])]
    seen = (rest.seen_bytes / MIB).astype(float)
    groups = seen.groupby([rest.question, rest.planted_bytes // 10**6, rest.instrument])
    table = groups.agg(["median", "min", "max"]).round(2)
    return table.rename_axis(["question", "parent holds, MB", "read by"]).add_suffix(", MiB")


def repeats(study):
    """How far equal trials' peaks differ, and whose do by more than 2%."""
    try:
        spread = scaling.spread(scaling.costs(study)).groupby("variant").max()
    except scaling.NotEnoughData:
        return "No trial was repeated in this study."
    wide = spread[spread > 0.02]
    if wide.empty:
        return f"Of equal trials the largest peak is nowhere more than {spread.max():.1%} above the smallest."
    names = ", ".join(f"`{name}` ({value:.1%})" for name, value in wide.items())
    fixed = spread.filter(like="-lean")
    lean = " and ".join(f"`{name}`" for name in fixed.index)
    said = f"Of equal trials the largest peak is more than 2% above the smallest with: {names}."
    if fixed.empty:
        return said
    return (
        f"{said} These leave their large blocks to glibc as it comes: its heap gives back only what is free at its "
        f"end, so where a block happens to lie decides. Where every large block is mapped by itself, as in "
        f"{lean}, it is at most {fixed.max():.1%}; a test changes that one threshold for "
        f"`pytorch` and sees the same."
    )


def sampled(study):
    """How far the samples of the timelines fall below the kernel's peak of the same trials."""
    rows = study.trials.dropna(subset=["sampled_peak_bytes"])
    rows = rows[rows.phase.isin(["first", "steady"])]
    short = (1 - rows.sampled_peak_bytes / rows.peak_bytes).astype(float)
    return (
        f"In the inferences of these {rows.trial.nunique()} timelines the highest sample falls short of the kernel's "
        f"peak by {short.median():.1%} in the median and by {short.max():.1%} at most."
    )


# --- notebook 3: loading ---


def loading_table(costs):
    """Resident memory after each phase before inference, in MiB: medians over all sizes, which loading does not see."""
    columns = {"interpreter_bytes": "interpreter", "import_bytes": "import", "load_bytes": "load"}
    table = costs.groupby("variant")[[*columns, "load_peak_bytes"]].median() / MIB
    table = table.rename(columns={**columns, "load_peak_bytes": "peak until loaded"})
    table.insert(3, "added by loading, at its top", table["peak until loaded"] - table["import"])
    return table.sort_values("peak until loaded", ascending=False).round(1).add_suffix(", MiB")


def predicted_loading(study):
    """The released code's loading peak from the sizes of its tensors alone, against what was measured."""
    tensors = pd.read_csv(DATA / "state_dict.csv")
    own = 4 * tensors[tensors.role != "perceptual-loss"].parameters.sum()
    predicted = 2 * study.machine["files"]["vgg16"] + own
    costs = scaling.costs(study)
    added = costs.load_peak_bytes - costs.import_bytes
    measured = added[costs.variant == "pytorch-published"].median()
    return (
        f"VGG16 twice, once constructed and once read, and UDnet's own tensors: {mib(predicted)}. Measured: "
        f"{mib(measured)}, {measured / predicted - 1:+.1%}. The report read 1,066.7 MB."
    )


def loading_time(costs):
    """What takes the time before the first picture."""
    seconds = costs[costs.threads == scaling.THREADS].groupby("variant")[["import_seconds", "load_seconds"]].median()
    if not {"pytorch-published", "pytorch", "onnx"} <= set(seconds.index):
        return "Not every way of loading was measured in this study."
    torch, onnx = (seconds.import_seconds[name] for name in ("pytorch", "onnx"))
    released, needed, session = (seconds.load_seconds[name] for name in ("pytorch-published", "pytorch", "onnx"))
    return (
        f"Importing torch takes {torch:.2f} s, importing onnxruntime {onnx:.2f} s. Loading takes {released:.2f} s as "
        f"released and {needed:.2f} s for the inference path, as a session does ({session:.2f} s): without VGG16 the "
        f"wait before the first picture is the library's."
    )


def loading_time_table(costs):
    """Seconds of import and load: medians and 95% ranges over the trials."""
    groups = costs[costs.threads == scaling.THREADS].groupby("variant")
    table = pd.DataFrame({f"{name}, s": groups[f"{name}_seconds"].median() for name in ("import", "load")})
    for name in ("import", "load"):
        edges = groups[f"{name}_seconds"].quantile([0.025, 0.975]).unstack()
        table[f"{name}, 95% of trials, s"] = [f"{low:.2f} to {high:.2f}" for low, high in edges.to_numpy()]
    return table.sort_values("load, s").round(2)


# --- notebook 4: scaling ---


def later_runs(costs):
    """How much more memory later runs need than the first, by session."""
    costs = costs[costs.threads == scaling.THREADS]
    more = (costs.steady_peak_bytes / costs.first_peak_bytes).groupby([costs.variant, costs.pixels]).median()
    most = more.groupby("variant").max()
    names = [name for name in ("onnx", "onnx-no-pattern", "onnx-no-arena", "onnx-lean", "pytorch") if name in most]
    said = ", ".join(f"{most[name]:.2f} times with {name}" for name in names)
    return f"Over all sizes, later runs need at most, of the memory of the first, {said}."


def fixed_part(costs):
    """What does not grow, and how much of the line that is at two sizes."""
    fits = {name: _fit(costs, name) for name in ("pytorch", "onnx-lean")}
    torch, sides = fits["pytorch"], (MIDDLE, LARGE)
    shares = " and ".join(f"{torch.fixed / torch(side**2):.0%} of the line at {side}x{side}" for side in sides)
    return (
        f"What does not grow is {mib(torch.fixed)} in PyTorch and {mib(fits['onnx-lean'].fixed)} in a lean session, "
        f"the library above all. For PyTorch that is {shares}: a ratio at one size says nothing about another."
    )


def fit_table(costs):
    """The fitted lines: fixed part, bytes a pixel, and how far from a line the sizes are."""
    rows = {}
    for name, part in _fitted(costs).groupby("variant"):
        fit = scaling.fit(part)
        rows[name] = {
            "fixed part, MiB": f"{scaling.Estimate(fit.fixed / MIB, *(edge / MIB for edge in fit.fixed_interval)):.0f}",
            "bytes a pixel": f"{scaling.Estimate(fit.slope, *fit.slope_interval):,.0f}",
            "worst size": f"{fit.worst:.0%}",
            "sizes": part.pixels.nunique(),
            "trials": len(part),
        }
    return pd.DataFrame(rows).T


def crossing_table(costs):
    """Between which sizes a variant of one runtime begins to need more than one of the other, whole process.

    By the medians at the sizes measured, not by lines: as released the peak is that of loading up to some size.
    """
    costs = costs[costs.threads == scaling.THREADS]
    peaks = costs.pivot_table(
        index=["pixels", "size"], columns="variant", values="process_peak_bytes", aggfunc="median"
    )
    runtime, rows = costs.groupby("variant").runtime.first(), []
    for less in order(runtime.index[runtime == "onnx"]):
        for more in order(runtime.index[runtime == "pytorch"]):
            ratio = (peaks[less] / peaks[more]).dropna().droplevel("pixels")
            above = ratio[(ratio > 1)[::-1].cummin()[::-1]]
            if 0 < len(above) < len(ratio):
                below = ratio.index[-len(above) - 1]
                rows.append((less, more, below, above.index[0]))
    return pd.DataFrame(rows, columns=["ONNX Runtime", "PyTorch", "needs less up to", "needs more from"])


def stage_peaks(study):
    """Which stages of PyTorch's inference reach its peak, or nearly."""
    try:
        name, top = highest_stages(study)
    except scaling.NotEnoughData:
        return "The stages were not marked in this study."
    return (
        f"At {name.split('/')[1]} the peak, {mib(top.max())}, is reached within 1% in {' and '.join(top.index)}, where "
        f"the maps have the picture's full size."
    )


def highest_stages(study, near=0.01):
    """The largest timeline of PyTorch, and its stages within a share of the top in the last inference: bytes."""
    marks = study.stages[study.stages.trial.str.startswith("pytorch/")] if len(study.stages) else study.stages
    if not len(marks):
        raise scaling.NotEnoughData("no stages of pytorch")
    name = max(marks.trial.unique(), key=lambda trial: [int(side) for side in trial.split("/")[1].split("x")])
    peaks = marks[marks.trial == name].drop_duplicates("stage", keep="last").set_index("stage").peak_bytes
    return name, peaks[peaks >= peaks.max() * (1 - near)]


def time_ratio(costs):
    """How much longer PyTorch takes, at the smallest and at the largest size with repeats."""
    costs = costs[costs.threads == scaling.THREADS]
    seconds = costs[costs.variant.isin(["pytorch", "onnx"])].groupby(["variant", "pixels", "size"]).seconds.median()
    ratio = (seconds["pytorch"] / seconds["onnx"]).dropna().droplevel("pixels")
    return (
        f"Over {len(ratio)} sizes PyTorch takes {ratio.min():.2f} (at {ratio.idxmin()}) to {ratio.max():.2f} (at "
        f"{ratio.idxmax()}) times as long as ONNX Runtime's default session."
    )


def threads(costs):
    """What the second thread gives and costs."""
    both = costs[costs.groupby(["variant", "size"]).threads.transform("nunique") > 1]
    medians = both.groupby(["variant", "size", "threads"])[["seconds", "peak_bytes"]].median().unstack()
    if medians.empty:
        return "One number of threads alone was measured in this study."
    time, peak = (medians[value][1] / medians[value][2] for value in ("seconds", "peak_bytes"))
    return (
        f"One thread takes {time.min():.2f} to {time.max():.2f} times as long as two, and {peak.min():.2f} to "
        f"{peak.max():.2f} times the memory: what is held is the maps, not what a thread works on."
    )


# --- notebook 7 ---


def agreement(study):
    """How far the variants' outputs are from the reference's."""
    parity = study.parity[study.parity.error.fillna("").eq("")]
    size = parity.iloc[0]
    return (
        f"All {len(parity)} variants give the same output: for a picture of {size.height}x{size.width}, on a scale of "
        f"0 to 1, within {parity.largest_difference.max():.0e} of PyTorch's with the inference path alone. A variant "
        f"off by more than {PARITY_LIMIT:.0e} would not have been measured."
    )


def names(study):
    """The names of the study's variants, a line each: the runtime and what is done differently."""
    known = [find(name) for name in order(study.trials.variant.unique()) if not set("@+:") & set(name)]
    return "\n".join(f"- `{one.name}`: {NAMES[one.runtime]}, {one.summary}" for one in known)


def at_rest(costs):
    """What a process keeps between pictures."""
    names = ("onnx", "onnx-lean", "pytorch")
    side = _largest_of(costs, *names)
    onnx, lean, torch = (mib(scaling.median(costs, "rest_bytes", name, side)) for name in names)
    said = (
        f"**Between pictures.** After one of {side}x{side} a default session keeps {onnx} for as long as the process "
        f"lives, a lean one {lean}, PyTorch {torch}"
    )
    tiled = costs[(costs.variant == "onnx-tiled") & (costs.side == side) & (costs.threads == scaling.THREADS)]
    return said + (f", the tiled schedule {mib(tiled.rest_bytes.median())}." if len(tiled) else ".")


def repeatability(costs):
    """How far repeats lie apart, memory and time."""
    try:
        memory, seconds = (scaling.spread(costs, value) for value in ("peak_bytes", "seconds"))
    except scaling.NotEnoughData:
        return "No trial was repeated in this study: take its numbers as single readings."
    return (
        f"Memory repeats closely, time less so: of equal trials the largest peak is {memory.median():.1%} above the "
        f"smallest in the median case and {memory.max():.1%} at most, the longest time {seconds.median():.0%} above "
        f"the shortest and {seconds.max():.0%} at most. Compare times as ratios of medians."
    )


def planning_table(costs):
    """The largest peak of the whole process among the repeats, in MiB, by variant and size."""
    costs = costs[costs.threads == scaling.THREADS]
    table = costs.pivot_table(index="variant", columns="size", values="process_peak_bytes", aggfunc="max") / MIB
    table = table.loc[order(table.index), costs.sort_values("pixels")["size"].unique()]
    return table.round(0).astype("Int64").astype(object).where(table.notna(), "")


def machine_table(study):
    """What the study ran on."""
    machine = study.machine
    rows = {
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "memory": mib(machine["memory_bytes"]),
        "system": f"{machine['system']} {machine['kernel']}, {machine['allocator']}",
        "huge pages": machine["huge_pages"],
        "Python": machine["python"],
        **machine["packages"],
        "weights": machine["weights"].removeprefix("weights: ").partition(" (sha256")[0],
        "trials": f"{study.trials.trial.nunique()} on {machine['date'][:10]}, seed {machine['seed']}",
    }
    return pd.DataFrame({"": rows})


def _fit(costs, variant):
    return scaling.fit(costs[(costs.variant == variant) & (costs.threads == scaling.THREADS)])


def _fitted(costs):
    return scaling.fitted(costs[costs.threads == scaling.THREADS])
