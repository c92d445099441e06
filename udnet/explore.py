"""A picture of one's own, at one's own size, through any variant, in a notebook."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context

from . import Error, capacity, checkpoint, images, memory, plots, study, trial, variants
from .memory import mib

DRAWN = "a drawn reef"
NO_LIMIT = "none"


def pictures(folder):
    """The photographs in a folder, by name; a drawn reef comes first."""
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
    plots.display(explored(pixels, enhanced, result, f"{Path(variant).name}, {uses}"), photographs=True)


def fits(limit, size):
    """What keeps within a memory limit, such as 512MiB, at a size, such as 2160x3840: a table, the fastest first."""
    table = capacity.plan(memory.parse_bytes(limit), trial.parse_size(size), study.latest())
    print(capacity.as_text(table) if len(table) else f"nothing keeps within {limit} at {size}")


def reefs(weights=None):
    """The drawn reefs before and after by both runtimes, in processes of their own, their difference, the references.

    The difference is amplified until the largest of all is white. `weights`: as `checkpoint.find` takes it.
    """
    paths = trial.reefs()
    pictures = [images.read(path).pixels for path in paths]
    references = [images.read(path.with_stem(f"{path.stem}_reference")).pixels for path in paths]
    outputs = {}
    for variant in ("pytorch", "onnx"):
        trials = [trial.Trial(variant, *one.shape[:2], os.cpu_count(), runs=0, weights=weights) for one in pictures]
        found = [trial.run(one, keep_output=True, pixels=seen) for one, seen in zip(trials, pictures, strict=True)]
        outputs[variant] = [one.output for one in found]
    differences = [np.abs(one - other)[0].max(axis=0) for one, other in zip(*outputs.values(), strict=True)]
    most, caption = max(one.max() for one in differences), checkpoint.find(weights).caption
    columns = {
        "input": pictures,
        "PyTorch": [images.to_pixels(one, *one.shape[2:]) for one in outputs["pytorch"]],
        "ONNX Runtime": [images.to_pixels(one, *one.shape[2:]) for one in outputs["onnx"]],
        f"difference, times {1 / most:,.0f}": [one / most for one in differences],
        "half the water, white light": references,
    }
    with rc_context(plots.STYLE):
        figure, panels = plots.new(10.4, 9.6, nrows=len(pictures), ncols=len(columns))
        for column, (name, shown) in zip(panels.T, columns.items(), strict=True):
            for axes, picture in zip(column, shown, strict=True):
                _picture(axes, picture, name if axes is column[0] else "")
        figure.supxlabel(caption, fontsize=8.5)
    figure.alt = (
        f"{len(pictures)} drawn reefs in water, enhanced by PyTorch and by ONNX Runtime, the difference of the two, at "
        f"most {most:.1e}, and the reefs in white light through half the water. {caption}"
    )
    plots.display(figure, photographs=True)


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
