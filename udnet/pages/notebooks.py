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
from udnet.variants import catalogue

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


KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
FAILED = "failed-"  # what a notebook that failed is kept as, before its name, where it would replace another


def execute(paths, out, parameters=None, at_once=1, failed=""):
    """Run notebooks top to bottom and write them into the folder `out`, which may be where they are; `None`: nowhere.

    `parameters`: values for names of their cells tagged `parameters`; a notebook that has not all of them takes those
    it has. Written elsewhere, they show what they were run with. A notebook that fails, or that writes to stderr, is
    one line on stderr; it is kept as far as it came, as `failed` and its name, unless that would replace the notebook
    itself, and the others are run. `at_once`: how many run side by side. Returns those lines.
    """
    with _environment() as environment, asyncio.Runner() as runner:
        loop = runner.get_loop()  # its own `run` would take Ctrl-C for the end of one task
        loop.add_signal_handler = _leave_signals_alone
        about = out and Path(out), parameters or {}, at_once, environment, failed
        return loop.run_until_complete(_execute_all(paths, *about))


def run(path, out, parameters):
    """Run one notebook into the folder `out`, as `execute` does, with parameters that it has, of their kinds.

    Paths of what is there, or can be made there, are those from the current folder. One that fails is kept beside an
    earlier one that did not.
    """
    if not path.is_file():
        raise Error(f"no notebook {path}: give the number or the path of one")
    with files.reading(path, "get the notebook again"):
        _, defaults = parameters_of(nbformat.read(path, as_version=4))
    for name, value in parameters.items():
        if name not in defaults:
            raise Error(f"{path.name} has no parameter {name!r}: choose from {', '.join(defaults)}")
        if not _is_like(value, defaults[name]):
            raise Error(f"{path.name}: no {name} {value!r}: give {_kind(defaults[name])}")
        _need_possible(f"{path.name}: no {name} {value!r}", value, name == "variants" or _are_variants(defaults[name]))
    given = {name: _found(value, defaults[name]) for name, value in parameters.items()}
    return execute([path], out, given, failed=FAILED)


def _is_like(value, default):
    """Whether a parameter is of its default's kind; a list also by its elements."""
    if default is None:
        return True
    if isinstance(value, list) and isinstance(default, list):
        return not default or all(_is_like(one, default[0]) for one in value)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)


def _are_variants(default):
    return isinstance(default, list) and any(default) and all(map(_is_variant, default))


def _is_variant(name):
    return isinstance(name, str) and bool(catalogue.known(name))


def _need_possible(said, value, variants):
    """`Error` for a number that is not above zero or, where the value names `variants`, for a name of none."""
    for one in value if isinstance(value, list) else [value]:
        if type(one) in (int, float) and not one > 0:
            raise Error(f"{said}: give a number above zero")
        if variants:
            catalogue.find(one)


def _kind(default):
    """What a parameter takes, in words."""
    kind = KINDS.get(type(default), f"a {type(default).__name__}")
    return kind if default == [] else f"{kind}, such as {default[:1] if isinstance(default, list) else default!r}"


def _found(value, default):
    """A parameter that may name a path, or several: from the current folder where it is, or can be made."""
    if isinstance(value, list) and isinstance(default, list):
        return [_found(one, default[0]) for one in value] if default else value
    if not isinstance(value, str) or not (default is None or "/" in default):
        return value
    made = default is None and "/" in value and Path(value).parent.is_dir()
    return str(Path(value).resolve()) if value and (made or Path(value).exists()) else value


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


async def _execute_all(paths, out, parameters, at_once, environment, failed):
    turn, failures = asyncio.Semaphore(at_once), {}
    if out:
        files.make_folder(out)
    with tqdm(total=len(paths), desc="notebooks", unit="notebook", disable=None) as bar:

        async def one(path):
            async with turn:
                notebook = nbformat.read(path, as_version=4)
                in_place = out and out.resolve() == path.parent.resolve()
                problem = await _run(notebook, path.parent, parameters, environment, keep=not in_place)
                _clean(notebook)
                kept = out and not (problem and in_place) and out / (failed * bool(problem) + path.name)
                if kept:
                    files.write_text(kept, nbformat.writes(notebook) + "\n")
                if problem:
                    failures[path] = f"{path.name}, {problem}"
                    tqdm.write(f"udnet: {failures[path]}{f'; see {kept}' if kept else ''}", file=sys.stderr)
                bar.update()

        await asyncio.gather(*map(one, paths))
    return [failures[path] for path in paths if path in failures]


def parameters_of(notebook):
    """The cell tagged `parameters` and the defaults that it sets, by name; None and none where there is no such cell.

    Of what has to be run to be known, a list is empty, and anything else None.
    """
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            nodes = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
            pairs = [_assigned(target, node.value) for node in nodes for target in node.targets]
            return cell, {name: default for pair in pairs for name, default in pair}
    return None, {}


def _assigned(target, value):
    """Each name that an assignment sets, and its value."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [pair for one in zip(target.elts, value.elts, strict=True) for pair in _assigned(*one)]
    try:
        default = ast.literal_eval(value)
    except ValueError:
        default = [] if isinstance(value, ast.List) else None
    return [(one.id, default) for one in ast.walk(target) if isinstance(one, ast.Name)]


def parse(text):
    """A parameter from NAME=VALUE: a Python literal, or a text as it stands."""
    name, given, value = text.partition("=")
    if not given or not name.isidentifier():
        raise Error(f"no parameter {text!r}: give NAME=VALUE, as in study=build/study or variants=['onnx', 'pytorch']")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


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
