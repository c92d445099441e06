"""Notebooks run from top to bottom, and as pages that open without a server and without a network."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from . import files, trial

PAGE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}
<style>main { max-width: 60rem; margin: 0 auto; padding: 1rem } nav { padding: 0 0 1rem }
main .jp-MarkdownOutput pre { margin: .5rem 0 1rem }</style>
{%- endblock -%}
{%- block body_header -%}
{{ super() }}<nav class="jp-RenderedHTMLCommon"><a href="index.html">All notebooks</a></nav>
{%- endblock -%}
{%- macro picture(output, kind) -%}
{%- set alt = output | get_metadata('alt', kind) -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img {% if alt %}alt="{{ alt | escape_html }}"{% endif %} src="data:{{ kind }};base64,{{ output.data[kind] }}">
</div>
{%- endmacro -%}
{%- block data_png scoped -%}{{ picture(output, 'image/png') }}{%- endblock -%}
{%- block data_jpg scoped -%}{{ picture(output, 'image/jpeg') }}{%- endblock -%}
"""


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
                files.write_text(out / path.name, nbformat.writes(notebook) + "\n")
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
    paths = {"UDNET_STUDY": str(folder), "UDNET_FIGURES": str(figures), "PYTHONPATH": trial.python_path()}
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


# --- pages ---


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
        about = {"metadata": {"name": opening(notebook, path)[0], "path": str(path.parent)}}
        text, _ = exporter.from_notebook_node(notebook, about)
        pages.append(out / f"{path.stem}.html")
        files.write_text(pages[-1], link_pages(text))
    return pages


def link_pages(text):
    """Links from notebook to notebook lead from page to page."""
    return re.sub(r'(href="[\w.-]+)\.ipynb(?=["#])', r"\1.html", text)


def opening(notebook, path):
    """The title of a notebook, plain, and the paragraph after it, Markdown."""
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, _, rest = first.partition("\n")
    return re.sub(r"[#*`]", "", title).strip() or path.stem, rest.strip().partition("\n\n")[0]
