"""The audit's rules on numbers that are made up here and known, and on the published study."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from udnet.__main__ import main
from udnet.analysis import claims, evidence
from udnet.analysis.claims import NOT_REPRODUCED, NOT_TESTABLE, OTHER_CAUSE, REFUTED, REPRODUCED, decide
from udnet.analysis.scaling import Estimate
from udnet.experiments import audit
from udnet.system import files
from udnet.trials import tables

CLAIMS = evidence.claims_table()


def near(best, spread=0.01):
    return Estimate(best, best * (1 - spread), best * (1 + spread))


@pytest.mark.parametrize(
    ("value", "unit", "about_time", "fair", "replays", "verdict"),
    [
        (100, "MB", False, near(110), [near(110)], REPRODUCED),
        (100, "MB", False, near(10), [near(95)], OTHER_CAUSE),
        (100, "MB", False, near(10), [near(10), near(95)], OTHER_CAUSE),  # under another allocator
        (100, "MB", False, near(10), [near(10)], NOT_REPRODUCED),
        (24, "x", False, near(3), [near(5)], REFUTED),  # another factor
        (1.5, "x", False, near(0.9), [], REFUTED),  # the other way round
        (2.3, "x", False, near(0.79), [near(2.0)], REFUTED),  # even where the report's own protocol gives it
        (18.7, "x", False, Estimate(0.9998, np.nan, np.nan), [near(19)], OTHER_CAUSE),  # equal points neither way
        (2.8, "GB", False, near(0.8), [near(2.8)], OTHER_CAUSE),  # 1 GB is no turning point
        (1.5, "x", False, near(1.1), [], NOT_REPRODUCED),  # the same way, less
        (1.5, "x", False, Estimate(1.0, 0.9, 1.1), [], NOT_REPRODUCED),  # the interval holds 1: no contradiction
        (3.0, "x", True, near(1.6), [], REPRODUCED),  # times agree within a factor of 2
        (3.0, "s", True, near(3.0), [near(3.0)], NOT_TESTABLE),
        (3.0, "MB", False, None, [], NOT_TESTABLE),
        (1.0, "GB", False, Estimate(7.0, np.nan, np.nan), [], REFUTED),  # one value has no interval
    ],
)
def test_verdicts_follow_the_rule(value, unit, about_time, fair, replays, verdict):
    assert decide(value, unit, about_time, fair, replays) == verdict


def test_every_claim_has_a_measure_and_none_is_typed_twice():
    assert list(CLAIMS.id) == list(claims.MEASURES) == [f"C{number:02}" for number in range(1, 40)]


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(304.2, 304.1, 304.3), "MB", "304 MiB"),
        (Estimate(438, 415, 438.4), "MB", "438 MiB (415 to 438)"),
        (Estimate(-11, np.nan, np.nan), "MB", "-11.0 MiB"),
        (Estimate(0.0452, np.nan, np.nan), "s", "0.045 s"),
        (near(1.59, 0.1), "x", "1.59x (1.43 to 1.75)"),
    ],
)
def test_a_value_is_shown_with_its_unit(estimate, unit, text):
    assert evidence.shown(estimate, unit) == text


@pytest.fixture(scope="module")
def published():
    return tables.read()


@pytest.fixture(scope="module")
def judged(published):
    return claims.judge(published, audit.read(published.folder))


def test_every_claim_has_a_verdict_and_a_cause_that_quotes_its_number(judged):
    assert [one.id for one in judged] == list(CLAIMS.id)
    assert {one.verdict for one in judged} <= set(claims.VERDICTS)
    for one in judged:
        assert one.measured and one.cause.endswith(".") and not one.left_out, one.id
        if one.value is not None and one.id != "C38":  # which repeats C14
            assert f"{one.value:,.6g}" in one.cause, one.id


def test_the_headline_claim_is_refuted_and_the_file_size_has_another_cause(judged):
    by_id = {one.id: one for one in judged}
    assert by_id["C14"].verdict == by_id["C38"].verdict == by_id["C34"].verdict == REFUTED
    assert by_id["C03"].verdict == OTHER_CAUSE


def test_claims_in_words_are_decided_by_a_number(judged):
    by_id = {one.id: one for one in judged}
    assert by_id["C37"].verdict == REFUTED and "x PyTorch's memory" in by_id["C37"].measured
    assert by_id["C31"].measured.endswith("x the bytes a pixel") or "to" in by_id["C31"].measured
    assert "MiB planned" in by_id["C36"].measured


def test_the_allocator_shown_is_the_systems_unless_another_alone_agrees(judged):
    shown = {one.id: one.allocator for one in judged}
    assert shown["C06"] == shown["C12"] == "tcmalloc", "the system's does not give it"
    assert shown["C19"] == "", "the system's gives it"
    assert shown["C07"] == shown["C08"] == "", "none gives it"


def test_a_cause_repeats_what_the_protocol_gave(judged):
    by_id = {one.id: one for one in judged}
    for claim in ("C17", "C19", "C20"):
        value = evidence.shown(by_id[claim].replayed, by_id[claim].unit).partition(" ")[0].removesuffix("x")
        assert f" {value} " in by_id[claim].cause, claim


@pytest.fixture
def local(published):
    """The published study and its audit as a quick one would have them: sizes up to 512, no other allocator."""
    found, done = audit.read(published.folder), tables.read(published.folder)
    small = done.trials[["height", "width"]].max(axis=1) <= 512
    released = done.trials.variant.eq("pytorch-published") & done.trials.height.eq(512)
    done.trials = done.trials[small & ~released]
    for table in ("protocol", "allocators"):
        frame = getattr(found, table)
        setattr(found, table, frame[frame.allocator == ""])
    return done, found


def test_a_small_study_contradicts_no_verdict_and_says_what_it_lacks(local, judged):
    here = claims.judge(*local)
    lacking = {one.id for one, full in zip(here, judged, strict=True) if one.left_out}
    assert (
        lacking and {one.id for one, full in zip(here, judged, strict=True) if one.verdict != full.verdict} <= lacking
    )
    by_id = {one.id: one for one in here}
    assert by_id["C33"].verdict == by_id["C35"].verdict == NOT_TESTABLE
    assert by_id["C33"].cause == "Not measured in this study: it takes a picture of 1024x1024 at least."
    assert by_id["C06"].verdict == NOT_REPRODUCED
    assert by_id["C06"].cause.endswith(" Other allocators were not run.")
    assert by_id["C34"].verdict == by_id["C37"].verdict == REFUTED, "one size is enough"


def test_a_change_to_a_measured_value_changes_the_verdict(published, judged, monkeypatch):
    assert {one.id: one.verdict for one in judged}["C24"] == OTHER_CAUSE
    trials = published.trials
    torch = trials.variant.eq("pytorch") & trials.height.eq(256)
    changed = replace(
        published, trials=trials.assign(peak_bytes=trials.peak_bytes.where(~torch, trials.peak_bytes * 4))
    )
    monkeypatch.setattr(claims, "claims_table", lambda: CLAIMS[CLAIMS.id == "C24"])
    (one,) = claims.judge(changed, audit.read(published.folder))
    assert one.verdict == REPRODUCED  # 6.2 times, once PyTorch needs four times as much


def test_a_study_without_an_audit_is_one_line(tmp_path, capsys):
    (tmp_path / "machine.json").write_text("{}")
    files.write_csv(tmp_path / "trials.csv", tables.typed(pd.DataFrame()))
    assert main(["claims", "--study", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.endswith("the report was not audited: name a study that `udnet reproduce` has made\n")
    assert said.count("\n") == 1


def test_claims_as_json_and_as_text(judged, capsys, monkeypatch):
    monkeypatch.setattr(claims, "judge", lambda *_: judged)
    assert main(["claims", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in said] == list(CLAIMS.id)
    assert {"reported", "fair", "measured", "replayed", "verdict", "cause"} <= said[0].keys()
    assert main(["claims"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 * len(CLAIMS)
