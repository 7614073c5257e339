"""Everything that a video file can be but should not: one clear error, or what is there."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import av
import numpy as np
import pytest

from tests.media.clips import RATE, count_up, number_of, numbered, numbers, repeated, write
from vtc_cli.core.errors import MediaError
from vtc_cli.media import child, decord_reader, video
from vtc_cli.media.child import Decoded
from vtc_cli.media.decord_reader import against
from vtc_cli.media.files import Hash
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.job import Content, Job
from vtc_cli.media.pyav_reader import PyavReader
from vtc_cli.media.video import read_media, read_video

COUNT = 60
Make = Callable[[Path], str]


def front(path: Path) -> bytes:
    """A clip whose index stands before its frames."""
    count_up(path, COUNT, container={"movflags": "faststart"})
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    return data


def no_frames(path: Path) -> str:
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as file:
        stream: Any = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()
    return str(path)


def sound_alone(path: Path) -> str:
    with av.open(str(path), "w", format="mp4") as file:
        stream: Any = file.add_stream("aac", rate=8000)
        silence = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return str(path)


def holding(data: bytes) -> Make:
    def made(path: Path) -> str:
        path.write_bytes(data)
        return str(path)

    return made


def shortened(share: float) -> Make:
    """The first part of an MP4 whose index stands at its end."""

    def made(path: Path) -> str:
        count_up(path, COUNT)
        data = path.read_bytes()
        assert data.index(b"mdat") < data.index(b"moov")
        return holding(data[: int(share * len(data))])(path)

    return made


def index_alone(path: Path) -> str:
    data = front(path)
    return holding(data[: data.index(b"mdat") + 30])(path)


def spoiled(path: Path) -> str:
    data = front(path)
    start = data.index(b"mdat") + 8
    noise = np.random.default_rng(0).integers(0, 256, len(data) - start, dtype=np.uint8)
    return holding(data[:start] + noise.tobytes())(path)


def start_of_matroska(path: Path) -> str:
    count_up(path, COUNT)
    return holding(path.read_bytes()[:300])(path)


BAD: dict[str, tuple[str, Make, str]] = {
    "half of an mp4": ("x.mp4", shortened(0.5), "an MP4 whose index cannot be read"),
    "start of an mp4": ("x.mp4", shortened(0.01), "an MP4 whose index cannot be read"),
    "index of an mp4": ("x.mp4", index_alone, "no frame that can be decoded"),
    "frames of noise": ("x.mp4", spoiled, "no frame that can be decoded"),
    "start of an mkv": ("x.mkv", start_of_matroska, "a Matroska or WebM file without a readable"),
    "no frames in mkv": ("x.mkv", no_frames, "a Matroska or WebM file without a readable"),
    "no frames in mp4": ("x.mp4", no_frames, "a video file without streams"),
    "sound alone": ("x.mp4", sound_alone, "no video stream, only: audio"),
    "words": ("x.mp4", holding(b"words and words " * 100), "no video and no picture"),
    "zeros": ("x.mp4", holding(bytes(10_000)), "no video and no picture"),
    "noise": (
        "x.mp4",
        holding(np.random.default_rng(1).integers(0, 256, 9000, dtype=np.uint8).tobytes()),
        "no video and no picture",
    ),
    "one byte": ("x.mp4", holding(b"x"), "no video and no picture"),
}


@pytest.mark.parametrize("reader", ["auto", "decord"])
@pytest.mark.parametrize("name", BAD)
def test_what_holds_no_frame_is_one_error_with_a_way_out(
    tmp_path: Path, name: str, reader: Literal["auto", "decord"]
) -> None:
    file_name, make, found = BAD[name]
    path = make(tmp_path / file_name)
    with pytest.raises(MediaError) as caught:
        read_media(path, FrameOptions(reader=reader))
    error = caught.value
    assert error.found.startswith(found)
    assert error.where == path
    assert error.allowed and error.hint
    assert error.exit_code == 2


def test_no_bytes_no_file_and_a_device(tmp_path: Path) -> None:
    for path, found in (
        (holding(b"")(tmp_path / "x.mp4"), "no bytes at all"),
        (str(tmp_path / "gone.mp4"), "no such file"),
        ("/dev/null", "a device"),
    ):
        with pytest.raises(MediaError, match=found) as caught:
            read_video(path)
        assert caught.value.where == path


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_video(tmp_path: Path) -> None:
    path = count_up(tmp_path / "x.mp4", 4)
    os.chmod(path, 0)
    with pytest.raises(MediaError, match="cannot be read: Permission denied"):
        read_video(path)


def test_of_a_file_that_breaks_off_the_part_that_is_there_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    data = front(path)
    path.write_bytes(data[: int(0.6 * len(data))])
    media = read_video(str(path), FrameOptions(frames=4))
    assert numbers(media) == sorted(set(numbers(media)))
    assert numbers(media)[-1] < 40
    assert media.timestamps == pytest.approx([number / RATE for number in numbers(media)])
    assert any("the file claims 2.40 s, its video ends at" in each for each in media.warnings)
    with pytest.raises(MediaError) as caught:
        read_video(str(path), FrameOptions(start=2.0))
    assert caught.value.found.startswith("start at 2 s, but the video ends at")
    assert caught.value.allowed and caught.value.hint


def test_a_corrupt_middle_is_told_and_the_rest_is_right(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    data = bytearray(front(path))
    start = data.index(b"mdat")
    third = (len(data) - start) // 3
    noise = np.random.default_rng(0).integers(0, 256, third, dtype=np.uint8)
    data[start + third : start + 2 * third] = noise.tobytes()
    path.write_bytes(bytes(data))
    media = read_video(str(path), FrameOptions(frames=COUNT))
    assert any("could not be decoded" in warning for warning in media.warnings)
    for seconds, frame in zip(media.timestamps, media.frames, strict=True):
        if seconds < 0.47 or seconds >= 1.92:  # the first and the last group of pictures
            assert number_of(frame) == round(seconds * RATE)
    assert media.timestamps[0] == 0.0 and media.timestamps[-1] == pytest.approx(59 / RATE)


def test_decord_that_fails_hands_over_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    data = front(path)
    path.write_bytes(data[: int(0.6 * len(data))])
    media = read_video(str(path))
    assert any("decord failed" in each and "PyAV was used" in each for each in media.warnings)
    with pytest.raises(MediaError, match="cannot be decoded") as caught:
        read_video(str(path), FrameOptions(reader="decord"))
    assert caught.value.hint == "--reader auto or pyav"


def test_without_decord_pyav_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = PyavReader(count_up(tmp_path / "x.mp4", 4), 1)
    assert against(look, insist=False) is None
    monkeypatch.setattr(decord_reader, "find_spec", lambda name: None)
    assert against(look, insist=False) == "it is not installed"
    assert against(look, insist=True) == "it is not installed"


def test_a_hundred_thousand_frames(tmp_path: Path) -> None:
    """Some are read; all of them are refused before the first is decoded."""
    pictures = [numbered(index // 20) for index in range(400)]
    path = repeated(tmp_path / "x.mp4", 4000, pictures)
    media = read_video(path, FrameOptions(frames=4))
    centres = [500.0, 1500.0, 2500.0, 3500.0]
    assert media.timestamps == pytest.approx(centres, abs=1 / RATE)
    with pytest.raises(MediaError, match=r"100001 frames of 192 x 96: 5\.1 GiB") as caught:
        read_video(path, FrameOptions(frames="all", memory_limit_bytes=1 << 30))
    assert caught.value.where == path
    assert "take fewer frames" in (caught.value.hint or "")


def test_odd_sizes_keep_their_last_row_and_column(tmp_path: Path) -> None:
    frames = [numbered(index, 191, 95) for index in range(12)]
    for reader in ("decord", "pyav"):
        path = write(tmp_path / "x.mkv", frames, pixels="yuv444p", options={"crf": "1"})
        media = read_video(path, FrameOptions(frames="all", reader=reader))  # type: ignore[arg-type]
        assert media.frames.shape == (12, 95, 191, 3)
        assert numbers(media) == list(range(12))
        assert np.abs(media.frames[3].astype(int) - numbered(3, 191, 95)).max() < 40


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "options"),
    [
        ("libx265", "yuv420p10le", "x.mp4", {"x265-params": "log-level=none"}),
        ("libvpx-vp9", "yuv420p", "x.webm", {}),
        ("prores_ks", "yuv422p10le", "x.mov", {}),
        ("mpeg4", "yuv420p", "x.mkv", {}),
    ],
)
def test_other_codings_and_depths(
    tmp_path: Path, codec: str, pixels: str, name: str, options: dict[str, str]
) -> None:
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV writes no {codec}")
    media = read_video(count_up(tmp_path / name, 24, codec, pixels=pixels, options=options))
    assert numbers(media) == [1, 4, 7, 10, 13, 16, 19, 22]
    deep = ("10-bit colours scaled to 8 bits",) if "10" in pixels else ()
    assert media.warnings == deep


def test_a_video_through_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = count_up(tmp_path / "x.mp4", COUNT)
    data = Path(path).read_bytes()
    stored = tmp_path / "stored"
    stored.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(stored))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    media = read_media("-", FrameOptions(frames=2))
    assert numbers(media) == [15, 45]
    assert media.path == "-"
    assert media.sha256 == read_video(path).sha256
    assert list(stored.iterdir()) == []


def test_half_a_video_through_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO(b"\0\0\0\x20ftypisom" + bytes(1000))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer))
    with pytest.raises(MediaError, match="an MP4 whose index cannot be read") as caught:
        read_media("-")
    assert caught.value.where == "-"


def test_spaces_and_letters_of_other_scripts_in_names(tmp_path: Path) -> None:
    path = tmp_path / "a clip, 動画 é ' %s.mp4"
    count_up(path, 10)
    media = read_media(str(path), FrameOptions(frames=1))
    assert numbers(media) == [5] and media.path == str(path)


def test_taking_the_hash_ends_with_the_time_limit(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.touch()
    os.truncate(path, 1 << 40)  # a hole, so that it takes no room and hours to read
    taken = Hash(path, (), "long")
    taken.start()
    try:
        with pytest.raises(MediaError, match="not read in time"):
            taken.hexdigest(time.monotonic() + 0.05)
    finally:
        taken.stop()
    taken.join(20)
    assert not taken.is_alive()


def test_the_time_limit_counts_from_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the file took all of the time, so that hardly any is left for decoding."""
    path = write(tmp_path / "a.mp4", map(numbered, range(10)))
    look = video.content_of

    def slow(target: Path, label: str) -> Content:
        time.sleep(0.6)
        return look(target, label)

    seen: list[float] = []
    decode = child.decode

    def told(job: Job) -> Decoded:
        seen.append(job.seconds)
        return decode(job)

    monkeypatch.setattr(video, "content_of", slow)
    monkeypatch.setattr(child, "decode", told)
    read_media(str(path), FrameOptions(frames=2, time_limit=30.0))
    assert seen and all(seconds <= 29.4 for seconds in seen)
