"""What a study says about needing less, in sentences whose every number is computed: for notebook 5."""

from . import checkpoint, lifetimes, locality, plans, scaling
from .findings import LARGE
from .findings_audit import multiply_adds
from .memory import mib

FRAME = 2160, 3840


def graph(study):
    """The ONNX file that a study's sessions ran: its weights' where they are at hand, else the default's.

    The export is one graph, whatever the weights.
    """
    found = checkpoint.find()
    if found.caption != study.machine.get("weights"):
        found = checkpoint.find("default")
    return checkpoint.prepared(found, "onnx")


def tiles(study):
    """How far a pixel reaches, and what the plans of the tiled schedule take."""
    try:
        found = locality.read(study.folder)
    except scaling.NotEnoughData:
        return "No pixel was changed in this study."
    reach = max(locality.reach(found.held))
    height, width = FRAME
    whole = multiply_adds() * height * width
    lean = plans.leanest(height, width, scaling.THREADS)
    return (
        f"**Tiles can be exact.** Changed, one pixel moves {(found.free > 0).mean():.0%} of the output; with five sums "
        f"over the image held, nothing beyond {reach} pixels, to the bit. So the sums come first, pass by pass, and "
        f"the rest strip by strip. By its plan a frame of {height}x{width} then holds {mib(lean.bytes)} beside the "
        f"program itself, pictures included, for {lean.multiply_adds / whole:.1f} times the multiply-adds; what more "
        f"memory keeps need not be computed again."
    )


def floor(study):
    """What the graph itself takes of each pixel, schedule by schedule, beside what was measured."""
    path = graph(study)
    stored, in_place, best = (lifetimes.per_pixel(path, schedule) for schedule in lifetimes.SCHEDULES)
    top = lifetimes.peak(path, LARGE, LARGE, "stored")
    maps = largest(top)
    return (
        f"**The floor.** At once the tensors of the exported graph take {stored:,.0f} bytes a pixel in the file's "
        f"order, each in memory of its own: at {LARGE}x{LARGE} {len(maps)} maps of {maps[0].shape[1]} channels are "
        f"{sum(one.bytes for one in maps) / top.bytes:.0%} of the {mib(top.bytes)} at the highest node. Written in "
        f"place where that is possible they take {in_place:,.0f}, in the best order of the same nodes {best:,.0f}, "
        f"{1 - best / stored:.0%} less than in the file's, and in no order less. {_measured(study, stored, best)}"
    )


def _measured(study, stored, best):
    """The bytes a pixel of three variants beside those of two schedules."""
    try:
        costs = scaling.select(study)
        first = scaling.fit(costs[costs.variant == "onnx-lean"], "first_peak_bytes")
        lean, default, torch = (scaling.fit(costs[costs.variant == name]) for name in ("onnx-lean", "onnx", "pytorch"))
    except scaling.NotEnoughData:
        return "Too few sizes were measured in this study for bytes a pixel beside these."
    said = {one: f"{scaling.Estimate(one.slope, *one.slope_interval):,.0f}" for one in (first, lean, default, torch)}
    return (
        f"Measured, a lean session takes {said[first]} bytes a pixel for the first picture of a size, "
        f"{first.slope / stored - 1:+.1%} against the file's order, and {said[lean]} with later ones. The default "
        f"session takes {said[default]}: the lean one's settings save {default.slope - lean.slope:,.0f} of it. PyTorch "
        f"takes {said[torch]}, by operations of its own, not this graph's. Over the best order that is "
        f"{lean.slope / best:.2f} times for the lean session, {default.slope / best:.2f} for the default one and "
        f"{torch.slope / best:.2f} for PyTorch."
    )


def largest(top):
    """Of the tensors that hold a `lifetimes.Peak`, those that are no smaller than half of the largest."""
    most = max(one.bytes for one in top.tensors)
    return [one for one in top.tensors if one.bytes >= most / 2]
