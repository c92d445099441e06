"""The scratch file: the same bytes as in memory, what a plan says it takes, and whatever can go wrong with a disk."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from udnet import Error
from udnet.__main__ import main
from udnet.network import prepared
from udnet.pictures import images, reference
from udnet.system import guard
from udnet.system.memory import MIB
from udnet.tiled import plans, schedule, scratch
from udnet.trials import trial
from udnet.variants import catalogue, compared, enhancer

FAST = plans.Speed(multiply_adds=1e11, disk=1e9, room=10**12)


@pytest.fixture(scope="module")
def tiled():
    weights = prepared.find("seeded")
    loads = {"pytorch": (compared.load_pytorch_tiled, "inference"), "onnx": (compared.load_onnx_tiled, "arrays")}
    return {name: load(2, prepared.prepared(weights, form)) for name, (load, form) in loads.items()}


@pytest.fixture
def with_file(tiled, tmp_path):
    """A function that gives a runtime's network a plan with so much in memory, and so much on a file in `tmp_path`."""

    def planned(runtime, columns, rows, in_memory, level):
        def plan(height, width, beside=0):
            edges = sorted({*range(0, width, columns), width})
            strips = tuple((own, kept) for own, kept in zip(itertools.pairwise(edges), itertools.cycle(in_memory)))
            return plans.Plan(height, width, strips, rows, 2, level)

        network = tiled[runtime]
        network.plan, network.folder = plan, tmp_path
        return network

    return planned


# --- what is written is what is read ---


@pytest.mark.parametrize("runtime", ["pytorch", "onnx"])
@pytest.mark.parametrize("level", plans.LEVELS)
@pytest.mark.parametrize(
    ("height", "width", "columns", "rows"),
    [(120, 136, 64, 8), (16, 1200, 512, 16), (1032, 16, 16, 8), (88, 24, 16, 3), (48, 72, 72, 48)],
)
def test_the_same_bytes_as_from_memory(with_file, runtime, level, height, width, columns, rows):
    x = images.to_batch(reference.picture(height, width))
    expected = with_file(runtime, columns, rows, [level], plans.NOTHING)(x)
    for in_memory in ([plans.NOTHING], [plans.NOTHING, plans.BOTTOM]):
        np.testing.assert_array_equal(with_file(runtime, columns, rows, in_memory, level)(x), expected)


@pytest.mark.parametrize("level", plans.LEVELS)
@pytest.mark.parametrize("in_memory", [plans.NOTHING, plans.BOTTOM, plans.FULL])
def test_the_file_and_what_moves_are_as_planned(with_file, monkeypatch, level, in_memory):
    height, width, moved, used, passes = 64, 512, Counter(), [], []
    map_, move, each = scratch.Scratch.map, scratch.Scratch.move, schedule._Picture.each

    def noting_map(file, *arguments):
        found = map_(file, *arguments)
        used.append(file.used)
        return found

    def noting_move(file, how, place, buffer):
        moved[passes[-1]] += buffer.nbytes
        assert place + buffer.nbytes <= file.size
        return move(file, how, place, buffer)

    def noting_each(picture, run, argument):
        passes.append(run.__name__)
        return each(picture, run, argument)

    monkeypatch.setattr(scratch.Scratch, "map", noting_map)
    monkeypatch.setattr(scratch.Scratch, "move", noting_move)
    monkeypatch.setattr(schedule._Picture, "each", noting_each)
    network = with_file("onnx", 128, 8, [in_memory], level)
    network(images.to_batch(reference.picture(height, width)))
    plan = network.plan(height, width)
    assert plan.scratch_bytes == max(used, default=0)
    for name, size in plan.moved.items():  # in whole pages
        assert size <= moved[name] <= 1.05 * size


def test_pieces_in_memory_are_as_planned(with_file, monkeypatch):
    """Of a strip, by pass: two of every stream to or from the file."""
    held, flat = Counter(), schedule.Workspace.flat_array
    passes, each = [], schedule._Picture.each

    def noting_flat(workspace, name, size):
        if isinstance(name, tuple) and name[1] in ("read", "write") and name not in workspace.flat:
            held[passes[-1], threading.get_ident()] += 4 * size
        return flat(workspace, name, size)

    def noting_each(picture, run, argument):
        passes.append(run.__name__)
        return each(picture, run, argument)

    monkeypatch.setattr(schedule.Workspace, "flat_array", noting_flat)
    monkeypatch.setattr(schedule._Picture, "each", noting_each)
    network = with_file("onnx", 256, 8, [plans.NOTHING], plans.INNER)
    network(images.to_batch(reference.picture(64, 512)))
    own = plans.Windows((0, 256), 512)
    pieces = own.pieces(8, plans.NOTHING, plans.INNER)
    full, both = pieces["full"], pieces["full"] + pieces["inner"]
    said = {
        "encode": pieces["quarter"] + pieces["half"] + full,
        "decode": pieces["quarter"] + 2 * pieces["half"],
        "normalise": pieces["half"] + full + both,
        "refine": 2 * both,
        "finish": both,
    }
    for (name, _), size in held.items():
        assert 0.9 * scratch.AHEAD * said[name] < size <= scratch.AHEAD * said[name]
    in_plan = {"decode": said["decode"], "normalise": said["normalise"], "finish": said["refine"]}
    for name, size in in_plan.items():
        beside = own.held(64, 8, plans.NOTHING, plans.INNER)[name][1] - scratch.AHEAD * size
        row = plans.PIXEL * (own.encoded(0, 2)[1] - own.encoded(0, 2)[0]) * (8 + plans.WAITING)
        assert beside == plans.PASSING[name][plans.INNER] * row


# --- what can go wrong ---


class Failing:
    """A file whose calls fail from one of them on."""

    def __init__(self, file, left, error):
        self.file, self.left, self.error = file, left, error

    def _call(self, name, *arguments):
        self.left -= 1
        if self.left < 0:
            if self.error is None:
                return 0  # as at the end of a file
            raise self.error
        return getattr(self.file, name)(*arguments)

    def write(self, view):
        return self._call("write", view)

    def readinto(self, view):
        return self._call("readinto", view)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("left", [0, 1, 7, 20, 50, 90, 130])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O"), None])
def test_a_disk_that_fails_is_one_line_and_no_picture(with_file, monkeypatch, left, error):
    enter = scratch.Scratch.__enter__

    def failing(file):
        enter(file)
        file.file = Failing(file.file, left, error)
        return file

    network, out = with_file("onnx", 64, 8, [plans.NOTHING], plans.INNER), []
    x = images.to_batch(reference.picture(64, 136))
    with monkeypatch.context() as patched:
        patched.setattr(scratch.Scratch, "__enter__", failing)
        with pytest.raises(Error, match=r"no scratch file \(.*\): free some space, name another folder, or give none"):
            out.append(network(x))
    assert not out and not any(one.name.startswith("scratch") for one in threading.enumerate())
    assert np.isfinite(network(x)).all(), "and the next picture is enhanced"


def test_a_full_disk_is_found_before_anything_is_computed(with_file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(schedule._Picture, "enhance", lambda *_: pytest.fail("it has begun"))
    network = with_file("onnx", 64, 8, [plans.NOTHING], plans.FULL)
    with pytest.raises(Error, match=r"no scratch file \(No space left on device\)"):
        network(images.to_batch(reference.picture(64, 64)))


def test_pieces_that_the_system_moves_in_parts(tmp_path):
    with scratch.Scratch(tmp_path, MIB) as file:

        class Halving(Failing):
            def _call(self, name, view):
                return super()._call(name, view[: max(1, len(view) // 2)])

        file.file.close()
        file.file = Halving(tempfile.TemporaryFile(dir=tmp_path, buffering=0), 10**6, None)  # noqa: SIM115
        given, got = np.arange(1000, dtype=np.uint8), np.zeros(1000, np.uint8)
        file.move(file.write, 5000, given).result()
        file.move(file.read, 5000, got).result()
        np.testing.assert_array_equal(got, given)


def test_strips_that_ask_at_once_get_room_of_their_own(tmp_path):
    places, before = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with scratch.Scratch(tmp_path, MIB) as file:

            def ask():
                places.extend(file.map("full", 1, 1, (0, 8), 1).place for _ in range(3000))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(places) == [scratch.PAGE * place for place in range(12_000)]


def test_the_file_has_no_name_and_goes_with_a_folder_that_vanishes(with_file, tmp_path, monkeypatch):
    folder, names = tmp_path / "gone", []
    folder.mkdir()
    network = with_file("onnx", 64, 8, [plans.NOTHING], plans.INNER)
    x = images.to_batch(reference.picture(64, 64))
    expected, network.folder = network(x), folder
    finish = schedule._Strip.finish

    def noting(strip, write):
        names.extend(folder.iterdir() if folder.exists() else [])
        if folder.exists():
            folder.rmdir()
        finish(strip, write)

    monkeypatch.setattr(schedule._Strip, "finish", noting)
    np.testing.assert_array_equal(network(x), expected)
    assert names == [] and not folder.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_picture_that_is_given_up_leaves_no_thread(with_file, monkeypatch, error):
    def given_up(*_):
        raise error

    network = with_file("onnx", 64, 8, [plans.NOTHING], plans.INNER)
    monkeypatch.setattr(schedule._Strip, "refine", given_up)
    with pytest.raises(error):
        network(images.to_batch(reference.picture(64, 136)))
    assert not any(one.name.startswith("scratch") for one in threading.enumerate())


KILLED = """
import sys, numpy as np
from udnet.tiled import plans
from udnet.variants import compared
network = compared.load_onnx_tiled(2, sys.argv[1], folder=sys.argv[2])
network.plan = lambda height, width, beside=0: plans.Plan(height, width, (((0, width), 0),), 8, 1, plans.INNER)
def read(rows, columns):
    print(rows, flush=True)
    return np.zeros((3, rows[1] - rows[0], columns[1] - columns[0]), np.float32)
network._run(4096, 512, read, None)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files that never had a name")
def test_a_killed_process_leaves_nothing(tmp_path):
    arrays = prepared.prepared(prepared.find("seeded"), "arrays")
    command = [sys.executable, "-c", KILLED, str(arrays), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(REPO)}) as process:
        for _ in range(20):  # it is at work
            assert process.stdout.readline()
        handles = [os.readlink(one) for one in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(name.startswith(str(tmp_path)) and name.endswith("(deleted)") for name in handles), "there is a file"
        assert list(tmp_path.iterdir()) == [], "which has no name"
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


# --- the folder ---


def test_the_folder(tmp_path, monkeypatch):
    assert scratch.find("none") is None and scratch.find(Path("none")) is None
    assert scratch.find(str(tmp_path)) == tmp_path
    with pytest.raises(Error, match=r"no folder for a scratch file \(there is no such folder\): name one on"):
        scratch.find(tmp_path / "no")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert scratch.find() == tmp_path
    with pytest.raises(Error, match=r"no folder for a scratch file \(it is no folder\)"):
        scratch.find(__file__)

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert scratch.find() is None, "without a word: it was not asked for"
    with pytest.raises(Error, match="it cannot be written"):
        scratch.find(tmp_path)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder here lies in memory")
def test_a_folder_in_memory_is_none(monkeypatch):
    with pytest.raises(Error, match=r"/dev/shm: no folder for a scratch file \(it lies in memory\): name one"):
        scratch.find("/dev/shm")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/dev/shm")
    assert scratch.find() is None


def test_a_disk_is_tried_once(tmp_path, monkeypatch):
    found = scratch.measured(tmp_path)
    assert found.folder == tmp_path and found.rate > 0 and found.room > 0 and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(scratch.Scratch, "__enter__", lambda *_: pytest.fail("tried again"))
    assert scratch.measured(tmp_path).rate == found.rate
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    assert scratch.measured(tmp_path / "other") is None


def test_who_asks_for_one(tmp_path, capsys):
    assert catalogue.find("onnx-scratch@1GiB").load.keywords == {"folder": None, "limit": 1024 * MIB}
    assert enhancer.load("onnx-tiled", "seeded").network.folder is None
    assert enhancer.load("onnx-tiled", "seeded", scratch=tmp_path).network.folder == tmp_path
    assert enhancer.load(weights="seeded", scratch="none").network.folder is None
    assert enhancer.load(weights="seeded").network.folder == scratch.find()
    with pytest.raises(Error, match="onnx has no use for a scratch file: choose a tiled variant"):
        enhancer.load("onnx", "seeded", scratch=tmp_path)
    picture = tmp_path / "in.png"
    picture.write_bytes(b"")
    assert main(["enhance", str(picture), str(tmp_path / "out.png"), "--scratch", str(tmp_path / "no")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


# --- the planner ---


def test_a_slow_disk_is_not_used_and_a_full_one_cannot_be():
    size, budget = (2160, 3840, 2), 400 * MIB
    without = plans.fit(*size, budget)
    assert plans.fit(*size, budget, FAST).scratch > plans.NOTHING
    assert plans.fit(*size, budget, replace(FAST, disk=1e7)) == without
    assert plans.fit(*size, budget, replace(FAST, room=10**6)) == without
    assert plans.leanest(*size, replace(FAST, disk=1e7)) == plans.leanest(*size)


@pytest.mark.parametrize("disk", [2e8, 5e8, 1e9, 5e9])
@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (2160, 3840), (4320, 7680), (16, 4096)])
def test_a_scratch_file_never_makes_a_plan_slower_or_larger(height, width, disk):
    speed, least = replace(FAST, disk=disk), plans.leanest(height, width, 2)
    budgets = [least.bytes * 2**step for step in np.arange(0, 5, 0.5)]
    found = [plans.fit(height, width, 2, budget, speed) for budget in budgets]
    for plan, budget in zip(found, budgets, strict=True):
        assert plan.bytes <= budget
        assert plan.seconds(speed) <= plans.fit(height, width, 2, budget).seconds(speed)
    taken = [plan.seconds(speed) for plan in found]
    assert taken == sorted(taken, reverse=True)
    everything = plans.fit(height, width, 2, 500 * least.bytes, speed)
    assert everything.scratch_bytes == 0, "with all in memory there is nothing to write"


def test_of_a_faster_disk_more_is_kept():
    levels = [plans.leanest(2160, 3840, 2, replace(FAST, disk=disk)).scratch for disk in (1e7, 3e8, 6e8, 5e9)]
    assert levels == sorted(levels) and levels[0] == plans.NOTHING and levels[-1] == plans.INNER


def test_a_large_picture_has_one_and_a_small_one_does_not(tiled, tmp_path, monkeypatch):
    network = tiled["onnx"]
    again = schedule.TiledNetwork(network.new, network.weights, 2, folder=tmp_path)
    monkeypatch.setattr(schedule.TiledNetwork, "speed", FAST)
    assert again.plan(512, 512).scratch_bytes == 0 < again.plan(2160, 3840).scratch_bytes
    again.limit = again.floor + 300 * MIB
    assert again.plan(2160, 3840).scratch_bytes > 0
    assert again.plan(2160, 3840).bytes <= 300 * MIB
    again.limit = again.floor + 20_000 * MIB
    assert again.plan(2160, 3840).scratch_bytes == 0


def test_the_least_limit_is_that_with_a_scratch_file(tiled, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule.TiledNetwork, "speed", FAST)
    network, size = schedule.TiledNetwork(tiled["onnx"].new, tiled["onnx"].weights, 2, MIB, tmp_path), (2160, 3840)
    with pytest.raises(Error, match="its process takes at least") as refused:
        network.plan(*size)
    network.limit = int(str(refused.value).split(" ")[5].replace(",", "")) * MIB
    assert network.plan(*size).scratch_bytes > 0, "the limit that was said is enough"
    network.limit -= 2 * MIB  # of which a half is for the next process
    with pytest.raises(Error, match="at least"):
        network.plan(*size)
    network.limit, network.folder = network.limit + 2 * MIB, None
    with pytest.raises(Error, match="at least"):
        network.plan(*size)


def test_the_machine_s_speed_is_measured(tiled, tmp_path):
    network = schedule.TiledNetwork(tiled["onnx"].new, tiled["onnx"].weights, 2, folder=tmp_path)
    speed = network.speed
    assert 1e8 < speed.multiply_adds < 1e14 and speed.disk > 1e6 and speed.room > 0


@pytest.mark.slow
def test_a_large_picture_in_a_control_group(any_weights):
    """What goes past the page cache does not count as the process's."""
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    if not scratch.find():
        pytest.skip("the folder for temporary files lies in memory")
    one = trial.Trial("onnx-scratch", 1440, 2560, 2, runs=0, weights=any_weights)
    result = trial.run(one, limit=200 * MIB)
    assert (result.status, result.error) == ("ok", "")
    assert max(row["peak_bytes"] for row in result.rows) <= 200 * MIB
