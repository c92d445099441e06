"""Videos: every frame enhanced, at its time, with the sound; what goes on, and what is refused."""

from fractions import Fraction
from importlib import util

import numpy as np
import pytest
from picture_files import gradient, names

from udnet import Error
from udnet.__main__ import main
from udnet.pictures import video
from udnet.pictures.images import PictureError

av = pytest.importorskip("av", reason="no PyAV: make extras")

BY = "a variant", "its weights"
COUNT, RATE = 10, 4
TIMES = [0, 1, 2, 4, 5, 6, 7, 9, 10, 12]  # quarters of a second, not all of them: three a second on average
SEGMENT = 3  # frames: there are four, the last of which is short


def make(path, frames=COUNT, size=(48, 64), sound="aac", codec="libx264", times=TIMES, shift=0, rate=RATE, **colours):
    """Write a video of moving gradients, with a tone of three seconds; `times` in quarters of a second."""
    base = Fraction(1, rate if path.suffix == ".avi" else 12_800)  # an AVI's times are numbers of frames
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate, {"crf": "1", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        tone = made.add_stream(sound, 44_100) if sound else None
        space = {"dst_colorspace": colours.get("colorspace"), "dst_color_range": colours.get("color_range")}
        for place, at in zip(range(frames), times, strict=False):
            frame = av.VideoFrame.from_ndarray(np.roll(gradient(*size), 4 * place, 1), "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, **space)
            frame.pts, frame.time_base = round((at + shift) / 4 / base), base
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
        if tone:
            wave = (8000 * np.sin(np.arange(44_100 * 3) / 20)).astype(np.int16)[None]
            block = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            block.sample_rate, block.pts = 44_100, 0
            made.mux(
                [
                    packet
                    for part in av.AudioResampler("fltp", "mono", 44_100).resample(block)
                    for packet in tone.encode(part)
                ]
            )
            made.mux(tone.encode(None))
    return path


FORMS = {"in.avi": {"codec": "mpeg4"}}  # frames of H.264 have no times there


def steady(count, rate):
    """For `make`: so many frames at that rate."""
    return {"frames": count, "times": [4 * place / rate for place in range(count)], "rate": rate}


def frames(path):
    """The frames of a video: times in seconds, and pixels."""
    with av.open(str(path)) as opened:
        found = [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in opened.decode(video=0)]
    return [at for at, _ in found], [pixels for _, pixels in found]


def sound(path):
    """The packets of a video's sound: times and bytes."""
    with av.open(str(path)) as opened:
        return [(one.pts * one.time_base, bytes(one)) for one in opened.demux(audio=0) if one.size]


def invert(pixels):
    return 255 - pixels


def refuse(pixels):
    pytest.fail("worked")


def run(enhance, source, out, **about):
    return video.enhance_video(enhance, source, out, BY, progress=False, **about)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("shift", [0, 3])
def test_frames_times_and_sound(tmp_path, suffix, shift):
    source, out = make(tmp_path / f"in{suffix}", shift=shift), tmp_path / f"out{suffix}"
    assert run(invert, source, out) == (COUNT, 0)
    (before, pictures), (after, inverted) = frames(source), frames(out)
    assert after == before and [at - before[0] for at in before] == [Fraction(at, 4) for at in TIMES]
    assert max(np.abs(255.0 - one - other).mean() for one, other in zip(pictures, inverted, strict=True)) < 3
    assert sound(out) == sound(source) != []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{suffix}", f"out{suffix}"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    "about",
    [
        *(steady(count, 24) for count in (1, 7, 31, 61)),
        steady(36, 7),
        {"frames": 16, "times": [4 * (place // 7) + place % 7 / 5 for place in range(16)], "rate": 7},
    ],
    ids=["1", "7", "31", "61", "7 a second", "variable"],
)
def test_no_frame_is_lost(tmp_path, suffix, about):
    source, out = make(tmp_path / f"in{suffix}", size=(16, 16), sound=None, **about), tmp_path / f"out{suffix}"
    assert run(invert, source, out) == (about["frames"], 0)
    assert frames(out)[0] == frames(source)[0] and len(frames(out)[0]) == about["frames"]


def test_the_last_of_the_sound_is_played(tmp_path):
    source = make(tmp_path / "in.mkv", sound="alac")
    run(invert, source, tmp_path / "out.mp4")
    assert [one for _, one in sound(tmp_path / "out.mp4")] == [one for _, one in sound(source)]


@pytest.mark.parametrize("size", [(47, 64), (48, 63)])
def test_odd_sizes(tmp_path, size):
    source = make(tmp_path / "in.mp4", size=size)
    run(invert, source, tmp_path / "out.mp4")
    assert frames(tmp_path / "out.mp4")[1][0].shape == (*size, 3)


@pytest.mark.parametrize("size", [(48, 64), (720, 64)])
@pytest.mark.parametrize("about", [{}, {"colorspace": 1}, {"colorspace": 5}, {"colorspace": 1, "color_range": 2}])
def test_colours_stay_as_they_are(tmp_path, size, about):
    source = make(tmp_path / "in.mkv", 2, size, **about)
    run(lambda pixels: pixels, source, tmp_path / "out.mkv")
    with av.open(str(source)) as one, av.open(str(tmp_path / "out.mkv")) as other:
        for name in ("colorspace", "color_range"):
            assert getattr(one.streams.video[0].codec_context, name) in (
                0,
                getattr(other.streams.video[0].codec_context, name),
            )
    for before, after in zip(frames(source)[1], frames(tmp_path / "out.mkv")[1], strict=True):
        assert np.abs(before.astype(float) - after).mean() < 1.5


TURNED = 0, 1, -1, 0  # a quarter turn clockwise: a phone that was held upright


def with_matrix(path, a, b, c, d):
    """The same MP4 with a display matrix."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    whole = (a, b, 0, c, d, 0, 0, 0, 1 << 14)
    data[at : at + 36] = b"".join(round(one * 65536).to_bytes(4, "big", signed=True) for one in whole)
    path.write_bytes(data)
    return path


def test_a_turned_video_comes_out_upright(tmp_path):
    source = with_matrix(make(tmp_path / "in.mp4", 4, sound=None), *TURNED)
    run(lambda pixels: pixels, source, tmp_path / "out.mp4")
    upright = [np.rot90(one, -1) for one in frames(source)[1]]
    for before, after in zip(upright, frames(tmp_path / "out.mp4")[1], strict=True):
        assert after.shape == (64, 48, 3) and np.abs(before.astype(float) - after).mean() < 3


# Going on


def interrupted(after):
    """An enhancer that is stopped when it has made some frames."""
    count = iter(range(after))

    def enhance(pixels):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return invert(pixels)

    return enhance


@pytest.mark.parametrize("after", [0, 2, 3, 9])
def test_it_goes_on_by_segments(tmp_path, after):
    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    run(invert, source, tmp_path / "whole.mp4")
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(after), source, out)
    assert not out.exists()
    kept = after // SEGMENT * SEGMENT
    assert run(invert, source, out) == (COUNT - kept, kept)
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "whole.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_is_done_is_kept(tmp_path, suffix):
    source, out = make(tmp_path / f"in{suffix}"), tmp_path / f"out{suffix}"
    run(invert, source, out)
    assert run(refuse, source, out) == (0, COUNT)
    assert run(invert, source, out, again=True) == (COUNT, 0)
    assert video.enhance_video(invert, source, out, ("another", BY[1]), progress=False) == (COUNT, 0)
    make(source, COUNT - 2)
    assert run(invert, source, out) == (COUNT - 2, 0)


def test_an_enhanced_video_that_was_cut_is_done_anew(tmp_path):
    source, out = make(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    run(invert, source, out)
    out.write_bytes(out.read_bytes()[: out.stat().st_size * 2 // 3])
    assert run(invert, source, out) == (COUNT, 0)
    assert len(frames(out)[0]) == COUNT


def test_segments_of_another_video_are_not_taken(tmp_path):
    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(8), source, out)
    make(source, COUNT - 1, size=(64, 64))
    assert run(invert, source, out) == (COUNT - 1, 0)
    assert frames(out)[1][0].shape == (64, 64, 3)


def test_segments_that_lack_frames_are_not_taken(tmp_path):
    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(8), source, out)
    first = tmp_path / ".out.mp4.udnet" / "00000000"
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    with pytest.raises(video.Unfinished, match=r"out.mp4: holds [789] of 10 frames"):
        run(invert, source, out)
    assert not out.exists()
    assert run(invert, source, out, again=True) == (COUNT, 0)


# What is refused


def text(path):
    path.write_text("no video")
    return path


def cut(path):
    whole = make(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def silent(path):
    with av.open(str(path), "w") as made:
        tone = made.add_stream("aac", 44_100)
        made.mux(tone.encode(None))
    return path


@pytest.mark.parametrize(
    ("make_source", "words"),
    [
        (text, "no video, damaged or cut short"),
        (lambda path: cut(path.with_suffix(".mp4")), "no video, damaged or cut short"),
        (lambda path: path, "no such file"),
        (lambda path: make(path, color_trc=16), "high dynamic range"),
        (lambda path: make(path, sound="pcm_u8"), "holds no sound"),
        (lambda path: with_matrix(make(path.with_suffix(".mp4")), -1, 0, 0, 1), "to be mirrored"),
        (lambda path: with_matrix(make(path.with_suffix(".mp4")), 0, 1, 1, 0), "to be mirrored"),
        (lambda path: with_matrix(make(path.with_suffix(".mp4")), 0.6, 0.8, -0.8, 0.6), "turned by an angle"),
    ],
    ids=["text", "cut", "absent", "HDR", "sound", "mirrored", "transposed", "by an angle"],
)
def test_what_cannot_be_done_right(tmp_path, make_source, words):
    source = make_source(tmp_path / "in.mkv")
    before = names(tmp_path)
    with pytest.raises(PictureError, match=words):
        run(refuse, source, tmp_path / "out.mp4")
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "codec", "sound", "target", "words"),
    [
        ("in.mkv", "libx264", "flac", "out.mov", r"holds no sound .* \(flac\): end the name with \.mp4, \.m4v, \.mkv"),
        ("in.avi", "mpeg4", "pcm_mulaw", "out.mkv", r"holds no sound .* \(pcm_mulaw\): end the name with \.mov$"),
        ("in.wmv", "wmv2", "flac", "out.mkv", r"holds no sound .* \(flac\): convert its sound to AAC first"),
    ],
    ids=["a header that refuses it", "not listed", "times that go back"],
)
def test_sound_that_the_target_does_not_take(tmp_path, name, codec, sound, target, words):
    source = make(tmp_path / name, codec=codec, sound=sound)
    with pytest.raises(PictureError, match=words):
        run(refuse, source, tmp_path / target)
    assert names(tmp_path) == [name]


def test_a_video_without_pictures(tmp_path):
    source = make(tmp_path / "in.mkv", 0)
    with pytest.raises(PictureError, match=r"in.mkv: none of its pictures can be decoded"):
        run(refuse, source, tmp_path / "out.mkv")
    assert names(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize("name", ["in.mp4", "in.mov", "in.mkv", "in.avi"])
def test_sound_may_be_longer(tmp_path, name, capfd):
    source = make(tmp_path / name, **FORMS.get(name, {}), **steady(20, 12))
    run(invert, source, tmp_path / "out.mkv")
    assert "cut short" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["in.mkv", "in.avi"])
def test_what_lacks_less_than_a_second_is_said(tmp_path, name, capfd):
    source = make(tmp_path / name, size=(240, 320), sound=None, **FORMS.get(name, {}), **steady(48, 24))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 9 // 10])
    run(invert, source, tmp_path / "out.mkv")
    ends = float(frames(source)[0][-1] + Fraction(1, 24))
    assert 1 < ends < 1.8
    assert f"its pictures end at {ends:.1f} s, {2 - ends:.1f} s are missing" in capfd.readouterr().err


def test_what_is_left_of_a_video_is_done_and_said(tmp_path, capfd):
    source = cut(tmp_path / "in.mkv")
    count = len(frames(source)[0])
    assert run(invert, source, tmp_path / "out.mkv") == (count, 0) and 0 < count < COUNT
    assert "in.mkv: cut short" in capfd.readouterr().err


def test_a_target_that_is_no_video(tmp_path):
    with pytest.raises(PictureError, match=r"end the name with \.mp4, \.m4v, \.mov, \.mkv"):
        run(refuse, make(tmp_path / "in.mp4"), tmp_path / "out.gif")
    with pytest.raises(Error, match="is the file that it would be made from"):
        run(refuse, tmp_path / "in.mp4", tmp_path / "in.mp4")


@pytest.mark.parametrize("error", [Error("too large"), RuntimeError("too large")])
@pytest.mark.parametrize(("after", "at", "kept"), [(0, "0.00", 0), (2, "0.50", 0), (3, "1.00", 3)])
def test_a_frame_that_fails_is_told_by_its_time(tmp_path, error, after, at, kept):
    count = iter(range(after))

    def enhance(pixels):
        if next(count, None) is None:
            raise error
        return invert(pixels)

    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with pytest.raises(video.Unfinished, match=rf"in.mp4: the frame at {at} s: too large"):
        run(enhance, source, out)
    assert (tmp_path / ".out.mp4.udnet").exists() == (kept > 0)
    assert run(invert, source, out) == (COUNT - kept, kept)


def test_without_pyav(tmp_path, monkeypatch):
    source = make(tmp_path / "in.mp4")
    monkeypatch.setattr(video, "find_spec", lambda name: None if name == "av" else util.find_spec(name))
    with pytest.raises(Error, match="no PyAV here"):
        run(refuse, source, tmp_path / "out.mp4")


def test_the_command(tmp_path, capsys):
    source = make(tmp_path / "in.mp4", 1)
    command = ["enhance", str(source), str(tmp_path / "out.mp4"), "--weights", "default", "--variant", "onnx-tiled"]
    assert main([*command, "--memory-limit", "60MiB"]) == 1
    assert "the frame at 0.00 s: its process takes at least" in capsys.readouterr().err
    assert names(tmp_path) == ["in.mp4"]
    assert main(command) == 0
    assert "1 frame enhanced, 0 kept; onnx-tiled" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 frames enhanced, 1 kept" in capsys.readouterr().out
    assert main([*command, "--cluster", "local"]) == 2
