"""Figures of what is in each file, and of which exporter writes the best one."""

from pathlib import Path

import pandas as pd

from . import PARITY_LIMIT, exporters, plots
from .memory import MIB
from .plots import look
from .scaling import NotEnoughData

DATA = Path(__file__).parent.parent / "data"


def files(study):
    """What is in each file: its tensors by the part of the network that they belong to."""
    sizes = study.machine.get("files", {})
    if not {"full", "inference", "onnx"} <= sizes.keys():
        raise NotEnoughData("the sizes of the files were not recorded")
    roles = pd.read_csv(DATA / "state_dict.csv").groupby("role").parameters.sum() * 4 / MIB
    colours = {"prior": "#009E73", "posterior": "#56B4E9", "reference-map": "#CC79A7", "perceptual-loss": "#E69F00"}
    bars = {
        "checkpoint (.pth)": ("full", list(colours)),
        "stripped (.pth)": ("inference", ["prior"]),
        "ONNX": ("onnx", ["prior"]),
    }
    figure, axes = plots.new(8.8, 2.8)
    for place, (form, parts) in enumerate(reversed(bars.values())):
        left = 0.0
        for part in parts:
            axes.barh(
                place, roles[part], left=left, color=colours[part], height=0.6, label=part if len(parts) > 1 else None
            )
            left += roles[part]
        axes.annotate(
            f"{sizes[form] / MIB:.2f} MiB", (left, place), xytext=(5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(bars)), list(bars)[::-1])
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, sizes["full"] / MIB * 1.15)
    axes.set_xlabel("MiB of tensors by role (the number: the file)")
    axes.legend(loc="center right")
    axes.set_title(
        f"{roles['perceptual-loss'] * MIB / sizes['full']:.0%} of the checkpoint is VGG16, which only training uses"
    )
    figure.alt = (
        f"Bars of file sizes: full checkpoint {sizes['full'] / MIB:.1f} MiB, stripped "
        f"{sizes['inference'] / MIB:.2f}, ONNX {sizes['onnx'] / MIB:.2f}."
    )
    return figure


def exporting(study):
    """Peak and time of the candidates for the export, in a default session and in a lean one."""
    costs = exporters.read(study.folder)
    if costs is None:
        raise NotEnoughData("the exporters were not measured")
    figure, panels = plots.new(9.2, 3.2, ncols=2, sharey=True)
    names = list(exporters.CANDIDATES)[::-1]
    for axes, (value, unit, words) in zip(
        panels, (("peak_bytes", MIB, "peak memory, MiB"), ("seconds", 1, "seconds, second run")), strict=True
    ):
        for variant in ("onnx", "onnx-lean"):
            for exact, rows in costs[costs.variant == variant].groupby("exact"):
                axes.plot(
                    rows[value] / unit,
                    [names.index(name) for name in rows.candidate],
                    ls="",
                    alpha=0.7,
                    mfc=look(variant)["color"] if exact else "white",
                    label=f"{variant}{'' if exact else ', output is off'}",
                    **look(variant),
                )
        axes.set_xlim(left=0)
        axes.set_xlabel(words)
    panels[0].set_yticks(range(len(names)), names)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
    peaks = costs.groupby(["variant", "candidate"]).peak_bytes.median()
    spread = max(peaks[name].max() / peaks[name].min() for name in ("onnx", "onnx-lean"))
    exact = costs[costs.exact].candidate.nunique()
    plots.head(
        figure,
        f"The same network, exported differently: up to {spread:.2f} times the memory, "
        f"{exact} of {len(names)} within {PARITY_LIMIT:.0e}",
    )
    figure.alt = (
        f"Peak memory and time of {len(names)} exports of the same network; the highest peak is {spread:.2f} times "
        f"the lowest, and {exact} of them are within {PARITY_LIMIT:.0e} of PyTorch's output."
    )
    return figure
