"""Which frames come out of real files of many kinds, from both readers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

from tests.media.clips import HEIGHT, RATE, WIDTH, count_up, numbered, numbers, repeated, write
from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.pyav_reader import PyavReader
from vtc_cli.media.sampling import Span, uniform_times
from vtc_cli.media.video import read_media, read_video

COUNT = 60
MIDDLES = [3, 11, 18, 26, 33, 41, 48, 56]  # floor((i + 1/2) 60 / 8)
BOTH = {
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mkv": ("libx264", "yuv444p"),
    "hevc.mp4": ("libx265", "yuv420p"),
    "mpeg4.mp4": ("mpeg4", "yuv420p"),
    "mjpeg.mkv": ("mjpeg", "yuvj422p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "ffv1.mkv": ("ffv1", "yuv420p"),
}
# Pictures that belong before a key picture but follow it in the file: a trap after jumps.
TRAPS = {
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "bidirectional.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
}
PYAV_ALONE = {
    "h264.avi": ("libx264", "yuv420p"),  # frames out of order in a container of decoding times
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "av1.mkv": ("libsvtav1", "yuv420p"),
    "h264.ts": ("libx264", "yuv420p"),
    "h264.flv": ("libx264", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "deep.mkv": ("libx264", "yuv420p10le"),
}
Reader = Literal["auto", "decord", "pyav"]
Clip = Callable[[str], str]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The path of a clip of sixty numbered frames, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("clips")

    def made(name: str) -> str:
        path = folder / name
        if path.exists():
            return str(path)
        if name in TRAPS:
            return count_up(path, COUNT, TRAPS[name][0], options=TRAPS[name][1])
        codec, pixels = {**BOTH, **PYAV_ALONE}[name]
        quiet = {"g": "12", "x265-params": "log-level=none"} if codec == "libx265" else None
        return count_up(path, COUNT, codec, pixels=pixels, options=quiet)

    return made


@pytest.mark.parametrize("name", [*BOTH, *PYAV_ALONE, *TRAPS])
def test_the_frames_at_the_centres_of_slices_with_their_times(clip: Clip, name: str) -> None:
    media = read_video(clip(name))
    assert media.kind == "video"
    assert media.frames.shape == (8, HEIGHT, WIDTH, 3)
    assert media.frames.dtype == np.uint8
    assert media.frames.flags.owndata
    assert numbers(media) == MIDDLES
    assert media.timestamps == pytest.approx([number / RATE for number in MIDDLES], abs=1e-6)
    assert media.warnings == (("10-bit colours scaled to 8 bits",) if name == "deep.mkv" else ())
    assert media.sha256 == hashlib.sha256(Path(clip(name)).read_bytes()).hexdigest()
    assert media.path == clip(name)


@pytest.mark.parametrize("name", [*BOTH, *TRAPS])
def test_both_readers_give_the_same_frames(clip: Clip, name: str) -> None:
    options = {reader: FrameOptions(frames=20, reader=reader) for reader in ("decord", "pyav")}
    one, other = (read_video(clip(name), option) for option in options.values())
    assert numbers(one) == [3 * i + 1 for i in range(20)]
    assert one.timestamps == other.timestamps
    # The same bits are seen; two builds of one colour converter may round differently.
    assert np.abs(one.frames.astype(int) - other.frames).max() <= 1


@pytest.mark.parametrize("name", [*BOTH, *PYAV_ALONE, *TRAPS])
def test_jumps_to_and_fro_end_at_the_frame_on_screen(clip: Clip, name: str) -> None:
    reader = PyavReader(clip(name), 2)
    assert reader.end == pytest.approx(COUNT / RATE, abs=0.5 / RATE + 1e-6)
    order = np.random.default_rng(0).permutation(COUNT)
    for number in order[:25].tolist():
        (frame,) = reader.shown_at([(number + 0.9) / RATE])
        assert round(frame.seconds * RATE) == number
        assert numbers(Frames(frame.pixels)) == [number]


class Frames:
    def __init__(self, *frames: Any) -> None:
        self.frames = frames


def test_far_frames_are_reached_by_jumps_and_near_ones_by_decoding_on(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = PyavReader(clip("h264.mp4"), 1)
    targets: list[float] = []
    jump = reader._decoder.jump

    def told(target: float, wanted: float) -> bool:
        targets.append(target)
        return jump(target, wanted)

    monkeypatch.setattr(reader._decoder, "jump", told)
    # keys lie at 0, 0.48, 0.96, 1.44, 1.92 s
    list(reader.shown_at([0.1, 0.5, 0.6, 0.94, 1.0, 2.0]))
    assert targets == [0.5, 2.0]


@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_every_frame_once_also_if_more_are_asked_for(clip: Clip, reader: Reader) -> None:
    path = clip("h264.mp4")
    whole = read_video(path, FrameOptions(frames="all", reader=reader))
    assert numbers(whole) == list(range(COUNT))
    exact = read_video(path, FrameOptions(frames=COUNT, reader=reader))
    assert numbers(exact) == list(range(COUNT))
    assert exact.warnings == ()
    more = read_video(path, FrameOptions(frames=200, reader=reader))
    assert numbers(more) == list(range(COUNT))
    assert more.warnings == ("asked for 200 frames, took 60: no others are on screen then",)
    # Some of 100,000 times lie less than the tolerance before a frame that is on screen already.
    most = read_video(path, FrameOptions(frames=100_000, reader=reader))
    assert numbers(most) == list(range(COUNT))
    assert most.timestamps == whole.timestamps
    assert most.warnings == ("asked for 100000 frames, took 60: no others are on screen then",)


@pytest.mark.parametrize("reader", ["decord", "pyav"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fps": 5.0}, [2, 7, 12, 17, 22, 27, 32, 37, 42, 47, 52, 57]),
        ({"frames": 4, "start": 1.0, "end": 1.8}, [27, 32, 37, 42]),
        ({"frames": "all", "start": 0.99, "end": 1.12}, [24, 25, 26, 27]),
        ({"frames": "all", "start": 1.01, "end": 1.02}, [25]),
        ({"fps": 0.1}, [30]),
        ({"frames": 2, "start": 2.3}, [58, 59]),
    ],
    ids=str,
)
def test_ways_of_choosing(
    clip: Clip, reader: Reader, options: dict[str, Any], expected: list[int]
) -> None:
    media = read_video(clip("h264.mp4"), FrameOptions(**options, reader=reader))
    assert numbers(media) == expected


def test_an_end_behind_the_end_is_cut_and_told(clip: Clip) -> None:
    media = read_video(clip("h264.mp4"), FrameOptions(frames=2, start=2.0, end=60.0))
    assert numbers(media) == [52, 57]
    assert media.warnings == ("the video ends at 2.40 s, before the wanted end at 60 s",)


def test_a_start_behind_the_end_is_refused(clip: Clip) -> None:
    with pytest.raises(
        MediaError, match=r"start at 2\.4 s, but the video ends at 2\.40 s"
    ) as caught:
        read_video(clip("h264.mp4"), FrameOptions(start=2.4))
    assert caught.value.where == clip("h264.mp4")


@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_keyframes_are_the_first_frames_of_scenes(tmp_path: Path, reader: Reader) -> None:
    starts, scene, frames = {0: 3, 17: 4000, 40: 64, 71: 2047}, 0, []
    for index in range(90):
        scene = starts.get(index, scene)
        frames.append(numbered(scene))
    path = write(tmp_path / "x.mp4", frames)
    media = read_video(path, FrameOptions(keyframes=4, reader=reader))
    assert media.timestamps == pytest.approx([0, 17 / RATE, 40 / RATE, 71 / RATE])
    assert numbers(media) == [3, 4000, 64, 2047]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_a_variable_rate_is_sampled_by_time_and_keeps_its_times(
    tmp_path: Path, suffix: str, reader: Reader
) -> None:
    gaps = np.random.default_rng(1).integers(10, 200, 50)
    times = [0, *np.cumsum(gaps).tolist()]
    path = count_up(tmp_path / f"x.{suffix}", 51, times_ms=times)
    media = read_video(path, FrameOptions(frames=10, end=5.0, reader=reader))
    centres = [250 + 500 * i for i in range(10)]
    expected = [int(np.searchsorted(times, centre, side="right")) - 1 for centre in centres]
    assert numbers(media) == expected
    assert media.timestamps == pytest.approx([times[i] / 1000 for i in expected], abs=1e-6)


def test_a_frame_that_stays_on_screen_is_taken_once(tmp_path: Path) -> None:
    path = count_up(tmp_path / "x.mp4", 4, times_ms=[0, 40, 80, 4000])
    media = read_video(path, FrameOptions(frames=8, end=4.0))
    assert numbers(media) == [2]
    assert media.warnings == ("asked for 8 frames, took 1: no others are on screen then",)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_time_counts_from_the_first_frame_and_not_from_the_clock(
    tmp_path: Path, suffix: str
) -> None:
    times = [5000 + 40 * i for i in range(50)]
    path = count_up(tmp_path / f"x.{suffix}", 50, times_ms=times)
    media = read_video(path, FrameOptions(frames=5))
    assert numbers(media) == [5, 15, 25, 35, 45]
    assert media.timestamps == pytest.approx([0.2, 0.6, 1.0, 1.4, 1.8], abs=1e-6)
    assert media.warnings == ()


def with_matrix(path: str, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into an MP4, by the text of the standard alone."""
    data = bytearray(Path(path).read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    for index, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[place + 4 * index : place + 4 * index + 4] = value.to_bytes(4, "big", signed=True)
    Path(path).write_bytes(data)


TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[Any], Any], str]] = {
    "right": ((0, 1, -1, 0), lambda x: np.rot90(x, -1), "turned clockwise by 90 degrees"),
    "over": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2), "turned clockwise by 180 degrees"),
    "left": ((0, -1, 1, 0), lambda x: np.rot90(x, 1), "turned clockwise by 270 degrees"),
    "mirror": ((-1, 0, 0, 1), lambda x: x[:, ::-1], "mirrored"),
    "flip": ((1, 0, 0, -1), lambda x: x[::-1], "mirrored"),
    "swap": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2), "mirrored"),
    "across": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2), "mirrored"),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_turned_upright(tmp_path: Path, turn: str) -> None:
    path = count_up(tmp_path / "x.mp4", 4)
    plain = read_video(path, FrameOptions(frames=1))
    matrix, turned, words = TURNS[turn]
    with_matrix(path, matrix)
    media = read_video(path, FrameOptions(frames=1))
    np.testing.assert_array_equal(media.frames[0], turned(plain.frames[0]))
    assert media.warnings == (f"{words}, as the file says",)
    assert (media.height, media.width) == media.frames.shape[1:3]


@pytest.mark.parametrize("turn", ["right", "over", "left"])
def test_decord_turns_them_the_same_way(tmp_path: Path, turn: str) -> None:
    path = count_up(tmp_path / "x.mp4", 4)
    with_matrix(path, TURNS[turn][0])
    one, other = (
        read_video(path, FrameOptions(frames=2, reader=reader)) for reader in ("decord", "pyav")
    )
    np.testing.assert_array_equal(one.frames, other.frames)


def test_a_skewed_matrix_is_told_and_not_applied(tmp_path: Path) -> None:
    path = count_up(tmp_path / "x.mp4", 4)
    with_matrix(path, (1, 1, -1, 1))
    media = read_video(path, FrameOptions(frames=1))
    assert media.frames.shape[1:3] == (HEIGHT, WIDTH)
    assert media.warnings == ("the file asks for a turn by no right angle; it is not applied",)


def test_colours_come_back_as_they_were(tmp_path: Path) -> None:
    colours = np.array([[200, 40, 40], [40, 180, 60], [30, 60, 210], [240, 240, 240]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 16, axis=1), 32, axis=0)
    path = str(tmp_path / "x.mkv")
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv444p"
        stream.codec_context.colorspace = 1  # BT.709, as high definition has it
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        coded = frame.reformat(format="yuv444p", dst_colorspace="ITU709")
        for index in range(4):
            coded.pts = index
            file.mux(stream.encode(coded))
        file.mux(stream.encode(None))
    for reader in ("decord", "pyav"):
        media = read_video(path, FrameOptions(reader=reader))
        middles = media.frames[0, 16, 8::16].astype(int)
        assert np.abs(middles - colours).max() <= 4  # limited range has 219 steps, and coding


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "ffv1"])
def test_one_pixel_is_a_video(tmp_path: Path, codec: str) -> None:
    pixels = "bgr0" if codec == "ffv1" else "yuv444p" if codec == "libx264" else "yuv420p"
    frames = [np.full((1, 1, 3), grey, dtype=np.uint8) for grey in (0, 120, 250)]
    media = read_video(write(tmp_path / "x.mkv", frames, codec, pixels=pixels))
    assert media.frames.shape == (3, 1, 1, 3)
    assert np.abs(media.frames[:, 0, 0, 1].astype(int) - [0, 120, 250]).max() <= 6


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    media = read_video(count_up(tmp_path / "x.mp4", 1))
    assert numbers(media) == [0]
    assert media.timestamps == (0.0,)


def test_names_do_not_matter(tmp_path: Path) -> None:
    path = count_up(tmp_path / "x.mp4", 10)
    for name in ("clip.png", "clip.txt", "a clip", "%d.jpg", "http:x", b"\xff.mp4"):
        other = tmp_path / os.fsdecode(name)
        os.rename(path, other)
        path = str(other)
        assert numbers(read_media(path, FrameOptions(frames=2))) == [2, 7]


def test_a_relative_path_and_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_up(tmp_path / "x.mp4", 10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("x.mp4", "~/x.mp4"):
        media = read_video(path, FrameOptions(frames=1))
        assert media.path == path
        assert numbers(media) == [5]


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An hour: every twenty seconds a scene of its own number, again and again the same ten."""
    pictures = [numbered(index // (2 * RATE)) for index in range(20 * RATE)]
    return repeated(tmp_path_factory.mktemp("long") / "hour.mp4", 3600, pictures)


def test_an_hour_is_reached_by_jumps(hour: str) -> None:
    media = read_video(hour, FrameOptions(frames=7))
    centres = [3600 * (i + 0.5) / 7 for i in range(7)]
    assert media.timestamps == pytest.approx(centres, abs=1 / RATE)
    assert numbers(media) == [int(centre % 20 / 2) for centre in centres]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_an_hour_is_not_scanned(hour: str) -> None:
    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    # The index of 90000 frames is read three times, and a few seconds around each target.
    before = bytes_read()
    reader = PyavReader(hour, 1)
    opening = bytes_read() - before
    assert reader.end == pytest.approx(3600.0)
    assert len(list(reader.shown_at(uniform_times(Span(0, 3600), 7)))) == 7
    data_bytes = os.path.getsize(hour) - opening / 2
    assert bytes_read() - before - opening < 0.15 * data_bytes
