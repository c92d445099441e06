"""From a study to what people read: `reproduce` for this machine, in a folder; `publish` for the repository."""

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path
from textwrap import fill

from . import (
    Error,
    audit,
    capacity,
    exporters,
    figures,
    files,
    findings,
    findings_capacity,
    instruments,
    levers,
    locality,
    notebooks,
    plots,
    quality,
    report,
    scaling,
    study,
)

REPO = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPO / "notebooks"
FIGURES = REPO / "figures"
OUTPUTS = ("README.md", "data/results/", "data/README.md", "figures/", "notebooks/")  # what `publish` itself rewrites

TABLES = {
    "trials.csv": "a row a phase of a trial",
    "machine.json": "the machine, its versions and the commit",
    "parity.csv": "each variant's output against the reference's",
    "timelines.csv": "memory-profiler's samples of the trials with a timeline",
    "stages.csv": "the stages of the network in those trials, with the kernel's peak of each",
    "instruments.csv": "known answers for the instruments",
    "protocol.csv": "the original report's own steps, repeated",
    "limit.csv": "multiply-adds a second of a large product",
    "differences.csv": "each exported candidate's output against PyTorch's",
    "capacity.csv": "predicted peaks under real limits, a little over them and well under",
    "psnr.csv": "8-bit outputs of levers with less precision, against float32's",
    "quality.csv": "PSNR, SSIM, UIQM and UCIQE of every picture and method",
    "locality.npz": "how far one changed pixel moves the output, with the sums over the image free and held",
}


def draw(folder=None, out=None):
    """Draw every figure of the study in `folder` (None: the published one) into `out` (None: `figures/`).

    Returns the paths, SVG and PNG. A figure that the study has too little data for is one line on stderr.
    """

    shown, paths = study.read(folder or study.PUBLISHED), []
    for name in figures.FIGURES:
        try:
            paths += plots.save(figures.draw(name, shown), out or FIGURES, name)
        except scaling.NotEnoughData as error:
            print(f"udnet: no figure {name}: {error}", file=sys.stderr)
    return paths


def reproduce(grid="quick", out="build"):
    """Study this machine and put its figures, executed notebooks and a report under `out`.

    Prints the summary and where the report is. Returns 0, or 1 when a trial or a notebook failed and the rest is done.
    Interrupted and started again, it goes on with the study.
    """
    began, out = time.monotonic(), Path(out)
    published = study.read(study.PUBLISHED)
    here = study.run(grid, out / "study")
    instruments.run(here.folder, repeats=1)
    audit.run(here.folder, repeats=1, every_allocator=False)
    locality.run(here.folder)
    quality.run(here.folder)
    drawn = draw(here.folder, out / "figures")
    sources = sorted(NOTEBOOKS.glob("*.ipynb"))
    failures = notebooks.execute(sources, out / "notebooks", here.folder, out / "figures")
    executed = [out / "notebooks" / path.name for path in sources]
    notebooks.to_html(executed, out / "report")
    page = report.to_index(here, published, executed, drawn, out / "report")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    table = report.as_text(report.summary(here, published))
    print(f"\nThis machine beside the published study\n\n{table}\n\n{fill(report.NOTE, 100)}\n")
    print(f"Report: {page.resolve()}\nTime: {minutes} min {seconds} s")
    return 1 if failures or here.trials.status.ne("ok").any() else 0


def publish():
    """Run what is missing of the full study and renew, in place, all that is made from it.

    A finished study is kept: remove `data/results/published` to measure anew. Returns 1 when a notebook failed.
    """
    if name := _changed():
        raise Error(f"{name} is not committed: commit or remove it first, since a published study names its commit")
    done = study.run("full", study.PUBLISHED)
    instruments.run(done.folder)
    exporters.run(done.folder)
    audit.run(done.folder)
    locality.run(done.folder)
    quality.run(done.folder)
    study.run("large", done.folder / capacity.LARGE)
    capacity.run(done.folder)
    levers.measure(done.folder)
    drawn = draw(done.folder, FIGURES)
    for path in {*FIGURES.glob("*.svg"), *FIGURES.glob("*.png")} - set(drawn):
        path.unlink()
    failures = notebooks.execute(sorted(NOTEBOOKS.glob("*.ipynb")), NOTEBOOKS, done.folder, FIGURES)
    renew_checksums(REPO / "data" / "README.md")
    renew_findings(REPO / "README.md", done)
    print(f"{done.folder}: {done.trials.trial.nunique()} trials; {FIGURES}: {len(drawn)} files")
    return 1 if failures else 0


def _changed():
    """A file that git sees as changed or new, other than what `publish` makes; None where there is none."""
    asked = ["git", "-C", str(REPO), "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"]
    try:
        entries = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        raise Error(f"{REPO} is not a git clone: publish from one") from error
    return next((entry[3:] for entry in entries if entry and not entry[3:].startswith(OUTPUTS)), None)


def renew_findings(readme, done):
    """Write a study's findings between the two marks of a page."""
    text = readme.read_text(encoding="utf-8")
    begin, end = "<!-- findings: written by `make publish` -->\n", "<!-- end of findings -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    said = "".join(f"- {sentence}\n" for sentence in [findings_capacity.frame(done), *findings.sentences(done)])
    files.write_text(readme, before + begin + "\n" + said + "\n" + end + after)


def renew_checksums(readme):
    """Renew the SHA-256 in every row of a page's table of files, and all rows of the published results."""
    folder = readme.parent
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"^\| `results/published/.*\n", "", text, flags=re.MULTILINE)
    made = sorted(
        path for path in (folder / "results" / "published").rglob("*") if path.suffix in (".csv", ".json", ".npz")
    )
    rows = "".join(
        f"| `{path.relative_to(folder).as_posix()}` | {TABLES[path.name]} | measured by `make publish` | MIT, as this "
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
