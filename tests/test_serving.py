"""A server tried: what grows is seen, what is wrong is caught, what is killed is a row, what is there is kept."""

from itertools import product

import nbformat
import numpy as np
import pandas as pd
import pytest
from own_variants import LEAK, own
from test_publish import COSTS, fabricate

from udnet import NotMeasured
from udnet.experiments import serving
from udnet.experiments.serving import EACH, LOCK, ONE, ORDERS
from udnet.pages import notebooks, publish
from udnet.system.memory import MIB

SIZES = [(24, 40), (16, 16), (40, 24), (32, 32)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(serving, "SETTLE_SECONDS", 0)


def run(folder, *grid, repeats=1, **options):
    return serving.run(folder, repeats, grid, SIZES, progress=False, **options)


# What is asked for


def test_a_visitor_s_pictures():
    sizes = serving.uploads()
    sides = [side for size in sizes for side in size]
    assert len(sizes) == 20 and sizes == serving.uploads() != serving.uploads(seed=1)
    assert 128 <= min(sides) < 150 and 800 < max(sides) <= 900
    assert {"landscape", "portrait"} == {"landscape" if w > h else "portrait" for h, w in sizes if h != w}
    assert any(side % 8 for side in sides)


def test_the_same_pictures_in_three_orders():
    mixed, growing, falling = (serving.requests(order, SIZES) for order in ("mixed", "growing", "falling"))
    assert mixed == [(24, 40, 0), (16, 16, 1), (40, 24, 2), (32, 32, 3)]
    assert growing == [(16, 16, 1), (24, 40, 0), (40, 24, 2), (32, 32, 3)]
    assert falling == [(32, 32, 3), (24, 40, 0), (40, 24, 2), (16, 16, 1)]
    same = serving.requests("same", SIZES)
    assert {one[:2] for one in same} == {serving.SAME} and len({picture for *_, picture in same}) == len(same)


def test_the_grid_tells_each_variant_what_is_right():
    """By a trial of its own that has no other request at once, for the same pictures."""
    alone = {(order, name) for order, at_once, way, name in serving.GRID if at_once == 1 and way == ONE}
    assert {(order, name) for order, _, _, name in serving.GRID} == alone
    assert len(set(serving.GRID)) == len(serving.GRID)


# What is measured


def test_what_is_kept_of_every_picture_is_seen_to_grow(tmp_path):
    served = run(tmp_path, *(("mixed", 1, ONE, own(name)) for name in ("LEAKS", "SAME")))
    grown, steady = (served.requests[served.requests.variant == own(name)] for name in ("LEAKS", "SAME"))
    assert grown["index"].tolist() == [0, 1, 2, 3] and grown[["height", "width"]].values.tolist() == [*map(list, SIZES)]
    assert grown.resident_bytes.diff().dropna().tolist() == pytest.approx([LEAK] * 3, abs=MIB)
    assert abs(steady.resident_bytes.diff().dropna()).max() < MIB
    assert (grown.peak_bytes >= grown.resident_bytes).all() and (grown.seconds > 0).all()
    (leaky,) = served.trials[served.trials.variant == own("LEAKS")].to_dict("records")
    assert leaky["settled_bytes"] - leaky["loaded_bytes"] == pytest.approx(4 * LEAK, abs=4 * MIB), "and to stay"
    assert leaky["peak_bytes"] >= leaky["end_bytes"] and leaky["requests"] == 4
    assert leaky["pictures_bytes"] == 2 * 32 * 32 * 3 and leaky["status"] == "ok"


def test_a_session_each_is_loaded_for_every_thread(tmp_path):
    served = run(tmp_path, *(("mixed", count, way, own("HOLDS")) for count, way in ((1, ONE), (4, ONE), (4, EACH))))
    loaded = served.trials.set_index(["at_once", "way"]).loaded_bytes
    assert loaded[4, ONE] - loaded[1, ONE] == pytest.approx(0, abs=MIB)
    assert loaded[4, EACH] - loaded[4, ONE] == pytest.approx(3 * LEAK, abs=MIB)


def test_a_wrong_answer_among_several_at_once_is_caught(tmp_path):
    grid = [("same", count, way, own("MIXES_UP")) for count, way in ((1, ONE), (4, ONE), (4, EACH), (4, LOCK))]
    served = run(tmp_path, *grid)
    trials = served.trials.set_index(["at_once", "way"])
    assert trials.status[4, ONE] == "wrong"
    assert trials.error[4, ONE].endswith(": not what the variant answered alone")
    assert (trials.status.drop((4, ONE)) == "ok").all()
    wrong = served.requests[served.requests.status == "wrong"]
    assert len(wrong) and set(wrong.at_once) == {4} and set(wrong.way) == {ONE}


def test_an_answer_that_nothing_says_is_right_is_not_taken_for_right(tmp_path):
    served = run(tmp_path, ("mixed", 2, ONE, own("SAME")))
    assert served.trials.status.tolist() == ["wrong"]
    assert set(served.requests.error) == {"nothing to compare with"}


def test_a_trial_that_is_killed_is_a_row_and_keeps_what_it_had_answered(tmp_path):
    grid = [("mixed", 1, ONE, own(name)) for name in ("LEAKS_MUCH", "SAME")]
    served = run(tmp_path, *grid, limit=200 * MIB)
    trials = served.trials.set_index("variant")
    killed = trials.loc[own("LEAKS_MUCH")]
    assert killed.status == "oom" and killed.error.startswith("killed at its memory limit by the ")
    assert killed.limit_bytes == 200 * MIB and pd.isna(killed.settled_bytes) and pd.isna(killed.peak_bytes)
    assert 0 < killed.requests < 4 and killed.loaded_bytes > 0
    assert (served.requests.variant == own("LEAKS_MUCH")).sum() == killed.requests
    assert trials.status[own("SAME")] == "ok", "the others are measured"


def test_a_request_that_fails_is_a_row_and_the_others_are_answered(tmp_path):
    served = run(tmp_path, ("mixed", 1, ONE, own("FAILS_ON_WIDE")))
    rows = served.requests.set_index("index")
    assert rows.status.tolist() == ["error", "ok", "ok", "ok"]
    assert rows.error[0] == "RuntimeError: the first line" and np.isnan(rows.seconds[0]) and pd.isna(rows.answer[0])
    (trial,) = served.trials.to_dict("records")
    assert (trial["status"], trial["error"]) == ("error", "request 0: RuntimeError: the first line")


@pytest.mark.parametrize("variant", ["onnx", "pytorch", "onnx-tiled@512MiB"])
def test_threads_that_share_a_session_get_what_each_would_alone(tmp_path, variant, any_weights):
    grid = [("mixed", count, way, variant) for count, way in ((1, ONE), (4, ONE), (4, EACH), (4, LOCK))]
    served = run(tmp_path, *grid, weights=any_weights)
    assert served.trials.error.tolist() == [""] * 4
    assert served.requests.groupby(["height", "width"]).answer.nunique().tolist() == [1] * 4


# What is there is kept


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    with pytest.raises(NotMeasured, match="no server was tried"):
        serving.read(tmp_path)
    grid = [("mixed", 1, ONE, own("SAME")), ("mixed", 2, ONE, own("SAME"))]
    first = run(tmp_path, *grid)
    half = first.trials[first.trials.at_once == 1]
    half.to_csv(tmp_path / serving.TRIALS, index=False)  # stopped between its two tables
    measured = []
    measure = serving._measure
    monkeypatch.setattr(serving, "_measure", lambda job, *rest: (measured.append(job), measure(job, *rest))[1])
    again = run(tmp_path, *grid)
    assert measured == [("mixed", 2, ONE, own("SAME"), 0)]
    assert again.trials.status.tolist() == ["ok", "ok"], "what is right is remembered"
    assert len(again.requests) == len(first.requests) == 8
    run(tmp_path, *grid, repeats=2)
    assert [job[-1] for job in measured] == [0, 1, 1]


# The notebook


def test_the_notebook_has_known_answers(tmp_path):
    """`onnx` holds 100 MiB when loaded and 10 more with each request; the tiled schedule comes back to 70."""
    folder, rows, trials = fabricate(tmp_path / "study", COSTS).folder, [], []
    jobs = [
        *product(ORDERS, [1], [ONE]),
        ("same", 1, ONE),
        *product(["same"], [8], [ONE, EACH, LOCK]),
        ("mixed", 4, ONE),
    ]
    for (order, at_once, way), name in product(jobs, ("onnx", "onnx-tiled@512MiB")):
        about = dict(zip(serving.JOB, (order, at_once, way, name, 0), strict=True))
        loaded, step, peak = (100, 10, 200) if name == "onnx" else (60, 0, 90)
        held = [loaded + (index + 1) * step if step else 70 for index in range(3)]
        for index, now in enumerate(held):
            size = {"height": 64, "width": 32 * (index + 1), "picture": index, "seconds": index + 1}
            rows.append(about | size | {"index": index, "resident_bytes": now * MIB, "answer": index, "status": "ok"})
        peak *= 8 if way == EACH else 1
        ends = {"loaded_bytes": loaded, "end_bytes": held[-1], "settled_bytes": held[-1], "peak_bytes": peak}
        ends = {key: value * MIB for key, value in ends.items()} | {"limit_bytes": 2**33, "pictures_bytes": 2 * MIB}
        trials.append(about | ends | {"threads": 2, "requests": 3, "settle_seconds": 2, "seconds": 6, "status": "ok"})
    pd.DataFrame(rows, columns=serving.COLUMNS).to_csv(folder / serving.REQUESTS, index=False)
    pd.DataFrame(trials, columns=serving.TRIAL_COLUMNS).to_csv(folder / serving.TRIALS, index=False)

    path = publish.NOTEBOOKS / "09-server.ipynb"
    figures = tmp_path / "figures"
    given = {"study": str(folder), "live": False, "figures": str(figures)}
    assert notebooks.execute([path], tmp_path / "out", given) == []
    cells = nbformat.read(tmp_path / "out" / path.name, 4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    said = " ".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert "`onnx` still holds up to 30 MiB more than when it was loaded, 2 s after" in said
    assert "one session 200 MiB and 30 a minute; a session each 1,600 MiB" in said
    assert "`onnx-tiled@512MiB` has no peak above 90 MiB" in said
    assert "792 MiB for `onnx-tiled@512MiB`, 1,760 MiB for `onnx`" in said, "8 times 90 and 200, and a tenth"
    assert f"{len(rows)} of {len(rows)} answers" in said
    assert {one.stem for one in figures.glob("*.svg")} == {"staircase", "at-once", "waiting"}
    assert said.count("Left out here") == 2, "what is measured live, and heaps of threads"
