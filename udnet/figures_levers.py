"""The levers of whole-image runs: memory against time, and where nothing is better in both."""

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from . import levers as levers_of
from . import plots, scaling
from .findings import NAMES
from .memory import MIB
from .plots import look
from .scaling import NotEnoughData

NAME = 100, 12  # pixels that a point's name takes


def levers(study):
    """Peak memory against the time of a later picture, a point a lever, with the front of those that are exact."""
    points = _points(study)
    sizes = points.sort_values("pixels")["size"].unique()
    figure, panels = plots.new(9.6, 4.6 * len(sizes) + 0.7, nrows=len(sizes), squeeze=False)
    for axes, size in zip(panels.flat, sizes, strict=True):
        _panel(axes, points[points["size"] == size], size)
        _label(axes, points[points["size"] == size])
    _legend(figure, panels[0, 0])
    largest = points[points["size"] == sizes[-1]].set_index("variant")
    pairs = [pair for pair in levers_of.TOGETHER.items() if set(pair) <= set(largest.index)]
    if not pairs:
        raise NotEnoughData("no levers together, or not what they are against")
    said = " and ".join(
        f"{largest.mib[alone] / largest.mib[together]:.1f} times less in {NAMES[alone]}" for alone, together in pairs
    )
    time = " and ".join(f"{largest.seconds[together] / largest.seconds[alone]:.1f}" for alone, together in pairs)
    plots.head(figure, f"At {sizes[-1]} the levers together need {said},\nin {time} times the time")
    figure.alt = (
        f"Peak memory of inference against seconds a later picture, a panel a size ({', '.join(sizes)}), a point a "
        f"lever. At {sizes[-1]} the levers together need {said}, in {time} times the time. The front, from the fastest "
        "to the leanest: "
        + "; ".join(
            f"{row.variant.removeprefix('lever.')} {row.mib:,.0f} MiB, {row.seconds:.2f} s"
            for row in _front(largest.reset_index()).itertuples()
        )
    )
    return figure


def _points(study):
    """A row a variant and size: medians and ranges of memory (MiB) and time; and `exact`."""
    found = levers_of.read(study.folder)
    if found is None:
        raise NotEnoughData("the levers were not measured")
    costs = found.costs[~found.costs.variant.str.contains("all-but")]
    costs = costs.assign(mib=costs.peak_bytes / MIB)
    groups = costs.groupby(["variant", "size"], sort=False)
    points = groups.agg(
        runtime=("runtime", "first"),
        pixels=("pixels", "first"),
        exact=("exact", "first"),
        **{value: (value, "median") for value in ("mib", "seconds")},
        **{f"{value}_{edge}": (value, edge) for value in ("mib", "seconds") for edge in ("min", "max")},
    ).reset_index()
    points["exact"] = points.exact.astype(bool)
    return points


def _panel(axes, points, size):
    for row in points.itertuples():
        colour = look(row.runtime)["color"]
        axes.plot([row.seconds_min, row.seconds_max], [row.mib] * 2, color=colour, lw=0.6, alpha=0.6)
        axes.plot([row.seconds] * 2, [row.mib_min, row.mib_max], color=colour, lw=0.6, alpha=0.6)
        axes.plot(row.seconds, row.mib, ls="", **_style(row))
    front = _front(points)
    right = points.seconds_max.max() * 1.15
    axes.step([*front.seconds, right], [*front.mib, front.mib.iloc[-1]], where="post", color="black", lw=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(points.seconds_min.min() / 1.15, right)
    axes.set_ylim(points.mib_min.min() / 1.25, points.mib_max.max() * 1.25)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.set_major_formatter(FuncFormatter(plots.plain))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(LogLocator(subs=()))
    axes.set_title(size)
    axes.set_ylabel("the process's peak while it infers, MiB")
    axes.set_xlabel(f"seconds a later picture ({scaling.THREADS} threads; medians, the lines are ranges)")


def _style(row):
    """How a point looks: its runtime's colour; hollow where the output differs; the tiled schedule's are diamonds."""
    colour = look(row.runtime)["color"]
    marker = "D" if row.variant in levers_of.TILED else "s" if row.variant in levers_of.TOGETHER else "o"
    return {
        "marker": marker,
        "ms": 7 if marker == "s" else 5,
        "color": colour,
        "mfc": colour if row.exact else "white",
        "mew": 1,
    }


def _front(points):
    """The exact points that no other exact one beats in both, from the fastest on."""
    points = points[points.exact].sort_values(["seconds", "mib"])
    return points[points.mib < points.mib.cummin().shift(fill_value=float("inf"))]


def _legend(figure, axes):
    handles = [
        *(
            axes.plot([], [], ls="", marker="o", ms=5, color=look(runtime)["color"], label=label)[0]
            for runtime, label in NAMES.items()
        ),
        axes.plot([], [], ls="", marker="s", ms=7, color="#555555", label="as it comes")[0],
        axes.plot([], [], ls="", marker="o", ms=5, color="#555555", mfc="white", label="output differs")[0],
        axes.plot([], [], ls="", marker="D", ms=5, color="#555555", label="tiled")[0],
        axes.plot([], [], color="black", lw=0.9, label="front of the exact")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5)


def _label(axes, points):
    """Name the points of the front, below which nothing is, and those that others are compared with, as room allows."""
    front = set(_front(points).variant)
    compared = [*levers_of.TOGETHER, *levers_of.TOGETHER.values(), *levers_of.TILED]
    first = [*compared, "onnx-lean"]  # where names do not fit, these go before others
    named = points[points.variant.isin([*compared, *front])]
    named = named.assign(order=[first.index(one) if one in first else len(first) for one in named.variant])
    taken = {True: [], False: []}  # places of points with a name on their left, and on their right
    for row in named.sort_values(["order", "mib"]).itertuples():
        on_front, at = row.variant in front, axes.transData.transform((row.seconds, row.mib))
        if any(abs(at[1] - other[1]) < NAME[1] and abs(at[0] - other[0]) < NAME[0] for other in taken[on_front]):
            continue
        taken[on_front].append(at)
        axes.annotate(
            row.variant.removeprefix("lever."),
            (row.seconds, row.mib),
            xytext=(-5, -3) if on_front else (6, 3),
            textcoords="offset points",
            ha="right" if on_front else "left",
            va="top" if on_front else "bottom",
            fontsize=7.5,
            color=look(row.runtime)["color"],
            weight="bold" if on_front else "normal",
        )
