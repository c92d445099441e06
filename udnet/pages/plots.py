"""The look of every figure in one place, and what two notebooks draw alike: from a tidy frame to an Axes.

A helper draws on the Axes that it is given and returns it; titles, labels and scales belong to the cell that calls it.
"""

import html
import io
import re
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from udnet import NotMeasured
from udnet.analysis import scaling
from udnet.network import lifetimes
from udnet.system.memory import MIB

# Okabe-Ito, told apart in print and by most colour-blind readers; a marker each for the rest
LOOKS = {
    "pytorch-published": ("#000000", "X"),
    "pytorch": ("#D55E00", "o"),
    "pytorch-lean": ("#E69F00", "^"),
    "pytorch-compiled": ("#CC79A7", "v"),
    "onnx": ("#0072B2", "s"),
    "onnx-no-pattern": ("#56B4E9", "P"),
    "onnx-no-arena": ("#999999", "*"),
    "onnx-lean": ("#009E73", "D"),
    "lever.pytorch-together": ("#8B1A1A", "<"),
    "lever.onnx-together": ("#20B2AA", ">"),
    "pytorch-tiled": ("#7A3B00", "p"),  # darker shades: the palette is used up
    "onnx-tiled": ("#003F5C", "d"),
    "pytorch-scratch": ("#A0522D", "H"),
    "onnx-scratch": ("#7B2CBF", "h"),
    "openvino": ("#E7298A", "v"),
    "openvino-fixed": ("#7570B3", "D"),
    "mnn": ("#66A61E", "o"),
    "ncnn": ("#A6761D", "s"),
}
OTHERS = [("#777777", "h"), ("#B8860B", "8"), ("#6A3D9A", "H"), ("#2F4F2F", "*")]  # of the reader's own variants
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
}
LEFT_OUT = "*Left out here: "  # how a line begins that stands for what a study lacks
PHASES = {"interpreter": "#bbbbbb", "import": "#56B4E9", "load": "#E69F00", "first": "#009E73", "steady": "#CC79A7"}


def use():
    """Draw and show in the workbench's style from here on, whatever this user's own settings are."""
    plt.style.use(["default", STYLE])
    pd.set_option("display.max_colwidth", None)  # nothing in a table is cut off


def look(variant):
    """Colour and marker of a variant; under another plan or allocator it looks the same."""
    base = variant if variant in LOOKS else re.split("[@+]", variant)[0]
    if base not in LOOKS:  # the first of the reader's own, the second, ...
        LOOKS[base] = OTHERS[sum(taken in OTHERS for taken in LOOKS.values()) % len(OTHERS)]
    return dict(zip(("color", "marker"), LOOKS[base], strict=True))


def order(names):
    """Variants in the order of `LOOKS`, others after them."""
    known = list(LOOKS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


# --- tidy frame to Axes ---


def scaling_curves(frame, ax, value="peak_bytes", unit=MIB, x=np.sqrt, fits=True):
    """Each variant's trials as points, its fitted line with its 95% band, and a legend in the order of the curves.

    `frame`: rows of `scaling.costs`; `value`: its column; `unit`: what one unit of the axis is; `x`: what of the number
    of pixels stands on the other axis (default: the side of the square). A variant that has no line (`scaling.fits`),
    or all without `fits`, is joined by its medians.
    """
    ends, lines = {}, scaling.fits(frame, value) if fits else {}
    for variant in order(frame.variant.unique()):
        rows = frame[frame.variant == variant]
        style = look(variant)
        ax.plot(x(rows.pixels), rows[value] / unit, ls="", alpha=0.55, mec="none", **style)
        (ends[variant],) = ax.plot([], [], label=variant, lw=1.5, **style)  # point and line, as the legend shows them
        if variant in lines:
            fit = lines[variant]
            pixels = np.geomspace(rows.pixels.min(), rows.pixels.max(), 200)
            ax.plot(x(pixels), fit(pixels) / unit, color=style["color"], lw=1.5)
            low, high = fit.band(pixels)
            sure = low > 0.75 * fit(pixels)  # at smaller sizes the fixed part is a guess, and the band dives to zero
            ax.fill_between(x(pixels), low / unit, high / unit, where=sure, color=style["color"], alpha=0.13, lw=0)
        else:
            medians = rows.groupby("pixels")[value].median() / unit
            ax.plot(x(medians.index), medians, color=style["color"], lw=1, ls=":")
    highest_first = frame.groupby("variant")[value].max().sort_values(ascending=False).index
    legend(ax, [ends[variant] for variant in highest_first])
    return ax


def floors(ax, pixels, costs, graph, x=np.sqrt):
    """Broken lines of what a session holds before its first picture and the graph's own tensors on top of it.

    In the file's order of nodes, each tensor in memory of its own; and in place, in the best order: no whole-image run
    of this graph is below that. `costs`: whose sessions; `graph`: the ONNX file; `x`: as in `scaling_curves`. Returns
    the lines.
    """
    loaded = costs.load_bytes[(costs.runtime == "onnx") & (costs.schedule == "whole")].median()
    lines = []
    for schedule, words, style in (("stored", "graph, file's order", "--"), ("best order", "graph, best order", "-.")):
        held = loaded + lifetimes.per_pixel(graph, schedule) * pixels
        lines += ax.plot(x(pixels), held / MIB, color="black", lw=0.9, ls=style, label=words)
    return lines


def legend(ax, handles=None):
    """A legend beside the panel, in the colours of its lines."""
    ax.legend(handles=handles, labelcolor="linecolor", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def side_axis(ax, sides):
    """A logarithmic axis of picture sizes, marked by the side of the square with as many pixels."""
    ax.set_xscale("log")
    ticks = [side for side in (64, 128, 256, 512, 1024, 2048, 4096) if min(sides) * 0.9 <= side <= max(sides) * 1.1]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(plain)
    ax.set_xlabel("side of the picture, pixels (square root of height x width)")
    return ax


def plain(value, _=None):
    """A tick's number without exponents, with thousands set apart: `ax.yaxis.set_major_formatter(plots.plain)`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def head(figure, text):
    """A title over several panels, as one panel's would be."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def number(ax, text, x, y, offset=(5, 0), size=8.5, **style):
    """A number beside a bar's end or a point; `offset` in points."""
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", va="center", fontsize=size, **style)
    return ax


def timeline(ax, samples, rows, colour):
    """A trial's samples with its phases shaded and the kernel's peak of each; `rows`: the trial's rows, by phase."""
    ax.fill_between(samples.seconds, samples.rss_bytes / MIB, color=colour, alpha=0.18, lw=0)
    ax.plot(samples.seconds, samples.rss_bytes / MIB, color=colour, lw=1.3)
    ax.set_ylabel("resident memory, MiB")
    ax.set_xlabel("seconds since the process started (the sampler slows it: not a measure of time)")
    ax.set_xlim(0, samples.seconds.max())
    ax.set_ylim(0, max(samples.rss_bytes.max(), rows.peak_bytes.max()) / MIB * 1.16)
    for phase in ("import", "load", "first", "steady"):
        if phase not in rows.index or pd.isna(rows.start_seconds[phase]):
            continue
        start, end = rows.start_seconds[phase], rows.end_seconds[phase]
        ax.axvspan(start, end, color=PHASES[phase], alpha=0.10, lw=0)
        wide = end - start > 0.06 * samples.seconds.max()
        ax.text((start + end) / 2, ax.get_ylim()[1] * 0.975, phase if wide else "", ha="center", va="top", fontsize=9)
        peak = rows.peak_bytes[phase] / MIB
        ax.plot([start, end], [peak, peak], color="#D55E00", lw=1, ls="--")
        if wide:
            ax.annotate(f"{peak:,.0f}", (end, peak), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=8)
    return ax


def picture(ax, pixels, title=""):
    """A picture, or a map of values within 0 and 1, without axes."""
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.dtype.kind == "f" else 255)
    ax.set_title(title, fontsize=9, fontweight="normal")
    ax.set_axis_off()
    return ax


# --- to a reader and to disk ---


@contextmanager
def where_measured():
    """Run a block of a cell as far as the study goes: what it lacks is said in one line, and the notebook goes on."""
    try:
        yield
    except NotMeasured as reason:
        plt.close("all")
        display(Markdown(f"{LEFT_OUT}{reason}.*"))


def show(figure, alt, name=None, folder=None, photographs=False, **place):
    """Show a figure with a text for those who cannot see it; with a folder, save it there as `name`.svg and .png.

    `photographs`: as JPEG, which keeps a notebook small; `place`: where, as `display_id` and `update` of `display` say.
    """
    kind, data = "jpeg" if photographs else "png", io.BytesIO()
    figure.savefig(data, format=kind, dpi=110)
    if not photographs:  # drawings have few colours: with 256 a notebook is a third of the size
        with Image.open(data) as drawn:
            few = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(data := io.BytesIO(), "PNG", optimize=True)
    bundle = {f"image/{kind}": data.getvalue(), "text/plain": alt}
    if folder:
        save(figure, alt, folder, name)
    plt.close(figure)
    display(bundle, metadata={f"image/{kind}": {"alt": alt}}, raw=True, **place)


def save(figure, alt, folder, name):
    """Write `folder/name.svg` and `.png`, the same bytes each time; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawing, paths = io.StringIO(), [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None, "Description": alt})
    figure.savefig(paths[1], dpi=110, metadata={"Software": None})
    paths[0].write_text(_numbered(drawing.getvalue()), encoding="utf-8")
    return paths


def saved(folder, name):
    """Show a figure that `save` has written; `NotMeasured` where the folder, or no folder, has none of that name."""
    path = folder and Path(folder) / f"{name}.png"
    if not (path and path.is_file()):
        raise NotMeasured(f"the figure {name} has not been drawn for this study")
    alt = description(path.with_suffix(".svg"))
    bundle = {"image/png": path.read_bytes(), "text/plain": alt}
    display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)


def description(path):
    """The text, for those who cannot see it, of an SVG file that `save` has written."""
    return html.unescape(re.search("<dc:description>(.*?)</dc:description>", path.read_text("utf-8"), re.DOTALL)[1])


def _numbered(svg):
    """An SVG with its identifiers numbered in turn: Matplotlib's hash the last bits of floats, which differ by CPU."""
    known = {}
    return re.sub(
        r"(?<=[\"#])(m|p|image|C[0-9a-f]+_[0-9a-f]+_)[0-9a-f]{10}\b",
        lambda id: known.setdefault(id[0], f"{id[1]}{len(known)}"),
        svg,
    )
