"""Files and folders: what is enhanced into what, what is left alone, what is said."""

import errno
import os

import numpy as np
import pytest
from picture_files import BY, enhance, gradient, identity, invert, names
from PIL import Image

from udnet import Error
from udnet.pictures import folders
from udnet.pictures.images import PictureError
from udnet.pictures.photographs import Picture, read, write


@pytest.fixture
def album(tmp_path):
    """A folder of four pictures with a subfolder, and what is not to be touched."""
    folder = tmp_path / "album"
    for place, name in enumerate(["a.jpg", "a.png", "reef/b.JPG", "reef/deep/c.tif"]):
        write(Picture(gradient(10 + place, 12)), folder / name)
    (folder / "notes.txt").write_text("notes")
    write(Picture(gradient(4, 4)), folder / ".hidden.png")
    write(Picture(gradient(4, 4)), folder / ".trash" / "d.png")
    return folder


ALBUM = sorted(os.path.join(*name.split("/")) for name in ["a.jpg", "a.png", "reef/b.JPG", "reef/deep/c.tif"])


def test_file_into_a_folder(tmp_path):
    write(Picture(gradient(5, 6)), tmp_path / "in.png")
    (tmp_path / "out").mkdir()
    assert enhance(invert, str(tmp_path / "in.png"), str(tmp_path / "out")) == []
    np.testing.assert_array_equal(read(tmp_path / "out" / "in.png").pixels, 255 - gradient(5, 6))


def test_folder_is_mirrored(album, tmp_path, capfd):
    assert enhance(invert, album, tmp_path / "out") == []
    assert names(tmp_path / "out") == ALBUM
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.png").pixels, 255 - gradient(11, 12))
    out, err = capfd.readouterr()
    assert out == "" and "4 of 4" in err  # the bar


def test_folder_inside_its_source_is_not_enhanced_again(album):
    for _ in range(2):
        assert enhance(invert, album, album / "out", progress=False) == []
        assert names(album / "out") == ALBUM


def test_one_bad_file_among_good_ones(album, tmp_path, capfd):
    (album / "a.png").write_bytes((album / "a.png").read_bytes()[:60])
    failures = enhance(identity, album, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == [name for name in ALBUM if name != "a.png"]
    [(path, message)] = failures
    assert path == album / "a.png"
    closing = f"udnet: {album}: 1 of 4 failed, the rest is in {tmp_path / 'out'}\n"
    assert capfd.readouterr() == ("", f"udnet: {message}\n{closing}")


def test_where_all_fail_there_is_no_rest(album, tmp_path, capfd):
    for name in ALBUM:
        (album / name).write_bytes(b"")
    assert len(enhance(identity, album, tmp_path / "out", progress=False)) == 4
    assert capfd.readouterr().err.endswith(f"\nudnet: {album}: 4 of 4 failed\n")


def test_what_fails_and_what_is_missing_add_up(album, tmp_path, capfd):
    """Where what enhances them ends before all are done."""

    def each(pairs):
        first, second, *_ = pairs
        yield first, PictureError("no picture")
        yield second, 0
        raise Error("no worker is left: start some")

    outcome = folders.enhance_path(each, album, tmp_path / "out", BY, progress=False)
    assert outcome == (1, 0, [(album / "a.jpg", "no picture")], 2)
    ended = f"1 of 4 failed, 2 of 4 missing, the rest is in {tmp_path / 'out'}: the same command goes on"
    said = ["no picture", "no worker is left: start some", f"{album}: {ended}"]
    assert capfd.readouterr().err.splitlines() == [f"udnet: {line}" for line in said]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("allocation\nof 9 GB\nfailed"), PictureError("not finite")]
)
def test_an_enhancer_that_fails_once(album, tmp_path, capfd, error):
    def enhancer(picture):
        if len(picture.pixels) == 11:
            raise error
        return picture

    [(path, message)] = enhance(enhancer, album, tmp_path / "out", progress=False)
    assert path == album / "a.png" and str(path) in message
    assert (" ".join(str(error).split()) or "not enough memory for 11x12") in message
    assert names(tmp_path / "out") == [name for name in ALBUM if name != "a.png"]
    assert capfd.readouterr().err.startswith(f"udnet: {message}\n")


def test_bad_file_alone(tmp_path, capfd):
    (tmp_path / "in.jpg").touch()
    [(path, message)] = enhance(identity, tmp_path / "in.jpg", tmp_path / "new" / "out.jpg")
    assert path == tmp_path / "in.jpg" and not (tmp_path / "new").exists()
    assert capfd.readouterr() == ("", f"udnet: {message}\n")


def test_interrupted(album, tmp_path):
    def enhancer(picture):
        if len(picture.pixels) == 12:
            raise KeyboardInterrupt
        return picture

    with pytest.raises(KeyboardInterrupt):
        enhance(enhancer, album, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == ["a.jpg", "a.png"]  # those done before


def test_wrong_requests(album, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    for source, out, words in [
        (tmp_path / "nowhere", tmp_path / "out", "no such file or folder"),
        (tmp_path / "nothing", tmp_path / "out", "no pictures"),
        (album, album, "holds the pictures"),
        (album, tmp_path, "holds the pictures"),
        (album, tmp_path / "file", "not a folder that can be written into"),
        (album, tmp_path / "file" / "out", "not a folder that can be written into"),
        (album / "a.jpg", tmp_path / "file" / "out.jpg", "not a folder that can be written into"),
    ]:
        before = names(tmp_path)
        with pytest.raises(PictureError, match=words):
            enhance(lambda picture: pytest.fail("worked"), source, out)
        assert names(tmp_path) == before


def test_folder_without_permission(album, tmp_path, monkeypatch):
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    with pytest.raises(PictureError, match="not a folder that can be written into"):
        enhance(lambda picture: pytest.fail("worked"), album, tmp_path / "out")


def test_photographs(shared, tmp_path):
    photographs = sorted((shared / "images").glob("*.jpg")) + sorted((shared / "images").glob("*.png"))
    for path in photographs:
        picture = read(path)
        with Image.open(path) as image:
            np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert enhance(identity, photographs[0], tmp_path / "out.png") == []
    np.testing.assert_array_equal(read(tmp_path / "out.png").pixels, read(photographs[0]).pixels)


def test_kinds_that_are_not_read_are_counted(album, tmp_path, capfd):
    for name in ("e.heic", "f.CR2", "reef/g.heic", ".h.heic", "i.txt"):
        (album / name).touch()
    (album / "a.jpg").rename(album / "a.jfif")
    assert enhance(identity, album, tmp_path / "out", progress=False) == []
    assert "a.jfif" in names(tmp_path / "out")
    said = f"udnet: {album}: left out 1 .cr2, 2 .heic: convert to a JPEG, PNG, TIFF, WEBP or BMP first\n"
    assert capfd.readouterr() == ("", said)


def test_videos_in_a_folder_are_told_how_they_are_enhanced(album, tmp_path, capfd):
    (album / "dive.MP4").touch()
    (album / "reef" / "turn.mov").touch()
    assert enhance(identity, album, tmp_path / "out", progress=False) == []
    said = f"{album}: left out 1 .mov, 1 .mp4: a video is enhanced by itself: enhance VIDEO.mp4 OUT.mp4"
    assert capfd.readouterr() == ("", f"udnet: {said}\n")
    with pytest.raises(PictureError, match="no pictures in it"):
        enhance(identity, only_videos(tmp_path / "dives"), tmp_path / "out")
    assert "left out 1 .mp4: a video" in capfd.readouterr().err


def test_what_an_earlier_run_wrote_is_left_out(album, tmp_path, capfd):
    """Within a folder; where such a folder is what is asked for, it is enhanced."""
    assert enhance(invert, album, album / "reef" / "out", progress=False) == []
    (album / "enhanced.csv").write_text("someone's own")
    assert enhance(identity, album, tmp_path / "other", progress=False) == []
    assert names(tmp_path / "other") == ALBUM
    written = os.path.join("reef", "out")
    said = f"left out {written}: enhanced by an earlier run: name such a folder itself to enhance it again"
    assert capfd.readouterr() == ("", f"udnet: {album}: {said}\n")
    assert enhance(identity, album / "reef" / "out", tmp_path / "again", progress=False) == []
    assert names(tmp_path / "again") == ALBUM and capfd.readouterr() == ("", "")


def test_a_link_to_nothing_is_a_picture_that_fails(album, tmp_path, capfd):
    (album / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    ((path, said),) = enhance(identity, album, tmp_path / "out", progress=False)
    assert path == album / "dangling.png" and said == f"{path}: a link to nothing: name a picture"
    assert names(tmp_path / "out") == ALBUM and "1 of 5 failed" in capfd.readouterr().err


def test_a_link_to_a_folder_is_told(album, tmp_path, capfd):
    (album / "elsewhere").symlink_to(tmp_path)
    assert enhance(identity, album, tmp_path / "out", progress=False) == []
    assert names(tmp_path / "out") == ALBUM
    assert (
        capfd.readouterr().err == f"udnet: {album}: left out elsewhere: a link to a folder: name that folder itself\n"
    )


def test_a_folder_that_cannot_be_read_is_a_failure(album, tmp_path, monkeypatch, capfd):
    scan = os.scandir

    def closed(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    ((path, said),) = enhance(identity, album, tmp_path / "out", progress=False)
    assert (
        path == album / "reef" / "deep"
        and said == f"{path}: cannot be opened (Permission denied): check its permissions"
    )
    assert names(tmp_path / "out") == ALBUM[:-1] and f"udnet: {said}\n" in capfd.readouterr().err


def only_videos(folder):
    folder.mkdir()
    (folder / "one.mp4").touch()
    return folder


def test_what_the_target_cannot_hold_is_said_before_the_work(tmp_path, capfd):
    write(Picture(gradient(1, 16_384)), tmp_path / "in.png")
    refused = enhance(lambda picture: pytest.fail("worked"), tmp_path / "in.png", tmp_path / "out.webp")
    assert [path for path, _ in refused] == [tmp_path / "in.png"]
    assert "WEBP holds sides of 16,383 pixels at most, not 1x16384" in capfd.readouterr().err


def test_what_begin_refuses_is_not_read(tmp_path, capfd):
    write(Picture(gradient(30, 20)), tmp_path / "in.png")

    def begin(source, header):
        raise PictureError(f"{header.height}x{header.width} takes too much")

    enhance(lambda picture: pytest.fail("worked"), tmp_path / "in.png", tmp_path / "out.png", begin=begin)
    assert capfd.readouterr().err == f"udnet: {tmp_path / 'in.png'}: cannot be enhanced: 30x20 takes too much\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name")
def test_a_pipe_is_not_waited_for(tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert enhance(identity, tmp_path / "pipe.jpg", tmp_path / "out.png")
    assert "pipe.jpg: not a file: name a picture" in capfd.readouterr().err


def test_a_name_too_long_is_said_before_the_work(tmp_path):
    write(Picture(gradient(4, 4)), tmp_path / "in.png")
    with pytest.raises(PictureError, match="File name too long"):
        enhance(lambda picture: pytest.fail("worked"), tmp_path / "in.png", tmp_path / f"{'x' * 300}.png")
