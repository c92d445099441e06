"""Why a claim of the report came out as it did: each cause is a sentence whose every number is computed."""

import numpy as np

from . import scaling
from .evidence import spread
from .memory import MIB
from .plots import mib


def _m(values):
    """The median of a sample in MiB, as a person reads it."""
    return mib(float(np.median(values)) * MIB)


def files(e):
    size = {form: e.file(form).best for form in ("full", "inference", "onnx")}
    return (
        f"The checkpoint also holds what training needs, VGG16 above all: of its {size['full']:.1f} MiB inference uses "
        f"{size['inference']:.2f}, where the ONNX file has {size['onnx']:.2f}."
    )


def imports(e):
    torch, onnx = (e.sample("import_bytes", name) for name in ("pytorch", "onnx"))
    return f"A library's import, before any model: {_m(torch)} with torch, {_m(onnx)} with onnxruntime."


def released(e):
    return (
        f"The released code constructs VGG16 and reads its checkpoint for a loss that only training computes: "
        f"{_m(e.added('pytorch-published'))} at the top, where the inference path adds {_m(e.added('pytorch'))}."
    )


def kept(e):
    rows = e.audit.allocators[e.audit.allocators.base == "pytorch-published"]
    kept = rows.groupby("allocator").load_bytes.median().sort_values()
    if kept.empty:
        raise scaling.NotEnoughData("no allocators")
    said = ", ".join(f"{mib(value)} with {name or 'the default one'}" for name, value in kept.items())
    return f"{released(e)} What stays of that once it is freed is the allocator's doing: {said}."


def session(e):
    return (
        f"A session here adds {_m(e.added('onnx'))} by the kernel's peak, and {_m(e.loaded('onnx'))} between the "
        f"report's two readings, whatever the other runtime does."
    )


def like_for_like(e):
    return (
        f"The training network stood on one side only: like for like loading adds {_m(e.added('pytorch'))} in PyTorch "
        f"and {_m(e.added('onnx'))} in ONNX Runtime."
    )


def total(e):
    torch, onnx = (e.sample("load_bytes", name) for name in ("pytorch", "onnx"))
    return (
        f"The total is the library's import and the training network: with the inference path alone PyTorch holds "
        f"{_m(torch)} once loaded, ONNX Runtime {_m(onnx)}."
    )


def load_time(e):
    seconds = {name: np.median(e.sample("load_seconds", name)) for name in ("pytorch-published", "pytorch", "onnx")}
    return (
        f"Reading VGG16 takes the time: {seconds['pytorch-published']:.2f} s as released, {seconds['pytorch']:.3f} s "
        f"for the inference path, {seconds['onnx']:.3f} s for a session; a machine's seconds are its own."
    )


def reading(runtime, side):
    def cause(e):
        script = "pytorch" if runtime == "pytorch" else "onnx"
        after = e.reading(script, "inference", side)
        before = e.reading(script, "load") if side == 256 else e.reading(script, "inference", 256)
        return (
            f"A reading after the call is not a peak: it adds {_m(after - before)} by the report's protocol, where the "
            f"kernel saw {_m(e.grown(runtime, side))} above the loaded model in a process of its own."
        )

    return cause


def peak(e):
    """A peak of loading against one of inference."""
    released, torch, onnx = (
        _m(e.sample("process_peak_bytes", name, 256)) for name in ("pytorch-published", "pytorch", "onnx")
    )
    return (
        f"As released the peak is that of loading, {released} here; the inference path peaks at {torch}, ONNX Runtime "
        f"at {onnx}."
    )


def later_runs(side):
    def cause(e):
        first, later = (e.sample(f"{which}_peak_bytes", "onnx", side) for which in ("first", "steady"))
        return (
            f"The highest reading misses the peak, and one run misses the second: in a process of its own the kernel "
            f"saw {_m(first)} in the first run and {_m(later)} in later ones."
        )

    return cause


def time(e):
    torch, onnx = (e.sample("seconds", name, 256) for name in ("pytorch", "onnx"))
    whole, network = (e.reading("pytorch", "inference", 256, name) for name in ("seconds", "network_seconds"))
    return (
        f"With the same input and threads a later run takes {np.median(torch):.3f} s in PyTorch and "
        f"{np.median(onnx):.3f} s in ONNX Runtime; the report timed first runs, and on one side only colour balance "
        f"and resizing too, {np.median(whole - network):.3f} s."
    )


def extrapolated(e):
    fit = scaling.fit(e.costs[e.costs.variant == "pytorch"])
    small, large = (e.sample("process_peak_bytes", "pytorch", side) for side in (256, 512))
    return (
        f"Measured, not multiplied: {_m(large)} at 512x512 after {_m(small)} at 256x256, since {mib(fit.fixed)} of it "
        f"do not grow with the picture."
    )


def growth(e):
    said = []
    names = {"pytorch": "PyTorch", "onnx": "ONNX Runtime's default session", "onnx-lean": "a lean one"}
    for name, words in names.items():
        fit = scaling.fit(e.costs[e.costs.variant == name])
        said.append(f"{fit.slope / 1000:.1f} kB a pixel in {words}")
    met = scaling.crossing(*(scaling.fit(e.costs[e.costs.variant == name]) for name in ("pytorch", "onnx")))
    crossing = f"; the curves cross at a side of {met.side:.0f}" if met else ""
    return f"A smaller fixed part hid a larger growing one: {', '.join(said)}{crossing}."


def maximum(e):
    worst = e.costs[e.costs.variant == "onnx"].sort_values("process_peak_bytes").iloc[-1]
    return (
        f"There is no maximum without a size: {mib(worst.process_peak_bytes)} at {worst.height}x{worst.width}, and "
        f"1 GiB holds pictures up to a side of {_side_within(e, 1024):.0f} in a default session."
    )


def _side_within(e, limit):
    """The largest side of a square picture whose fitted peak stays within a limit in MiB, default session."""
    fit = scaling.fit(e.costs[e.costs.variant == "onnx"])
    return float(np.sqrt(max(0.0, (limit * MIB - fit.fixed) / fit.slope)))


def buffer(e):
    growth = scaling.quotient(*(e.sample("process_peak_bytes", "onnx", side) for side in (1024, 512)))
    return (
        f"Equal trials differ by at most {spread(e).max():.1f}%, so repeats need no such buffer; a larger picture "
        f"needs far more: {growth.best:.1f} times from 512x512 to 1024x1024."
    )


def rule(e):
    default, lean = (scaling.quotient(e.sample("peak_bytes", name, 1024), e.sample("peak_bytes", "pytorch", 1024))
                     for name in ("onnx", "onnx-lean"))  # fmt: skip
    return (
        f"Right with a lean session, which needs {lean.best:.2f} times PyTorch's memory at 1024x1024; a default one "
        f"needs {default.best:.2f} times."
    )
