"""What a process may use of its machine, with known answers for groups of either version."""

import os
import sys

import numpy as np
import psutil
import pytest

from udnet import Error
from udnet.system import machine

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="control groups and affinity are Linux's")


@pytest.fixture
def quota(tmp_path, monkeypatch):
    """Groups of this process with files of these texts, the inner one first, on a machine of eight cores."""

    def make(version, *groups):
        for number, said in enumerate(groups):
            (tmp_path / str(number)).mkdir()
            for name, text in said.items():
                (tmp_path / str(number) / name).write_text(text)
        folders = [(tmp_path / str(number), version) for number in range(len(groups))]
        monkeypatch.setattr(machine, "groups", {"cpu": folders}.__getitem__)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return make


def test_cores_are_the_least_quota_of_the_groups_around(quota):
    quota(2, {"cpu.max": "max 100000\n"}, {"cpu.max": "350000 100000\n"}, {"cpu.max": "600000 100000\n"}, {})
    assert machine.cores() == 3


def test_cores_under_a_quota_of_version_1(quota):
    unlimited = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}
    quota(1, unlimited, {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "50000\n"})
    assert machine.cores() == 2


def test_cores_without_a_quota_are_those_of_the_affinity(quota):
    quota(1, {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, {"cpu.cfs_quota_us": "odd"})
    assert machine.cores() == 8


def test_half_a_core_is_one(quota):
    quota(2, {"cpu.max": "50000 100000\n"})
    assert machine.cores() == 1


def test_cores_where_there_is_no_affinity(quota, monkeypatch):
    quota(2)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores() == 6


@on_linux
def test_groups_are_those_of_the_controller_from_the_inside_out(tmp_path, monkeypatch):
    membership = "5:cpu,cpuacct:/job/inner\n4:memory:/elsewhere\n3:cpuset:/job\n0::/\n"
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    monkeypatch.setattr(machine.Path, "read_text", lambda path: membership)
    (tmp_path / "cpu" / "job" / "inner").mkdir(parents=True)
    (tmp_path / "cpu" / "cgroup.procs").touch()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "cgroup.procs").touch()
    cpu = tmp_path / "cpu"
    assert list(machine.groups("cpu")) == [(cpu / "job" / "inner", 1), (cpu / "job", 1), (cpu, 1)]
    assert list(machine.groups("memory")) == [(tmp_path / "memory", 1)], "what a container does not have in view"


def test_no_groups_in_a_sandbox(monkeypatch):
    def read_text(path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(machine.Path, "read_text", read_text)
    assert list(machine.groups("memory")) == []


@pytest.mark.parametrize("told", [True, False])
def test_the_memory_of_the_machine(monkeypatch, told):
    """By the kernel where it tells it, else by psutil."""
    if not told:
        monkeypatch.setattr(machine.Path, "read_text", lambda path: "MemTotal: 1 kB\n")
    total, available = machine.memory()
    assert total == psutil.virtual_memory().total
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_no_more_is_available_than_there_is(monkeypatch):
    monkeypatch.setattr(machine.Path, "read_text", lambda path: "MemTotal: 10 kB\nMemFree: 1 kB\nMemAvailable: 30 kB\n")
    assert machine.memory() == (10240, 10240)


def test_threads(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 5)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [machine.threads(count) for count in (None, 1, np.int64(3), 64)] == [5, 1, 3, 64]


@pytest.mark.parametrize("count", [0, -1, True, False, "2", 2.0, 65, 1000, float("nan")])
def test_no_threads(monkeypatch, count):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(Error, match="whole number from 1 to 64") as caught:
        machine.threads(count)
    assert "\n" not in str(caught.value)
