"""How good the enhanced pictures are: input, gray world and weights, on pictures that training never saw."""

from collections import Counter
from functools import partial

import pandas as pd
from tqdm import tqdm

from udnet import Error
from udnet.analysis import scaling
from udnet.network import prepared
from udnet.pictures import metrics, photographs, scenes
from udnet.pictures.folders import REFERENCE
from udnet.system import files
from udnet.trials import tables
from udnet.variants.enhancer import load

FILE = "quality.csv"
SCENES = range(2 * 10**6, 2 * 10**6 + 24)  # seeds, far from those that training sees and tries
LEAST = 11  # pixels: the window of SSIM
COLUMNS = ["set", "picture", "method", "weights", "psnr", "ssim", "uiqm", "uciqe"]
DEFAULT, OWN, PUBLISHED = "default weights", "own weights", "published weights"


def run(folder, photographs=None, published=None, own=None, scenes=None):
    """Score every method on scenes and photographs that training never saw, into `folder`/quality.csv.

    A table that is there is kept where it has all that is asked for, by these weights. `photographs`: a folder of them,
    NAME and, for some, NAME_reference; `published`, `own`: files of weights; `scenes`: how many (None: all). Returns a
    row a picture and method, with `COLUMNS`; psnr in dB, psnr and ssim nan without a reference. `Error`, with nothing
    written, where a photograph cannot be scored.
    """
    weights = {DEFAULT: "default", OWN: own, PUBLISHED: published}
    weights = {method: name for method, name in weights.items() if name}
    captions = {"input": "", "gray world": ""}
    captions |= {method: prepared.find(name).caption for method, name in weights.items()}
    pictures = [(("scenes", str(seed)), partial(_scene, seed)) for seed in SCENES[:scenes]]
    if photographs:
        pictures += _photographs(photographs)
    if (folder / FILE).exists():
        known = read(folder)
        asked = {(*which, *method) for which, _ in pictures for method in captions.items()}
        if asked <= set(known[COLUMNS[:4]].itertuples(index=False, name=None)):
            return known
    with files.alone(folder):
        files.write_csv(folder / FILE, pd.DataFrame(_scores(pictures, captions, weights), columns=COLUMNS))
    return read(folder)


def read(folder):
    """The table of a study's folder, as `run` returns it."""
    names = dict.fromkeys(COLUMNS[:4], str)  # one may be "NA", or a number
    options = {"dtype": names, "keep_default_na": False, "na_values": dict.fromkeys(MEASURES, "")}
    return tables.read_table(folder / FILE, COLUMNS, "the quality of the pictures was not scored", **options)


MEASURES = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".3f"), "uiqm": ("UIQM", ".2f"), "uciqe": ("UCIQE", ".3f")}


def table(scores):
    """Means over pictures by set and method, with 95% intervals, of what `run` returns."""
    rows = {}
    for (kind, method), here in scores.groupby(["set", "method"], sort=False):
        row = rows[kind, method] = {"pictures": len(here), "with a reference": here.psnr.count()}
        for name, (heading, form) in MEASURES.items():
            values = here[name].dropna()
            row[heading] = f"{scaling.average(values):{form}}" if len(values) else ""
        row["weights"] = here.weights.iloc[0].removeprefix("weights: ")
    shown = pd.DataFrame.from_dict(rows, orient="index")
    shown.index = pd.MultiIndex.from_tuples(shown.index, names=["set", "method"])
    return shown


def _scores(pictures, captions, weights):
    methods = {"input": lambda pixels: pixels, "gray world": metrics.gray_world}
    methods |= {method: load(weights=name) for method, name in weights.items()}
    for (kind, name), read in tqdm(pictures, desc="quality", unit=" pictures"):
        picture, reference = read()
        for method, caption in captions.items():
            about = {"set": kind, "picture": name, "method": method, "weights": caption}
            yield about | metrics.score(methods[method](picture), reference)


def _scene(seed):
    """A scene's picture and reference."""
    view = scenes.draw(seed, *scenes.REEF_SIZE)
    return view.picture, view.reference


def _photographs(folder):
    """The photographs of a folder, each read once to see that it can be scored: (set, name), what reads it again."""
    paths = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in photographs.KINDS and path.name[0] != "."
    ]
    stem, times = Counter(path.stem for path in paths).most_common(1)[0] if paths else ("", 0)
    if times > 1:
        raise Error(f"{folder}: {times} photographs with the name {stem}: rename all but one")
    known, found = {path.stem: path for path in paths}, []
    for name, path in known.items():
        if not name.endswith(REFERENCE):
            found.append((("photographs", name), partial(_pair, path, known.get(name + REFERENCE))))
            found[-1][1]()
    if not found:
        raise Error(f"{folder}: no photographs in it: name a folder with some")
    return found


def _pair(path, reference):
    """A photograph and its reference, which not every one has; `Error` where they cannot be compared."""
    pixels = photographs.read(path).pixels
    if min(pixels.shape[:2]) < LEAST:
        raise Error(f"{path}: a side of less than {LEAST} pixels cannot be scored: take it out of the folder")
    if reference is None:
        return pixels, None
    expected = photographs.read(reference).pixels
    if expected.shape != pixels.shape:
        sizes = " and ".join("{}x{}".format(*one.shape[:2]) for one in (pixels, expected))
        raise Error(f"{path} and {reference} differ in size ({sizes}): make them the same")
    return pixels, expected
