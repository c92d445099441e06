"""Every published figure: a study's tables to a figure whose title states what was found.

Each entry of `FIGURES` draws one from a `Study`; titles and the texts for those who cannot see them are computed. The
same study gives the same bytes.
"""

import os
from pathlib import Path

from matplotlib import rc_context

from . import (
    figures_audit,
    figures_capacity,
    figures_files,
    figures_less,
    figures_levers,
    figures_memory,
    figures_scaling,
    figures_tiling,
    plots,
)
from .scaling import NotEnoughData

FOLDER = Path(__file__).parent.parent / "figures"

FIGURES = {
    "headline": figures_scaling.headline,
    "files": figures_files.files,
    "exporters": figures_files.exporting,
    "timeline": figures_memory.timeline,
    "instruments": figures_memory.instruments,
    "repeatability": figures_memory.repeatability,
    "loading": figures_memory.loading,
    "loading-timeline": figures_memory.loading_timeline,
    "scaling-memory": figures_scaling.scaling_memory,
    "parts": figures_scaling.parts,
    "first-and-steady": figures_scaling.first_and_steady,
    "stages": figures_memory.stages,
    "scaling-time": figures_scaling.scaling_time,
    "threads": figures_scaling.threads,
    "lifetimes": figures_less.lifetimes,
    "ladder": figures_audit.climbing,
    "allocators": figures_audit.keeping,
    "claims": figures_audit.judged,
    "locality": figures_tiling.local,
    "strips": figures_tiling.beside,
    "plans": figures_tiling.keeping,
    "levers": figures_levers.levers,
    "sizes": figures_capacity.sizes,
    "predictions": figures_capacity.predictions,
}


def draw(name, study):
    """One figure of `FIGURES`, in the workbench's style; `NotEnoughData` where the study cannot give it."""
    with rc_context(plots.STYLE):
        return FIGURES[name](study)


def show(name, study):
    """Draw a figure in a notebook, with its alt text, and save it into $UDNET_FIGURES or figures/."""
    try:
        figure = draw(name, study)
    except NotEnoughData as reason:
        print(f"{name}: not drawn from this study: {reason}")
        return
    plots.save(figure, os.environ.get("UDNET_FIGURES", FOLDER), name)
    plots.display(figure)
