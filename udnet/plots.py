"""The look of every figure in one place: colours, style, and helpers from a tidy frame to Axes."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import scaling
from .memory import MIB

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
}
OTHER = ("#777777", "h")  # a variant of the user's own
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
    "svg.fonttype": "path",
}
PHASES = {"interpreter": "#bbbbbb", "import": "#56B4E9", "load": "#E69F00", "first": "#009E73", "steady": "#CC79A7"}


def look(variant):
    """Colour and marker of a variant; under another plan or allocator it looks the same."""
    known = LOOKS.get(variant, LOOKS.get(re.split("[@+]", variant)[0], OTHER))
    return dict(zip(("color", "marker"), known, strict=True))


def order(names):
    """Variants in the order of `LOOKS`, others after them."""
    known = list(LOOKS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


# --- helpers: tidy frame to Axes ---


def scaling_curves(frame, axes, value="peak_bytes", unit=MIB, fits=True):
    """Raw points, fits with their 95% bands, and a legend in the order of the curves; returns the Axes.

    `frame`: rows of `scaling.costs`; `value`: its column; `unit`: what one unit of the axis is.
    """
    ends = {}
    for variant in order(frame.variant.unique()):
        rows = frame[frame.variant == variant]
        style = look(variant)
        axes.plot(rows.side, rows[value] / unit, ls="", alpha=0.55, mec="none", **style)
        (ends[variant],) = axes.plot([], [], label=variant, lw=1.5, **style)  # point and line, as the legend shows them
        if fits and rows.pixels.nunique() >= 4:
            fit = scaling.fit(rows, value)
            pixels = np.geomspace(rows.pixels.min(), rows.pixels.max(), 200)
            axes.plot(np.sqrt(pixels), fit(pixels) / unit, color=style["color"], lw=1.5)
            low, high = fit.band(pixels)
            sure = low > 0.75 * fit(pixels)  # at smaller sizes the fixed part is a guess, and the band dives to zero
            axes.fill_between(
                np.sqrt(pixels), low / unit, high / unit, where=sure, color=style["color"], alpha=0.13, lw=0
            )
        else:
            medians = rows.groupby("side")[value].median() / unit
            axes.plot(medians.index, medians, color=style["color"], lw=1, ls=":")
    side_axis(axes, frame.side)
    axes.set_yscale("log")
    axes.set_ylim(frame[value].min() / unit / 1.5, frame[value].max() / unit * 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    highest_first = frame.groupby("variant")[value].max().sort_values(ascending=False).index
    handles = [ends[variant] for variant in highest_first]
    legend(axes, handles)
    return axes


def legend(axes, handles=None):
    """A legend beside the panel, in the colours of its lines."""
    axes.legend(handles=handles, labelcolor="linecolor", loc="center left", bbox_to_anchor=(1.0, 0.5))


def side_axis(axes, sides):
    """A logarithmic axis of picture sizes, marked by the side of the square with as many pixels."""
    axes.set_xscale("log")
    ticks = [side for side in (64, 128, 256, 512, 1024, 2048, 4096) if min(sides) * 0.9 <= side <= max(sides) * 1.1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.set_xlabel("side of the picture, pixels (square root of height x width)")


def plain(value, _=None):
    """A tick's number without exponents, with thousands set apart."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def shades(name, bad):
    """A colour map by name, with a colour for what is masked."""
    return colormaps[name].with_extremes(bad=bad)


def new(width=8.6, height=4.6, **subplots):
    """An empty figure in the workbench's style and its Axes, as `Figure.subplots` gives them; inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**subplots)


def head(figure, text):
    """A title over several panels, as one panel's would be."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def timeline(axes, samples, rows, colour):
    """A timeline with its phases shaded and the kernel's peak of each; `rows`: a trial's rows, by phase."""
    axes.fill_between(samples.seconds, samples.rss_bytes / MIB, color=colour, alpha=0.18, lw=0)
    axes.plot(samples.seconds, samples.rss_bytes / MIB, color=colour, lw=1.3)
    axes.set_ylabel("resident memory, MiB")
    axes.set_xlabel("seconds since the process started (the sampler slows it: not a measure of time)")
    axes.set_xlim(0, samples.seconds.max())
    axes.set_ylim(0, max(samples.rss_bytes.max(), rows.peak_bytes.max()) / MIB * 1.16)
    for phase in ("import", "load", "first", "steady"):
        if phase not in rows.index or pd.isna(rows.start_seconds[phase]):
            continue
        start, end = rows.start_seconds[phase], rows.end_seconds[phase]
        axes.axvspan(start, end, color=PHASES[phase], alpha=0.10, lw=0)
        wide = end - start > 0.06 * samples.seconds.max()
        axes.text(
            (start + end) / 2, axes.get_ylim()[1] * 0.975, phase if wide else "", ha="center", va="top", fontsize=9
        )
        peak = rows.peak_bytes[phase] / MIB
        axes.plot([start, end], [peak, peak], color="#D55E00", lw=1, ls="--")
        if wide:
            axes.annotate(
                f"{peak:,.0f}", (end, peak), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=8
            )


# --- to disk and to a notebook ---


def save(figure, folder, name):
    """Write `folder/name.svg` and `.png`, the same bytes each time; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawing, paths = io.StringIO(), [folder / f"{name}.svg", folder / f"{name}.png"]
    with rc_context(STYLE):
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None, "Description": figure.alt})
        figure.savefig(paths[1], dpi=110, metadata={"Software": None})
    paths[0].write_text(_numbered(drawing.getvalue()), encoding="utf-8")
    return paths


def _numbered(svg):
    """An SVG with its identifiers numbered in turn: Matplotlib's hash the last bits of floats, which differ by CPU."""
    known = {}
    return re.sub(
        r"(?<=[\"#])(m|p|image)[0-9a-f]{10}\b", lambda id: known.setdefault(id[0], f"{id[1]}{len(known)}"), svg
    )


def display(figure, photographs=False):
    """Show a figure in a notebook, with its alt text; one of photographs as JPEG, which keeps the file small."""
    from IPython.display import display

    kind = "jpeg" if photographs else "png"
    data = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(data, format=kind, dpi=110, **({} if photographs else {"metadata": {"Software": None}}))
    bundle = {f"image/{kind}": data.getvalue(), "text/plain": figure.alt}
    display(bundle, metadata={f"image/{kind}": {"alt": figure.alt}}, raw=True)


def say(text):
    """Show a sentence in a notebook as prose: its numbers are computed where it stands."""
    from IPython.display import Markdown, display

    display(Markdown(text))
