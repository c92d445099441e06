"""The project's files agree with each other: packages, commands, licence, checksums, links and notebooks."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata

import nbformat
import pytest
import yaml
from conftest import REPO
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import udnet
from udnet.pages import notebooks

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
EXTRAS = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name != "test"}
OPTIONAL = [one for needs in EXTRAS.values() for one in needs]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
CONDA_NAMES = {
    "matplotlib-base": "matplotlib",
    "memory_profiler": "memory-profiler",
    "playwright-python": "playwright",
    "pytorch-cpu": "torch",
}
CONDA_ONLY = {"python", "pip", "setuptools"}  # what a virtual environment brings along

# Direct packages that no line of Python here imports: a file that shows the use, and the text that shows it.
USED_OTHERWISE = {
    "pytest-xdist": ("pyproject.toml", "--numprocesses"),
    "ipykernel": ("notebooks/*.ipynb", '"name": "python3"'),
    "jupyterlab": ("Makefile", "jupyter lab"),
    "onnxscript": ("udnet/network/export.py", "dynamo=True"),
    "ruff": ("Makefile", "ruff check"),
    "pnnx": ("udnet/network/converters.py", 'find_spec("pnnx")'),
}

# As patterns, so that this file does not match itself.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:(?:work|root|tmp/team)/|(?:home|Users)/\w|tmp/ipykernel)")
REGISTRY = re.compile(rb"pypi\.org|pythonhosted\.org|anaconda\.(?:org|com)|download\.pytorch\.org|registry\.npmjs\.org")


def pins(requirements):
    """Canonical name -> version of requirements that are pinned exactly; anything else fails."""
    found = {}
    for requirement in map(Requirement, requirements):
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{requirement}: not pinned exactly"
        found[canonicalize_name(requirement.name)] = pin.version
    return found


def locked():
    """The pins of requirements.lock."""
    lines = (REPO / "requirements.lock").read_text().splitlines()
    return pins(line for line in lines if not line.startswith("#"))


def with_what_they_need(requirements):
    """Canonical names of these requirements and of all that they need in turn, by the installed metadata."""
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        for child in map(Requirement, metadata.requires(requirement.name) or ()):
            extras = {"", *requirement.extras}
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(child)
    return {name for name, _ in seen}


def code(path):
    """The Python of a module or of a notebook's code cells, with lines of IPython's own syntax left out."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^(\s*)(?:[\w, ]+= *)?[%!].*$", r"\1pass", source, flags=re.MULTILINE)


@cache
def imported():
    """Distribution -> one file that imports it, for every third-party import of the project."""
    others = [path for name in ("tests", "examples") for path in (REPO / name).rglob("*.py")]
    files = [*(REPO / "udnet").rglob("*.py"), *others, *NOTEBOOKS]
    ours = {"udnet", *(path.stem for path in others)}
    distributions = metadata.packages_distributions()
    found = {}
    for path in files:
        modules = set()
        for node in ast.walk(ast.parse(code(path))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.partition(".")[0])
        for module in modules - ours - sys.stdlib_module_names:
            for name in distributions.get(module, [module]):
                found[canonicalize_name(name)] = path.relative_to(REPO)
    return found


@pytest.fixture(scope="module")
def tracked():
    """Paths of the files that git tracks, as they are in the working tree."""
    if not (REPO / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git clone: no list of tracked files")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True, text=True).stdout
    return [path for path in (REPO / name for name in names.split("\0") if name) if path.is_file()]


# Packages


def test_lock_holds_the_direct_pins():
    assert pins(DECLARED).items() <= locked().items()


def test_conda_environment_agrees():
    environment = yaml.safe_load((REPO / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    specs = [spec.split("=") for spec in environment["dependencies"]]
    conda = {canonicalize_name(CONDA_NAMES.get(name, name)): rest[0] for name, *rest in specs if name not in CONDA_ONLY}
    assert conda == pins(DECLARED)
    assert ["onnxruntime", conda["onnxruntime"], "*cpu*"] in specs
    (python,) = (version for name, *version in specs if name == "python")
    assert PROJECT["requires-python"].startswith(f">={python[0]},")


def test_lock_is_complete_and_holds_nothing_else():
    if sys.platform != "linux" or sys.version_info[:2] != (3, 11) or "+cpu" not in metadata.version("torch"):
        pytest.skip("requirements.lock describes Linux, Python 3.11 and the CPU build of PyTorch")
    needed = with_what_they_need(DECLARED)
    assert needed == locked().keys()
    assert {name: Version(metadata.version(name)).public for name in needed} == locked()


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_pinned_and_agrees_with_the_lock(extra):
    assert pins(EXTRAS[extra]).keys().isdisjoint(pins(DECLARED))
    try:
        needed = with_what_they_need(EXTRAS[extra])
    except metadata.PackageNotFoundError:
        pytest.skip(f"the extra {extra} is not installed: make extras")
    installed = {name: Version(metadata.version(name)).public for name in needed & locked().keys()}
    assert installed.items() <= locked().items()


def test_every_import_is_declared():
    declared = pins([*DECLARED, *OPTIONAL])
    assert {name: path for name, path in imported().items() if name not in declared} == {}


@pytest.mark.parametrize("name", sorted(pins([*DECLARED, *OPTIONAL])))
def test_every_declared_package_is_used(name):
    if name in USED_OTHERWISE:
        files, text = USED_OTHERWISE[name]
        assert any(text in path.read_text() for path in REPO.glob(files)), f"{name}: no {text!r} in {files}"
    else:
        assert name in imported()


def test_extras_are_pinned_and_leave_the_environment_lean():
    extras = pins(OPTIONAL)
    assert extras and not extras.keys() & locked().keys()
    assert not extras.keys() & {re.split("[=[]", line)[0] for line in (REPO / "environment.yml").read_text().split()}
    here = {canonicalize_name(one.name): one.version for one in metadata.distributions()}
    assert {name: Version(here.get(name, pin)) for name, pin in extras.items()} == {
        name: Version(pin) for name, pin in extras.items()
    }


# Commands


def make(*arguments, cwd=REPO):
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@cache
def listed():
    """What `make` alone says."""
    return make().stdout


@pytest.fixture
def clone(tmp_path):
    """A folder with what `make env` reads, and no environment."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(REPO / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("env", ".venv/bin/python -m pip install"),
        ("extras", f'--editable ".[{",".join(EXTRAS)}]"\n'),
        ("reproduce", ".venv/bin/python -m udnet reproduce"),
        ("test", ".venv/bin/python -m pytest\n"),
        ("test-all", ".venv/bin/python -m pytest -m slow\n"),
        ("figures", ".venv/bin/python -m udnet figures"),
        ("publish", ".venv/bin/python -m udnet publish"),
        ("lab", ".venv/bin/jupyter lab "),
        ("weights", ".venv/bin/python -m udnet fetch"),
        ("clean", "rm -rf build"),
    ],
)
def test_make_target(clone, target, command):
    run = make("--dry-run", target, cwd=clone)
    assert run.returncode == 0, run.stderr
    assert command in run.stdout
    assert f"make {target} " in listed(), "make without a target lists the targets"


def test_make_env_waits_for_the_lock_alone(clone):
    stamp = clone / ".venv" / ".ready"
    stamp.parent.mkdir()
    assert "venv --clear" in make("--dry-run", "env", cwd=clone).stdout, "half-made: made anew"
    stamp.touch()
    assert "venv" not in make("--dry-run", "env", cwd=clone).stdout, "whole: left alone"
    os.utime(stamp, (0, 0))
    assert "venv --clear" in make("--dry-run", "env", cwd=clone).stdout, "the lock is newer: made anew"


def test_make_env_refuses_another_python_in_one_line(clone):
    run = make("--silent", "env", "PYTHON=false", cwd=clone)
    assert run.returncode != 0
    assert run.stderr.splitlines()[0].startswith("make: 'false' is not a Python 3.11")
    assert not (clone / ".venv").exists()


def test_continuous_integration_runs_every_test():
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    targets = re.findall(r"\bmake (test[\w-]*)", re.sub("#.*", "", script.read_text()))
    run = make("--dry-run", *targets).stdout.splitlines()
    assert {".venv/bin/python -m pytest", ".venv/bin/python -m pytest -m slow"} <= set(run)
    assert script.read_text().index("make env extras") < script.read_text().index("make test"), "or their tests skip"


# Files


def test_licence_citation_and_version_agree():
    assert (REPO / "LICENSE").read_text().startswith("MIT License\n")
    assert PROJECT["license"] == "MIT"
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= citation.keys()
    assert (citation["license"], citation["version"]) == ("MIT", udnet.__version__)


def test_no_tracked_file_is_large(tracked):
    assert [path for path in tracked if path.stat().st_size > 5_000_000] == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry host"])
def test_no_tracked_file_names_a(pattern, tracked):
    found = {path.relative_to(REPO): pattern.search(path.read_bytes()) for path in tracked}
    assert {path: match[0] for path, match in found.items() if match} == {}


def test_a_clone_where_git_turns_line_ends_has_the_same_bytes(tracked, tmp_path):
    turning = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(REPO), str(tmp_path / "clone")]
    subprocess.run(turning, check=True)
    ends = subprocess.run(["git", "ls-files", "--eol"], cwd=tmp_path / "clone", capture_output=True, text=True)
    named = [line.split()[:2] for line in ends.stdout.splitlines()]
    assert len(named) > 100 and [pair for pair in named if pair[0][2:] != pair[1][2:]] == []


def test_data_table_lists_every_file_with_its_checksum(tracked):
    folder = REPO / "data"
    listed = dict(
        re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE)
    )
    assert listed == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in listed}
    committed = {path.relative_to(folder).as_posix() for path in tracked if path.is_relative_to(folder)}
    assert {name for name in committed if not name.endswith("README.md")} <= listed.keys()


@pytest.mark.parametrize("page", ["README.md", "data/README.md", "data/weights/README.md"])
def test_links_lead_somewhere(page):
    path = REPO / page
    links = re.findall(r"""\]\(([^)\s]+)|(?:src|href)=["']([^"']+)""", path.read_text())
    targets = {(a or b).partition("#")[0] for a, b in links if not re.match(r"[a-z]+:", a or b)} - {""}
    assert {target for target in targets if not (path.parent / target).exists()} == set()


# Modules

ROOMS = ("system", "pictures", "network", "tiled", "variants", "trials", "cluster", "analysis", "experiments", "pages")


def test_no_room_rests_on_one_above_it_and_no_file_on_itself():
    paths = sorted((REPO / "udnet").glob("*/*.py"))
    needs = {f"udnet.{path.parent.name}.{path.stem}": set() for path in paths if path.stem != "__init__"}
    assert {path.parent.name for path in paths} == set(ROOMS)
    for path in paths:
        module = f"udnet.{path.parent.name}.{path.stem}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("udnet."):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                needs[module] |= names & needs.keys()
    above = [(one, other) for one, others in needs.items() for other in others if room(other) > room(one)]
    assert above == []
    assert len([*TopologicalSorter(needs).static_order()]) == len(needs), "a circle is a CycleError"


def room(module):
    """Which floor a module is on, from the ground."""
    return ROOMS.index(module.split(".")[1])


# Notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_fit_to_publish(path):
    assert path.stat().st_size < 1_000_000
    assert not MACHINE_PATH.search(path.read_bytes())
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "restart and run all"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []


def test_the_app_is_shown_as_it_is():
    cells = nbformat.read(REPO / "notebooks" / "07-findings.ipynb", 4).cells
    (cell,) = (cell for cell in cells if cell.cell_type == "code" and "examples" in cell.source)
    shown = [output["data"]["text/markdown"] for output in cell.outputs]
    assert [text.partition("```python\n")[2] for text in shown] == [
        f"{(REPO / 'examples' / name).read_text()}```" for name in ("app.py", "page.py")
    ], "run notebook 7 anew"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_begin_with_the_parameters(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    _, names = notebooks.parameters_of(nbformat.read(path, 4))
    assert {"study", "variants", "figures"} <= set(names)
    assert "parameters" in cells[1].metadata.tags, "after the imports"
    lines = [cell.source.splitlines() for cell in cells]
    assert max(map(len, lines)) <= 25
    assert [line for cell in lines for line in cell if len(line) > 88] == []
