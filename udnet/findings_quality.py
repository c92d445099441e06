"""How good the enhanced pictures are, in a table and sentences whose every number is computed."""

import pandas as pd

from . import quality, scaling
from .findings import NOT_MEASURED

MEASURES = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".3f"), "uiqm": ("UIQM", ".2f"), "uciqe": ("UCIQE", ".3f")}


def of(study):
    """The table of a study, or a sentence where it has none."""
    scores = _read(study)
    return NOT_MEASURED if scores is None else table(scores)


def table(scores):
    """Means over pictures by set and method, with 95% intervals, of what `quality.run` returns."""
    rows = {}
    for (kind, method), here in scores.groupby(["set", "method"], sort=False):
        row = rows[kind, method] = {"pictures": len(here), "with a reference": here.psnr.count()}
        for name, (heading, form) in MEASURES.items():
            values = here[name].dropna()
            row[heading] = f"{scaling.average(values):{form}}" if len(values) else ""
        row["weights"] = here.weights.fillna("").iloc[0].removeprefix("weights: ")
    shown = pd.DataFrame.from_dict(rows, orient="index")
    shown.index = pd.MultiIndex.from_tuples(shown.index, names=["set", "method"])
    return shown


def gained(study):
    """What the default weights gain on pictures with a reference, over the input, gray world and what is published."""
    scores = _read(study)
    if scores is None:
        return NOT_MEASURED
    said = []
    for kind, here in scores.dropna(subset="psnr").groupby("set", sort=False):
        wide = here.pivot(index="picture", columns="method", values=["psnr", "ssim"])
        default = wide["psnr", quality.DEFAULT]
        over = ", ".join(
            f"{scaling.average(default - wide['psnr', name]):+.2f} dB over {'the ' * (name != 'gray world')}{name}"
            for name in ("input", "gray world", quality.PUBLISHED)
            if name in wide["psnr"]
        )
        less = scaling.average(wide["ssim", quality.DEFAULT] - wide["ssim", "input"])
        what = "pairs of photographs" if kind == "photographs" else "scenes"
        said.append(
            f"On {len(wide)} {what} that training never saw the default "
            f"weights reach {default.mean():.2f} dB: {over}; SSIM changes by {less:+.3f} from the input's."
        )
    return "**Quality.** " + " ".join(said)


def _read(study):
    path = study.folder / quality.FILE
    return pd.read_csv(path) if path.exists() else None
