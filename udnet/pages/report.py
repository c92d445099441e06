"""Two machines side by side: ratio by ratio, and as the first page of a report."""

import html
from base64 import b64encode
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert.filters import markdown2html

from udnet import NotMeasured
from udnet.analysis import machines, scaling
from udnet.analysis.machines import AGREES
from udnet.experiments import audit
from udnet.pages import notebooks, plots
from udnet.system import files
from udnet.system.memory import MIB

NOT_JUDGED = "not judged"
NOTE = (
    f"Each ratio is one of medians; the interval is the published one's, 95%. peak: the highest resident memory of "
    f"inference, first and later runs; load: until the model is loaded; time: of a later run; crossing: the side of "
    f"the picture from which a default session needs more memory than PyTorch, by lines through the sizes that both "
    f"studies have (notebook 4 has all of its study). Memory agrees within {AGREES:.0%} or "
    f"within the interval; time is not judged, since it belongs to the machine."
)
LEFT_OUT = (
    "This study ran the report's own steps under the system's allocator alone, so claims that depend on another one "
    "may have another verdict than in the published study."
)

STYLE = """
:root { --ink: #1c2126; --soft: #5c666f; --line: #e1e5e8; --link: #0072b2; --good: #00734f; --bad: #b84a00 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink); font: 17px/1.6 system-ui, Helvetica, Arial, sans-serif }
main { max-width: 58rem; margin: 0 auto; padding: 3rem 1.5rem 5rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem }
p { margin: .5rem 0; max-width: 42rem }
.lead { font-size: 1.15rem }
.note { color: var(--soft); font-size: .9rem }
a { color: var(--link); text-underline-offset: .15em }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem; line-height: 1.4 }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { border-bottom: 2px solid var(--ink) }
tbody th { font-weight: normal }
.ratios th, .ratios td { white-space: nowrap; font-variant-numeric: tabular-nums }
.ratios th + th, .ratios td { text-align: right }
.agrees { color: var(--good) } .differs { color: var(--bad); font-weight: 600 } .not-judged { color: var(--soft) }
ul { list-style: none; padding: 0 } li { margin: .6rem 0 } li p { margin: 0; color: var(--soft) }
code { font-size: .9em }
figure { margin: 2.5rem 0 } figure img { display: block; width: 100%; height: auto }
"""


def summary(here, published):
    """One row a ratio of two variants' costs that both studies have: ratios travel between machines, bytes do not.

    The last row is the side at which the default session's memory crosses PyTorch's, where both studies have it.
    Columns: quantity, here, published, low, high (the 95% interval of the published one), here/published, verdict.
    """
    table = machines.ratios({"here": here, "published": published})
    rows = []
    for (kind, quantity), own in table.groupby(["kind", "quantity"], sort=False):
        mine, theirs = (own[own.machine == name].iloc[0] for name in ("here", "published"))
        near = abs(mine.best / theirs.best - 1) <= AGREES or theirs.low <= mine.best <= theirs.high
        verdict = NOT_JUDGED if kind == machines.TIME else "agrees" if near else "differs"
        rows.append((quantity, mine.best, *theirs[["best", "low", "high"]], mine.best / theirs.best, verdict))
    return pd.DataFrame(rows, columns=["quantity", "here", "published", "low", "high", "here/published", "verdict"])


def as_text(table):
    """A summary for a terminal of 100 columns."""
    if table.empty:
        return "The two studies have no variant and size in common."
    left = f"{{:<{table.quantity.str.len().max()}}}".format
    return _as_shown(table).to_string(index=False, formatters={"quantity": left})


def _as_shown(table):
    def number(value):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"

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


def side_by_side(here, published):
    """Peak memory (MiB, whole process) and seconds a later picture in both studies: medians of what both measured."""
    frames = []
    for one in (here, published):
        costs = scaling.costs(one.trials)
        groups = costs[costs.threads == scaling.THREADS].groupby(["pixels", "size", "variant"])
        frames.append(groups[["process_peak_bytes", "seconds"]].median())
    both = frames[0].join(frames[1], how="inner", suffixes=("", "_published")).droplevel("pixels")
    return pd.DataFrame(
        {
            "MiB here": (both.process_peak_bytes / MIB).map("{:,.0f}".format),
            "published": (both.process_peak_bytes_published / MIB).map("{:,.0f}".format),
            "seconds here": both.seconds.map("{:.2f}".format),
            "published ": both.seconds_published.map("{:.2f}".format),
        },
        index=both.index,
    )


# --- the page ---


def to_index(here, published, executed, headline, out):
    """The first page of a report, `index.html` beside the notebooks' pages.

    What was found, this machine beside the published study, the notebooks, the machines. `executed`: the paths of the
    notebooks, the one of the findings among them; `headline`: a figure's SVG file, which need not be there.
    """
    table = summary(here, published)
    judged = table[table.verdict.ne(NOT_JUDGED)]
    try:
        left_out = LEFT_OUT if audit.read(here.folder).protocol.allocator.eq("").all() else ""
    except NotMeasured:
        left_out = ""
    lines, found = [], []
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        title, question = notebooks.opening(notebook, path)
        question = notebooks.link_pages(markdown2html(question))
        lines.append(f'<li><a href="{path.stem}.html">{html.escape(title)}</a>{question}</li>')
        found += notebooks.said(notebook, "finding")
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
<p class="lead">How much memory does UDnet, a network that enhances underwater photographs, need under PyTorch and under
ONNX Runtime? {judged.verdict.eq("agrees").sum()} of {len(judged)} numbers about memory agree with the published
study's. {html.escape(_outcome(here))}</p>
<h2>What was found here</h2>
{notebooks.link_pages("".join(map(markdown2html, found)))}
{_figure_html(headline) if headline.exists() else ""}
<h2>This machine beside the published study</h2>
<div class="wide">{side_by_side(here, published).reset_index().to_html(index=False, border=0, classes="ratios")}</div>
<p class="note">Peak of the whole process and seconds of a later picture of the same size, on {scaling.THREADS} threads:
medians.</p>
<div class="wide">{_ratios_html(table)}</div>
<p class="note">{NOTE}</p><p class="note">{left_out}</p>
<h2>Notebooks, run on this machine's study</h2>
<ul>{"".join(lines)}</ul>
<h2>Machines</h2>
<div class="wide">{_machines_html(here.machine, published.machine)}</div>
</main>
</body>
</html>
"""
    page = Path(out) / "index.html"
    files.write_text(page, text)
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
        + f'<td class="{verdict.replace(" ", "-")}">{verdict}</td></tr>'
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
    """An SVG file within the page."""
    alt, code = html.escape(plots.description(path)), b64encode(path.read_bytes()).decode()
    return f'<figure><a href="07-findings.html"><img alt="{alt}" src="data:image/svg+xml;base64,{code}"></a></figure>'
