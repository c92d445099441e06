"""Workers of a cluster: pictures there and back, a study a machine, and what is lost when something ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from own_variants import own
from picture_files import gradient, names

from udnet import Error
from udnet.__main__ import main
from udnet.experiments import engine
from udnet.pictures import folders, scenes
from udnet.pictures.photographs import Picture, read, write
from udnet.system import files, guard
from udnet.system.memory import MIB
from udnet.trials import tables
from udnet.trials.grid import Grid
from udnet.trials.trial import Trial

distributed = pytest.importorskip("distributed", reason="no dask.distributed: make extras")

from udnet.cluster import pictures, studies, workers  # noqa: E402

BY = "a variant", "its weights"
COUNT = 6


@pytest.fixture
def album(tmp_path):
    for place in range(COUNT):
        write(Picture(gradient(40 + place, 56)), tmp_path / "in" / f"{place}.png")
    return tmp_path / "in"


def enhance(client, enhancing, album, **about):
    """Enhance an album beside it on the workers of a cluster."""
    return folders.enhance_path(
        pictures.on(client, enhancing), album, album.parent / "out", BY, progress=False, **about
    )


# --- what needs no cluster ---


def test_as_many_workers_as_memory_and_cores_carry(monkeypatch):
    monkeypatch.setattr(workers, "ENGINE", 100 * MIB)
    monkeypatch.setattr(workers, "WORKER", 200 * MIB)
    assert workers.shares(4, 10_000 * MIB) == (4, 1)
    assert workers.shares(4, 510 * MIB) == (2, 2)
    assert workers.shares(3, 510 * MIB) == (2, 1)
    assert workers.shares(8, 300 * MIB) == (1, 8)
    assert workers.share(500 * MIB, 2) == 200 * MIB
    with pytest.raises(Error, match="299 MiB carry no worker: give 300 MiB or more"):
        workers.shares(8, 299 * MIB)


def test_files_of_a_grid_are_named_by_where_they_lie_there(tmp_path):
    weights = tmp_path / "w.pth"
    weights.touch()
    one = Trial("onnx", 64, 64, 2, weights=str(weights))
    grid = Grid("a grid", [one, Trial("onnx", 64, 64, 2, weights="default")], 0)
    assert studies._files(grid) == {str(weights)} == studies._files(str(weights))
    there = studies._moved(grid, {str(weights): "there/w.pth"})
    assert [one.weights for one in there.trials] == ["there/w.pth", "default"]
    assert there.trials[0].name == one.name


def test_a_scheduler_that_is_lost_at_the_end_fails_nothing():
    class Lost:
        def cancel(self, _):
            raise ConnectionResetError(104, "Connection reset by peer")

    pictures._end(Lost(), pictures.Enhancing)


def test_a_scheduler_that_is_lost_at_the_start_is_told():
    class Lost:
        def run(self, *_, **__):
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(Error, match="the scheduler is gone: start one"):
        pictures._is_taken(Lost())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://", "ftp://127.0.0.1:1"])
def test_where_no_scheduler_is(address, monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.2)
    with pytest.raises(Error, match="no scheduler answers at"), workers.connected(address):
        pytest.fail("connected")


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.5)
    about = {"n_workers": 0, "processes": False, "protocol": "tcp://", "dashboard_address": None}
    with distributed.LocalCluster(**about) as empty:
        match = "has no worker: start one there: dask worker"
        with pytest.raises(Error, match=match), workers.connected(empty.scheduler_address):
            pytest.fail("connected")


# --- two workers of this machine ---


@pytest.fixture(scope="module")
def cluster():
    about = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
    before = dict(os.environ)
    with distributed.LocalCluster(**about, silence_logs=50) as started:
        yield started
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


@pytest.fixture
def client(cluster):
    with workers.connected(cluster.scheduler_address) as connected:
        yield connected


@pytest.mark.slow
def test_pictures_come_back_as_one_process_makes_them(client, album, tmp_path):
    from udnet.variants import enhancer

    (album / "0.png").rename(album / "a picture.jpeg")  # in another format than its name says: kinds of its own
    (album / "broken.png").write_bytes((album / "1.png").read_bytes()[:90])
    outcome = enhance(client, pictures.Enhancing(None, "default", 512 * MIB), album)
    assert outcome[:2] == (COUNT, 0) and [path.name for path, _ in outcome.failures] == ["broken.png"]
    assert str(tmp_path) in outcome.failures[0][1]
    alone = folders.one_by_one(enhancer.load("onnx-tiled", "default", 1))  # by another plan: its sums round otherwise
    folders.enhance_path(alone, album, tmp_path / "alone", BY, progress=False)
    assert names(tmp_path / "out") == names(tmp_path / "alone") and len(names(tmp_path / "out")) == COUNT
    for name in names(tmp_path / "out"):
        there, here = (read(tmp_path / folder / name).pixels.astype(int) for folder in ("out", "alone"))
        assert np.abs(there - here).max() <= 1
    again = enhance(client, pictures.Enhancing(None, "default", 512 * MIB), album)
    assert again[:2] == (0, COUNT) and len(again.failures) == 1


@pytest.mark.slow
def test_what_the_engine_costs_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "WAYS", ((0, 1), (2, 1)))
    table = engine.run(tmp_path, repeats=1, size=(64, 96), pictures=5, progress=False)
    assert [*zip(table.variant, table.workers, strict=True)] == [
        (name, count) for count in (0, 2) for name in (engine.TILED, engine.TILED, engine.NOTHING)
    ]
    assert (table.pictures == 5).all() and (table.seconds > 0).all() and (table.own_seconds > 0).all()
    drawn = [len(one.read_bytes()) for one in drawn_pictures(tmp_path / "drawn")]
    nothing = table[table.variant == engine.NOTHING]
    assert (nothing.picture_bytes > np.mean(drawn)).all() and (nothing.picture_bytes < 3 * np.mean(drawn)).all()
    one, two = (nothing.peak_bytes[nothing.workers == count].item() for count in (0, 2))
    assert two > one + 2 * 50 * MIB, "those of the workers are in it"
    assert len(engine.run(tmp_path, repeats=1, size=(64, 96), pictures=5, progress=False)) == len(table)


def drawn_pictures(folder):
    for seed in range(5):
        write(Picture(scenes.draw(seed, 64, 96).picture), folder / f"{seed}.jpg")
    return folder.iterdir()


@pytest.mark.slow
def test_a_limit_that_is_too_small_is_one_line_a_picture(client, album, capfd):
    outcome = enhance(client, pictures.Enhancing(None, "default", 40 * MIB), album)
    assert outcome.done == 0 and len(outcome.failures) == COUNT
    assert all("raise the memory limit" in said for _, said in outcome.failures)


@pytest.mark.slow
def test_local_workers_keep_to_their_limit_under_the_kernel(tmp_path):
    """Where the kernel kills what goes over: each worker has as much as its share, this process what is left."""
    limit = 800 * MIB
    group = guard.ControlGroup.make(limit)
    if group is None:
        pytest.skip("this process may not make a memory control group")
    for seed in range(4):
        write(Picture(scenes.draw(seed, 720, 1280).picture), tmp_path / "in" / f"{seed}.jpg")
    about = ["--cluster", "local", "--memory-limit", "800MiB", "--threads", "2", "--weights", "default"]
    command = [sys.executable, "-m", "udnet", "enhance", str(tmp_path / "in"), str(tmp_path / "out"), *about]
    try:
        ended = subprocess.run(group.command(command), cwd=REPO, capture_output=True, text=True)
        assert (ended.returncode, group.killed) == (0, False), ended.stderr
    finally:
        group.close()
    assert "4 enhanced, 0 kept, 0 failed" in ended.stdout


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(client, album, tmp_path):
    before = set(client.run(os.getpid).values())
    enhancing = pictures.Enhancing(own("SLOW"), "default")

    def each(pairs):
        for place, outcome in enumerate(pictures.on(client, enhancing)(pairs)):
            if place == 0:
                os.kill(min(before), signal.SIGKILL)
            yield outcome

    outcome = folders.enhance_path(each, album, tmp_path / "out", BY, progress=False)
    assert outcome == (COUNT, 0, [], 0)
    assert len(names(tmp_path / "out")) == COUNT


@pytest.mark.slow
def test_a_picture_that_kills_its_workers_is_one_line(client, album, tmp_path):
    write(Picture(np.full((32, 32, 3), 255, np.uint8)), album / "white.png")
    outcome = enhance(client, pictures.Enhancing(own("DIES_OF_WHITE"), "default"), album)
    assert outcome.done == COUNT
    ((path, said),) = outcome.failures
    assert path == album / "white.png" and said.startswith(f"{path}: cannot be enhanced: every worker")


@pytest.mark.slow
def test_workers_of_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(workers, "__version__", "0")
    with pytest.raises(Error, match="install udnet 0 there"), workers.connected(cluster.scheduler_address):
        pytest.fail("connected")


@pytest.mark.slow
def test_another_run_on_the_same_workers_is_refused(client, cluster, album, tmp_path, capfd):
    def each(pairs):
        for place, outcome in enumerate(pictures.on(client, pictures.Enhancing(own("SAME"), "default"))(pairs)):
            if place == 0:
                with workers.connected(cluster.scheduler_address) as other:
                    second = pictures.on(other, pictures.Enhancing(own("SAME"), "default"))
                    refused = folders.enhance_path(second, album, tmp_path / "second", BY, progress=False)
                    assert (refused.done, refused.missing) == (0, COUNT)
            yield outcome

    assert folders.enhance_path(each, album, tmp_path / "out", BY, progress=False) == (COUNT, 0, [], 0)
    assert "udnet: the workers enhance for another run meanwhile: wait for that one\n" in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_the_workers_to_the_next(client, cluster, album):
    with workers.connected(cluster.scheduler_address) as other:
        killed = pictures.Enhancing(own("SAME"), "default")
        pictures._begin(other, killed)
    assert enhance(client, pictures.Enhancing(own("SAME"), "default"), album) == (COUNT, 0, [], 0)


# --- processes of their own ---


@contextmanager
def running(*arguments, words="", before=()):
    """A program of dask's while it runs, once it has said some words."""
    command = [*before, sys.executable, "-m", "dask", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            for line in process.stderr:
                if words in line:
                    break
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process
        finally:
            with_group(process, signal.SIGKILL)


def with_group(process, number):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def scheduler(address):
    about = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]
    return running("scheduler", *about, words="Scheduler at")


def worker(address, *about, before=()):
    about = ["--nthreads", "1", "--no-dashboard", *about]
    return running("worker", address, *about, words="Registered to", before=before)


@pytest.mark.slow
def test_a_picture_too_large_for_one_worker_goes_to_another(tmp_path, address):
    for place in range(COUNT):
        write(Picture(gradient(480, 640 + place)), tmp_path / "in" / f"{place}.png")
    little, much = (["--memory-limit", size] for size in ("210MiB", "2GiB"))
    with scheduler(address), worker(address, *little), worker(address, *much), workers.connected(address) as client:
        client.wait_for_workers(2)
        outcome = enhance(client, pictures.Enhancing(None, "default"), tmp_path / "in")
    assert outcome == (COUNT, 0, [], 0)


@pytest.mark.slow
def test_a_scheduler_that_goes_away(album, tmp_path, address, capfd):
    """What was done is kept, what is missing is told, the same command goes on."""
    command = ["enhance", str(album), str(tmp_path / "out"), "--cluster", address, "--variant", own("SLOW")]
    with scheduler(address) as first, worker(address):
        ended = threading.Thread(target=lambda: (_wait_for(tmp_path / "out", 2), with_group(first, signal.SIGKILL)))
        ended.start()
        assert main(command) == 1
        ended.join()
    kept = len(names(tmp_path / "out"))
    assert 2 <= kept < COUNT
    said = capfd.readouterr()
    assert f"{COUNT - kept} of {COUNT} missing, the rest is in {tmp_path / 'out'}: the same command goes on" in said.err
    assert f"{kept} enhanced, 0 kept, 0 failed, {COUNT - kept} missing; " in said.out
    assert "the scheduler is gone" in said.err and said.err.count("udnet: ") == 2 and "Traceback" not in said.err
    with scheduler(address), worker(address):
        assert main(command) == 0
    assert f"{COUNT - kept} enhanced, {kept} kept, 0 failed" in capfd.readouterr().out


def _wait_for(folder, count):
    while not folder.exists() or len(names(folder)) < count:
        time.sleep(0.02)


GRID = """
seed = 1
[[trials]]
variants = ["{variant}"]
sizes = ["64x64", "72x64"]
threads = [1]
repeats = 2
runs = 1
"""


OF_DASK = {"MALLOC_TRIM_THRESHOLD_", "OPENBLAS_NUM_THREADS"}  # that a cluster of another test may have left
PROGRAM = """
import os, sys
from udnet.__main__ import main
from udnet.cluster import workers
workers.WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", workers.WAIT_SECONDS))
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def study(tmp_path, variant, *arguments, **environment):
    """Run a small study by the command, in a process of its own."""
    (tmp_path / "grid.toml").write_text(GRID.format(variant=variant))
    (tmp_path / "program.py").write_text(PROGRAM)
    environment["PYTHONPATH"] = files.python_path()
    started = {name: value for name, value in os.environ.items() if name not in OF_DASK}
    command = [sys.executable, tmp_path / "program.py", "study", "--grid", tmp_path / "grid.toml", *arguments]
    return subprocess.run(command, cwd=REPO, env=started | environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_trial_has_the_environment_that_it_has_without_a_cluster(tmp_path):
    """Dask sets allocator thresholds and numbers of threads for what its workers start."""
    told = {}
    for name, *cluster in (("alone",), ("there", "--cluster", "local")):
        path = tmp_path / f"{name}.json"
        ended = study(tmp_path, own("TELLS"), "--out", tmp_path / name, *cluster, TELL=str(path), MKL_NUM_THREADS="7")
        assert ended.returncode == 0, ended.stderr
        told[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "TELL"}
    folders = [one.pop("TORCHINDUCTOR_CACHE_DIR") for one in told.values()]
    assert len(set(folders)) == 2  # each trial's own
    assert told["there"] == told["alone"]
    assert told["alone"]["OMP_NUM_THREADS"] == "1" and "MALLOC_TRIM_THRESHOLD_" not in told["alone"]
    (machine,) = (tmp_path / "there").iterdir()
    assert machine.name == socket.gethostname()
    both = [tables.read(folder).trials for folder in (tmp_path / "alone", machine)]
    assert list(both[0].trial) == list(both[1].trial) and both[1].status.eq("ok").all()


def other_host():
    """What starts a program under another name of the machine; the test skips where the system does not let us."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    before = ["unshare", "--uts", "sh", "-c", 'hostname another && exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("another host name takes rights that this system does not give")
    return before


@pytest.mark.slow
def test_a_study_a_machine(tmp_path, address, any_weights):
    """Two machines, of which one loses its worker for good: the other's study is whole, the same command goes on."""
    other, here = other_host(), socket.gethostname()
    arguments = ["--out", tmp_path / "out", "--cluster", address, *(["--weights", any_weights] if any_weights else [])]

    def trials():
        studies = {path.name: tables.read(path) for path in (tmp_path / "out").iterdir()}
        assert all((one.parity.largest_difference <= 1e-5).all() for one in studies.values())
        return {name: len(set(one.trials.trial[one.trials.status == "ok"])) for name, one in studies.items()}

    with scheduler(address), worker(address):
        with worker(address, before=other) as lost:
            ending = threading.Thread(target=_end_after, args=(lost, tmp_path / "out" / "another" / "trials.csv"))
            ending.start()
            ended = study(tmp_path, "onnx", *arguments, WAIT_SECONDS="3")
            ending.join()
        assert ended.returncode == 1 and "no worker of another is left: start one; the same command" in ended.stderr
        before = trials()
        assert before[here] == 4 and 0 < before["another"] < 4
        with worker(address, before=other):
            assert study(tmp_path, "onnx", *arguments).returncode == 0
    assert trials() == {here: 4, "another": 4}


def _end_after(process, path):
    while not path.exists() or pd.read_csv(path).empty:
        time.sleep(0.02)
    with_group(process, signal.SIGKILL)
