"""From a study to what people read: figures, executed notebooks, a report, and two machines side by side.

`draw` redraws the figures, `execute` runs the notebooks, `to_html` and `to_index` make pages that open without a server
and without a network, `summary` compares two studies. `reproduce` does all of it for this machine in a folder of its
own, `publish` in place for the repository.
"""

import hashlib
import html
import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from textwrap import fill

import pandas as pd
from tqdm import tqdm

from . import Error, checkpoint, exporters, figures, findings, instruments, plots, scaling, study, trial

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
    "differences.csv": "each exported candidate's output against PyTorch's",
}

AGREES = 0.10  # how far a ratio of memory may be from the published one
LABELS = {"load_peak_bytes": "load", "peak_bytes": "peak", "seconds": "time"}
COMPARED = (  # a column of `scaling.costs`, of which variant, over which one's
    ("load_peak_bytes", "pytorch-published", "pytorch"),
    ("load_peak_bytes", "onnx", "pytorch"),
    ("peak_bytes", "onnx", "pytorch"),
    ("peak_bytes", "pytorch-lean", "pytorch"),
    ("peak_bytes", "onnx-lean", "onnx"),
    ("seconds", "onnx", "pytorch"),
)
NOTE = (
    f"Each ratio is one of medians; the interval is the published one's, 95%. peak: the highest resident memory of "
    f"inference, first and later runs; load: until the model is loaded; time: of a later run. Memory agrees within "
    f"{AGREES:.0%}; time is only told, since it belongs to the machine."
)


# --- figures and notebooks ---


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


def execute(notebooks, out, folder, figures):
    """Run notebooks top to bottom on the study in `folder` and write them into `out`, which may be where they are.

    Their figures go to `figures`. A notebook that fails, or that writes to stderr, is one line on stderr; it is kept as
    far as it came unless that would replace the notebook itself, and the others are run. Returns those lines.
    """
    import nbformat

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    failures = []
    with tqdm(notebooks, desc="notebooks", unit="notebook") as bar:
        for path in bar:
            bar.set_description(path.stem)
            notebook = nbformat.read(path, as_version=4)
            problem = _run(notebook, path.parent, Path(folder).resolve(), Path(figures).resolve())
            _clean(notebook)
            if problem:
                failures.append(f"{path.name}, {problem}")
                tqdm.write(f"udnet: {failures[-1]}", file=sys.stderr)
            if not problem or out.resolve() != path.parent.resolve():
                _write(out / path.name, nbformat.writes(notebook) + "\n")
    return failures


def _run(notebook, cwd, folder, figures):
    """Execute a notebook in place with this very Python; what went wrong and in which cell, or None."""
    import asyncio

    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # or what a failure leaves undone would show an older run
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(cwd)}},
        extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks are not the reader's business
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        on_notebook_start=_leave_interrupts_alone,
    )
    # Without folders to look in, "python3" is this interpreter, whatever kernels the user has installed by that name.
    client.create_kernel_manager().kernel_spec_manager.kernel_dirs = []
    paths = {"UDNET_STUDY": str(folder), "UDNET_FIGURES": str(figures), "PYTHONPATH": _python_path()}
    try:
        asyncio.run(client.async_execute(env=os.environ | paths))
    except CellExecutionError as error:
        return f"cell {client.code_cells_executed}: {error.ename}: {_first_line(error.evalue)}"
    except DeadKernelError:
        return f"cell {client.code_cells_executed}: the kernel died"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                return f"cell {cell.execution_count}: wrote to stderr: {_first_line(output.text)}"
    return None


def _first_line(text):
    return text.strip().partition("\n")[0]


def _python_path():
    """The kernel imports this very package, as a trial does."""
    return os.pathsep.join([os.fspath(trial.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def _leave_interrupts_alone(notebook):
    """Take nbclient's signal handlers away: under them Ctrl-C is a kernel that died, here it is the end of the work."""
    import asyncio
    import signal

    with suppress(RuntimeError):  # Windows has none to take away
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


def _clean(notebook):
    """Keep of the metadata what running and reading takes, and drop widgets: without a kernel they are blank."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if key in cell.metadata}
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if not any("widget" in kind for kind in one.get("data", {}))]


def _write(path, text):
    with checkpoint.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- two machines side by side ---


def summary(here, published):
    """One row a ratio of two variants' costs that both studies have: ratios travel between machines, bytes do not.

    Columns: quantity, here, published, low, high (the 95% interval of the published ratio), here/published, verdict.
    """
    frames = [scaling.costs(one) for one in (here, published)]
    for frame in frames:
        frame["case"] = list(zip(frame.height, frame.width, frame.threads, strict=True))
    known = [set(zip(frame.variant, frame.case, strict=True)) for frame in frames]
    shared = known[0] & known[1]
    usual = frames[0].threads.mode().max()
    rows = []
    for value, over, under in COMPARED:
        cases = sorted({case for _, case in shared if {(over, case), (under, case)} <= shared}, key=_by_size)
        groups = {"": cases} if value == "load_peak_bytes" and cases else {}
        if value != "load_peak_bytes":
            groups = {_case_text(*case, usual): [case] for case in cases}
        for text, group in groups.items():
            (mine, _, _), (theirs, low, high) = (_ratio(frame, value, over, under, group) for frame in frames)
            quantity = f"{LABELS[value]}{text}: {over} / {under}"
            rows.append((quantity, mine, theirs, low, high, mine / theirs, _verdict(value, mine / theirs)))
    return pd.DataFrame(rows, columns=["quantity", "here", "published", "low", "high", "here/published", "verdict"])


def _ratio(frame, value, over, under, cases):
    inside = frame.case.isin(cases)
    return scaling.ratio(frame, value, inside & frame.variant.eq(over), inside & frame.variant.eq(under))


def _by_size(case):
    height, width, threads = case
    return height * width, threads


def _case_text(height, width, threads, usual):
    counted = f", {threads} thread{'s' if threads > 1 else ''}"
    return f" {height}x{width}" + (counted if threads != usual else "")


def _verdict(value, change):
    if value == "seconds":
        return "told"
    return "agrees" if abs(change - 1) <= AGREES else "differs"


def as_text(table):
    """A summary for a terminal of 100 columns."""
    if table.empty:
        return "The two studies have no variant and size in common."
    left = f"{{:<{table.quantity.str.len().max()}}}".format
    return _as_shown(table).to_string(index=False, formatters={"quantity": left})


def _as_shown(table):
    number = "{:.2f}".format
    interval = table.low.map(number) + " to " + table.high.map(number)
    return pd.DataFrame(
        {
            "quantity": table.quantity,
            "here": table.here.map(number),
            "published": table.published.map(number),
            "interval": interval.where(table.low.notna(), ""),
            "here/published": table["here/published"].map(number),
            "verdict": table.verdict,
        }
    )


# --- pages ---

PAGE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}
<style>main { max-width: 60rem; margin: 0 auto; padding: 1rem } nav { padding: 0 0 1rem }</style>
{%- endblock -%}
{%- block body_header -%}
{{ super() }}<nav class="jp-RenderedHTMLCommon"><a href="index.html">The report</a></nav>
{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata('alt', 'image/png') -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img {% if alt %}alt="{{ alt | escape_html }}"{% endif %} src="data:image/png;base64,{{ output.data['image/png'] }}">
</div>
{%- endblock -%}
"""

STYLE = """
:root { --ink: #1c2126; --soft: #5c666f; --line: #e1e5e8; --link: #0072b2; --good: #00734f; --bad: #b84a00 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink); font: 17px/1.6 system-ui, Helvetica, Arial, sans-serif }
main { max-width: 58rem; margin: 0 auto; padding: 3rem 1.5rem 5rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem }
p { margin: .5rem 0; max-width: 42rem }
.lead { font-size: 1.15rem }
.note, figcaption { color: var(--soft); font-size: .9rem }
a { color: var(--link); text-underline-offset: .15em }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem; line-height: 1.4 }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { border-bottom: 2px solid var(--ink) }
tbody th { font-weight: normal }
.ratios th, .ratios td { white-space: nowrap; font-variant-numeric: tabular-nums }
.ratios th + th, .ratios td { text-align: right }
.agrees { color: var(--good) } .differs { color: var(--bad); font-weight: 600 } .told { color: var(--soft) }
ol { padding-left: 1.4rem } li { margin: .6rem 0 } li p { margin: 0; color: var(--soft) }
code { font-size: .9em }
figure { margin: 2.5rem 0 } figure img { display: block; width: 100%; height: auto }
"""


def to_html(notebooks, out):
    """A page for each executed notebook, whole in one file: pictures inside, no script and no request to anywhere."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="lab",
        raw_template=PAGE,
        embed_images=True,
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pages = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        about = {"metadata": {"name": _opening(notebook, path)[0], "path": str(path.parent)}}
        text, _ = exporter.from_notebook_node(notebook, about)
        pages.append(out / f"{path.stem}.html")
        _write(pages[-1], _link_pages(text))
    return pages


def _link_pages(text):
    """Links from notebook to notebook lead from page to page."""
    return re.sub(r'(href="[\w.-]+)\.ipynb(?=["#])', r"\1.html", text)


def _opening(notebook, path):
    """The title of a notebook, plain, and the paragraph after it, Markdown."""
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, _, rest = first.partition("\n")
    return re.sub(r"[#*`]", "", title).strip() or path.stem, rest.strip().partition("\n\n")[0]


def to_index(here, published, notebooks, figures, out):
    """The first page of a report, `index.html` beside the notebooks' pages: ratios, notebooks, figures, machines."""
    import nbformat
    from nbconvert.filters import markdown2html

    table = summary(here, published)
    judged = table[table.verdict.ne("told")]
    lines = []
    for path in notebooks:
        title, question = _opening(nbformat.read(path, as_version=4), path)
        lines.append(
            f'<li><a href="{path.stem}.html">{html.escape(title)}</a>{_link_pages(markdown2html(question))}</li>'
        )
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>UDnet on this machine</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>UDnet on this machine</h1>
<p class="lead">{judged.verdict.eq("agrees").sum()} of {len(judged)} ratios of memory agree with the published study's
within {AGREES:.0%}. {html.escape(_outcome(here))}</p>
<h2>This machine beside the published study</h2>
<div class="wide">{_ratios_html(table)}</div>
<p class="note">{NOTE}</p>
<h2>Notebooks</h2>
<ol>{"".join(lines)}</ol>
<h2>Figures</h2>
{"".join(_figure_html(path) for path in figures if path.suffix == ".svg")}
<h2>Machines</h2>
<div class="wide">{_machines_html(here.machine, published.machine)}</div>
</main>
</body>
</html>
"""
    page = Path(out) / "index.html"
    _write(page, text)
    return page


def _outcome(done):
    ended = done.trials.groupby("trial").status.last()
    failed = ended[ended.ne("ok")]
    outcome = f"{len(failed)} failed: {', '.join(failed.index)}" if len(failed) else "every one finished"
    return f"{len(ended)} trials of the {done.machine['grid']} grid on {done.machine['processor']}; {outcome}."


def _ratios_html(table):
    shown = _as_shown(table)
    head = "".join(f"<th>{name}</th>" for name in shown)
    rows = "".join(
        f"<tr><th>{quantity}</th>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + f'<td class="{verdict}">{verdict}</td></tr>'
        for quantity, *cells, verdict in shown.itertuples(index=False)
    )
    return f'<table class="ratios"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _machines_html(*machines):
    """What each study ran on and with, side by side."""
    facts = {
        "processor": lambda one: f"{one['processor']}, {one['cores']} cores",
        "memory": lambda one: f"{one['memory_bytes'] / 2**30:.1f} GiB",
        "system": lambda one: f"{one['system']} {one['kernel']}, {one['allocator']}, huge pages {one['huge_pages']}",
        "versions": lambda one: ", ".join(f"{name} {number}" for name, number in one["packages"].items()),
        "Python": lambda one: one["python"],
        "weights": lambda one: one["weights"],
        "study": lambda one: f"{one['grid']}, {one['trials']} trials, {one['date'][:10]}, commit {one['commit']}",
    }
    rows = "".join(
        f"<tr><th>{name}</th>" + "".join(f"<td>{html.escape(tell(one))}</td>" for one in machines) + "</tr>"
        for name, tell in facts.items()
    )
    head = "<tr><th></th><th>this machine</th><th>published</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _figure_html(path):
    """An SVG file within the page; `plots.save` has put its text for those who cannot see it into the file."""
    alt = re.search("<dc:description>(.*?)</dc:description>", path.read_text(encoding="utf-8"), re.DOTALL)[1]
    code = b64encode(path.read_bytes()).decode()
    alt = html.escape(html.unescape(alt))
    return f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{code}"><figcaption>{alt}</figcaption></figure>'


# --- the two commands ---


def reproduce(grid="quick", out="build"):
    """Study this machine and put its figures, executed notebooks and a report under `out`.

    Prints the summary and where the report is. Returns 0, or 1 when a trial or a notebook failed and the rest is done.
    Interrupted and started again, it goes on with the study.
    """
    began, out = time.monotonic(), Path(out)
    published = study.read(study.PUBLISHED)
    here = study.run(grid, out / "study")
    instruments.run(here.folder, repeats=1)
    drawn = draw(here.folder, out / "figures")
    sources = sorted(NOTEBOOKS.glob("*.ipynb"))
    failures = execute(sources, out / "notebooks", here.folder, out / "figures")
    notebooks = [out / "notebooks" / path.name for path in sources]
    to_html(notebooks, out / "report")
    page = to_index(here, published, notebooks, drawn, out / "report")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"\nThis machine beside the published study\n\n{as_text(summary(here, published))}\n\n{fill(NOTE, 100)}\n")
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
    drawn = draw(done.folder, FIGURES)
    for path in {*FIGURES.glob("*.svg"), *FIGURES.glob("*.png")} - set(drawn):
        path.unlink()
    failures = execute(sorted(NOTEBOOKS.glob("*.ipynb")), NOTEBOOKS, done.folder, FIGURES)
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
    said = "".join(f"- {sentence}\n" for sentence in findings.sentences(done))
    _write(readme, before + begin + "\n" + said + "\n" + end + after)


def renew_checksums(readme):
    """Renew the SHA-256 in every row of a page's table of files, and all rows of the published results."""
    folder = readme.parent
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"^\| `results/published/.*\n", "", text, flags=re.MULTILINE)
    made = sorted(path for path in (folder / "results" / "published").rglob("*") if path.suffix in (".csv", ".json"))
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
    _write(readme, re.sub(r"^(\| `([^`]+)` \|.*\| `)[0-9a-f]{64}(` \|)$", renewed, text, flags=re.MULTILINE))
