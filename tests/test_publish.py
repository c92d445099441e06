"""Figures, executed notebooks, the report and the summary, from studies that are made up here and known."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import nbformat
import pandas as pd
import psutil
import pytest
from conftest import REPO, heed_signals
from made_up_studies import COSTS, fabricate

from udnet import Error
from udnet.__main__ import main
from udnet.analysis import capacity, prediction
from udnet.pages import notebooks, publish, report
from udnet.trials import study, tables


def notebook(path, *cells):
    """Write a notebook: strings that begin with # are Markdown, others are code; a pair is a tag and code."""
    new, made = nbformat.v4, []
    for place, one in enumerate(cells):
        tag, source = one if isinstance(one, tuple) else ("", one)
        make = new.new_markdown_cell if source.startswith("#") else new.new_code_cell
        made.append(make(source, id=f"cell-{place}", metadata={"tags": [tag]} if tag else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(
        new.new_notebook(cells=made, metadata={"kernelspec": {"name": "python3", "display_name": "x"}}), path
    )
    return path


def printed(path):
    """What each code cell of a notebook printed."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def tags(page):
    """Every tag of a page with its attributes, in order."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(page.read_text())
    return found


# Notebooks


def test_notebooks_run_where_they_are_with_this_python(tmp_path, monkeypatch, capsys):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "trap", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    paths = [
        notebook(
            tmp_path / "notebooks" / "01-where.ipynb",
            "# Where",
            "import os, sys, udnet\nprint(sys.executable, os.getcwd(), udnet.__file__, sep='\\n')",
            "",
        ),
        notebook(
            tmp_path / "notebooks" / "02-widget.ipynb",
            "import ipywidgets\nipywidgets.IntSlider(3)",
            "print('a', end='\\r'); print('b')",
            "6 * 7",
        ),
    ]
    before = paths[0].read_bytes()
    assert notebooks.execute(paths, tmp_path / "out", at_once=2) == []
    assert paths[0].read_bytes() == before, "the source is left alone"

    where, nothing = (text.splitlines() for text in printed(tmp_path / "out" / "01-where.ipynb"))
    assert where == [sys.executable, str(tmp_path / "notebooks"), str(REPO / "udnet" / "__init__.py")]
    assert nothing == []

    done = nbformat.read(tmp_path / "out" / "02-widget.ipynb", 4)
    assert done.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    assert [cell.execution_count for cell in done.cells] == [1, 2, 3]
    assert [cell.metadata for cell in done.cells] == [{}] * 3
    assert [len(cell.outputs) for cell in done.cells] == [0, 1, 1], "no widget without its kernel"
    assert done.cells[1].outputs[0].text == "b\n"
    assert done.cells[2].outputs[0].data == {"text/plain": "42"}
    assert "IPKernelApp" not in capsys.readouterr().err

    first = (tmp_path / "out" / "02-widget.ipynb").read_bytes()
    assert notebooks.execute(paths[1:], paths[1].parent) == []
    assert paths[1].read_bytes() == first, "in place, and the same bytes again"


SET = ("parameters", 'study = "published"  # a folder\nsizes = [1]')
TELL = "print(study, sizes)"


def test_parameters_are_told_and_stay_where_a_notebook_is_written_elsewhere(tmp_path):
    folder = tmp_path / "notebooks"
    paths = [notebook(folder / "one.ipynb", "# One", SET, TELL), notebook(folder / "two.ipynb", "print('none')")]
    before = paths[0].read_bytes()
    given = {"study": "mine", "figures": "unknown to it"}
    assert notebooks.execute(paths, tmp_path / "out", given, at_once=2) == []
    assert paths[0].read_bytes() == before
    assert printed(tmp_path / "out" / "one.ipynb") == ["", "mine [1]\n"]
    assert printed(tmp_path / "out" / "two.ipynb") == ["none\n"], "one that has no parameters takes none"
    _, cell, _ = nbformat.read(tmp_path / "out" / "one.ipynb", 4).cells
    assert cell.source == SET[1] + "\n\nstudy = 'mine'", "it shows what it was run with"
    assert cell.metadata == {"tags": ["parameters"]}


def test_parameters_leave_no_trace_in_a_notebook_that_is_run_in_place(tmp_path):
    path = notebook(tmp_path / "one.ipynb", "# One", SET, TELL)
    assert notebooks.execute([path], tmp_path, {"sizes": [3]}) == []
    assert printed(path) == ["", "published [3]\n"]
    assert nbformat.read(path, 4).cells[1].source == SET[1]


def test_parameters_of_a_notebook_are_what_its_tagged_cell_sets(tmp_path):
    path = notebook(
        tmp_path / "one.ipynb",
        "a = 1",
        ("parameters", 'b = [\n    "x",\n]\nc = d = None\nf, g = 1, 2\nh, i = [*b], len(b)\nprint(b)'),
        "e = 2",
    )
    cell, defaults = notebooks.parameters_of(nbformat.read(path, 4))
    assert cell.source.startswith("b = ")
    assert defaults == {"b": ["x"], "c": None, "d": None, "f": 1, "g": 2, "h": [], "i": None}
    assert notebooks.parameters_of(nbformat.read(notebook(path, "a = 1"), 4)) == (None, {})


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("variants=['onnx', 'pytorch']", ("variants", ["onnx", "pytorch"])),
        ("live=False", ("live", False)),
        ("weights=None", ("weights", None)),
        ("picture=a=b", ("picture", "a=b")),
        ("weights=seeded", ("weights", "seeded")),
        ("study=", ("study", "")),
    ],
)
def test_a_parameter_is_a_value_or_a_text(text, parameter):
    assert notebooks.parse(text) == parameter


KINDS = (
    "parameters",
    "study, others = '../published', ['../intel']\nweights = figures = None\n"
    "size, sizes, every = '64x64', ['64x64'], [*'ab']\n"
    "room, threads, live, tried = 0.1, 2, True, {'onnx': 1}",
)


def test_parameters_are_the_paths_of_what_is_there(tmp_path, monkeypatch):
    path = notebook(tmp_path / "one.ipynb", KINDS, "print(study, others, weights, figures, size, sizes, every)")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"study": "there", "others": ["there", "absent"], "weights": "there", "figures": "there/new"}
    given |= {"size": "there", "sizes": ["there"], "every": ["there"]}  # none of these is a path
    assert notebooks.run(path, tmp_path / "out", given) == []
    there = str(tmp_path / "there")
    assert printed(tmp_path / "out" / "one.ipynb")[1] == (
        f"{there} {[there, 'absent']} {there} {there}/new there ['there'] ['there']\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("room", "much", "no room 'much': give a number, such as 0.1"),
        ("room", True, "no room True: give a number, such as 0.1"),
        ("threads", 2.5, "no threads 2.5: give a whole number, such as 2"),
        ("live", 1, "no live 1: give True or False, such as True"),
        ("size", 64, "no size 64: give a text, such as '64x64'"),
        ("study", None, "no study None: give a text, such as '../published'"),
        ("sizes", "64x64", "no sizes '64x64': give a list, such as ['64x64']"),
        ("sizes", [64], "no sizes [64]: give a list, such as ['64x64']"),
        ("every", "onnx", "no every 'onnx': give a list"),
        ("tried", [], "no tried []: give a dict, such as {'onnx': 1}"),
        ("threads", 0, "no threads 0: give a number above zero"),
        ("every", [2, -1], "no every [2, -1]: give a number above zero"),
    ],
)
def test_a_parameter_of_another_kind_is_refused_before_it_runs(tmp_path, name, value, said):
    path = notebook(tmp_path / "one.ipynb", KINDS)
    with pytest.raises(Error) as refused:
        notebooks.run(path, tmp_path / "out", {name: value})
    assert str(refused.value) == f"one.ipynb: {said}" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "default"), [("models", "['onnx', 'pytorch']"), ("variants", "[*machines.VARIANTS]")])
def test_a_parameter_that_names_variants_takes_no_other_name(tmp_path, name, default):
    path = notebook(tmp_path / "one.ipynb", ("parameters", f"{name} = {default}"))
    with pytest.raises(Error, match=r"^no variant 'nosuch'"):
        notebooks.run(path, tmp_path / "out", {name: ["onnx", "nosuch"]})
    assert not (tmp_path / "out").exists()


def test_a_parameter_of_its_kind_is_taken(tmp_path):
    path = notebook(tmp_path / "one.ipynb", KINDS, "print(room, live, sizes, every, weights)")
    given = {"room": 1, "live": False, "sizes": [], "every": [1], "weights": 3}
    assert notebooks.run(path, tmp_path / "out", given) == []
    assert printed(tmp_path / "out" / "one.ipynb")[1] == "1 False [] [1] 3\n"


@pytest.mark.parametrize("text", ["study", "", "=x", "a b=1", "1=2"])
def test_no_parameter(text):
    with pytest.raises(Error, match=r"give NAME=VALUE, as in study=build/study"):
        notebooks.parse(text)


def test_running_one_refuses_what_it_does_not_know_before_it_runs(tmp_path):
    path = notebook(tmp_path / "one.ipynb", "# One", SET, TELL)
    with pytest.raises(Error, match=r"^one\.ipynb has no parameter 'size': choose from study, sizes$"):
        notebooks.run(path, tmp_path / "out", {"size": [3]})
    with pytest.raises(Error, match=r"no notebook .*absent\.ipynb: give the number or the path of one"):
        notebooks.run(tmp_path / "absent.ipynb", tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_running_one_that_fails_says_where_to_look_and_keeps_an_earlier_one(tmp_path, capfd):
    path, out = notebook(tmp_path / "one.ipynb", "# One", SET, "1 / len(sizes)"), tmp_path / "out"
    assert main(["notebook", str(path), "--out", str(out)]) == 0
    before = (out / "one.ipynb").read_bytes()
    capfd.readouterr()
    assert main(["notebook", str(path), "-p", "sizes=[]", "--out", str(out)]) == 1
    said = "udnet: one.ipynb, cell 2: ZeroDivisionError: division by zero; see "
    assert capfd.readouterr() == ("", f"{said}{out}/failed-one.ipynb\n")
    assert (out / "one.ipynb").read_bytes() == before
    assert "sizes = []" in (out / "failed-one.ipynb").read_text()


def test_what_a_notebook_said_by_the_tags_of_its_cells():
    new = nbformat.v4
    *said, left_out = (
        new.new_output("display_data", data={"text/markdown": text})
        for text in ("**One.**", "Two.", "*Left out here: no trials of onnx.*")
    )
    cells = [
        new.new_code_cell("a", metadata={"tags": ["finding"]}, outputs=said),
        new.new_code_cell("left out", metadata={"tags": ["finding"]}, outputs=[left_out]),
        new.new_code_cell("b", metadata={"tags": ["readme"]}, outputs=[new.new_output("stream", text="no")]),
        new.new_code_cell("c", outputs=said),
    ]
    assert notebooks.said(new.new_notebook(cells=cells), "finding") == ["**One.**", "Two."]
    assert notebooks.said(new.new_notebook(cells=cells), "readme") == []


def test_a_failing_notebook_is_one_line_and_the_others_are_run(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    paths = [
        notebook(folder / "01-raises.ipynb", "# Raises", "print('so far')", "1 / 0", "print('never')"),
        notebook(folder / "02-dies.ipynb", "import os; os._exit(1)"),
        notebook(folder / "03-warns.ipynb", "1", "import warnings; warnings.warn('too old')"),
        notebook(folder / "04-works.ipynb", "print('done')"),
    ]
    older = nbformat.read(paths[0], 4)
    older.cells[-1].outputs = [nbformat.v4.new_output("stream", text="of an older run")]
    nbformat.write(older, paths[0])
    before = [path.read_bytes() for path in paths[:3]]
    failures = notebooks.execute(paths, tmp_path / "out", at_once=2)
    assert failures[:2] == [
        "01-raises.ipynb, cell 2: ZeroDivisionError: division by zero",
        "02-dies.ipynb, cell 1: the kernel died",
    ]
    assert re.fullmatch(r"03-warns.ipynb, cell 2: wrote to stderr: .*UserWarning: too old", failures[2])
    assert len(failures) == 3
    lines = re.findall(r"^udnet: .*", capsys.readouterr().err.replace("\r", "\n"), re.MULTILINE)
    assert sorted(lines) == [f"udnet: {line}; see {tmp_path / 'out' / line.partition(',')[0]}" for line in failures]
    assert printed(tmp_path / "out" / "01-raises.ipynb") == ["so far\n", "", ""], "kept to be looked into"
    assert printed(tmp_path / "out" / "04-works.ipynb") == ["done\n"]

    assert notebooks.execute(paths[:1], folder) == failures[:1]
    assert [path.read_bytes() for path in paths[:3]] == before, "a failure never replaces the notebook itself"


def test_what_a_user_s_home_and_settings_are_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "settings").write_text("no such setting: 1\nfigure.max_open_warning: 1\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "settings"))
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    drawn = "import matplotlib.pyplot as plt\nfor _ in range(3): plt.figure()\nplt.close('all')"
    path = notebook(tmp_path / "home.ipynb", drawn, "import onnxruntime, pathlib\nprint(pathlib.Path.home())")
    assert notebooks.execute([path], tmp_path / "out") == []
    (home,) = (line for line in printed(tmp_path / "out" / "home.ipynb") if line)
    assert home.startswith(str(tmp_path / "udnet-"))
    assert list(tmp_path.glob("udnet-*")) == [], "for the time being"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize(("name", "end"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "SystemExit")])
def test_an_interrupt_ends_the_work_and_the_kernel(tmp_path, name, end):
    told = tmp_path / "kernel"
    path = notebook(
        tmp_path / "long.ipynb",
        f"import os, time, pathlib\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(120)",
    )
    code = f"""
import pathlib
from udnet.__main__ import _ended_by_signals
from udnet.pages import notebooks
try:
    with _ended_by_signals():
        notebooks.execute([pathlib.Path({str(path)!r})] * 2, {str(tmp_path / "out")!r})
except (KeyboardInterrupt, SystemExit) as end:
    print(type(end).__name__)
"""
    about = {"cwd": REPO, "stdout": subprocess.PIPE, "text": True, "preexec_fn": heed_signals}
    with subprocess.Popen([sys.executable, "-c", code], **about) as process:
        while not (told.exists() and told.read_text()) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        assert process.communicate(timeout=90)[0] == f"{end}\n"
    assert not psutil.pid_exists(int(told.read_text()))
    assert not (tmp_path / "out" / "long.ipynb").exists()


# The report


ALT = 'A curve that "falls" below 1'
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def shown(kind, data, alt=None):
    """An output as a cell displays it."""
    return nbformat.v4.new_output("display_data", data={kind: data}, metadata={kind: {"alt": alt}} if alt else {})


def executed(path, *cells):
    """Write a notebook as it is once it has been run: pairs of a cell, as `notebook` takes it, and its outputs."""
    made = nbformat.read(notebook(path, *(source for source, _ in cells)), 4)
    for cell, (_, outputs) in zip(made.cells, cells, strict=True):
        if cell.cell_type == "code":
            cell.update(outputs=outputs, execution_count=1)
    nbformat.write(made, path)
    return path


def test_pages_need_neither_network_nor_server(tmp_path):
    opening = "# One *page*\n\nDoes it **open**? See [two](02-two.ipynb).\n\nMore.\n\n![A photograph](photo.png)"
    pictures = [shown(f"image/{kind}", PIXEL, f"{ALT}, as {kind}") for kind in ("png", "jpeg")]
    said = [shown("text/markdown", "**It opens.** See [one](01-one.ipynb).")]
    folder = tmp_path / "notebooks"
    paths = [
        executed(folder / "01-one.ipynb", (opening, []), ("draw()", pictures)),
        executed(folder / "02-two.ipynb", ("# Two", []), (("finding", "say()"), said)),
    ]
    (folder / "photo.png").write_bytes(b"not a real picture")
    here, published = fabricate(tmp_path / "here"), fabricate(tmp_path / "published", grid="full")
    headline = tmp_path / "headline.svg"
    headline.write_text("<svg><dc:description>A curve below 1 &amp; more</dc:description></svg>")
    pages = notebooks.to_html(paths, tmp_path / "report")
    index = report.to_index(here, published, paths, headline, tmp_path / "report")
    assert pages == [tmp_path / "report" / f"{name}.html" for name in ("01-one", "02-two")]

    for page in (*pages, index):
        loaded = [
            attributes.get(key, "data:")
            for tag, attributes in tags(page)
            for key in ("src", "href", "srcset")
            if tag != "a"
        ]
        assert [address for address in loaded if not address.startswith("data:")] == []
        assert "script" not in {tag for tag, _ in tags(page)}
        assert not re.search(r"@import|url\((?![\"']?(?:data:|#))", page.read_text())

    one = tags(pages[0])
    alts = [attributes.get("alt") for tag, attributes in one if tag == "img"]
    assert alts == ["A photograph", *(f"{ALT}, as {kind}" for kind in ("png", "jpeg"))]
    assert ("a", {"href": "02-two.html"}) in one
    assert "<title>One page</title>" in pages[0].read_text()

    front = index.read_text()
    assert '<a href="01-one.html">One page</a><p>Does it <strong>open</strong>?' in front
    assert ("a", {"href": "02-two.html"}) in tags(index)
    assert "15 of 15 numbers about memory agree" in front
    assert "40 trials of the tiny grid on A processor &lt;of note&gt;; every one finished." in front
    assert '<strong>It opens.</strong> See <a href="01-one.html">one</a>' in front, "what was found"
    (figure,) = [attributes for tag, attributes in tags(index) if tag == "img"]
    assert figure["alt"] == "A curve below 1 & more"
    headline.unlink()
    assert "<img" not in report.to_index(here, published, paths, headline, tmp_path / "report").read_text()


# The summary


def by_quantity(table):
    return {row.quantity: row for row in table.itertuples()}


def test_summary_has_known_answers(tmp_path):
    slower = {name: (load, fixed, slope, 3 * time_) for name, (load, fixed, slope, time_) in COSTS.items()}
    slower["onnx"] = (120, 60, 3000, 30)
    here = fabricate(tmp_path / "here", slower, sides=(256, 512, 1024), repeats=1)
    published = fabricate(tmp_path / "published", repeats=3)
    table = report.summary(here, published)
    rows = by_quantity(table)
    # by hand: 256x256 pixels are 1/16 Mi; 3000 of them 187.5 MiB, 2000 125 MiB, 1500 93.75 MiB
    assert rows["peak 256x256: onnx / pytorch"].here == pytest.approx((60 + 187.5) / (300 + 125))
    assert rows["peak 512x512: onnx / pytorch"].published == pytest.approx((60 + 750) / (300 + 500))
    assert rows["peak 256x256: onnx-lean / onnx"].published == pytest.approx((60 + 93.75) / (60 + 187.5))
    assert rows["load: pytorch-published / pytorch"].published == pytest.approx(1350 / 300)
    assert rows["load: pytorch-published / pytorch"].verdict == "agrees"
    # onnx: 250 MiB after the import in both studies, more than its load takes, so loading agrees
    assert rows["load: onnx / pytorch"].here == pytest.approx(250 / 300)
    time_ = rows["time 256x256: onnx / pytorch"]
    assert (time_.here, time_.published, time_.verdict) == (pytest.approx(1), pytest.approx(0.5), "not judged")
    assert table.set_index("quantity")["here/published"][time_.quantity] == pytest.approx(2)
    assert (rows["peak 512x512: onnx / pytorch"].low, rows["peak 512x512: onnx / pytorch"].high) == (
        pytest.approx(810 / 800),
        pytest.approx(810 / 800),
    )
    assert not [quantity for quantity in rows if "64x64" in quantity or "1024" in quantity], "sizes of both studies"
    assert "crossing: onnx, pytorch" not in rows, "three sizes make no line"
    assert list(table) == ["quantity", "here", "published", "low", "high", "here/published", "verdict"]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.09, "agrees"), (0.91, "agrees"), (1.11, "differs"), (0.89, "differs")]
)
def test_memory_agrees_within_a_tenth(tmp_path, factor, verdict):
    costs = {"pytorch": (300, 100, 0, 1), "onnx": (300, 50, 0, 1)}
    here = fabricate(tmp_path / "here", costs | {"onnx": (300, 50 * factor, 0, 1)}, (64,))
    table = report.summary(here, fabricate(tmp_path / "published", costs, (64,)))
    assert by_quantity(table)["peak 64x64: onnx / pytorch"].verdict == verdict


def test_summary_has_the_crossing_where_both_studies_have_it(tmp_path):
    published = fabricate(tmp_path / "published")
    steeper = fabricate(tmp_path / "here", COSTS | {"onnx": (90, 60, 3500, 5)})
    row = by_quantity(report.summary(steeper, published))["crossing: onnx, pytorch"]
    # by hand: 300 - 60 MiB over 1000 bytes a pixel are a side of 501.7, over 1500 of 409.6
    assert (row.here, row.published) == (pytest.approx(409.6, abs=0.1), pytest.approx(501.7, abs=0.1))
    assert row.verdict == "differs"
    parallel = fabricate(tmp_path / "parallel", COSTS | {"onnx": (90, 60, 1900, 5)})
    assert "crossing: onnx, pytorch" not in by_quantity(report.summary(parallel, published))


def test_summary_fits_a_terminal_and_says_threads_only_where_unusual(tmp_path):
    here = fabricate(tmp_path / "here", sides=(256, 1024))
    one = here.trials[here.trials.height == 256].assign(threads=1)
    one["trial"] = one.trial.str.replace("t2", "t1")
    here.trials = pd.concat([here.trials, one])
    table = report.summary(here, here)
    text = report.as_text(table)
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(
        r"^peak 256x256, 1 thread: onnx / pytorch +0\.58 +0\.58 +0\.58 to 0\.58 +1\.00 +agrees$", text, re.M
    )
    assert re.search(r"^peak 256x256: onnx / pytorch ", text, re.M)
    elsewhere = fabricate(tmp_path / "elsewhere", sides=(32,))
    assert report.as_text(report.summary(here, elsewhere)) == "The two studies have no variant and size in common."


def test_two_studies_side_by_side_where_both_measured(tmp_path):
    here = fabricate(tmp_path / "here", {"onnx": (90, 60, 3000, 10), "own": (1, 1, 1, 1)}, (512, 1024), repeats=1)
    table = report.side_by_side(here, fabricate(tmp_path / "published"))
    # by hand: 60 MiB and 3000 bytes of a quarter of a Mi pixel, 10 and 5 microseconds each
    assert table.reset_index().to_numpy().tolist() == [["512x512", "onnx", "810", "810", "2.62", "1.31"]]


# The three commands


FINDS = """
import json
from pathlib import Path
commit = json.loads(Path(study, "machine.json").read_text())["commit"]
Path(figures or "nowhere").mkdir(exist_ok=True)
Path(figures or "nowhere", "headline.svg").write_text("<svg><dc:description>Seen</dc:description></svg>")
""".strip()
FOUND = (
    ("parameters", 'study = "../data/results/published"\nfigures = None\nlive = True'),
    FINDS,
    ("readme", "from IPython.display import Markdown, display\ndisplay(Markdown('| a table |'))"),
    ("finding", "display(Markdown(f'**Measured** at {commit}, live {live}.'))"),
)


@pytest.fixture
def workbench(tmp_path, monkeypatch):
    """A repository of its own with a study that needs no measuring, one notebook and an old figure, committed."""
    repo = tmp_path / "repo"
    published = repo / "data" / "results" / "published"
    fabricate(published, commit="an older commit")
    notebook(repo / "notebooks" / publish.FINDINGS, "# Seven\n\nA question?", *FOUND)
    (repo / "figures").mkdir()
    for name in ("old.svg", "old.png", "photograph.jpg"):
        (repo / "figures" / name).touch()
    (repo / ".gitignore").write_text("build/\n")
    (repo / "code.py").write_text("1\n")
    marks = "<!-- findings: written by `make publish` -->\nold\n<!-- end of findings -->\n"
    (repo / "README.md").write_text(f"# A page\n\n{marks}\nThe rest.\n")
    (repo / "data" / "README.md").write_text(f"| `results/published/trials.csv` | trials | `{'0' * 64}` |\n")
    path = publish.files.python_path()
    monkeypatch.setattr(publish.files, "python_path", lambda: path)
    monkeypatch.setattr(publish.files, "REPO", repo)
    for name in ("NOTEBOOKS", "FIGURES"):
        monkeypatch.setattr(publish, name, repo / name.lower())
    monkeypatch.setattr(tables, "PUBLISHED", published)
    for module, name in MEASURED:
        monkeypatch.setattr(getattr(publish, module), name, lambda *_, **__: None)
    monkeypatch.setattr(study, "run", lambda grid, out, *_: tables.read(out) if out.exists() else fabricate(out))
    git(repo, "init", "--quiet")
    git(repo, "add", ".")
    git(repo, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "all")
    return SimpleNamespace(repo=repo, published=published)


RUN = ("instruments", "exporters", "audit", "locality", "quality", "proofs", "photographs", "convolutions", "steps")
LATER = ("serving", "runtimes", "precision", "forecast", "engine")
MEASURED = [("levers", "measure"), *((name, "run") for name in (*RUN, *LATER))]


def git(repo, *arguments):
    run = subprocess.run(["git", "-C", repo, *arguments], capture_output=True, text=True, check=True)
    return run.stdout


def test_reproduce_makes_a_report_and_leaves_git_clean(workbench, monkeypatch, capsys):
    monkeypatch.chdir(workbench.repo)
    assert publish.reproduce("quick", "build") == 0
    out = capsys.readouterr().out
    build = workbench.repo / "build"
    index = build / "report" / "index.html"
    assert f"Report: {index}\n" in out
    assert "peak 512x512: onnx / pytorch " in out
    assert re.search(r"^Time: \d+ min \d+ s$", out, re.MULTILINE)
    front = index.read_text()
    assert "<strong>Measured</strong> at 0123456789, live False." in front, "this machine's study"
    assert (build / "figures" / "headline.svg").exists() and 'alt="Seen"' in front
    assert (build / "report" / "07-findings.html").exists()
    assert git(workbench.repo, "status", "--porcelain") == ""


def test_reproduce_tells_of_failed_notebooks_and_trials(workbench, tmp_path, monkeypatch, capsys):
    costs = COSTS | {"other": COSTS["onnx"]}
    monkeypatch.setattr(study, "run", lambda grid, out: fabricate(out, costs, failed=["other"]))
    notebook(workbench.repo / "notebooks" / "07-findings.ipynb", "# One", "1 / 0")
    assert publish.reproduce("quick", tmp_path / "build") == 1
    said = capsys.readouterr()
    assert "07-findings.ipynb, cell 1: ZeroDivisionError" in said.err
    assert "Report: " in said.out
    assert "ZeroDivisionError" in (tmp_path / "build" / "report" / "07-findings.html").read_text()
    assert "8 failed: other/128x128/t2/r0, " in (tmp_path / "build" / "report" / "index.html").read_text()


@pytest.mark.parametrize(("failures", "failed", "code"), [([], [], 0), (["one"], [], 1), ([], ["onnx"], 1)])
def test_reproduce_ends_with_what_failed(workbench, tmp_path, monkeypatch, failures, failed, code):
    monkeypatch.setattr(study, "run", lambda grid, out: fabricate(out, failed=failed))
    monkeypatch.setattr(publish, "sources", lambda: [])
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: failures)
    assert publish.reproduce("quick", tmp_path / "build") == code


def test_figures_of_a_study_go_into_a_folder_beside_what_is_there(workbench, tmp_path):
    notebook_ = workbench.repo / "notebooks" / publish.FINDINGS
    before = notebook_.read_bytes()
    out = tmp_path / "figures"
    out.mkdir()
    (out / "mine.svg").touch()
    assert publish.draw(fabricate(tmp_path / "study").folder, out) == [out / "headline.svg"]
    assert {path.name for path in out.iterdir()} == {"headline.svg", "mine.svg"}
    assert notebook_.read_bytes() == before, "the notebook itself is left alone"

    notebook(notebook_, "# One", "1 / 0")
    with pytest.raises(Error, match=r"figures is left as it was: 1 notebooks failed$"):
        publish.draw(tmp_path / "study", out)
    assert {path.name for path in out.iterdir()} == {"headline.svg", "mine.svg"}
    with pytest.raises(Error, match=r"no study in .*absent"):
        publish.draw(tmp_path / "absent", out)


def test_publish_renews_in_place(workbench):
    assert publish.publish() == 0
    done = nbformat.read(workbench.repo / "notebooks" / publish.FINDINGS, 4)
    assert done.cells[1].source == FOUND[0][1], "without what it was run with"
    names = {path.name for path in (workbench.repo / "figures").iterdir()}
    assert names == {"headline.svg", "photograph.jpg"}, "what is not drawn any more goes"
    listed = (workbench.repo / "data" / "README.md").read_text()
    assert [*prediction.read(workbench.published)] == [*capacity.models(tables.read(workbench.published))]
    for name in ("trials.csv", "machine.json", "models.json"):
        assert hashlib.sha256((workbench.published / name).read_bytes()).hexdigest() in listed
    page = (workbench.repo / "README.md").read_text()
    found = "| a table |\n\n- **Measured** at an older commit, live True.\n"
    assert f"-->\n\n{found}\n<!--" in page and "old\n" not in page and page.endswith("\nThe rest.\n")
    assert publish._changed() is None, "what it makes itself is not in its way the next time"


@pytest.mark.parametrize("missing", ["", "MNN not installed"])
def test_publish_measures_other_runtimes_where_they_are(workbench, monkeypatch, missing, capsys):
    seen = []
    monkeypatch.setattr(publish, "renew", lambda: 0)
    monkeypatch.setattr(publish.runtimes, "missing", lambda: missing)
    for module in ("runtimes", "precision"):
        monkeypatch.setattr(
            getattr(publish, module), "run", lambda folder, module=module: seen.append((module, folder))
        )
    assert publish.publish() == 0
    measured = [("runtimes", workbench.published), ("precision", workbench.published)]
    assert seen == ([] if missing else measured)
    assert ("MNN not installed" in capsys.readouterr().err) == bool(missing)


def test_publish_with_a_failed_notebook_keeps_the_figures(workbench, monkeypatch):
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: ["07-findings.ipynb, cell 1: an error"])
    assert publish.publish() == 1
    assert {path.name for path in (workbench.repo / "figures").iterdir()} == {"old.svg", "old.png", "photograph.jpg"}


@pytest.mark.parametrize("name", ["code.py", "new file.py"])
def test_publish_refuses_what_is_not_committed(workbench, name):
    (workbench.repo / name).write_text("2\n")
    with pytest.raises(Error, match=rf"^{name} is not committed: commit or remove it first"):
        publish.publish()


def test_checksums_are_renewed_row_by_row(tmp_path):
    (tmp_path / "a.csv").write_text("a\n")
    readme = tmp_path / "README.md"
    text = "Prose `with code`.\n\n| file | what | sha256 |\n|---|---|---|\n| `{}` | rows, `x` | `{}` |\n"
    readme.write_text(text.format("a.csv", "f" * 64))
    publish.renew_checksums(readme)
    assert readme.read_text() == text.format("a.csv", hashlib.sha256(b"a\n").hexdigest())

    readme.write_text(text.format("gone.csv", "f" * 64))
    with pytest.raises(Error, match=r"lists gone\.csv, which is not there: remove its row"):
        publish.renew_checksums(readme)
    assert os.listdir(tmp_path).count("README.md") == 1
    assert readme.read_text() == text.format("gone.csv", "f" * 64)
