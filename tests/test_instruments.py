"""The instruments' known answers: what is written, and what the kernel's mark and the samples make of it."""

import sys

import pandas as pd
import pytest

from udnet import Error, NotMeasured
from udnet.experiments import instruments
from udnet.system import files
from udnet.system.memory import MIB

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark can be reset on Linux alone")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """One answer to every question, with two sizes of spike and few pairs."""
    folder = tmp_path_factory.mktemp("instruments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(instruments.QUESTIONS, "spike", (instruments.spike, (16 * MIB, 64 * MIB)))
        patch.setattr(instruments, "PAIRS", 4)
        return instruments.run(folder, repeats=1, progress=False)


def readings(table, question, instrument):
    return table[(table.question == question) & (table.instrument == instrument)]


def test_columns_and_counts(table):
    assert tuple(table.columns) == instruments.COLUMNS
    counts = table.groupby(["question", "instrument"]).size().to_dict()
    expected = {
        ("spike", "kernel's peak"): 2,
        ("spike", "memory-profiler, 10 ms"): 2,
        ("spike", "memory-profiler, 100 ms"): 2,
        ("floor", "a trial's worker"): 1,
        ("floor", "Python and NumPy"): 1,
        ("parent", "kernel's peak"): 2,
        ("tracking", "tracked"): 4,
        ("tracking", "untracked"): 4,
        ("tracking", "tracked, with its readings"): 4,
    }
    if sys.platform == "linux":
        expected["parent", "ru_maxrss"] = 2
    assert counts == expected
    assert (table.seen_bytes.isna() == (table.question == "tracking")).all()
    assert (table.seconds.notna() == (table.question == "tracking")).all()


@on_linux
def test_kernels_peak_sees_all_of_a_spike(table):
    rows = readings(table, "spike", "kernel's peak")
    assert rows.planted_bytes.nunique() == 2
    assert ((rows.seen_bytes - rows.planted_bytes).abs() <= MIB).all()


def test_samples_see_no_more_than_there_is(table):
    for name in instruments.SAMPLERS:
        rows = readings(table, "spike", name)
        assert (rows.seen_bytes - rows.planted_bytes <= MIB).all()
        assert (rows.seen_bytes >= 0).all()


def test_worker_is_near_python_and_numpy(table):
    worker = readings(table, "floor", "a trial's worker").seen_bytes.item()
    bare = readings(table, "floor", "Python and NumPy").seen_bytes.item()
    assert 10 * MIB < bare <= worker <= bare + 3 * MIB


@on_linux
def test_a_large_parent_changes_nothing(table):
    def seen(instrument):
        return readings(table, "parent", instrument).sort_values("planted_bytes").seen_bytes

    small, large = seen("kernel's peak")
    assert large == pytest.approx(small, abs=MIB)
    small, large = seen("ru_maxrss")
    assert small < 200 * MIB
    assert large > 10**9, "it is inherited, which is why it is not used"


def test_both_halves_of_a_pair_are_there(table):
    rows = table[table.question == "tracking"]
    assert (rows.groupby(["repeat", "pair"]).size() == 3).all()
    wide = rows.pivot_table(index=["repeat", "pair"], columns="instrument", values="seconds")
    assert (wide["tracked"] <= wide["tracked, with its readings"]).all()


def test_tracking_cost_of_known_times():
    costs = [0.01 * step for step in range(-5, 6)]  # pairs that differ by -5 to 5 %
    rows = [
        {"question": "tracking", "instrument": name, "repeat": 0, "pair": pair, "seconds": seconds}
        for pair, cost in enumerate(costs)
        for name, seconds in (("untracked", 2.0), ("tracked", 2.0 * (1 + cost)))
    ]
    # 95 % of the median of 11 values: the 2nd to the 10th in order
    assert instruments.tracking_cost(pd.DataFrame(rows)) == pytest.approx((0, -0.04, 0.04))


# Going on


@pytest.fixture
def put(monkeypatch):
    """A list of the questions that were put, which cost nothing; the third one is interrupted."""
    put = []

    def ask(planted, repeat):
        put.append((planted, repeat))
        if len(put) == 3:
            raise KeyboardInterrupt
        return [{"instrument": "a rule", "seen_bytes": planted + repeat}]

    monkeypatch.setattr(instruments, "QUESTIONS", {"length": (ask, (10, 20))})
    return put


def test_goes_on_where_it_stopped(tmp_path, put):
    with pytest.raises(KeyboardInterrupt):
        instruments.run(tmp_path, repeats=2, progress=False)
    assert put == [(10, 0), (20, 0), (10, 1)]
    assert instruments.read(tmp_path).seen_bytes.tolist() == [10, 20]
    for _ in range(2):
        table = instruments.run(tmp_path, repeats=2, progress=False)
        assert table.seen_bytes.tolist() == [10, 20, 11, 21]
    assert put[3:] == [(10, 1), (20, 1)], "each question once, and none anew"
    assert [path.name for path in tmp_path.iterdir()] == ["instruments.csv"]
    assert "10,0,0,10,\n" in (tmp_path / "instruments.csv").read_text(), "whole bytes on disk"


def test_two_never_write_into_one_folder(tmp_path, put):
    with files.alone(tmp_path), pytest.raises(Error, match="another run is writing"):
        instruments.run(tmp_path, progress=False)


def test_nothing_to_read(tmp_path):
    with pytest.raises(NotMeasured, match="the instruments were not tested"):
        instruments.read(tmp_path)


def test_tracking_that_was_not_timed_yet_is_not_measured():
    with pytest.raises(NotMeasured, match="tracking was not timed"):
        instruments.tracking_cost(pd.DataFrame(columns=instruments.COLUMNS))
