"""A video, frame by frame: its pictures enhanced, its sound copied, its times kept.

Enhanced frames are encoded in segments of a second or so, each a file that is there whole or not at all, in a folder
beside the target. A video that was stopped goes on with the segment that it had begun. Once all are there they are
joined without being encoded again, and the sound and what else the target holds is copied.
"""

import heapq
import json
import os
from collections import Counter
from contextlib import contextmanager, suppress
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from udnet import Error, __version__
from udnet.pictures import photographs
from udnet.pictures.images import PictureError
from udnet.system import files
from udnet.system.progress import bar, say

TARGETS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffixes and FFmpeg's names for them
SOURCES = {*TARGETS, ".3gp", ".avi", ".m2ts", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
ENCODER = "libx264"
OPTIONS = {"preset": "medium", "crf": "16", "bf": "0", "rc-lookahead": "10", "threads": "1"}  # of little memory
PARTS = "nut"  # a format that keeps any time base
MOST = 60  # frames of a segment
BAR = "{desc} {n_fmt} of {total_fmt} |{bar}| {a_minute} frames a minute, {remaining} left"
GAP = 3  # frames by which a video may end before the time that its file tells
HDR = {16: "PQ", 18: "HLG"}  # transfer functions by FFmpeg's numbers
RGB, UNSPECIFIED, BT709, BT601, MPEG = 0, 2, 1, 5, 1  # colour spaces and a range, by FFmpeg's numbers
HIGH = 720  # rows from which a colour space that is not told is taken for BT.709


class Unfinished(PictureError):
    """A video that failed after it was begun, in one line; what is done of it is kept."""


class Counts(NamedTuple):
    """Frames of a video."""

    done: int
    kept: int  # done before


def is_video(path):
    """Whether a name is that of a video."""
    return Path(path).suffix.lower() in SOURCES


def enhance_video(enhance, source, out, by, again=False, progress=True):
    """Enhance a video to a file, or into a folder, and return its `Counts`; what is done already, by the same, is kept.

    `enhance(pixels)` takes and returns uint8 height x width x 3; `by`: the name of the variant that enhances, and the
    SHA-256 of its weights. The target is H.264 of 8 bits in the container that its suffix names. `PictureError` for
    what cannot be read or written, and for what would not be right: high dynamic range, interlaced pictures, sound that
    the container does not hold; `Unfinished` once frames are being enhanced.
    """
    if not find_spec("av"):
        raise Error("no PyAV here, which reads videos: make extras, or pip install -c requirements.lock -e '.[video]'")
    source, out = Path(source), Path(out)
    out = out / source.name if out.is_dir() else out
    if out.suffix.lower() not in TARGETS:
        raise PictureError(f"{out}: no video is written with this suffix: end the name with {', '.join(TARGETS)}")
    files.not_itself(out, source)
    folder = out.with_name(f".{out.name}.udnet")
    with _Video(source) as video:
        mark = json.dumps({"udnet": __version__, "by": by, "of": video.state})
        if not again and (count := _finished(out, mark)):
            return Counts(0, count)
        video.check(out)
        frames = video.frames()
        with _segments_in(folder, mark, again):
            try:
                counts = _enhance(enhance, video, frames, folder, progress)
                _join(video, folder, out, mark, sum(counts))
            except Error as error:
                raise Unfinished(str(error)) from error
            _empty(folder)
    return counts


@contextmanager
def _segments_in(folder, mark, again):
    """Hold a folder of segments with this mark; it is gone at the end where there are none."""
    with files.alone(folder):
        try:
            known = folder / "mark"
            if again or not known.exists() or known.read_text() != mark:
                _empty(folder)
                files.write_text(known, mark)
            yield
        finally:
            if not _segments(folder):
                _empty(folder)
                folder.rmdir()


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()


def _segments(folder):
    """Those that are there, in their order: the files whose names are numbers."""
    return sorted(path for path in folder.iterdir() if path.name.isdecimal())


def _enhance(enhance, video, frames, folder, progress):
    """Make the segments that are missing."""
    number = len(_segments(folder))
    kept = sum(1 for _ in islice(frames, number * video.segment))
    done = 0
    with bar(None, progress, total=max(video.length, kept), initial=kept, desc="enhance", bar_format=BAR) as told:
        for first in frames:
            with files.replacing(folder / f"{number:08}") as part, _Segment(part, video) as segment:
                for frame in chain([first], islice(frames, video.segment - 1)):
                    try:
                        pixels = enhance(video.pixels(frame))
                    except MemoryError:
                        raise
                    except Exception as error:  # a runtime's own
                        at = f"{float(frame.pts * video.time_base):.2f} s"
                        raise PictureError(f"{video.path}: the frame at {at}: {photographs.line(error)}") from error
                    segment.add(pixels, frame)
                    done += 1
                    told.update()
            number += 1
    if video.missing > GAP / video.rate:
        at = float(video.ends[video.stream.index])
        say(f"udnet: {video.path}: cut short: its pictures end at {at:.1f} s, {float(video.missing):.1f} s are missing")
    return Counts(done, kept)


class _Video:
    """A video's file that is open for reading."""

    def __init__(self, path):
        import av

        self.av, self.path, self.name, self.copied = av, path, os.fspath(path), []
        self.ends = {}  # seconds at which that ends which was read of a stream, by its index
        with self.refusing():
            about = os.stat(path)
            self.state = [about.st_size, about.st_mtime_ns]
            self.container = av.open(self.name)
        self.stream = self.container.streams.best("video")
        if self.stream is None:
            self.container.close()
            raise PictureError(f"{path}: no pictures in it: name a video")
        self.sound, self.subtitles = list(self.container.streams.audio), list(self.container.streams.subtitles)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    @contextmanager
    def refusing(self):
        """What reads the file: whatever is raised becomes a `PictureError` that begins with its name."""
        try:
            yield
        except self.av.error.DecoderNotFoundError as error:
            raise PictureError(f"{self.path}: no decoder for it in this PyAV: convert it to H.264 first") from error
        except FileNotFoundError as error:
            raise PictureError(f"{self.path}: no such file: name a video") from error
        except self.av.error.FFmpegError as error:
            what = photographs.line(error)
            raise PictureError(f"{self.path}: no video, damaged or cut short ({what}): get a whole copy") from error

    @property
    def time_base(self):
        """Seconds a unit of the frames' times."""
        return self.stream.time_base

    @property
    def rate(self):
        """Frames a second, on average."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def segment(self):
        """How many frames a segment has: those of a second."""
        return min(MOST, max(1, round(self.rate)))

    @property
    def length(self):
        """How many frames there are, or about how many."""
        return self.stream.frames or round((self.container.duration or 0) * self.rate / self.av.time_base)

    @property
    def missing(self):
        """Seconds between the end of what was read and the end that the file tells.

        That of the pictures is compared where it is told, else that of the whole file with whatever lasts longest. In
        an AVI that was cut short the time is that of what is left; that of the whole is told as its number of frames.
        """
        if self.stream.duration:
            frames = self.stream.frames if self.container.format.name == "avi" else 0
            told = (self.stream.start_time or 0) + max(self.stream.duration, frames)
            return told * self.time_base - self.ends[self.stream.index]
        told = Fraction((self.container.start_time or 0) + (self.container.duration or 0), self.av.time_base)
        return told - max(self.ends.values())

    def check(self, out):
        """`PictureError` where the target cannot hold the sound, `Error` without an encoder; a line on what is lost."""
        if ENCODER not in self.av.codecs_available:
            raise Error(f"no encoder {ENCODER} in this PyAV: install PyAV from its own wheel")
        lost = [one for one in self.container.streams if one.type not in ("audio", "subtitle") and one != self.stream]
        form = TARGETS[out.suffix.lower()]
        with self.av.open(os.devnull, "w", format=form) as made:
            listed = made.supported_codecs
        subtitles = [one for one in self.subtitles if _codec(one) in listed]
        self.copied = next((some for some in (self.sound + subtitles, self.sound) if self._held(some, form)), None)
        if self.copied is None:
            names = ", ".join(map(_codec, self.sound))
            others = ", ".join(suffix for suffix, other in TARGETS.items() if self._held(self.sound, other))
            do = f"end the name with {others}" if others else "convert its sound to AAC first"
            raise PictureError(f"{out}: holds no sound as {self.path} has it ({names}): {do}")
        lost += [one for one in self.subtitles if one not in self.copied]
        if lost:
            kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.type for one in lost).items())
            say(f"udnet: {self.path}: left out streams: {kinds}")

    def _held(self, streams, form):
        """Whether a container takes streams, by copying them to nowhere: some codecs it lists its header refuses."""
        if not streams:
            return True
        try:
            with self.av.open(os.devnull, "w", format=form) as made, self.av.open(self.name) as given:
                for packet in self.packets(given, _copies(made, given, streams)):
                    made.mux(packet)
        except PictureError:
            raise
        except (self.av.error.FFmpegError, ValueError):
            return False
        return True

    def packets(self, given, to):
        """The packets of the file, opened once more, that are copied `to` streams."""
        with self.refusing():
            yield from _packets(given, to)

    def frames(self):
        """The frames, as PyAV's, in the order of their times; what the first is refused for is raised at once."""
        frames = self._frames()
        first = next(frames, None)
        if first is None:
            raise PictureError(f"{self.path}: none of its pictures can be decoded: get a whole copy")
        return chain([first], frames)

    def _frames(self):
        context, last = self.stream.codec_context, None
        context.thread_type, context.thread_count = "NONE", 1  # each thread holds frames of its own
        with self.refusing():
            for frame in self._decoded():
                if frame.pts is None or (last is not None and frame.pts <= last):
                    raise PictureError(f"{self.path}: its frames have no times that grow: convert it first")
                self._check(frame)
                last = frame.pts
                yield frame

    def _decoded(self):
        for packet in self.container.demux():
            index, at = packet.stream.index, packet.dts if packet.pts is None else packet.pts
            if at is not None:
                end = (at + (packet.duration or 0)) * packet.time_base
                self.ends[index] = max(self.ends.get(index, end), end)
            if index == self.stream.index:
                yield from packet.decode()

    def _check(self, frame):
        if frame.interlaced_frame:
            raise PictureError(f"{self.path}: its pictures are interlaced: make them progressive first")
        if transfer := HDR.get(frame.color_trc):
            raise PictureError(f"{self.path}: high dynamic range ({transfer}): convert it to BT.709 first")
        if not _is_turned_by_quarters(frame):
            raise PictureError(f"{self.path}: its pictures are to be mirrored, or turned by an angle: do that first")
        if (frame.width, frame.height) != (self.stream.width, self.stream.height):
            raise PictureError(f"{self.path}: its frames change their size: cut it there first")

    def pixels(self, frame):
        """A frame upright, as uint8 height x width x 3."""
        rgb = frame.reformat(format="rgb24", src_colorspace=_colours(frame), interpolation="BICUBIC")
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), frame.rotation // 90))


def _is_turned_by_quarters(frame):
    """Whether a frame is shown as it is, or after quarter turns, by the matrix that comes with it."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return True
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()  # in 1/65536
    return (a, b) == (d, -c) and 0 in (a, b)


def _colours(frame):
    """The colour space of a frame: where none is told, the one that players take it for."""
    if frame.colorspace not in (RGB, UNSPECIFIED):
        return frame.colorspace
    return BT709 if frame.height >= HIGH else BT601


def _codec(stream):
    """The name of a stream's codec."""
    return stream.codec_context.name if stream.codec_context else "unknown"


class _Segment:
    """A segment of a video that is encoded, frame by frame, into a file."""

    def __init__(self, path, video):
        self.video, self.container = video, video.av.open(os.fspath(path), "w", format=PARTS)
        self.stream = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.container.mux(self.stream.encode(None))
        self.container.close()

    def add(self, pixels, frame):
        """Encode the enhanced pixels of a frame, with the time and the colour space of that frame."""
        stream = self.stream = self.stream or self._begin(*pixels.shape[:2], frame)
        made = self.video.av.VideoFrame.from_ndarray(pixels, "rgb24")
        about = {"dst_colorspace": _colours(frame), "dst_color_range": stream.codec_context.color_range}
        made = made.reformat(format=stream.codec_context.pix_fmt, interpolation="BICUBIC", **about)
        made.pts, made.time_base = frame.pts, self.video.time_base
        self.container.mux(stream.encode(made))

    def _begin(self, height, width, frame):
        stream = self.container.add_stream(ENCODER, self.video.rate, dict(OPTIONS))
        context, given = stream.codec_context, self.video.stream.codec_context
        context.height, context.width = height, width
        context.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        context.time_base = stream.time_base = self.video.time_base
        context.gop_size = self.video.segment
        context.color_range = frame.color_range or MPEG
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(given, name))
        if given.colorspace == RGB:
            context.colorspace = _colours(frame)
        if shape := given.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / shape if frame.rotation % 180 else shape
        return stream


def _join(video, folder, out, mark, count):
    """Put the segments, of `count` frames, together with the streams that are copied; `mark` goes into the comment."""
    av, segments = video.av, _segments(folder)
    form = TARGETS[out.suffix.lower()]

    def check(part):
        with av.open(os.fspath(part)) as made:
            found = _count(made)
        if found != count:
            raise PictureError(f"{out}: holds {found} of {count} frames, and is not kept: do it --again")

    with (
        _joining(av, out),
        files.replacing(out, note=check) as part,
        av.open(os.fspath(part), "w", format=form) as made,
        av.open(video.name) as given,
    ):
        made.metadata.update(given.metadata | {"comment": f"{mark} {count}"})
        with av.open(os.fspath(segments[0])) as first:
            pictures = made.add_stream_from_template(first.streams.video[0])
        pictures.time_base = video.time_base
        to = _copies(made, given, video.copied)

        def enhanced():
            for path in segments:
                with av.open(os.fspath(path)) as segment:
                    yield from _packets(segment, {0: pictures})

        for packet in heapq.merge(enhanced(), video.packets(given, to), key=lambda one: one.dts * one.time_base):
            made.mux(packet)


@contextmanager
def _joining(av, out):
    """Whatever FFmpeg raises, other than what the system refuses, becomes a `PictureError`."""
    try:
        yield
    except av.error.FFmpegError as error:
        what = photographs.line(error)
        raise PictureError(f"{out}: cannot be put together ({what}): do it --again") from error


def _copies(made, given, streams):
    """New streams in a file for those of another, by their index there."""
    return {one.index: made.add_stream_from_template(given.streams[one.index]) for one in streams}


def _packets(container, to):
    """The packets of a file that go `to` streams, by their index in the file, with their times."""
    last = {}
    for packet in container.demux([container.streams[index] for index in to]) if to else ():
        index = packet.stream.index
        if packet.pts is None:  # an empty one, at the end of a stream
            continue
        packet.dts = packet.pts  # none of these is decoded in another order; a demuxer may leave this one open
        if not packet.duration and packet.stream.type != "subtitle":  # the last one would not be played
            packet.duration = packet.pts - last.get(index, packet.pts)
        last[index], packet.stream = packet.pts, to[index]
        yield packet


def _finished(path, mark):
    """How many frames there are in a file that `_join` wrote with this mark; 0 where it is none of those, or cut."""
    import av

    with suppress(OSError, av.error.FFmpegError), av.open(os.fspath(path)) as made:
        said = {name.lower(): text for name, text in made.metadata.items()}  # Matroska has its names in capitals
        found, _, count = said.get("comment", "").rpartition(" ")
        if found == mark and int(count) == _count(made):
            return int(count)
    return 0


def _count(made):
    """The frames of a file that was written here."""
    return sum(packet.size > 0 for packet in made.demux(video=0))
