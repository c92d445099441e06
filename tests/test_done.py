"""A folder that goes on: what is kept, what is done anew, and what a killed process leaves."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPO
from picture_files import BY, gradient, identity, invert, names
from PIL import Image

from udnet import Error
from udnet.pictures import done, folders
from udnet.pictures.photographs import Picture, read, write
from udnet.system import files

NAMES = ["a.png", "b.png", "reef/c.png"]


@pytest.fixture
def album(tmp_path):
    folder = tmp_path / "album"
    for place, name in enumerate(NAMES):
        write(Picture(gradient(10 + place, 12)), folder / name)
    return folder


def run(enhancer, album, by=BY, **about):
    """Enhance an album beside it: the numbers of pictures that were done, kept, and failed."""
    each = folders.one_by_one(enhancer)
    done, kept, failures, _ = folders.enhance_path(each, album, album.parent / "out", by, progress=False, **about)
    return done, kept, len(failures)


def refuse(picture):
    pytest.fail("worked")


def rows(album):
    with open(album.parent / "out" / done.FILE, newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_done_is_kept(album, tmp_path):
    assert run(invert, album) == (3, 0, 0)
    before = {name: (tmp_path / "out" / name).stat() for name in NAMES}
    assert run(refuse, album) == (0, 3, 0)
    assert {name: (tmp_path / "out" / name).stat() for name in NAMES} == before
    assert [row["picture"] for row in rows(album)] == NAMES


def test_a_new_picture_alone_is_done(album):
    run(invert, album)
    write(Picture(gradient(20, 20)), album / "d.png")
    assert run(invert, album) == (1, 3, 0)


def other_pixels(album, out):
    write(Picture(gradient(10, 12)[::-1]), album / "a.png")


def no_target(album, out):
    (out / "a.png").unlink()


def other_target(album, out):
    (out / "a.png").write_bytes(b"mine")


@pytest.mark.parametrize("change", [other_pixels, no_target, other_target])
def test_what_changed_is_done_anew(album, tmp_path, change):
    run(invert, album)
    change(album, tmp_path / "out")
    assert run(invert, album) == (1, 2, 0)
    np.testing.assert_array_equal(read(tmp_path / "out/a.png").pixels, 255 - read(album / "a.png").pixels)
    assert run(refuse, album) == (0, 3, 0)


def test_a_copy_of_the_sources_is_the_same(album):
    run(invert, album)
    for name in NAMES:
        os.utime(album / name)
    assert run(refuse, album) == (0, 3, 0)


@pytest.mark.parametrize("by", [("another", BY[1]), (BY[0], "other weights")])
def test_by_another_all_is_done_anew(album, tmp_path, by):
    run(identity, album)
    assert run(invert, album, by) == (3, 0, 0)
    np.testing.assert_array_equal(read(tmp_path / "out/a.png").pixels, 255 - gradient(10, 12))


def test_by_another_version_all_is_done_anew(album, monkeypatch):
    run(identity, album)
    monkeypatch.setattr(done, "__version__", "0")
    assert run(identity, album) == (3, 0, 0)


def test_again(album):
    run(identity, album)
    assert run(invert, album, again=True) == (3, 0, 0)
    assert run(refuse, album) == (0, 3, 0)
    assert [row["picture"] for row in rows(album)] == NAMES


def test_what_failed_is_tried_again(album, capfd):
    (album / "b.png").write_bytes(b"")
    assert run(identity, album) == (2, 0, 1)
    assert run(refuse, album) == (0, 2, 1)
    write(Picture(gradient(10, 12)), album / "b.png")
    assert run(identity, album) == (1, 2, 0)


def test_a_picture_that_changes_meanwhile_is_not_done(album):
    def enhancer(picture):
        os.utime(picture.source, (1, 1))
        return picture

    assert run(enhancer, album) == (3, 0, 0)
    assert rows(album) == [] and run(identity, album) == (3, 0, 0)


@pytest.mark.parametrize(
    "name",
    ["two\nlines.png", "two\rlines.png", "two\r\nlines.png", 'a "quote", and more.png', os.fsdecode(b"\xff.png")],
)
def test_any_name(album, name):
    try:
        (album / "a.png").rename(album / name)
    except OSError as error:
        pytest.skip(f"no such name here: {error}")
    assert run(identity, album) == (3, 0, 0)
    assert run(refuse, album) == (0, 3, 0)


def test_a_table_that_was_cut_short_loses_one_row(album, tmp_path):
    run(identity, album)
    table = tmp_path / "out" / done.FILE
    whole = table.read_bytes()
    for cut in range(len(_last_line(whole))):
        table.write_bytes(whole[: len(whole) - 1 - cut])
        assert run(identity, album)[:2] in [(1, 2), (0, 3)]
        assert run(refuse, album) == (0, 3, 0)


def _last_line(text):
    return text.splitlines(keepends=True)[-1]


def test_another_file_of_that_name_is_left_alone(album, tmp_path):
    table = tmp_path / "out" / done.FILE
    table.parent.mkdir()
    table.write_text("mine\n")
    with pytest.raises(Error, match="no table of enhanced pictures"):
        run(refuse, album)
    assert table.read_text() == "mine\n" and names(tmp_path / "out") == []


def test_no_room_for_the_row(album, tmp_path, monkeypatch, capfd):
    run(identity, album)
    table = tmp_path / "out" / done.FILE
    before, write_some = table.read_text(), os.write
    write(Picture(gradient(9, 9)), album / "d.png")
    with monkeypatch.context() as patch:
        patch.setattr(done.os, "write", lambda file, line: write_some(file, line[:5]))
        assert run(identity, album) == (0, 3, 1)
    assert table.read_text() == before and names(tmp_path / "out") == NAMES
    assert "No space left on device" in capfd.readouterr().err
    assert run(identity, album) == (1, 3, 0)


def test_two_at_once_are_not_taken(album, tmp_path):
    (tmp_path / "out").mkdir()
    with files.alone(tmp_path / "out"), pytest.raises(Error, match="another run is writing"):
        run(refuse, album)


KILLED = """
import os, pathlib, sys
from picture_files import BY, invert
from udnet.pictures import folders
replace = pathlib.Path.replace
pathlib.Path.replace = lambda part, out: os._exit(9) if out.suffix == ".png" else replace(part, out)
folders.enhance_path(folders.one_by_one(invert), *sys.argv[1:], BY)
"""


def test_what_a_process_had_done_when_it_was_killed_is_kept(album, tmp_path):
    """The picture is whole and noted, and not yet in its place."""
    out = tmp_path / "out"
    search = os.pathsep.join([str(REPO / "tests"), files.python_path()])
    killed = subprocess.run([sys.executable, "-c", KILLED, album, out], env=os.environ | {"PYTHONPATH": search})
    assert killed.returncode == 9 and len(names(out)) == 1 and not (out / "a.png").exists()
    assert run(invert, album) == (2, 1, 0)
    assert names(out) == NAMES
    np.testing.assert_array_equal(read(out / "a.png").pixels, 255 - gradient(10, 12))


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path):
    """Nothing half-written, nothing done twice, nothing lost."""
    source, out, count = tmp_path / "in", tmp_path / "out", 900
    source.mkdir()
    for place in range(count):
        Image.fromarray(np.roll(gradient(48, 64), place, 1)).save(source / f"{place:04}.png")
    command = [sys.executable, "-m", "udnet", "enhance", source, out, "--weights", "default", "--threads", "1"]
    about = {"cwd": REPO, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    chance, kills, seen = random.Random(18), 0, {}
    while kills < 20:
        with subprocess.Popen(command, **about) as process:
            while not (out / done.FILE).exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.3, 1.8))
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
        kills += 1
        table = (out / done.FILE).read_bytes()
        for line in table[: table.rindex(b"\n") + 1].decode().splitlines()[1:]:
            row = dict(zip(done.COLUMNS, line.split(","), strict=True))
            assert seen.setdefault(row["picture"], row) == row  # else it was done twice
    assert kills == 20
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    kept = int(ended.stdout.split(" enhanced, ")[1].split()[0])
    assert ended.returncode == 0 and kept >= len(seen) > 20 and f"{count - kept} enhanced" in ended.stdout
    assert names(out) == [f"{place:04}.png" for place in range(count)]
    whole = subprocess.run([*command[:5], tmp_path / "whole", *command[6:]], cwd=REPO, capture_output=True)
    assert whole.returncode == 0
    for path in sorted(out.glob("*.png")):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
