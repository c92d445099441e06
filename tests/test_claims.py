"""The audit's rules on numbers that are made up here and known, and on the published study."""

import json

import numpy as np
import pandas as pd
import pytest

from udnet import Error, audit, claims, study
from udnet.__main__ import main
from udnet.claims import NOT_REPRODUCED, NOT_TESTABLE, OTHER_CAUSE, REFUTED, REPRODUCED, decide
from udnet.scaling import Estimate

CLAIMS = pd.read_csv(claims.FILE, keep_default_na=False)


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


@pytest.fixture(scope="module")
def published():
    done = study.read()
    if audit.read(done.folder) is None:
        pytest.skip("the published study has no audit yet: make publish")
    return done


@pytest.fixture(scope="module")
def judged(published):
    return claims.judge(published)


def test_every_claim_has_a_verdict_and_a_computed_cause(judged):
    assert [one.id for one in judged] == list(CLAIMS.id)
    assert {one.verdict for one in judged} <= set(claims.VERDICTS)
    for one in judged:
        assert one.cause.endswith(".") and any(letter.isdigit() for letter in one.cause), one.id
        assert "not measured" not in one.cause, one.id


def test_the_headline_claim_is_refuted_and_the_file_size_has_another_cause(judged):
    by_id = {one.id: one for one in judged}
    assert by_id["C14"].verdict == by_id["C38"].verdict != REPRODUCED
    assert by_id["C03"].verdict == OTHER_CAUSE


def test_a_change_to_a_measured_value_changes_the_verdict(published):
    def verdict():
        return {one.id: one.verdict for one in claims.judge(published)}["C24"]

    assert verdict() == REFUTED
    before = published.trials
    torch = before.variant.eq("pytorch") & before.height.eq(256)
    published.trials = before.assign(peak_bytes=before.peak_bytes.where(~torch, before.peak_bytes * 4))
    try:
        assert verdict() == REPRODUCED  # 6.2 times, once PyTorch needs four times as much
    finally:
        published.trials = before


def test_a_study_without_an_audit_is_one_line(tmp_path):
    (tmp_path / "machine.json").write_text("{}")
    with pytest.raises(Error, match=r"has no audit: run"):
        claims.judge(study.read(tmp_path))


def test_claims_as_json_and_as_text(published, capsys):
    assert main(["claims", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in said] == list(CLAIMS.id)
    assert {"reported", "fair", "replayed", "verdict", "cause"} <= said[0].keys()
    assert main(["claims"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 * len(CLAIMS)
