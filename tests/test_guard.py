"""A limit holds: by the kernel where a group can be made, by a watchdog elsewhere."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from udnet.system import guard, machine
from udnet.system.guard import MIB, ControlGroup, Watchdog

GROW = """
import sys, time
blocks = []
for _ in range(int(sys.argv[1]) // 8):
    blocks.append(b"x" * (8 << 20))
    time.sleep(0.01)
"""


def grow(mebibytes):
    return [sys.executable, "-c", GROW, str(mebibytes)]


def run(held, argv):
    """A child under a guard, to its end; its exit code."""
    with subprocess.Popen(held.command(argv), stderr=subprocess.DEVNULL) as process:
        held.watch(process)
        return process.wait()


def ours():
    """The control groups that this process has made and that are still there."""
    return [group for folder, _ in machine.groups("memory") for group in folder.glob(f"udnet-{os.getpid()}-*")]


@pytest.fixture
def group():
    made = ControlGroup.make(256 * MIB)
    if made is None:
        pytest.skip("this process may not make a memory control group")
    yield made
    if made.folder.exists():
        made.close()
    assert ours() == []


# A real group


def test_group_kills_what_goes_over(group):
    assert run(group, grow(1024)) == -9
    assert group.killed


def test_group_lets_the_rest_be(group):
    assert run(group, grow(64)) == 0
    assert not group.killed
    group.close()
    assert not group.folder.exists()


def test_group_ends_what_its_process_left_behind(group, tmp_path):
    run(group, ["sh", "-c", f"sleep 600 & echo $! > {tmp_path / 'pid'}"])
    left = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(left)
    group.close()
    assert not group.folder.exists()
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_group_of_a_dead_process_is_removed_by_the_next(group):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = group.folder.with_name(f"udnet-{dead.pid}-1")
    left.mkdir()
    with guard.limit(MIB):
        assert not left.exists()
        assert group.folder.exists(), "but not that of a living one"


# Groups of either version, faked: this machine has one of them at most


class Kernel:
    """A cgroup tree in a folder: a new group has the kernel's files, and is removed with them."""

    def __init__(self, monkeypatch, root, membership, files, handed_down):
        monkeypatch.setattr(machine, "GROUPS", root)
        self.files, self.handed_down = files, handed_down
        read, make = Path.read_text, Path.mkdir

        def read_text(path, *arguments, **options):
            return membership if path == Path("/proc/self/cgroup") else read(path, *arguments, **options)

        def mkdir(path, *arguments, **options):
            make(path, *arguments, **options)
            self.fill(path)

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", lambda path: shutil.rmtree(path))

    def fill(self, folder):
        (folder / "cgroup.procs").touch()
        if self.handed_down(folder):
            for name, text in self.files.items():
                (folder / name).write_text(text)


@pytest.fixture
def version_2(monkeypatch, tmp_path):
    root = tmp_path / "it's a cgroup"  # a name that a shell would take apart
    inner = root / "user.slice" / "session.scope"
    inner.mkdir(parents=True)
    for folder in (root, root / "user.slice", inner):
        (folder / "cgroup.procs").touch()
    files = {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n",
    }
    # No group that holds processes hands its controllers down: the scope does not, the slice around it does.
    kernel = Kernel(monkeypatch, root, "0::/user.slice/session.scope\n", files, lambda made: made.parent != inner)
    kernel.root = root
    return kernel


@pytest.fixture
def version_1(monkeypatch, tmp_path):
    root = tmp_path / "memory"
    (root / "job").mkdir(parents=True)
    (root / "cgroup.procs").touch()
    files = {
        "memory.limit_in_bytes": "",  # the kernel says a large number, which a plain file would keep the end of
        "memory.memsw.limit_in_bytes": "",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    }
    membership = "8:pids:/job\n4:memory:/job\n1:name=systemd:/\n0::/\n"
    kernel = Kernel(monkeypatch, tmp_path, membership, files, lambda _: True)
    kernel.root = root
    return kernel


def test_version_2(version_2):
    with guard.limit(512 * MIB) as held:
        folder = held.folder
        assert (held.kind, held.version) == ("cgroup", 2)
        assert folder.parent == version_2.root / "user.slice"
        assert (folder / "memory.max").read_text() == str(512 * MIB)
        assert (folder / "memory.swap.max").read_text() == "0"
        assert run(held, ["sh", "-c", "exit 7"]) == 7
        assert (folder / "cgroup.procs").read_text().strip().isdecimal(), "the child moved itself in"
        (folder / "cgroup.procs").write_text("")
        assert not held.killed
        (folder / "memory.events").write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
        assert held.killed
    assert not list(version_2.root.rglob("udnet-*"))


def test_version_2_without_a_swap_file(version_2):
    del version_2.files["memory.swap.max"]
    with guard.limit(512 * MIB) as held:
        assert not (held.folder / "memory.swap.max").exists()


def test_version_1(version_1):
    with guard.limit(512 * MIB) as held:
        folder = held.folder
        assert (held.kind, held.version, folder.parent) == ("cgroup", 1, version_1.root / "job")
        assert (folder / "memory.limit_in_bytes").read_text() == str(512 * MIB)
        assert (folder / "memory.memsw.limit_in_bytes").read_text() == str(512 * MIB)
        assert not held.killed
        (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        assert held.killed
    assert not folder.exists()


def test_a_limit_beyond_what_the_kernel_counts_is_none(version_1):
    with guard.limit(10**40) as held:
        assert (held.folder / "memory.limit_in_bytes").read_text() == str(2**63 - 1)


def test_no_memory_controller_anywhere(version_2):
    version_2.handed_down = lambda _: False
    with guard.limit(512 * MIB) as held:
        assert held.kind == "watchdog"
    assert not list(version_2.root.rglob("udnet-*"))


def test_a_read_only_tree(version_2, monkeypatch):
    def mkdir(path, *_):
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with guard.limit(512 * MIB) as held:
        assert held.kind == "watchdog"


# The watchdog


@pytest.fixture
def watched(monkeypatch):
    """A machine where no group can be made."""
    monkeypatch.setattr(machine, "groups", lambda _: iter(()))


def test_watchdog_kills_and_says_so(watched):
    with guard.limit(128 * MIB) as held:
        assert isinstance(held, Watchdog)
        assert run(held, grow(1024)) == -9
        assert held.killed


def test_watchdog_lets_the_rest_be(watched):
    with guard.limit(256 * MIB) as held:
        assert run(held, grow(32)) == 0
        assert not held.killed


def test_watchdog_of_a_child_that_has_ended(watched):
    with guard.limit(256 * MIB) as held, subprocess.Popen(["true"]) as process:
        time.sleep(0.1)
        held.watch(process)
    assert not held.killed


def test_other_systems_have_the_watchdog(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with guard.limit(256 * MIB) as held:
        assert held.kind == "watchdog"


def test_safe_limit_leaves_something():
    assert 0 < guard.safe_limit() < psutil.virtual_memory().total * 0.9


# What is free


def test_free_memory_is_what_a_group_leaves(tmp_path, monkeypatch):
    available = psutil.virtual_memory().available
    monkeypatch.setattr(machine, "groups", lambda _: [(tmp_path / "two", 2), (tmp_path / "one", 1)])
    assert guard.free() == pytest.approx(available, rel=0.2), "no such groups"
    for name, files in {
        "two": {"memory.max": "max", "memory.current": "1"},
        "one": {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "300"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text + "\n")
    assert guard.free() == 700
    (tmp_path / "two" / "memory.max").write_text("500\n")
    assert guard.free() == 499
    # the kernel would drop what it keeps of files
    stat = "anon 0\nfile 250\ninactive_file 200\nactive_file 50\ntotal_inactive_file 7\ntotal_active_file 13\n"
    for name in ("one", "two"):
        (tmp_path / name / "memory.stat").write_text(stat)
    (tmp_path / "two" / "memory.current").write_text("400\n")
    assert guard.free() == 500 - (400 - 250)
    (tmp_path / "two" / "memory.max").write_text("max\n")
    assert guard.free() == 1000 - (300 - 20), "version 1 counts the groups within under other names"
    monkeypatch.setattr(machine, "memory", lambda: (20, 10))
    assert guard.free() == 10, "at most what the machine has"


def test_free_memory_within_a_real_group(group):
    code = "from udnet.system import guard; import sys; sys.exit(0 if guard.free() < 256 * 2**20 else 1)"
    assert run(group, [sys.executable, "-c", code]) == 0


# How a child ended that could not say it


def test_an_end_by_the_kernel_is_told_in_words(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(str(700 * MIB))
    (tmp_path / "memory.current").write_text("0")
    monkeypatch.setattr(machine, "groups", lambda _: [(tmp_path, 2)])
    monkeypatch.setattr(guard, "kernel_kills", lambda: 4)
    said = "out of memory: killed by the kernel, where 700 MiB is the most that this process may have"
    assert guard.ending(-9, kills=3) == said
    assert guard.ending(-9, kills=4) == "ended by SIGKILL", "by another's hand"
    assert guard.ending(-11, kills=3) == "ended by SIGSEGV"
    assert guard.ending(3, kills=3) == "ended early, with code 3"


def test_the_kernel_counts_those_that_it_killed(group):
    before = guard.kernel_kills()
    code = run(group, grow(1024))
    assert guard.starved(code, before) and not guard.starved(code, guard.kernel_kills())
