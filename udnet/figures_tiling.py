"""Figures of the tiled schedule: why it can be exact, what a strip computes beside itself, and what keeping saves."""

import numpy as np
from matplotlib.colors import LogNorm

from . import locality, plans, plots, trial
from .findings_audit import multiply_adds
from .memory import MIB

HEIGHT, WIDTH = 1080, 1920  # of the picture whose strips and plans are drawn
THREADS = 2
KEEPING = {
    plans.NOTHING: "nothing",
    plans.BOTTOM: "+ half and quarter size",
    plans.FULL: "+ full size",
    plans.INNER: "+ within the blocks",
}
PASSES = {  # in Okabe and Ito's colours
    "encode": "#56B4E9",
    "decode": "#0072B2",
    "normalise": "#009E73",
    "refine": "#E69F00",
    "finish": "#D55E00",
}


def local(study):
    """One pixel changed: how far the output moves, with the sums over the image free and with them held."""
    found = locality.read(study.folder)
    figure, panels = plots.new(9.6, 2.9, ncols=3)
    down, across = locality.AT
    panels[0].imshow(trial.picture(locality.HEIGHT, locality.WIDTH))
    panels[0].plot(across, down, "s", ms=9, mfc="none", mec="white", mew=1.5)
    panels[0].set_title("one pixel is changed", fontsize=10)
    top = max(found.free.max(), found.held.max())
    scale = LogNorm(top * 1e-7, top)
    shades = plots.shades("viridis", bad="#eeeeee")
    for axes, change, words in (
        (panels[1], found.free, "the sums follow: everything moves"),
        (panels[2], found.held, "the sums held: grey is the same to the bit"),
    ):
        seen = axes.imshow(np.ma.masked_equal(change, 0).clip(top * 1e-7), norm=scale, cmap=shades)
        axes.set_title(words, fontsize=10)
    for axes in panels:
        axes.set_axis_off()
    figure.colorbar(seen, ax=panels, label="change of the output", shrink=0.82)
    reach = max(locality.reach(found.held))
    moved = (found.free > 0).mean()
    plots.head(figure, f"Without five sums, a pixel reaches no further than {reach} pixels: so tiles can be exact")
    figure.supxlabel(found.weights, fontsize=8.5)
    figure.alt = (
        f"A picture with one pixel changed; the output's change, of {moved:.0%} of the pixels when the sums over the "
        f"image follow, of none beyond {reach} pixels when they are held."
    )
    return figure


def beside(study):
    """The columns that one strip computes of each map, so that its own come out exact."""
    plan = plans.leanest(HEIGHT, WIDTH, THREADS)
    (own, _), windows = plan.strips[1], plans.Windows(plan.strips[1][0], WIDTH)
    maps = {  # name, window, how often halved
        "picture": (plans.widened(windows.encoded(0, 2), 2, WIDTH), 0),
        "x1": (windows.encoded(0, 2), 0),
        "x2": (windows.encoded(1, 2), 1),
        "x3": (windows.encoded(2, 2), 2),
        "UpConv3": (windows.joined(2), 2),
        "UpConv2": (windows.joined(1), 1),
        "UpConv1": (windows.joined(0), 0),
        "within block 1": (windows.around(3), 0),
        "block 1": (windows.around(2), 0),
        "within block 2": (windows.around(1), 0),
        "output": (own, 0),
    }
    figure, axes = plots.new(9.2, 4.0)
    for place, (window, level) in enumerate(reversed(maps.values())):
        left, right = (side << level for side in window)
        axes.barh(place, right - left, left=left, height=0.68, color="#56B4E9")
        axes.barh(place, own[1] - own[0], left=own[0], height=0.68, color="#0072B2")
        more = (right - left) / (own[1] - own[0]) - 1
        axes.annotate(
            f"+{more:.1%}" if more else "",
            (right, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(maps)), list(maps)[::-1])
    axes.grid(axis="y", visible=False)
    widest = max(right << level for (_, right), level in maps.values())
    axes.set_xlim(min(left << level for (left, _), level in maps.values()) - 12, widest + 60)
    axes.set_xlabel(f"columns of the picture ({WIDTH} in all); dark: the strip's own, light: beside them")
    most = max((right - left << level) for (left, right), level in maps.values())
    axes.set_title(f"A strip of {own[1] - own[0]} columns takes {most} of the picture, and ever fewer on the way")
    figure.alt = (
        f"Bars of the columns that a strip computes of each map, from {most} of the picture to its own "
        f"{own[1] - own[0]}."
    )
    return figure


def keeping(study):
    """What each pass computes by what is kept, and what that holds."""
    plan = plans.leanest(HEIGHT, WIDTH, THREADS)
    whole = multiply_adds() * HEIGHT * WIDTH
    figure, (computed, held) = plots.new(9.4, 3.6, ncols=2, sharey=True, width_ratios=[1.7, 1])
    totals = {}
    for place, kept in enumerate(reversed(KEEPING)):
        one = plans.Plan(plan.height, plan.width, tuple((own, kept) for own, _ in plan.strips), plan.rows, plan.threads)
        left = 0.0
        for name, amount in one.passes.items():
            computed.barh(place, amount / whole, left=left, height=0.62, color=PASSES[name])
            left += amount / whole
        totals[kept] = left, one.bytes
        for axes, value, words in ((computed, left, f"{left:.1f}"), (held, one.bytes / MIB, f"{one.bytes / MIB:,.0f}")):
            axes.annotate(words, (value, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
        held.barh(place, one.bytes / MIB, height=0.62, color="#999999")
    for name, colour in PASSES.items():
        computed.bar(0, 0, color=colour, label=name)
    computed.axvline(1, color="black", lw=1, ls=":")
    computed.set_yticks(range(len(KEEPING)), list(KEEPING.values())[::-1])
    computed.set_xlabel("multiply-adds over those of the whole image, by pass")
    held.set_xlabel("MiB beside the program itself")
    for axes in (computed, held):
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    figure.legend(*computed.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8.5)
    (most, least_held), (least, most_held) = totals[plans.NOTHING], totals[plans.INNER]
    plots.head(
        figure,
        f"At {HEIGHT}x{WIDTH}: keep nothing, compute {most:.1f} networks in {least_held / MIB:,.0f} MiB;\n"
        f"keep all maps, compute {least:.1f} in {most_held / MIB:,.0f} MiB",
    )
    figure.alt = "Multiply-adds and memory of plans by what they keep: " + "; ".join(
        f"{words} {totals[kept][0]:.2f} times the whole image's, {totals[kept][1] / MIB:,.0f} MiB"
        for kept, words in KEEPING.items()
    )
    return figure
