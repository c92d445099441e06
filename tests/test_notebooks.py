"""Every notebook: on the published study and others, with other variants; what it finds; how its figures look."""

import json
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from test_publish import COSTS, fabricate

from udnet import PARITY_LIMIT, NotMeasured
from udnet.experiments import instruments
from udnet.network import lifetimes, prepared
from udnet.pages import notebooks, plots, publish
from udnet.system import files
from udnet.trials import study, tables

NOTEBOOKS = publish.sources()


def run(folder, paths=NOTEBOOKS, **parameters):
    """Run notebooks with parameters of one's own, without measuring; the names of their figures."""
    about = {"live": False, "figures": str(folder / "figures")} | parameters
    assert notebooks.execute(paths, folder / "notebooks", about, at_once=2) == []
    return {path.stem for path in (folder / "figures").glob("*.svg")}


# As they are published


def test_there_are_ten():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10"]


def test_every_published_figure_is_shown_by_a_notebook():
    source = "".join(cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells)
    assert set(re.findall(r'"([\w-]+)",\s*figures\b', source)) == {path.stem for path in publish.FIGURES.glob("*.svg")}


def test_the_front_page_has_what_notebook_7_found():
    found = publish.findings(nbformat.read(publish.NOTEBOOKS / publish.FINDINGS, 4))
    assert found.count("\n- ") >= 6
    assert found in (REPO / "README.md").read_text()


def test_findings_have_known_answers(tmp_path):
    made = fabricate(tmp_path / "study", COSTS)
    run(tmp_path, [publish.NOTEBOOKS / publish.FINDINGS], study=str(made.folder))
    found = " ".join(notebooks.said(nbformat.read(tmp_path / "notebooks" / publish.FINDINGS, 4), "finding"))
    # by hand: 256x256 are 1/16 Mi pixels, of 2000 bytes 125 MiB and of 3000 187.5, less than the import's 250
    assert "of 256x256, ONNX Runtime takes 250 MiB" in found and "1,350 MiB: 5.4 times" in found
    assert "PyTorch takes 425 MiB, 1.70 times" in found
    assert "2.0 kB in PyTorch and 3.0 kB in ONNX Runtime" in found
    # by hand: 300 - 60 MiB over 1000 bytes a pixel are a side of 501.7
    assert "From about 502x502 on" in found
    # by hand: at 512x512 they take 60 + 750 and 60 + 375 MiB, PyTorch 300 + 500
    assert "PyTorch takes 2.00 times as long" in found
    assert "2160x3840" not in found, "what was not measured is no finding"


@pytest.mark.slow
def test_the_published_figures_are_those_of_the_published_study(tmp_path):
    drawn = {path.name: path.read_bytes() for path in publish.draw(out=tmp_path)}
    published = {path.name: path.read_bytes() for path in publish.FIGURES.iterdir() if path.suffix in (".svg", ".png")}
    assert drawn.keys() == published.keys()
    assert [name for name in drawn if drawn[name] != published[name]] == []


# With other variants, on other studies, measuring here


@pytest.mark.slow
def test_with_two_variants_alone(tmp_path, any_weights):
    run(tmp_path, weights=any_weights, variants=["pytorch-lean", "onnx-lean"])


@pytest.mark.slow
def test_on_a_study_of_two_variants_and_three_sizes(tmp_path, any_weights):
    done = tables.read()
    of = done.trials[done.trials.variant.isin(["pytorch", "onnx"]) & done.trials.threads.eq(2)]
    of = of[of.height.eq(of.width) & of.height.isin([128, 256, 512])]
    kept = {"trials": of, "parity": done.parity[done.parity.variant.isin(of.variant)]}
    for name in ("timelines", "stages"):
        table = getattr(done, name)
        kept[name] = table[table.trial.isin(of.trial)]
    folder = tmp_path / "study"
    folder.mkdir()
    for name, table in kept.items():
        files.write_csv(folder / f"{name}.csv", table)
    machine = done.machine | {"grid": "cut", "trials": of.trial.nunique()}
    (folder / "machine.json").write_text(json.dumps(machine))
    run(tmp_path, study=str(folder), weights=any_weights)


@pytest.mark.slow
def test_on_a_tiny_study_of_this_machine(tmp_path, monkeypatch, any_weights):
    folder = tmp_path / "study"
    tiny = study.run(REPO / "tests" / "tiny.toml", folder, any_weights, progress=False)
    assert tiny.finished and tiny.trials.status.eq("ok").all(), tiny.trials[["trial", "error"]].drop_duplicates()
    assert tiny.parity.largest_difference.max() <= PARITY_LIMIT
    monkeypatch.setattr(instruments, "PAIRS", 5)
    monkeypatch.setitem(instruments.QUESTIONS, "spike", (instruments.spike, instruments.SPIKE_BYTES[:1]))
    instruments.run(folder, repeats=1, progress=False)
    shown = run(tmp_path, study=str(folder), weights=any_weights)
    assert {"headline", "files", "instruments", "loading", "loading-timeline", "scaling-memory", "stages"} <= shown


@pytest.mark.slow
def test_measuring_here(tmp_path, any_weights):
    here = {"live": True, "weights": any_weights, "models": ["onnx"], "profiled": ["onnx"]}
    tiny = {"size": "64x64", "sizes": ["64x64"], "longer": 64, "tried": {"onnx-lean": "64x64"}}
    (explore,) = (path for path in NOTEBOOKS if path.name == "08-explore.ipynb")
    run(tmp_path, [path for path in NOTEBOOKS if path != explore], **here, **tiny)
    run(tmp_path, [explore], **here, size=64)  # of the longer side


# How figures look


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed, and how."""
    shown = []
    monkeypatch.setattr(plots, "display", lambda *what, **how: shown.append((*what, how)))
    return shown


def test_what_is_not_measured_is_one_line_and_its_figure_is_gone(displayed):
    with plots.where_measured():
        plt.figure()
        raise NotMeasured("no trials of onnx")
    assert plt.get_fignums() == []
    ((line, _),) = displayed
    assert line.data == "*Left out here: no trials of onnx.*" and line.data.startswith(plots.LEFT_OUT)
    with pytest.raises(KeyError), plots.where_measured():
        raise KeyError("another error")
    with plots.where_measured():
        displayed.append("measured")
    assert displayed[1:] == ["measured"]


def test_variants_of_ones_own_have_looks_of_their_own(monkeypatch):
    monkeypatch.setattr(plots, "LOOKS", dict(plots.LOOKS))
    looks = [plots.look(name) for name in ("mine", "yours", "onnx", "pytorch")]
    assert len({tuple(look.values()) for look in looks}) == 4
    assert plots.look("mine") == looks[0] and plots.look("yours") == looks[1], "and keep them"
    assert plots.look("onnx-tiled@512MiB") == plots.look("onnx-tiled") == plots.look("onnx-tiled+jemalloc")
    assert plots.order(["zebra", "onnx", "mine", "pytorch"]) == ["pytorch", "onnx", "mine", "zebra"]
    for name in "abcdefgh":
        assert set(plots.look(name)) == {"color", "marker"}, "however many there are"


def drawing():
    """A small figure, the same each time."""
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.plot([0, 1], [0, 1], "o-", label="one")
    plots.legend(ax)
    return figure


def test_a_figure_is_saved_only_where_a_folder_is_given(tmp_path, displayed):
    plots.show(drawing(), "A rising line", "line", None)
    assert list(tmp_path.iterdir()) == []
    plots.show(drawing(), "A rising line", "line", tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"line.svg", "line.png"}
    assert "<dc:description>A rising line</dc:description>" in (tmp_path / "figures" / "line.svg").read_text()
    (first, how), (second, _) = displayed
    assert first == second and first["text/plain"] == "A rising line" and first["image/png"].startswith(b"\x89PNG")
    assert how == {"metadata": {"image/png": {"alt": "A rising line"}}, "raw": True}
    plots.show(drawing(), "A photograph", photographs=True)
    assert displayed[2][0]["image/jpeg"].startswith(b"\xff\xd8")
    assert plt.get_fignums() == [], "none is shown twice"


def test_a_figure_is_the_same_bytes_again(tmp_path):
    once, again = (drawing() for _ in range(2))
    for figure in (once, again):
        figure.axes[0].scatter(range(20), range(20), c=range(20))  # marks with identifiers of another kind
    once, again = (plots.save(figure, "A line", tmp_path / str(id(figure)), "line") for figure in (once, again))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    plt.close("all")


def test_a_figure_is_the_same_bytes_whatever_the_user_s_settings(tmp_path):
    theirs = {"savefig.bbox": "tight", "savefig.facecolor": "red", "font.size": 20, "svg.hashsalt": "mine"}
    drawn = []
    for settings in ({}, theirs):
        with plt.rc_context(settings):
            plots.use()
            drawn.append([path.read_bytes() for path in plots.save(drawing(), "A line", tmp_path, "line")])
    assert drawn[0] == drawn[1]
    plt.close("all")


def test_curves_have_a_line_where_there_are_sizes_enough():
    sides = np.array([64, 128, 256, 512])
    rows = pd.DataFrame({"variant": "onnx", "pixels": sides**2, "peak_bytes": 60e6 + 3000.0 * sides**2})
    rows["schedule"] = "whole"
    few = rows[:2].assign(variant="mine", peak_bytes=1e9)
    tiled = rows.assign(variant="onnx-tiled", schedule="tiled", peak_bytes=9e7)
    figure, ax = plt.subplots()
    plots.scaling_curves(pd.concat([rows, few, tiled]), ax)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["mine", "onnx", "onnx-tiled"], "the highest first"
    lengths = sorted(len(line.get_xdata()) for line in ax.lines)
    assert lengths == [0, 0, 0, 2, 2, 4, 4, 4, 200], "points and a legend's entry each, medians, and one fitted line"
    plt.close(figure)


def test_a_saved_figure_is_shown_again_with_its_text(tmp_path, displayed):
    plots.save(drawing(), 'Rising, "fast" & far', tmp_path, "line")
    plt.close("all")
    plots.saved(tmp_path, "line")
    ((bundle, how),) = displayed
    assert bundle["image/png"] == (tmp_path / "line.png").read_bytes()
    assert how["metadata"] == {"image/png": {"alt": 'Rising, "fast" & far'}}
    for folder in (tmp_path / "elsewhere", None):
        with pytest.raises(NotMeasured, match="the figure line has not been drawn for this study"):
            plots.saved(folder, "line")


@pytest.mark.parametrize("sides", [True, False], ids=["as it stands", "by its recipe for megapixels"])
def test_every_line_of_the_peak_memory_figure_follows_its_axis(tmp_path, monkeypatch, sides):
    made = fabricate(tmp_path / "study", COSTS)
    (path,) = [path for path in NOTEBOOKS if path.name.startswith("04")]
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    code = code[: next(place for place, source in enumerate(code) if '"scaling-memory"' in source) + 1]
    code.insert(2, f"study = {str(made.folder)!r}")
    if not sides:
        assert "x = np.sqrt" in code[-1]
        code[-1] = code[-1].replace("x = np.sqrt", "x = lambda pixels: pixels / 1e6")
    shown = []
    monkeypatch.setattr(plots, "show", lambda figure, *_: shown.append(figure))
    monkeypatch.setattr(prepared, "prepared", lambda *_: None)
    monkeypatch.setattr(lifetimes, "per_pixel", lambda graph, schedule: {"stored": 1500, "best order": 1000}[schedule])
    with plt.rc_context():
        names = {}
        for source in code:
            exec(source, names)
    (ax,) = shown[0].axes
    low, high = (64, 512) if sides else (64**2 / 1e6, 512**2 / 1e6)
    ends = [(min(line.get_xdata()), max(line.get_xdata())) for line in ax.lines if len(line.get_xdata())]
    # by hand: the crossing is at a side of 501.7; every other line goes from the smallest size to the largest
    met = 501.7 if sides else 501.7**2 / 1e6
    assert sum(end == pytest.approx((met, met), rel=1e-3) for end in ends) == 1
    assert sum(end == pytest.approx((low, high)) for end in ends) == len(ends) - 1 >= 2 * len(COSTS) + 2
    (label,) = [text for text in ax.texts if "502" in text.get_text()]
    assert label.get_position()[0] == pytest.approx(met, rel=1e-3)
    plt.close("all")
