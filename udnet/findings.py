"""What a study says, in sentences whose every number is computed: for the notebooks, the README and the report."""

from pathlib import Path

import pandas as pd

from . import PARITY_LIMIT, exporters, instruments, scaling
from .memory import MIB
from .plots import mib

DATA = Path(__file__).parent.parent / "data"
MIDDLE, LARGE = 256, 1024  # sides of the report's first picture and of the largest with repeats


def sentences(study):
    """The findings, a sentence each, in Markdown; those that a small study cannot support are left out."""
    costs = scaling.costs(study)
    said = []
    for finding in (total, loading, growth, crossing, lean, time):
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
    return (
        f"**Loading is the training network.** As released it adds {mib(released)} at its top, above all for VGG16, "
        f"which only training uses; the path that inference needs adds {mib(needed)} in PyTorch, {mib(onnx)} in ONNX "
        f"Runtime. What stays is the library: {mib(imported)} once torch is imported."
    )


def growth(costs):
    """Bytes a pixel."""
    slopes = {name: _fit(costs, name).slope / 1000 for name in ("pytorch", "onnx", "onnx-lean")}
    return (
        f"**A pixel costs** {slopes['pytorch']:.1f} kB in PyTorch, {slopes['onnx']:.1f} kB in ONNX Runtime's default "
        f"session and {slopes['onnx-lean']:.1f} kB in a lean one."
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
    """What the lean session saves and costs."""
    saved = scaling.compare(costs, "peak_bytes", "onnx", "onnx-lean", LARGE)
    slower = scaling.compare(costs, "seconds", "onnx-lean", "onnx", LARGE)
    return (
        f"**Two settings undo that.** Without its memory arena, and with freed memory returned to the system, ONNX "
        f"Runtime needs {saved:.2f} times less at {LARGE}x{LARGE}, for {slower:.2f} times the time."
    )


def time(costs):
    """Time like for like."""
    ratio = scaling.compare(costs, "seconds", "pytorch", "onnx", LARGE)
    return (
        f"**Time.** At {LARGE}x{LARGE}, on {scaling.THREADS} threads, PyTorch takes {ratio:.2f} times as long as ONNX "
        f"Runtime."
    )


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
        f"{instruments.SPIKE_SECONDS * 1000:.0f} ms within {off / MIB:.1f} MiB, from "
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
    return table.rename_axis(["planted, MiB", "instrument"])


def disturbance_table(study):
    """The worker's floor, the parent's influence and the cost of tracking, in MiB and milliseconds."""
    rest = study.instruments[study.instruments.question.isin(["floor", "parent"])]
    seen = (rest.seen_bytes / MIB).astype(float)
    groups = seen.groupby([rest.question, rest.planted_bytes // 10**6, rest.instrument])
    table = groups.agg(["median", "min", "max"]).round(2)
    return table.rename_axis(["question", "parent holds, MB", "read by"]).add_suffix(", MiB")


def repeats(study):
    """How far equal trials' peaks differ, and whose do by more than 2%."""
    costs = scaling.costs(study)
    peaks = costs.groupby(["variant", "height", "width", "threads"]).peak_bytes
    spread = (peaks.max() / peaks.min() - 1)[peaks.size() > 1].groupby("variant").max()
    wide = spread[spread > 0.02]
    if wide.empty:
        return f"No two equal trials differ in their peak by more than {spread.max():.1%}."
    names = " and ".join(f"{name} ({value:.1%})" for name, value in wide.items())
    fixed = spread.filter(like="-lean")
    said = f"Equal trials that differ in their peak by more than 2% are those of {names}."
    if fixed.empty:
        return said
    return (
        f"{said} These leave their large blocks to glibc as it comes: its heap gives back only what is free at its "
        f"end, so where a block happens to lie decides. Where every large block is mapped by itself, as in "
        f"{' and '.join(fixed.index)}, no two differ by more than {fixed.max():.1%}; a test changes that one "
        f"threshold for `pytorch` and sees the same."
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
    return table.sort_values("peak until loaded", ascending=False).round(1)


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


def loading_time_table(costs):
    """Seconds of import and load: medians and 95% ranges over the trials."""
    groups = costs[costs.threads == scaling.THREADS].groupby("variant")
    table = pd.DataFrame({name: groups[f"{name}_seconds"].median() for name in ("import", "load")})
    for name in ("import", "load"):
        edges = groups[f"{name}_seconds"].quantile([0.025, 0.975]).unstack()
        table[f"{name}, 95% of trials"] = [f"{low:.2f} to {high:.2f}" for low, high in edges.to_numpy()]
    return table.sort_values("load").round(2)


# --- notebook 4: scaling ---


def later_runs(costs):
    """How much more memory later runs need than the first, by session."""
    costs = costs[costs.threads == scaling.THREADS]
    more = (costs.steady_peak_bytes / costs.first_peak_bytes).groupby([costs.variant, costs.pixels]).median()
    most = more.groupby("variant").max()
    names = [name for name in ("onnx", "onnx-no-pattern", "onnx-no-arena", "onnx-lean", "pytorch") if name in most]
    said = ", ".join(f"{most[name]:.2f} times with {name}" for name in names)
    return f"Over all sizes, later runs need at most, of the memory of the first, {said}."


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
    """Every pair of variants whose lines cross within the sizes measured: the side, with its interval."""
    fits = {name: scaling.fit(part) for name, part in _fitted(costs).groupby("variant")}
    names, rows = sorted(fits), []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            met = scaling.crossing(fits[one], fits[other])
            if met and costs.side.min() < met.side.best < costs.side.max():
                less, more = (one, other) if fits[one].fixed < fits[other].fixed else (other, one)
                rows.append({"needs less below": less, "needs less above": more, "side": f"{met.side:.0f}"})
    return pd.DataFrame(rows)


# --- notebook 7 ---


def planning_table(costs):
    """The largest peak of the whole process among the repeats, in MiB, by variant and size."""
    costs = costs[costs.threads == scaling.THREADS].assign(
        size=costs.height.astype(str) + "x" + costs.width.astype(str)
    )
    table = costs.pivot_table(index="variant", columns="size", values="process_peak_bytes", aggfunc="max") / MIB
    sizes = costs.drop_duplicates("size").sort_values("pixels")["size"]
    return table[sizes].round(0).astype("Int64").astype(object).where(table[sizes].notna(), "")


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
