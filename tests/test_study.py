"""A grid of trials to tables: order, resuming after every kind of end, refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, heed_signals, soon
from onnx import TensorProto
from onnx_models import identity, words
from own_variants import own

from udnet import Error
from udnet.system import files, guard
from udnet.system.memory import MIB
from udnet.trials import grid as grids
from udnet.trials import study, tables, trial
from udnet.trials.trial import PHASES
from udnet.variants import catalogue

with_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def block(*names, sizes=("64x64",), threads=(1,), repeats=1, runs=1, more=""):
    names, sizes = json.dumps([own(name) for name in names]), json.dumps(sizes)
    return (
        f"[[trials]]\nvariants = {names}\nsizes = {sizes}\nthreads = {json.dumps(threads)}\n"
        f"repeats = {repeats}\nruns = {runs}\n{more}\n"
    )


@pytest.fixture
def grid(tmp_path):
    """Write a grid of blocks to a file."""

    def write(*blocks, head="seed = 1", name="tiny"):
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join([head, *blocks]))
        return path

    return write


def read_whole(folder):
    """The study in a folder: its tables parse, every trial is there once and whole, and nothing else is there."""
    done = tables.read(folder)
    phases = done.trials.groupby("trial").phase.apply(tuple)
    assert set(phases) <= {PHASES}
    names = {"machine.json", "trials.csv", "parity.csv", "timelines.csv", "stages.csv"}
    assert {path.name for path in folder.iterdir()} <= names
    return done


# Grids


def test_published_grids_are_grids():
    for path in sorted(grids.GRIDS.glob("*.toml")):
        grid = grids.read_grid(path.stem)
        assert len(grid.trials) == len({one.name for one in grid.trials}) >= 5
        assert all(catalogue.find(one.variant) for one in grid.trials)


def test_a_grid_is_every_combination(grid):
    path = grid(
        block("SAME", "SPIKES", sizes=["64x64", "8x16"], threads=[1, 2], repeats=3, runs=2),
        block("STAGED", more="timeline = true"),
        head="about = 'words'\nseed = 5\ntimeout_seconds = 7",
    )
    read = grids.read_grid(path)
    assert (read.name, read.seed, read.timeout_seconds, len(read.trials)) == ("tiny", 5, 7, 25)
    assert trial.Trial(own("SPIKES"), 8, 16, 2, 2, 2) in read.trials
    assert trial.Trial(own("STAGED"), 64, 64, 1, 0, 1, timeline=True) in read.trials


def test_trials_are_interleaved_round_by_round(grid):
    listed = block("SAME", "SPIKES", sizes=["64x64", "8x16", "16x8"], threads=[1, 2], repeats=3)
    orders = [grids.read_grid(grid(listed, head=f"seed = {seed}")).trials for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    rounds = [orders[0][start : start + 12] for start in (0, 12, 24)]
    assert [{one.repeat for one in each} for each in rounds] == [{0}, {1}, {2}]
    shuffled = [[replace(one, repeat=0) for one in each] for each in rounds]
    assert shuffled[0] != shuffled[1], "each round in an order of its own"
    assert {*shuffled[0]} == {*shuffled[1]} == {*shuffled[2]}
    named = [one.variant for one in rounds[0]]
    assert named != sorted(named) and named != sorted(named, reverse=True)


GOOD = f"[[trials]]\nvariants = ['{own('SAME')}']\nsizes = ['64x64']\nthreads = [1]\nrepeats = 1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = ", "Invalid value"),
        ("\xff", "decode"),
        (GOOD, "no 'seed'"),
        ("seed = 1", "no 'trials'"),
        ("seed = 'x'\n" + GOOD, "invalid literal for int"),
        ("seed = 1\nseeds = 2\n" + GOOD, "unknown 'seeds'"),
        ("seed = 1\n" + GOOD + "size = 3", "unknown 'size'"),
        ("seed = 1\n" + GOOD.replace("repeats = 1", ""), "no 'repeats'"),
        ("seed = 1\n" + GOOD.replace("[[trials]]", "[trials]"), "[[trials]]"),
        ("seed = 1\ntrials = 3", "not iterable"),
        ("seed = 1\n" + GOOD.replace("[1]", "1"), "threads = 1 is not a list"),
        ("seed = 1\n" + GOOD.replace("['64x64']", "'64x64'"), "sizes = '64x64' is not a list"),
        ("seed = 1\n" + GOOD.replace("'64x64'", "64"), "no size '64'"),
        ("seed = 1\n" + GOOD.replace("64x64", "64x"), "no size '64x'"),
        ("seed = 1\n" + GOOD.replace("[1]", "['2']"), "'2' in threads is not a whole number"),
        ("seed = 1\n" + GOOD.replace("[1]", "[100000]"), "no number of threads: 100000"),
        ("seed = 1\n" + GOOD.replace("[1]", "[0]"), "0 in threads is not a whole number"),
        ("seed = 1\n" + GOOD.replace("repeats = 1", "repeats = 1.5"), "1.5 in repeats is not a whole number"),
        ("seed = 1\n" + GOOD + "runs = -1", "-1 in runs is not a whole number from 0"),
        ("seed = 1\n" + GOOD + "weights = 'x.pth'", "weights = 'x.pth' is not a list"),
        ("seed = 1\n" + GOOD + "weights = ['absent.pth']", "absent.pth: there is no such file"),
        ("seed = 1\n" + GOOD.replace("SAME", "NOTHING"), "gives no variant 'NOTHING'"),
        ("seed = 1\n" + GOOD.replace(own("SAME"), "torch"), "no variant 'torch'"),
        ("seed = 1\n" + GOOD + GOOD, "asks twice for own_variants.py:SAME/64x64/t1/r0"),
        (
            "seed = 1\n" + GOOD + "weights = ['a/w.pth', 'b/w.pth']",
            "two files of one name, a/w.pth and b/w.pth: rename",
        ),
    ],
)
def test_what_is_no_grid_is_one_line(tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Error) as caught:
        study.run(path, tmp_path / "out", progress=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["absent", "absent.toml", "."])
def test_no_such_grid(name, tmp_path):
    with pytest.raises(Error, match="no grid") as caught:
        study.run(name, tmp_path / "out")
    assert "quick" in str(caught.value)
    assert not (tmp_path / "out").exists()


# Tables


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small study with a timeline, finished."""
    folder = tmp_path_factory.mktemp("study")
    path = folder / "small.toml"
    first = block("SAME", "SPIKES", sizes=["64x64", "8x24"], repeats=2)
    path.write_text(f"seed = 1\n{first}{block('STAGED', more='timeline = true')}")
    return study.run(path, folder / "out", progress=False)


def test_every_trial_of_the_grid_is_there(done):
    assert done.finished
    assert read_whole(done.folder).trials.trial.nunique() == 9
    assert (done.trials.status == "ok").all()
    assert (done.trials.study == "small").all()
    assert set(done.trials.variant) == {"same", "spikes", "staged"}, "own variants by their own names"
    assert list(done.trials.columns) == list(tables.COLUMNS)
    ordered = done.trials.groupby("trial", sort=False).first()
    assert list(ordered.index) == [one.name for one in grids.read_grid(done.folder.parent / "small.toml").trials]


def test_bytes_on_disk_are_whole_numbers(done):
    raw = pd.read_csv(done.folder / "trials.csv", dtype=str, keep_default_na=False)
    for name in raw.columns[raw.columns.str.endswith("_bytes")]:
        may_be_empty = name == "sampled_peak_bytes"
        assert raw[name].map(lambda text, empty=may_be_empty: bool(re.fullmatch(r"\d+", text)) or empty).all(), name
    text = (done.folder / "trials.csv").read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"\n")


def test_timelines_have_trials_of_their_own(done):
    sampled = done.trials.trial.str.endswith("/timeline")
    assert done.trials[sampled].seconds.isna().all()
    assert done.trials[~sampled].seconds.gt(0).all()
    assert done.trials[~sampled].sampled_peak_bytes.isna().all()
    assert done.timelines.trial.unique().tolist() == done.trials[sampled].trial.unique().tolist()
    assert done.stages.stage.tolist() == ["before", "spike"] * 2


def test_what_the_study_ran_on(done):
    machine = done.machine
    assert machine["trials"] == 9
    assert machine["cores"] > 0
    assert machine["memory_bytes"] > 10 * MIB
    assert {"torch", "onnxruntime", "numpy"} <= machine["packages"].keys()
    for name in ("processor", "kernel", "allocator", "huge_pages", "python", "commit", "date", "guard", "weights"):
        assert machine[name]


def test_what_is_there_is_kept(done):
    before = {path: path.read_bytes() for path in done.folder.iterdir()}
    again = study.run(done.folder.parent / "small.toml", done.folder, progress=False)
    assert {path: path.read_bytes() for path in done.folder.iterdir()} == before
    pd.testing.assert_frame_equal(again.trials, done.trials)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(Error, match=r"no study in .*absent: run `udnet study --out"):
        tables.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("machine.json", lambda text: text[:-20]),
        ("trials.csv", lambda text: text[:-20]),
        ("trials.csv", lambda text: re.sub(r"\d{7,}", "many", text, count=1)),
        ("trials.csv", lambda text: text.partition("\n")[2]),
        ("stages.csv", lambda text: ""),
    ],
)
def test_a_damaged_study_is_one_line(done, tmp_path, name, spoil):
    folder = shutil.copytree(done.folder, tmp_path / "study")
    (folder / name).write_text(spoil((folder / name).read_text()))
    with pytest.raises(Error, match=rf"{name}: damaged \(\w+\): put it back"):
        tables.read(folder)


def test_a_study_that_has_lost_its_trials_or_its_machine_is_one_line(done, tmp_path):
    folder = shutil.copytree(done.folder, tmp_path / "study")
    (folder / "trials.csv").unlink()
    for read in (tables.read, lambda folder: study.run(done.folder.parent / "small.toml", folder, progress=False)):
        with pytest.raises(Error, match=r"trials\.csv: is missing: put it back, or remove its folder"):
            read(folder)
    shutil.copy(done.folder / "trials.csv", folder)
    (folder / "machine.json").unlink()
    with pytest.raises(Error, match=r"machine\.json: is missing: put it back, or remove its folder"):
        study.run(done.folder.parent / "small.toml", folder, progress=False)
    assert not (folder / "machine.json").exists()


def test_a_study_that_has_just_begun_can_be_read(grid, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(study, "_check_parity", lambda *_: seen.append(tables.read(tmp_path / "out")))
    study.run(grid(block("SAME")), tmp_path / "out", progress=False)
    assert seen[0].trials.empty and seen[0].counted == "0 of 1 trials"
    assert tables.read(tmp_path / "out").counted == "1 trials"


@pytest.mark.parametrize(
    "text", ["", "name,a_bytes\nx,1", "name\nx\n", "name,a_bytes\nx,many\n", "name,a_bytes\nx,1\nx,1,2\n"]
)
def test_a_damaged_table_is_one_line(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text("name,a_bytes\nx,1\n")
    assert tables.read_table(path, ["name", "a_bytes"]).to_dict("list") == {"name": ["x"], "a_bytes": [1]}
    path.write_text(text)
    with pytest.raises(Error, match=r"table\.csv: damaged \(\w+\): put it back, or remove it, and it is made again$"):
        tables.read_table(path, ["name", "a_bytes"])


# Going on


def forget_trials(out):
    """Leave of the trials' table its header."""
    files.write_csv(out / "trials.csv", tables.typed(pd.DataFrame()))


def start(path, out):
    """The command, as a user runs it; what it prints is kept."""
    command = [sys.executable, "-m", "udnet", "study", "--grid", str(path), "--out", str(out)]
    # where a killed one leaves its trial's folder, and what WAITS waits for
    here = os.environ | {"TMPDIR": str(path.parent), "WAIT_WHILE": str(path.parent / "wait")}
    return subprocess.Popen(command, cwd=REPO, env=here, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def wait_for_trials(out, count):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (out / "trials.csv").exists() and pd.read_csv(out / "trials.csv").trial.nunique() >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"no {count} trials within a minute")


@with_signals
@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_goes_on_after(name, code, grid, tmp_path):
    path = grid(block("SAME", "STAGED", repeats=2), block("STAGED", "WAITS", more="timeline = true"))
    out, wait = tmp_path / "out", tmp_path / "wait"
    wait.touch()  # or a slow machine would have finished before the signal comes
    before = [one.variant for one in grids.read_grid(path).trials].index(own("WAITS"))  # trials that end by themselves
    with start(path, out) as command:
        wait_for_trials(out, before)
        assert soon(lambda: list(tmp_path.glob("udnet-*"))), "the folder of the one that waits"
        command.send_signal(getattr(signal, name))
        said = command.stderr.read()
    assert command.returncode == code, said
    assert len(list(tmp_path.glob("udnet-*"))) == (name == "SIGKILL"), "the trial's folder"
    if name == "SIGINT":
        assert said.splitlines()[-1] == "udnet: stopped; what was finished is kept"
    before = tables.read(out).trials
    assert 2 <= before.trial.nunique() < 4
    wait.unlink()
    part = files._name().replace(str(os.getpid()), str(command.pid))
    (out / f".{part}.csv").write_text("study,tri")  # what was being written at that moment
    with start(path, out) as command:
        command.stderr.read()
    assert command.returncode == 0
    assert list(tmp_path.glob("udnet-*")) == []
    after = read_whole(out)
    assert after.finished
    assert after.trials.trial.nunique() == 6
    pd.testing.assert_frame_equal(after.trials.head(len(before)), before)


def test_a_trial_stopped_between_its_tables_is_run_again(grid, tmp_path):
    path, out = grid(block("STAGED", more="timeline = true")), tmp_path / "out"
    study.run(path, out, progress=False)
    forget_trials(out)  # they are written last
    again = study.run(path, out, progress=False)
    assert again.timelines.seconds.is_monotonic_increasing, "one timeline, not two"
    assert len(again.stages) == 4


def test_a_study_names_the_code_of_all_its_trials(grid, tmp_path, monkeypatch):
    path, out = grid(block("SAME", repeats=2)), tmp_path / "out"
    for commit in ("1111111111", "2222222222"):
        monkeypatch.setattr(study.machine, "commit", lambda commit=commit: commit)
        study.run(path, out, progress=False)
        assert tables.read(out).machine["commit"] == "1111111111", "the second found nothing to do"
    trials = pd.read_csv(out / "trials.csv")
    trials[trials.trial != trials.trial.iloc[-1]].to_csv(out / "trials.csv", index=False)
    study.run(path, out, progress=False)
    assert tables.read(out).machine["commit"] == "1111111111, 2222222222"


# Refusals


def test_another_grid_is_refused(done, grid):
    before = {path: path.read_bytes() for path in done.folder.iterdir()}
    with pytest.raises(Error, match="holds a study of another grid"):
        study.run(grid(block("SAME")), done.folder, progress=False)
    assert {path: path.read_bytes() for path in done.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("processor", "abacus", "another processor"),
        ("memory_bytes", 640_000, "another memory"),
        ("packages", {}, "other packages"),
        ("huge_pages", "none", "other huge pages"),
    ],
)
def test_another_machine_is_refused(done, tmp_path, key, value, said):
    out = tmp_path / "out"
    out.mkdir()
    machine = done.machine | {key: value}
    (out / "machine.json").write_text(json.dumps(machine))
    with pytest.raises(Error, match=f"of {said}: give another"):
        study.run(done.folder.parent / "small.toml", out, progress=False)
    assert [path.name for path in out.iterdir()] == ["machine.json"]


def test_memory_that_a_restart_has_moved_is_the_same_machine(done, tmp_path):
    out = shutil.copytree(done.folder, tmp_path / "out")
    for moved, same in ((4096, True), (-(done.machine["memory_bytes"] // 50), False)):
        machine = done.machine | {"memory_bytes": done.machine["memory_bytes"] + moved}
        (out / "machine.json").write_text(json.dumps(machine))
        with nullcontext() if same else pytest.raises(Error, match="another memory"):
            study.run(done.folder.parent / "small.toml", out, progress=False)


def test_two_studies_never_write_into_one_folder(done):
    with files.alone(done.folder), pytest.raises(Error, match="another run is writing"):
        study.run(done.folder.parent / "small.toml", done.folder, progress=False)
    study.run(done.folder.parent / "small.toml", done.folder, progress=False)  # and is free again


def test_a_folder_that_cannot_be_made(grid, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Error, match="cannot write into the folder"):
        study.run(grid(block("SAME")), tmp_path / "file", progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_weights_that_are_not_there(grid, tmp_path):
    with pytest.raises(Error, match=r"absent\.pth"):
        study.run(grid(block("SAME")), tmp_path / "out", weights="absent.pth", progress=False)
    assert not (tmp_path / "out").exists()


# Failures are rows


def statuses(done):
    last = done.trials.groupby("trial", sort=False).last()
    return dict(zip(last.index, zip(last.status, last.phase, strict=True), strict=True))


def test_out_of_memory_and_then_skipped(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "safe_limit", lambda: 200 * MIB)
    done = study.run(grid(block("HOGS", "SAME", repeats=3)), tmp_path / "out", progress=False)
    assert statuses(done) == {
        "own_variants.py:HOGS/64x64/t1/r0": ("oom", "first"),
        "own_variants.py:HOGS/64x64/t1/r1": ("skipped", ""),
        "own_variants.py:HOGS/64x64/t1/r2": ("skipped", ""),
        **{f"own_variants.py:SAME/64x64/t1/r{repeat}": ("ok", "steady") for repeat in range(3)},
    }
    skipped = done.trials[done.trials.status == "skipped"]
    assert (skipped.error == "an earlier repeat ended with oom").all()
    assert skipped.peak_bytes.isna().all()


def test_too_long_and_then_skipped(grid, tmp_path):
    path = grid(block("SLEEPS", repeats=2), head="seed = 1\ntimeout_seconds = 1")
    done = study.run(path, tmp_path / "out", progress=False)
    assert [status for status, _ in statuses(done).values()] == ["timeout", "skipped"]


def test_an_error_does_not_stop_the_others(grid, tmp_path):
    done = study.run(grid(block("FAILS", "SAME", repeats=2)), tmp_path / "out", progress=False)
    assert sorted(status for status, _ in statuses(done).values()) == ["error", "error", "ok", "ok"]


def test_outputs_are_compared_at_the_size_that_a_grid_names(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REFERENCE", own("REFERENCE"))
    done = study.run(grid(block("ALIKE"), head='seed = 1\nparity_size = "32x48"'), tmp_path / "study", progress=False)
    assert done.parity[["height", "width"]].values.tolist() == [[32, 48]]
    with pytest.raises(Error, match="no size 'big'"):
        grids.read_grid(grid(block("ALIKE"), head='seed = 1\nparity_size = "big"', name="wrong"))


def test_outputs_are_compared_at_every_size_that_a_grid_names(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REFERENCE", own("REFERENCE"))
    head = 'seed = 1\nparity_limit = 0.01\nparity_size = ["32x48", "64x64"]'
    path, out = (
        grid(block("BRIGHTER", "DARKER_WHEN_LARGE", sizes=["32x48", "64x64", "16x16"]), head=head),
        tmp_path / "x",
    )
    for _ in range(2):  # the second time from the parity table on disk
        done = study.run(path, out, progress=False)
        differences = done.parity.set_index(["variant", "height"]).largest_difference
        assert differences.to_dict() == pytest.approx(
            {
                ("brighter", 32): 1e-3,
                ("brighter", 64): 1e-3,
                ("darker-when-large", 32): 0,
                ("darker-when-large", 64): 0.1,
            },
            rel=1e-3,
        )
        ended = {name.partition(":")[2]: status for name, (status, _) in statuses(done).items()}
        assert ended == {
            **dict.fromkeys(("BRIGHTER/32x48/t1/r0", "BRIGHTER/64x64/t1/r0", "BRIGHTER/16x16/t1/r0"), "ok"),
            "DARKER_WHEN_LARGE/32x48/t1/r0": "ok",
            "DARKER_WHEN_LARGE/64x64/t1/r0": "error",
            "DARKER_WHEN_LARGE/16x16/t1/r0": "error",
        }
        forget_trials(out)


@pytest.mark.parametrize("head", ["parity_size = []", "parity_limit = 0", "parity_limit = nan"])
def test_a_grid_compares_outputs(grid, head):
    with pytest.raises(Error, match="names no parity_size, or no parity_limit above 0"):
        grids.read_grid(grid(block("ALIKE"), head=f"seed = 1\n{head}"))


def test_no_cost_without_parity(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REFERENCE", own("REFERENCE"))
    path, out = grid(block("ALIKE", "BRIGHTER", "FAILS_ON_WEIGHTS")), tmp_path / "out"
    for _ in range(2):  # the second time from the parity table on disk
        done = study.run(path, out, progress=False)
        parity = done.parity.set_index("variant")
        assert parity.largest_difference["alike"] == 0
        assert parity.largest_difference["brighter"] == pytest.approx(1e-3, rel=1e-3)
        assert np.isnan(parity.largest_difference["fails-on-weights"])
        assert statuses(done) == {
            "own_variants.py:ALIKE/64x64/t1/r0": ("ok", "steady"),
            "own_variants.py:BRIGHTER/64x64/t1/r0": ("error", ""),
            "own_variants.py:FAILS_ON_WEIGHTS/64x64/t1/r0": ("error", ""),
        }
        refused = done.trials[done.trials.status == "error"].set_index("variant")
        assert refused.peak_bytes.isna().all()
        assert refused.seconds.isna().all()
        assert "differs from" in refused.error["brighter"]
        assert "1.0e-03" in refused.error["brighter"]
        assert refused.error["fails-on-weights"] == "RuntimeError: the first line"
        forget_trials(out)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("made", "expected", "difference"),
    [
        ([[1.0, 2.0]], [[1.0, 2.5]], 0.2),  # in the scale of the values
        ([[0.1]], [[0.2]], 0.1),
        ([[1.0, NAN]], [[1.0, NAN]], 0),
        ([[INF, -INF]], [[INF, -INF]], 0),
        ([[1.0]], [[NAN]], INF),
        ([[INF]], [[-INF]], INF),
        ([[1.0], [NAN]], [[1.0], [2.0]], INF),  # in any output
        ([[1.0]], [[1.0, 2.0]], INF),
        ([["a", "b"]], [["a", "b"]], 0),
        ([["a", "b"]], [["a", "c"]], INF),
        ([np.uint8([0, 10])], [np.uint8([0, 12])], 2 / 255),
        ([], [], NAN),
    ],
)
def test_how_far_outputs_are_apart(made, expected, difference):
    made, expected = ([np.asarray(one) for one in outputs] for outputs in (made, expected))
    assert study._difference(made, expected, "m.onnx") == pytest.approx(difference, nan_ok=True)


@pytest.mark.parametrize(("kind", "status"), [("FLOAT16", "ok"), ("FLOAT", "error")])
def test_outputs_of_a_coarse_type_may_differ_by_its_steps(tmp_path, kind, status):
    class Near(study.Here):
        def difference(self, *_):
            return 3e-4, ""

    model = identity(tmp_path / "m.onnx", getattr(TensorProto, kind))
    grid = grids.Grid("a grid", [trial.Trial("onnx", 16, 16, 1, runs=1, model=str(model))], 0)
    done = study.run(grid, tmp_path / "out", progress=False, place=Near())
    assert {one for one, _ in statuses(done).values()} == {status}


def test_outputs_of_text_are_compared(tmp_path):
    model = words(tmp_path / "m.onnx")
    one = trial.Trial("onnx", 8, 8, 1, runs=0, model=str(model))
    assert study.Here().difference(one, one) == (0, "")
