"""From a study to what people read: `reproduce` for this machine, in a folder; `publish` for the repository."""

import hashlib
import re
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

import nbformat

from udnet import Error
from udnet.analysis import capacity, prediction
from udnet.experiments import (
    audit,
    convolutions,
    engine,
    exporters,
    forecast,
    instruments,
    levers,
    locality,
    photographs,
    precision,
    proofs,
    quality,
    runtimes,
    serving,
    steps,
)
from udnet.pages import notebooks, report
from udnet.system import files, machine, progress
from udnet.trials import study, tables

NOTEBOOKS = files.REPO / "notebooks"
FIGURES = files.REPO / "figures"
FINDINGS = "07-findings.ipynb"
OUTPUTS = ("README.md", "data/results/", "data/README.md", "figures/", "notebooks/")  # what `publish` itself rewrites
QUICK_SCENES = 6  # that `reproduce` scores: enough to see a difference of some dB

TABLES = {
    "trials.csv": "a row a phase of a trial",
    "machine.json": "the machine, its versions and the commit",
    "grid.toml": "the grid of a study of another machine",
    "parity.csv": "each variant's output against the reference's",
    "timelines.csv": "memory-profiler's samples of the trials with a timeline",
    "stages.csv": "the stages of the network in those trials, with the kernel's peak of each",
    "instruments.csv": "known answers for the instruments",
    "protocol.csv": "the original report's own steps, repeated",
    "limit.csv": "multiply-adds a second of a large product",
    "differences.csv": "each exported candidate's output against PyTorch's",
    "capacity.csv": "predicted peaks under real limits, a little over them and well under",
    "photographs.csv": "photographs of eight sizes and kinds enhanced under a real limit: the peak of each",
    "convolutions.csv": "one convolution of the tiled schedule by its own kernel and by others",
    "steps.csv": "the seconds of the tiled schedule's threads by step",
    "forecasts.csv": "what three exports were forecast to need from small pictures, and what they needed",
    "engine.csv": "pictures a minute by one process and by workers of a cluster",
    "serving.csv": "requests to one process, one after another and several at once: memory and seconds of each",
    "serving-trials.csv": "those processes: what each holds, at its peak and afterwards",
    "psnr.csv": "8-bit outputs of levers with less precision, against float32's",
    "precision.csv": "each runtime's float32 against float64, stage by stage",
    "quality.csv": "PSNR, SSIM, UIQM and UCIQE of every picture and method",
    "models.json": "each variant's peak and time by the picture's size, fitted to these tables: `plan` goes by it",
    "locality.npz": "how far one changed pixel moves the output, with the sums over the image free and held",
}


def draw(folder=None, out=None):
    """Draw the figures of the study in `folder` (None: the published one) into `out` (None: `figures/`).

    The notebooks draw them, run on that study; what they write otherwise is not kept. Returns the figures' paths;
    `Error`, with nothing changed, where a notebook failed.
    """
    out, done = Path(out or FIGURES), tables.read(folder or tables.PUBLISHED)
    files.make_folder(out)  # before the minutes that it takes
    with files.temporary_folder() as made:
        about = {"study": str(done.folder.resolve()), "figures": str(made), "live": False}
        if failures := notebooks.execute(sources(), None, about, at_once=machine.cores()):
            raise Error(f"{out} is left as it was: {len(failures)} notebooks failed")
        return _renew_figures(made, out)


def sources():
    """The notebooks, in their order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def _renew_figures(made, out):
    """Put the figures that were made into a folder; from the project's own what is not drawn any more goes."""
    drawn = [out / path.name for path in sorted(made.iterdir())]
    if out == FIGURES:
        for path in {*out.glob("*.svg"), *out.glob("*.png")} - set(drawn):
            path.unlink()
    for path in drawn:
        with files.replacing(path) as part:
            shutil.copyfile(made / path.name, part)
    return drawn


def reproduce(grid="quick", out="build"):
    """Study this machine and put its figures, executed notebooks and a report under `out`.

    Prints the summary and where the report is. Returns 0, or 1 when a trial or a notebook failed and the rest is done.
    Interrupted and started again, it goes on with the study.
    """
    began, out = time.monotonic(), Path(out).resolve()
    published = tables.read(tables.PUBLISHED)
    here = study.run(grid, out / "study")
    instruments.run(here.folder, repeats=1)
    audit.run(here.folder, repeats=1, every_allocator=False)
    locality.run(here.folder)
    quality.run(here.folder, scenes=QUICK_SCENES)
    about = {"study": str(here.folder), "figures": str(out / "figures"), "live": False}
    last = NOTEBOOKS / FINDINGS  # it shows what the others have drawn
    others = [path for path in sources() if path != last]
    failures = notebooks.execute(others, out / "notebooks", about, at_once=machine.cores())
    failures += notebooks.execute([last], out / "notebooks", about)
    executed = [out / "notebooks" / path.name for path in sources()]
    notebooks.to_html(executed, out / "report")
    page = report.to_index(here, published, executed, out / "figures" / "headline.svg", out / "report")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    table = report.as_text(report.summary(here, published))
    print(f"\nThis machine beside the published study\n\n{table}\n\n{fill(report.NOTE, 100)}\n")
    print(f"Report: {page}\nTime: {minutes} min {seconds} s")
    return 1 if failures or here.trials.status.ne("ok").any() else 0


def publish():
    """Run what is missing of the full study and renew, in place, all that is made from it.

    A finished study is kept: remove `data/results/published` to measure anew. Returns 1 when a notebook failed.
    """
    if name := _changed():
        raise Error(f"{name} is not committed: commit or remove it first, since a published study names its commit")
    done = study.run("full", tables.PUBLISHED)
    instruments.run(done.folder)
    exporters.run(done.folder)
    audit.run(done.folder)
    locality.run(done.folder)
    convolutions.run(done.folder)
    steps.run(done.folder)
    quality.run(done.folder)
    study.run("large", done.folder / capacity.LARGE)
    study.run("scratch", done.folder / capacity.SCRATCH)
    proofs.run(done.folder)
    levers.measure(done.folder)
    photographs.run(done.folder)
    serving.run(done.folder)
    forecast.run(done.folder)
    if find_spec("distributed"):
        engine.run(done.folder)
    else:
        progress.say("the engine of a cluster is left out: make extras")
    if missing := runtimes.missing():
        progress.say(f"the other runtimes are left out: {missing}")
    else:
        runtimes.run(done.folder)
        precision.run(done.folder)
    return renew()


def renew():
    """Fit the published study's models, run the notebooks on it in place, renew figures, checksums, README's findings.

    Returns 1 when a notebook failed: then the figures and README are left as they were.
    """
    renew_models()
    with files.temporary_folder() as made:
        failures = notebooks.execute(sources(), NOTEBOOKS, {"figures": str(made)})
        if not failures:
            _renew_figures(made, FIGURES)
            renew_findings(files.REPO / "README.md", nbformat.read(NOTEBOOKS / FINDINGS, as_version=4))
    renew_checksums(files.REPO / "data" / "README.md")
    return 1 if failures else 0


def renew_models():
    """Fit the models of the published study, which lie beside its tables."""
    prediction.write(capacity.models(tables.read(tables.PUBLISHED)), tables.PUBLISHED)


def _changed():
    """A file that git sees as changed or new, other than what `publish` makes; None where there is none."""
    asked = ["git", "-C", str(files.REPO), "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"]
    try:
        entries = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        raise Error(f"{files.REPO} is not a git clone: publish from one") from error
    return next((entry[3:] for entry in entries if entry and not entry[3:].startswith(OUTPUTS)), None)


def renew_findings(readme, notebook):
    """Write what notebook 7 found between the two marks of a page: its table, then its findings."""
    text = readme.read_text(encoding="utf-8")
    begin, end = "<!-- findings: written by `make publish` -->\n", "<!-- end of findings -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    files.write_text(readme, f"{before}{begin}\n{findings(notebook)}\n{end}{after}")


def findings(notebook):
    """What notebook 7 found, in Markdown: the table that its cell tagged `readme` shows, and a list of its findings."""
    listed = "".join(f"- {sentence}\n" for sentence in notebooks.said(notebook, "finding"))
    return "\n\n".join([*notebooks.said(notebook, "readme"), listed])


def renew_checksums(readme):
    """Renew the SHA-256 in every row of a page's table of files, and all rows of the results, but local ones."""
    folder = readme.parent
    results, ends = folder / "results", (".csv", ".json", ".npz", ".toml")
    text = re.sub(r"^\| `results/.*\n", "", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = sorted(path for path in results.rglob("*") if path.suffix in ends)
    made = [path for path in found if not path.is_relative_to(results / "local")]
    rows = "".join(
        f"| `{path.relative_to(folder).as_posix()}` | {TABLES[path.name]} | {_origin(path, results)} | MIT, as this "
        f"project | `{'0' * 64}` |\n"
        for path in made
    )
    last = max((match.end() for match in re.finditer(r"^\|.*\n", text, re.MULTILINE)), default=len(text))

    def renewed(row):
        path = folder / row[2]
        if not path.is_file():
            raise Error(f"{readme} lists {row[2]}, which is not there: remove its row")
        return row[1] + hashlib.sha256(path.read_bytes()).hexdigest() + row[3]

    text = text[:last] + rows + text[last:]
    files.write_text(readme, re.sub(r"^(\| `([^`]+)` \|.*\| `)[0-9a-f]{64}(` \|)$", renewed, text, flags=re.MULTILINE))


def _origin(path, results):
    ours = path.is_relative_to(results / "published")
    return "measured by `make publish`" if ours else "measured on another machine, by its `grid.toml`"
