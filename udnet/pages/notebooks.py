"""Notebooks run from top to bottom with parameters of one's own, and as pages that open without a server."""

import ast
import asyncio
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from udnet import Error
from udnet.pages import plots
from udnet.system import files

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


def execute(paths, out, parameters=None, at_once=1):
    """Run notebooks top to bottom and write them into the folder `out`, which may be where they are; `None`: nowhere.

    `parameters`: values for names of their cells tagged `parameters`; a notebook that has not all of them takes those
    it has. Written elsewhere, they show what they were run with. A notebook that fails, or that writes to stderr, is
    one line on stderr; it is kept as far as it came unless that would replace the notebook itself, and the others are
    run. `at_once`: how many run side by side. Returns those lines.
    """
    with _environment() as environment, asyncio.Runner() as runner:
        loop = runner.get_loop()  # its own `run` would take Ctrl-C for the end of one task
        loop.add_signal_handler = _leave_signals_alone
        return loop.run_until_complete(_execute_all(paths, out and Path(out), parameters or {}, at_once, environment))


def run(path, out, parameters):
    """Run one notebook into the folder `out`; `Error` where it has no such parameter, or fails (but is written)."""
    if not path.is_file():
        raise Error(f"no notebook {path}: give the number or the path of one")
    with files.reading(path, "get the notebook again"):
        _, names = parameters_of(nbformat.read(path, as_version=4))
    if unknown := [name for name in parameters if name not in names]:
        raise Error(f"{path.name} has no parameter {unknown[0]!r}: choose from {', '.join(names)}")
    if failures := execute([path], out, parameters):
        raise Error(f"{failures[0]}; see {out / path.name}")


@contextmanager
def _environment():
    """The kernels' environment variables: this package, Matplotlib's own defaults, and a home that can be written.

    Where the user's cannot, as in some containers, libraries warn of it, which would be taken for a notebook's failure.
    """
    variables = os.environ | {"PYTHONPATH": files.python_path(), "MATPLOTLIBRC": os.devnull}
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK):
        yield variables
    else:
        with files.temporary_folder() as made:
            yield variables | {"HOME": str(made)}


async def _execute_all(paths, out, parameters, at_once, environment):
    turn, failures = asyncio.Semaphore(at_once), {}
    if out:
        files.make_folder(out)
    with tqdm(total=len(paths), desc="notebooks", unit="notebook") as bar:

        async def one(path):
            async with turn:
                notebook = nbformat.read(path, as_version=4)
                in_place = out and out.resolve() == path.parent.resolve()
                problem = await _run(notebook, path.parent, parameters, environment, keep=not in_place)
                _clean(notebook)
                if problem:
                    failures[path] = f"{path.name}, {problem}"
                    tqdm.write(f"udnet: {failures[path]}", file=sys.stderr)
                if out and not (problem and in_place):
                    files.write_text(out / path.name, nbformat.writes(notebook) + "\n")
                bar.update()

        await asyncio.gather(*map(one, paths))
    return [failures[path] for path in paths if path in failures]


def parameters_of(notebook):
    """The cell tagged `parameters` and the names that it sets; None and none where there is no such cell."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            targets = [one for node in ast.parse(cell.source).body for one in getattr(node, "targets", [])]
            return cell, [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return None, []


def parse(text):
    """A parameter from NAME=VALUE: a Python literal, the path of something that is there, or a text as it stands."""
    name, given, value = text.partition("=")
    if not given or not name.isidentifier():
        raise Error(f"no parameter {text!r}: give NAME=VALUE, as in study=build/study or variants=['onnx', 'pytorch']")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, str(Path(value).resolve()) if value and Path(value).exists() else value


async def _run(notebook, cwd, parameters, environment, keep):
    """Execute a notebook in place with this very Python; what went wrong and in which cell, or None.

    The parameters stand at the end of their cell while it runs, and afterwards only with `keep`.
    """
    cell, names = parameters_of(notebook)
    given = "".join(f"\n{name} = {parameters[name]!r}" for name in names if name in parameters)
    if given:
        source, cell.source = cell.source, f"{cell.source}\n{given}"
    for one in notebook.cells:
        if one.cell_type == "code":
            one.outputs, one.execution_count = [], None  # or what a failure leaves undone would show an older run
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(cwd)}},
        extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks are not the reader's business
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    # Without folders to look in, "python3" is this interpreter, whatever kernels the user has installed by that name.
    client.create_kernel_manager().kernel_spec_manager.kernel_dirs = []
    try:
        await client.async_execute(env=environment)
    except CellExecutionError as error:
        return f"cell {client.code_cells_executed}: {error.ename}: {_first_line(error.evalue)}"
    except DeadKernelError:
        if asyncio.current_task().cancelling():  # nbclient takes the end of the work for that of the kernel
            raise asyncio.CancelledError from None
        return f"cell {client.code_cells_executed}: the kernel died"
    finally:
        if given and not keep:
            cell.source = source
    for one in notebook.cells:
        for output in one.get("outputs", []):
            if output.get("name") == "stderr":
                return f"cell {one.execution_count}: wrote to stderr: {_first_line(output.text)}"
    return None


def said(notebook, tag):
    """What the cells with a tag have said in Markdown, in their order; what they have left out is no finding."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    every = [output.get("data", {}).get("text/markdown", "") for cell in cells for output in cell.outputs]
    return [text for text in every if text and not text.startswith(plots.LEFT_OUT)]


def _first_line(text):
    return text.strip().partition("\n")[0]


def _leave_signals_alone(*_):
    """Refuse nbclient signal handlers of its own: under them Ctrl-C is a kernel that died, here the end of the work."""
    raise RuntimeError("as outside the main thread")


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
    files.make_folder(out)
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
