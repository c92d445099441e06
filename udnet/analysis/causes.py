"""Why a claim of the report came out as it did: each cause is a sentence or two around the claim's own number.

A function here takes the `Evidence` and returns the cause, or takes what tells claims of one kind apart and returns
such a function. Every number is computed or read from the list of claims.
"""

import numpy as np

from udnet import NotMeasured
from udnet.analysis import scaling
from udnet.analysis.evidence import against_torch, covered, planned, reported, slopes
from udnet.system.memory import MIB, mib
from udnet.variants import allocators

LIBRARIES = {"pytorch": "torch", "onnx": "onnxruntime"}


def said(claim):
    """The number that a claim of the report states, as the report prints it or nearly."""
    return f"{reported(claim):,.6g}"


def _m(values):
    """The median of a sample in MiB, as a person reads it."""
    return mib(float(np.median(values)) * MIB)


def _g(values):
    """The median of a sample in MiB, as GiB: for what the report says in GB."""
    return f"{np.median(values) / 1024:.2f} GiB"


def _over(top, bottom):
    return float(np.median(top) / np.median(bottom))


# --- files ---


def full_file(e):
    return (
        f"The report's {said('C01')} is the checkpoint of the whole training network, VGG16's features above all: of "
        f"its {e.file('full').best:.1f} MiB inference uses {e.file('inference').best:.2f}."
    )


def onnx_file(e):
    return (
        f"The report's {said('C02')} is what inference needs and the graph: {e.file('onnx').best:.2f} MiB here, where "
        f"the tensors alone take {e.file('inference').best:.2f} as a checkpoint."
    )


def file_ratio(e):
    full, inference, onnx = (e.file(form).best for form in ("full", "inference", "onnx"))
    return (
        f"The report's {said('C03')} compares a checkpoint that holds the training network ({full:.1f} MiB) with the "
        f"inference path as ONNX ({onnx:.2f}); the inference path as a checkpoint has {inference:.2f}."
    )


# --- loading ---


def imported(runtime, claim):
    def cause(e):
        return (
            f"What importing {LIBRARIES[runtime]} takes before any model: {said(claim)} in the report, "
            f"{_m(e.sample('import_bytes', runtime))} here, by another version and on another system."
        )

    return cause


def added_as_released(e):
    return (
        f"The report's {said('C06')} is the training network: the released code constructs VGG16 and reads its "
        f"checkpoint for a loss that only training computes, {_m(e.added('pytorch-published'))} at the top of loading, "
        f"where the inference path adds {_m(e.added('pytorch'))}. A reading afterwards shows of it what the allocator "
        f"has kept: {_by_allocator(e, lambda under: under.loaded('pytorch'))}."
    )


def kept_as_released(e):
    return (
        f"The report's {said('C12')} is the import of torch, {_m(e.sample('import_bytes', 'pytorch'))} here, and what "
        f"the allocator has kept of the training network. Resident after the report's own steps are "
        f"{_by_allocator(e, lambda under: under.reading('pytorch', 'load'))}; with the inference path alone "
        f"{_m(e.sample('load_bytes', 'pytorch'))}."
    )


def _by_allocator(e, reading):
    return ", ".join(f"{_m(reading(e.under(name)))} under {allocators.words(name)}" for name in e.allocators)


def session(e):
    return (
        f"A session adds {_session(e)}. The difference from the report's {said('C07')} is not explained here: another "
        f"version, another system."
    )


def session_over_file(e):
    return (
        f"The report's {said('C10')} is {said('C07')} over {said('C02')}, here {np.median(e.added('onnx')):.1f} over "
        f"{e.file('onnx').best:.2f}. A session's memory is no multiple of its file: it adds {_session(e)}."
    )


def _session(e):
    """What a session adds, and how much of it two of its steps do."""
    rows = e.audit.ladder
    added = (rows.load_peak_bytes - rows.import_bytes).groupby(rows.variant).median() / MIB
    if not {"onnx", "load.onnx-unoptimised", "load.onnx-no-prepacking"} <= set(added.index):
        raise NotMeasured("no ladder of ONNX Runtime")
    return (
        f"{added['onnx']:.1f} MiB here, {added['load.onnx-unoptimised']:.1f} without graph optimisation, "
        f"{added['load.onnx-no-prepacking']:.1f} without prepacking"
    )


def session_total(e):
    return (
        f"The report's {said('C13')} is what stays here too, within the rule's tolerance: a fresh process that holds "
        f"onnxruntime ({_m(e.sample('import_bytes', 'onnx'))}) and one session, "
        f"{_m(e.sample('load_bytes', 'onnx'))} together."
    )


def load_ratio(e):
    return (
        f"The report's {said('C08')} is {said('C06')} over {said('C07')}: the training network stood on one side only. "
        f"Like for like loading adds {_m(e.added('pytorch'))} in PyTorch and {_m(e.added('onnx'))} in ONNX Runtime."
    )


def load_over_file(e):
    released, full = np.median(e.added("pytorch-published")), e.file("full").best
    needed, inference = np.median(e.added("pytorch")), e.file("inference").best
    return (
        f"The report's {said('C09')} is the training network over its file, {released:,.0f} MiB over {full:.1f} here, "
        f"or {released / full:.1f}; the inference path adds {needed:.1f} MiB over a file of {inference:.2f}."
    )


def efficiency(e):
    torch, onnx = (
        np.median(e.added(name)) / e.file(form).best for name, form in (("pytorch", "inference"), ("onnx", "onnx"))
    )
    return (
        f"The report's {said('C11')} is {said('C09')} over {said('C10')}: memory added by loading, each over its file, "
        f"with the training network on one side. Of the inference path PyTorch adds {torch:.1f} times its file and "
        f"ONNX Runtime {onnx:.1f} times: {torch / onnx:.2f}."
    )


def total(e):
    torch, onnx = (e.sample("load_bytes", name) for name in ("pytorch", "onnx"))
    return (
        f"The report's {said('C14')} is {said('C12')} over {said('C13')}: torch and the training network, kept after "
        f"it was freed. With the inference path alone PyTorch holds {_m(torch)} once loaded, ONNX Runtime {_m(onnx)}."
    )


def torch_load_time(e):
    released, needed = (np.median(e.sample("load_seconds", name)) for name in ("pytorch-published", "pytorch"))
    return (
        f"The report's {said('C15')} s is above all the reading of VGG16: here {released:.2f} s as released and "
        f"{needed:.3f} s for the inference path. A machine's seconds are its own."
    )


def onnx_load_time(e):
    seconds = np.median(e.sample("load_seconds", "onnx"))
    return (
        f"The report's {said('C16')} s is one reading; here it takes {seconds:.3f} s. A machine's seconds are its own."
    )


def load_time_ratio(e):
    released, session = (e.reading(script, "load", column="seconds") for script in ("pytorch", "onnx"))
    torch, onnx = (e.sample("load_seconds", name) for name in ("pytorch", "onnx"))
    return (
        f"The report's {said('C17')} is {said('C15')} over {said('C16')}: the training network on one side only, "
        f"{_over(released, session):.1f} times by the same steps here. The inference path takes "
        f"{_over(torch, onnx):.2f} times as long to load as a session."
    )


# --- inference ---


def torch_reading(e):
    rise = [np.median(under.reading("pytorch", "inference", 256) - under.reading("pytorch", "load"))
            for under in map(e.under, e.allocators)]  # fmt: skip
    most = f", {min(rise):,.0f} to {max(rise):,.0f} MiB under every allocator measured" if len(rise) > 1 else ""
    return (
        f"A reading after the call is not a peak. The inference reuses what loading has freed, so the reading changes "
        f"by {rise[0]:,.0f} MiB by the report's protocol{most}: the report's {said('C18')} stays unexplained. The "
        f"kernel saw {_m(e.grown('pytorch', 256))} above the loaded model in a process of its own."
    )


def onnx_reading(side, claim):
    def cause(e):
        before, when = (
            (e.reading("onnx", "load"), "the loaded model")
            if side == 256
            else (e.reading("onnx", "inference", 256), "what the 256x256 picture before it had left")
        )
        return (
            f"A reading after the call is not a peak: the report's {said(claim)} is "
            f"{_m(e.reading('onnx', 'inference', side) - before)} by its protocol here, above {when}. The kernel saw "
            f"{_m(e.grown('onnx', side))} above the loaded model in a process of its own."
        )

    return cause


def torch_peak(claim):
    def cause(e):
        released, torch = (e.sample("process_peak_bytes", name, 256) for name in ("pytorch-published", "pytorch"))
        text = _g if claim == "C32" else _m
        return (
            f"The report's {said(claim)} belongs to the training network, whose loading is the peak: {text(released)} "
            f"here as released. The inference path peaks at {text(torch)}."
        )

    return cause


def peak_ratio(e):
    released, torch, onnx = (
        e.sample("process_peak_bytes", name, 256) for name in ("pytorch-published", "pytorch", "onnx")
    )
    return (
        f"The report's {said('C24')} is the training network over the highest reading of ONNX Runtime. By the kernel's "
        f"peaks that is {_m(released)} over {_m(onnx)}, {_over(released, onnx):.1f} times; with the inference path "
        f"alone, {_m(torch)}, it is {_over(torch, onnx):.2f}."
    )


def later_runs(side, claim):
    def cause(e):
        first, later = (e.sample(f"{which}_peak_bytes", "onnx", side) for which in ("first", "steady"))
        return (
            f"The report's {said(claim)} is a highest reading, which misses the peak, and a single run misses the "
            f"second run's higher peak: in a process of its own the kernel saw {_m(first)} in the first run and "
            f"{_m(later)} in later ones."
        )

    return cause


def torch_time(e):
    whole, network = (e.reading("pytorch", "inference", 256, name) for name in ("seconds", "network_seconds"))
    return (
        f"The report's {said('C25')} s is one first run, colour balance and resizing included "
        f"({np.median(whole - network):.3f} s of it here); a later run of the network takes {_seconds(e, 'pytorch')} "
        f"here. A machine's seconds are its own."
    )


def onnx_time(e):
    return (
        f"The report's {said('C26')} s is one first run of the network alone; a later run takes {_seconds(e, 'onnx')} "
        f"here. A machine's seconds are its own."
    )


def time_ratio(e):
    torch, onnx = (e.sample("seconds", name, 256) for name in ("pytorch", "onnx"))
    return (
        f"The report's {said('C27')} is near what the same input and threads on both sides give: a later run takes "
        f"{_seconds(e, 'pytorch')} in PyTorch and {_seconds(e, 'onnx')} in ONNX Runtime, {_over(torch, onnx):.2f} "
        f"times."
    )


def _seconds(e, variant):
    return f"{np.median(e.sample('seconds', variant, 256)):.3f} s"


# --- scaling ---


def extrapolated(e):
    peak = e.sample("process_peak_bytes", "pytorch", 512)
    return (
        f"The report's {said('C28')} is 4 times {said('C21')}, not a measurement. {_line(e)} at 512x512; measured: "
        f"{_m(peak)}, or {_g(peak)}."
    )


def quadrupled(e):
    small, large = (e.sample("process_peak_bytes", "pytorch", side) for side in (256, 512))
    return (
        f"The report's {said('C30')} holds for the pixels, not for the memory, part of which does not grow: "
        f"{_line(e)} at 512x512. Measured: {_m(small)}, then {_m(large)}, {_over(large, small):.2f} times."
    )


def _line(e):
    """The fitted line at 512x512 as a sum that a reader can do again."""
    fit, pixels = e.fit("pytorch"), 512 * 512
    return (
        f"{mib(fit.fixed)} that do not grow and {pixels:,} pixels of {fit.slope:,.0f} bytes, or "
        f"{mib(fit.slope * pixels)}, make {mib(fit(pixels))}"
    )


def onnx_growth(e):
    small, large = (e.sample("process_peak_bytes", "onnx", side) for side in (256, 512))
    torch = scaling.quotient(*(e.sample("process_peak_bytes", "pytorch", side) for side in (512, 256)))
    return (
        f"The report's {said('C29')} is {said('C23')} over {said('C22')}, by readings; by the kernel's peaks it is "
        f"{_m(large)} over {_m(small)}, or {_over(large, small):.2f}. Either is less than 4 since the library does not "
        f"grow; the same holds for PyTorch, {torch.best:.2f} times, which the report took to be {said('C30')}."
    )


def growth(e):
    torch, onnx, lean = (e.fit(name) for name in ("pytorch", "onnx", "onnx-lean"))
    met = scaling.crossing(torch, onnx)
    crossing = f" From a side of {met.side:.0f} on it needs more memory." if met else ""
    return (
        f"The report compared {said('C29')} times, measured, with {said('C30')} times, assumed. A pixel costs "
        f"{torch.slope / 1000:.1f} kB in PyTorch and {onnx.slope / 1000:.1f} kB in ONNX Runtime's default session, "
        f"{slopes(e).best:.2f} times as much, in steps of up to {onnx.excess:.0%} more than that line.{crossing} In a "
        f"lean session a pixel costs {lean.slope / 1000:.1f} kB."
    )


# --- deployment ---


def no_maximum(e):
    largest = e.costs[e.costs.variant == "onnx"].sort_values("process_peak_bytes").iloc[-1]
    return (
        f"There is no maximum without a size: the report's {said('C33')} is the reading at 512x512, where the peak is "
        f"{_g(e.sample('process_peak_bytes', 'onnx', 512))}; at {largest['size']} it is "
        f"{mib(largest.process_peak_bytes)}."
    )


def sufficient(e):
    peaks = e.costs[e.costs.variant == "onnx"].groupby(["pixels", "size"]).process_peak_bytes.max().droplevel("pixels")
    budget = reported("C35") * 1024 * MIB
    fits, exceeds = peaks[peaks <= budget], peaks[peaks > budget]
    if fits.empty or exceeds.empty:
        raise NotMeasured(f"no sizes on both sides of {mib(budget)}")
    return (
        f"The report's {said('C35')} GB holds a default session up to {fits.index[-1]} of the sizes measured "
        f"({mib(fits.iloc[-1])}); {exceeds.index[0]} takes {mib(exceeds.iloc[0])}. The memory grows in steps, so sizes "
        f"between are not read off a line."
    )


def unequal_sizes(e):
    torch, onnx = (e.sample("process_peak_bytes", name, 512) for name in ("pytorch", "onnx"))
    try:
        released = e.sample("process_peak_bytes", "pytorch-published", 512)
        as_released = f"{_m(released)} over {_m(onnx)} as released, {_over(released, onnx):.2f}, and "
    except NotMeasured:  # a quick study
        as_released = ""
    return (
        f"The report's {said('C34')} is {said('C32')} over {said('C33')} GB: PyTorch's peak at 256x256 over ONNX "
        f"Runtime's at 512x512. At 512x512 on both sides it is {as_released}{_m(torch)} over {_m(onnx)} with the "
        f"inference path alone, {_over(torch, onnx):.2f}."
    )


def buffer(e):
    spread = scaling.spread(scaling.costs(e.study.trials))
    peak = _m(e.sample("process_peak_bytes", "onnx", 512))
    return (
        f"Of equal trials the largest peak is at most {spread.max():.1%} above the smallest "
        f"({spread.idxmax()[0]}): that is the buffer which differences between repeats need. The report's plan, "
        f"{said('C33')} GB and {said('C36')}% or {planned():,.0f} MiB, "
        f"{'holds' if covered(e).holds else 'does not hold'} the default session's peak at 512x512, {peak}."
    )


def rule(e):
    default, lean = (against_torch(e, name) for name in ("onnx", "onnx-lean"))
    less = default[(default < 1).cummin()]
    if less.empty:
        holds = "At no size does the rule hold"
    else:
        holds = f"The rule holds up to {less.index[-1]}, at {less.iloc[-1]:.2f} times PyTorch's memory,"
    return (
        f"{holds} in the default session that the report ran, which at {default.idxmax()} needs {default.max():.2f} "
        f"times PyTorch's. With a lean session it holds at {(lean < 1).sum()} of {len(lean)} sizes, at most at "
        f"{lean.max():.2f} times ({lean.idxmax()})."
    )
