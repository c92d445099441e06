"""Machines side by side: ratios, crossings and findings of studies that are made up and known."""

import numpy as np
import pytest
from made_up_studies import COSTS, fabricate

from udnet.__main__ import main
from udnet.analysis import machines
from udnet.analysis.machines import ABSENT, CROSSING, HOLDS, MEMORY, NOT, TIME, UNCLEAR

SLOW = {name: (load, fixed, slope, 3 * time_) for name, (load, fixed, slope, time_) in COSTS.items()}
OTHER = SLOW | {"onnx": (90, 60, 1900, 45)}  # it never needs more than PyTorch, and takes longer


@pytest.fixture
def studies(tmp_path):
    return {
        "one": fabricate(tmp_path / "one"),
        "slow": fabricate(tmp_path / "slow", SLOW, (64, 128, 256, 512, 1024)),
        "other": fabricate(tmp_path / "other", OTHER),
    }


def by_machine(table, **about):
    for column, value in about.items():
        table = table[table[column] == value]
    return table.set_index("machine")


def test_ratios_are_each_machine_s_own(studies):
    own = by_machine(machines.ratios(studies), quantity="peak 512x512: onnx / pytorch")
    # by hand: 512x512 pixels are 1/4 Mi; 3000 of them 750 MiB, 2000 500 MiB, 1900 475 MiB
    assert own.best.to_dict() == pytest.approx({"one": 810 / 800, "slow": 810 / 800, "other": 535 / 800})
    time_ = by_machine(machines.ratios(studies), quantity="time 64x64: onnx / pytorch")
    assert time_.best.to_dict() == pytest.approx({"one": 0.5, "slow": 0.5, "other": 1.5}) and set(time_.kind) == {
        "time"
    }


def test_what_one_machine_alone_has_is_left_out(studies):
    table = machines.ratios(studies)
    assert not table.quantity.str.contains("1024").any() and not table.quantity.str.contains("tiled").any()
    assert table.groupby("quantity").machine.nunique().min() == 2 or CROSSING not in set(table.quantity)


def test_agreement(studies):
    table = machines.agreement(machines.ratios(studies)).set_index("quantity")
    apart = table.loc["peak 512x512: onnx / pytorch"]
    assert apart.apart == pytest.approx(810 / 535 - 1) and apart.agrees is False
    assert table.loc["peak 512x512: pytorch-lean / pytorch"].agrees is True
    assert table.loc["time 64x64: onnx / pytorch"].agrees is None


def test_a_crossing_by_the_sizes_that_all_have(studies):
    sides = machines.crossings(studies)
    assert list(sides) == ["one", "slow"]
    assert sides["one"].best == sides["slow"].best == pytest.approx(501.7, abs=0.1)  # as in test_publish
    few = {"one": studies["one"], "few": fabricate(studies["one"].folder.parent / "few", sides=(64, 128, 1024))}
    assert machines.crossings(few) == {}


def test_where_findings_hold(studies):
    table = machines.findings(studies)
    longer = by_machine(table, finding="A later picture takes longer in PyTorch than in a default session")
    assert longer.verdict.to_dict() == {"one": HOLDS, "slow": HOLDS, "other": NOT}
    assert set(longer.side) == {512}, "the largest that all have"
    more = by_machine(table, finding="A large one takes more")
    assert more.verdict.to_dict() == {"one": HOLDS, "slow": HOLDS, "other": NOT}
    tiled = by_machine(table, finding="The tiled schedule needs less than a lean session")
    assert set(tiled.verdict) == {ABSENT} and tiled.side.isna().all()
    said = machines.where(table)
    assert said["A lean session needs less than a default one"] == machines.EVERYWHERE
    assert said["A large one takes more"] == "holds on one, slow; does not hold on other"
    assert said["The tiled schedule needs less than a lean session"] == ABSENT
    alone = table.assign(verdict=table.verdict.where(table.machine != "slow", ABSENT))
    said = machines.where(alone)["A lean session needs less than a default one"]
    assert said == "holds on one, other; not measured on slow"


@pytest.mark.parametrize(
    ("found", "above", "verdict"),
    [((1.2, 1.1, 1.3), True, HOLDS), ((1.2, 1.1, 1.3), False, NOT), ((1.1, 0.9, 1.2), True, UNCLEAR)],
)
def test_a_verdict_goes_by_the_whole_interval(found, above, verdict):
    assert machines._verdict(machines.Estimate(*found), TIME, above) == verdict
    alone = machines.Estimate(1.2, np.nan, np.nan)
    assert machines._verdict(alone, MEMORY, True) == HOLDS
    assert machines._verdict(alone, TIME, True) == UNCLEAR, "one trial of a time says nothing"


def test_the_command(studies, tmp_path, capsys):
    assert main(["compare", *(str(tmp_path / name) for name in studies)]) == 0
    said = capsys.readouterr().out
    parts = [said.index(words) for words in ("Machines", "Ratios of memory", "Findings about memory", "Ratios of time")]
    assert parts == sorted(parts) and "holds on one, slow; does not hold on other" in said


def test_a_study_that_is_not_finished_says_so(tmp_path):
    described = machines.described(
        {"one": fabricate(tmp_path / "one"), "half": fabricate(tmp_path / "half", trials=80)}
    )
    assert described.loc["study"].to_dict() == {
        "one": "tiny, 40 trials, 2026-11-22",
        "half": "tiny, 40 of 80 trials, 2026-11-22",
    }


@pytest.mark.parametrize("names", [["one"], ["one", "one"], ["one", "nowhere"]])
def test_what_is_not_two_studies(studies, tmp_path, capsys, names):
    assert main(["compare", *(str(tmp_path / name) for name in names)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_folders_of_one_name(studies, tmp_path):
    fabricate(tmp_path / "deep" / "one")
    folders = [tmp_path / "one", tmp_path / "deep" / "one", tmp_path / "deep" / ".." / "one"]
    assert list(machines.read(folders)) == [f"{tmp_path.name}/one", "deep/one"], "each once"
