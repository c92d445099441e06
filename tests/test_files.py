"""Files whole or as before, what killed processes leave, locks, and temporary folders."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

import psutil
import pytest

from udnet import Error
from udnet.system import files


@pytest.fixture
def dead():
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def left_by(pid, host=None):
    """The name that a process of this machine gives to a part."""
    return files._name().replace(str(os.getpid()), str(pid)).replace(files._host(), host or files._host())


# Writing


def test_a_part_is_named_by_its_machine_and_process(tmp_path):
    with files.replacing(tmp_path / "w.tar.pth") as part:
        assert re.fullmatch(rf"\.udnet-[0-9a-f]{{8}}-{os.getpid()}-[0-9a-f]{{12}}\.pth", part.name)
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["w.tar.pth"]


@pytest.mark.parametrize("link", [os.symlink, os.link, None])
def test_what_is_its_own_source_is_refused(tmp_path, link):
    source, out = tmp_path / "source.pth", tmp_path / "out.pth"
    source.write_text("mine")
    if link:
        link(source, out)
    else:
        out = tmp_path / "." / "sub" / ".." / "source.pth"
        (tmp_path / "sub").mkdir()
    with pytest.raises(Error, match="made from"), files.replacing(out, source):
        raise AssertionError("not to be reached")
    assert source.read_text() == "mine" and out.is_symlink() == (link is os.symlink)


def test_what_is_not_its_source_is_written(tmp_path):
    (tmp_path / "source.pth").write_text("mine")
    for source in (tmp_path / "source.pth", tmp_path / "absent", "", None):
        with files.replacing(tmp_path / "out.pth", source) as part:
            part.write_text("new")
    assert (tmp_path / "out.pth").read_text() == "new"


def test_a_disk_that_is_full_at_last_leaves_the_old_file(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "w.pth").write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Error, match="No space left"), files.replacing(tmp_path / "w.pth") as part:
        part.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_behind_a_library_s_own_error_is_one_line(tmp_path):
    def save():
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected position in the file")  # as of what puts the archive's end there

    with pytest.raises(Error, match="No space left on device"), files.replacing(tmp_path / "w.pth"):
        save()
    with pytest.raises(RuntimeError, match="another matter"), files.replacing(tmp_path / "w.pth"):
        raise RuntimeError("another matter") from FileNotFoundError("a file")


@pytest.mark.parametrize(
    "name", ["x" * 300, "x." + "y" * 300, "folder", "absent/file", "file/file", "x" * 300 + "/file"]
)
def test_a_name_that_cannot_be_written_is_one_line_before_the_work(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(Error) as caught, files.replacing(tmp_path / name):
        raise AssertionError("not to be reached")
    assert "\n" not in str(caught.value)


# What is left behind


def test_a_sweep_takes_what_dead_processes_of_this_machine_left(tmp_path, dead):
    gone = [tmp_path / f".{left_by(dead)}.png", tmp_path / left_by(dead)]
    kept = [
        f".{left_by(dead, 'ffffffff')}.png",
        f".{left_by(os.getpid())}.png",
        ".udnet-notes.txt",
        f"my-{left_by(dead)}",
    ]
    gone[0].touch()
    gone[1].mkdir()
    (gone[1] / "picture.npy").touch()
    for name in kept:
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    files.sweep(tmp_path / "absent")


def test_a_process_runs_or_does_not(dead, monkeypatch):
    assert files.runs(os.getpid()) and not files.runs(dead) and not files.runs(2**80)

    def another_user_s(pid, signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", another_user_s)
    assert files.runs(1)


def test_a_sweep_follows_no_link(tmp_path, dead):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "picture.png").touch()
    (tmp_path / left_by(dead)).symlink_to(tmp_path / "mine")
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "picture.png"]


def test_writing_into_a_folder_sweeps_it_once(tmp_path, dead):
    left = tmp_path / f".{left_by(dead)}.png"
    for there in (True, False):
        left.touch()
        with files.replacing(tmp_path / "out.png") as part:
            part.touch()
        assert left.exists() != there


def test_a_folder_that_is_held_is_swept(tmp_path, dead):
    (tmp_path / f".{left_by(dead)}.csv").touch()
    with files.alone(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# Temporary folders


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_folder_is_gone_at_the_end(temporary, dead):
    (temporary / left_by(dead)).mkdir()
    with pytest.raises(SystemExit), files.temporary_folder() as folder:
        assert [path.name for path in temporary.iterdir()] == [folder.name], "what a dead process left is gone"
        (folder / "picture.npy").touch()
        raise SystemExit(143)
    assert list(temporary.iterdir()) == []


def test_no_room_for_temporary_files_is_one_line(temporary, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2000, 1000, 1000))
    with files.temporary_folder(1000):
        pass
    with pytest.raises(Error, match="TMPDIR") as caught, files.temporary_folder(1001):
        raise AssertionError("not to be reached")
    assert str(temporary) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(Error, match="No space left on device"), files.temporary_folder() as folder:
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 0))
    with files.temporary_folder(1001), pytest.raises(FileNotFoundError), files.temporary_folder():
        raise FileNotFoundError(errno.ENOENT, "another matter")
    assert list(temporary.iterdir()) == []


# Folders and locks


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(Error, match="give another"):
        files.make_folder(tmp_path / name)


def test_a_folder_that_cannot_be_written_into_is_one_line(tmp_path, monkeypatch):
    files.make_folder(tmp_path / "new" / "below")
    assert (tmp_path / "new" / "below").is_dir()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    with pytest.raises(Error, match="Permission denied; give another"):
        files.make_folder(tmp_path)


@pytest.mark.parametrize("number", ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EBADF"])
def test_without_locks_the_work_goes_on_and_a_line_says_so(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(getattr(errno, number), "no locks here")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    with files.alone(tmp_path):
        (tmp_path / "table.csv").touch()
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and f"{tmp_path} has no locks (no locks here)" in said.err


def test_a_lock_that_fails_otherwise_is_one_line(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    before = psutil.Process().num_fds()
    with pytest.raises(Error, match="Input/output error"), files.alone(tmp_path):
        raise AssertionError("not to be reached")
    assert psutil.Process().num_fds() == before, "nothing stays open"
