"""A picture of one's own, at one's own size, through any variant, in a notebook."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context

from . import Error, capacity, checkpoint, images, memory, plots, study, trial, variants
from .memory import mib

DRAWN = "the picture that the studies use"
NO_LIMIT = "none"
PICTURE_DPI = 75


def pictures(folder):
    """The photographs in a folder, by name; the picture that the studies use comes first."""
    found = sorted(path.resolve() for path in Path(folder).glob("*") if path.suffix.lower() in images.KINDS)
    return [DRAWN, *map(str, found)]


def show(picture, variant, side, limit=NO_LIMIT, weights=None):
    """Enhance a picture, its longer side scaled to `side`, in a fresh process; show it and that process's memory.

    `limit`: what a tiled variant's plan is made for, such as 512MiB.
    """
    from PIL import Image

    if limit != NO_LIMIT:
        variant = f"{variant}@{limit}"
    try:
        chosen = variants.find(variant)
    except Error as error:
        print(error)
        return
    if picture == DRAWN:
        pixels = trial.picture(side * 3 // 4, side)
    else:
        opened = Image.fromarray(images.read(picture).pixels)
        scale = side / max(opened.size)
        pixels = np.asarray(opened.resize([max(1, round(length * scale)) for length in opened.size], Image.LANCZOS))
    height, width = pixels.shape[:2]
    one = trial.Trial(variant, height, width, os.cpu_count(), runs=1, weights=weights, timeline=True)
    result = trial.run(one, keep_output=True, pixels=pixels)
    if result.status != "ok":
        print(f"{variant} at {height}x{width}: {result.status}: {result.error}")
        return
    enhanced = images.to_pixels(result.output, height, width)
    uses = checkpoint.find(weights).caption if chosen.forms else "no weights"
    plots.display(explored(pixels, enhanced, result, f"{Path(variant).name}, {uses}"), dpi=PICTURE_DPI)


def fits(limit, size):
    """What keeps within a memory limit, such as 512MiB, at a size, such as 2160x3840: a table, the fastest first."""
    table = capacity.plan(memory.parse_bytes(limit), trial.parse_size(size), study.latest())
    print(capacity.as_text(table) if len(table) else f"nothing keeps within {limit} at {size}")


def side_by_side(pixels, one, other, caption):
    """A picture, two networks' outputs for it (float32, 1 x 3 x height x width), and how they differ."""
    height, width = pixels.shape[:2]
    difference = np.abs(one - other)[0, :, :height, :width].max(axis=0)
    shown = {
        "input": pixels,
        "PyTorch": images.to_pixels(one, height, width),
        "ONNX Runtime": images.to_pixels(other, height, width),
        f"difference, times {1 / difference.max():,.0f}": difference / difference.max(),
    }
    with rc_context(plots.STYLE):
        figure, panels = plots.new(9.4, 2.4, ncols=4)
        for axes, (name, picture) in zip(panels, shown.items(), strict=True):
            _picture(axes, picture, name)
        figure.supxlabel(caption, fontsize=8.5)
    figure.alt = (
        "A picture, its output under PyTorch and ONNX Runtime, and the difference: at most "
        f"{difference.max():.1e}. {caption}"
    )
    plots.display(figure, dpi=PICTURE_DPI)


def explored(pixels, enhanced, result, caption):
    """A picture before and after, and the timeline of the process that enhanced it, as a figure."""
    samples = pd.DataFrame(result.samples, columns=["seconds", "rss_bytes"])
    rows = pd.DataFrame(result.rows).set_index("phase")
    with rc_context(plots.STYLE):
        figure, (before, after, line) = plots.new(10.4, 3.0, ncols=3, width_ratios=[1, 1, 1.7])
        _picture(before, pixels, f"input, {pixels.shape[0]}x{pixels.shape[1]}")
        _picture(after, enhanced, "enhanced")
        plots.timeline(line, samples, rows, plots.look(result.rows[0]["variant"])["color"])
        line.set_xlabel("seconds since the process started")
        line.set_title(f"peak {mib(rows.peak_bytes.max())}")
        figure.supxlabel(caption, fontsize=8.5)
    figure.alt = (
        "A picture before and after, and the memory of the process, which peaks at "
        f"{mib(rows.peak_bytes.max())}. {caption}"
    )
    return figure


def _picture(axes, pixels, title):
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.dtype.kind == "f" else 255)
    axes.set_title(title, fontsize=9, fontweight="normal")
    axes.set_axis_off()
