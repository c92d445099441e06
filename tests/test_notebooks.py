"""Every notebook and every figure, from a tiny study of this machine: they run, they draw, and the same bytes again."""

import json

import pytest
from conftest import REPO

from udnet import PARITY_LIMIT, figures, findings, instruments, memory, notebooks, plots, publish, scaling, study

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished tiny study, with its instruments tested."""
    folder = tmp_path_factory.mktemp("tiny") / "study"
    study.run(REPO / "tests" / "tiny.toml", folder, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instruments, "PAIRS", 5)
        patch.setitem(instruments.QUESTIONS, "spike", (instruments.spike, instruments.SPIKE_BYTES[:1]))
        instruments.run(folder, repeats=1, progress=False)
    return study.read(folder)


def test_every_trial_of_the_tiny_study_ends_well(tiny):
    assert tiny.finished and tiny.trials.status.eq("ok").all(), tiny.trials[["trial", "error"]].drop_duplicates()
    assert tiny.parity.largest_difference.max() <= PARITY_LIMIT


def test_every_notebook_runs_from_top_to_bottom(tiny, tmp_path):
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07", "08"]
    assert notebooks.execute(NOTEBOOKS, tmp_path / "notebooks", tiny.folder, tmp_path / "figures") == []
    shown = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"headline", "files", "instruments", "loading", "loading-timeline", "scaling-memory", "stages"} <= shown


def test_every_figure_is_shown_by_a_notebook():
    source = "".join("".join(cell["source"]) for path in NOTEBOOKS for cell in json.loads(path.read_text())["cells"])
    assert [name for name in figures.FIGURES if f'figures.show("{name}"' not in source] == []


def test_figures_are_the_same_bytes_again_and_say_what_they_show(tiny, tmp_path):
    drawn = 0
    for name in figures.FIGURES:
        try:
            figure = figures.draw(name, tiny)
        except scaling.NotEnoughData:
            continue
        drawn += 1
        once = plots.save(figure, tmp_path / "once", name)
        again = plots.save(figures.draw(name, study.read(tiny.folder)), tmp_path / "again", name)
        assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again], name
        assert len(figure.alt) > 40
    assert drawn >= 9


def test_findings_follow_the_measurement(tiny):
    said = findings.total(scaling.costs(tiny))
    peaks = tiny.trials[tiny.trials.trial == "onnx/256x256/t2/r0"].peak_bytes
    assert f"{memory.mib(peaks.max())} in ONNX Runtime" in said
    tiny.trials.loc[peaks.idxmax(), "peak_bytes"] += 7 * 2**20
    assert f"{memory.mib(peaks.max() + 7 * 2**20)} in ONNX Runtime" in findings.total(scaling.costs(tiny))


@pytest.mark.skipif(not study.PUBLISHED.exists(), reason="no study is published yet: make publish")
def test_the_published_figures_and_findings_are_those_of_the_published_study(tmp_path):
    drawn = {path.name: path.read_bytes() for path in publish.draw(out=tmp_path)}
    assert drawn == {path.name: path.read_bytes() for path in publish.FIGURES.iterdir()}
    text = (REPO / "README.md").read_text()
    for sentence in findings.sentences(study.read()):
        assert f"- {sentence}\n" in text
