"""How long reading a video takes, and what it holds, beside the bare libraries.

A clip of 132 frames of 1280 x 720 (H.264, a rough ground that moves, noise, a key picture every 50
frames): 64 frames evenly in time, by either reader in its own process and by the library alone in
this one; they take turns. With `--hour` also an hour of 1920 x 1080 at 30 frames a second, 108,000
frames with a key picture every 250 (500 coded frames, put one behind the other 216 times): time,
peak memory of both processes, and how much of the file was read to find and decode 64 frames.

Run: python benchmarks/video.py [--turns 7] [--hour] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.pyav_reader import PyavReader
from vtc_cli.media.sampling import Span, uniform_times
from vtc_cli.media.video import read_video

FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class Size:
    """A clip: its frames, pixels, frames a second, frames from key to key, how it is coded.

    With `times` the coded frames stand that often in the file, one round behind the other.
    """

    frames: int
    width: int
    height: int
    rate: int
    keys: int
    preset: str
    crf: int = 23
    times: int = 1


CLIP = Size(frames=132, width=1280, height=720, rate=30, keys=50, preset="medium")
HOUR = Size(
    frames=500, width=1920, height=1080, rate=30, keys=250, preset="ultrafast", crf=42, times=216
)
ALONE = "import sys, benchmarks.video as video; video.read_alone(sys.argv[1])"


def drawn(index: int, texture: Any, size: Size) -> Any:
    """A rough ground that moves behind a disc, with noise as a camera has it."""
    pixels = np.roll(texture, -3 * index, axis=1)[:, : size.width].copy()
    left, top = (index * 7) % (size.width - 200), (index * 3) % (size.height - 200)
    pixels[top : top + 160, left : left + 160] = (220, index % 200, 60)
    noise = np.random.default_rng(index).integers(0, 12, pixels.shape[:2], dtype=np.uint8)
    return pixels + noise[:, :, None]


def ground(size: Size) -> Any:
    """Blocks of 8 x 8 pixels of their own colours."""
    blocks = np.random.default_rng(0).integers(60, 200, (size.height // 8, size.width // 8, 3))
    return blocks.astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def write(path: Path, size: Size) -> str:
    """Encode a clip; the path."""
    texture = ground(size)
    with av.open(str(path), "w") as container:
        options = {"g": str(size.keys), "preset": size.preset, "crf": str(size.crf)}
        stream: Any = container.add_stream("libx264", rate=size.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        packets = []
        for index in range(size.frames):
            frame = av.VideoFrame.from_ndarray(drawn(index, texture, size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, size.rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for turn in range(size.times):
            for packet in packets:
                container.mux(_later(packet, stream, turn * size.frames, size.rate))
    return str(path)


def _later(packet: Any, stream: Any, frames: int, rate: int) -> Any:
    """A copy of a coded frame that is shown so many frames later."""
    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base = stream, packet.time_base
    ticks = round(Fraction(frames, rate) / packet.time_base)
    copy.pts, copy.dts = packet.pts + ticks, packet.dts + ticks
    copy.duration = round(Fraction(1, rate) / packet.time_base)
    copy.is_keyframe = packet.is_keyframe
    return copy


def bare_decord(path: str) -> int:
    """64 frames by decord alone, by number."""
    import decord

    video = decord.VideoReader(path)
    wanted = [(2 * index + 1) * len(video) // (2 * FRAMES) for index in range(FRAMES)]
    return len(video.get_batch(wanted).asnumpy())


def bare_pyav(path: str) -> int:
    """64 frames by PyAV alone, decoding straight on."""
    wanted = {(2 * index + 1) * CLIP.frames // (2 * FRAMES) for index in range(FRAMES)}
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        decoded = enumerate(container.decode(video=0))
        kept = [frame.to_ndarray(format="rgb24") for index, frame in decoded if index in wanted]
    return len(np.stack(kept))


def by(reader: Any) -> Callable[[str], int]:
    """64 frames as the commands read them: in a process of its own, with hash and checks."""
    return lambda path: len(read_video(path, FrameOptions(frames=FRAMES, reader=reader)).frames)


WAYS: dict[str, Callable[[str], int]] = {
    "vtc, reader decord": by("decord"),
    "vtc, reader pyav": by("pyav"),
    "decord alone": bare_decord,
    "PyAV alone": bare_pyav,
}


def short_clip(path: str, turns: int) -> None:
    """Print seconds of each way, A B C D, A B C D, on the clock and of all cores together."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    busy: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(turns + 1):  # the first warms up
        for name, read in WAYS.items():
            start, cores = time.perf_counter(), _core_seconds()
            count = read(path)
            if turn:
                seconds[name].append(time.perf_counter() - start)
                busy[name].append(_core_seconds() - cores)
            assert count == FRAMES
    for name, values in seconds.items():
        wanted = "   wanted <= 1.5" if name.startswith("vtc") else ""
        print(f"{FRAMES} of 132 frames, {name:19} s {spread(values)}{wanted}")
        print(f"{'':17} cores together    s {spread(busy[name])}")


def _core_seconds() -> float:
    """Seconds that cores worked for this process and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):7.3f} ({min(values):.3f} .. {max(values):.3f})"


def read_alone(path: str) -> None:
    """Read 64 frames in this process and print what the system says about it and its child."""
    start = time.perf_counter()
    media = read_video(path, FrameOptions(frames=FRAMES, time_limit=3600.0))
    seconds = time.perf_counter() - start
    own, child = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    frames_mb = media.frames.nbytes / 1e6
    print(f"{seconds} {own} {child} {frames_mb} {len(media.frames)}")


def long_clip(path: str, turns: int) -> None:
    """Print seconds and memory of fresh processes, and the share of bytes read."""
    runs = [_fresh(path) for _ in range(turns)]
    seconds, own, child, frames_mb, count = zip(*runs, strict=True)
    assert set(count) == {FRAMES}
    size = os.path.getsize(path)
    print(f"an hour of 1080p, {size / 1e6:.0f} MB: {FRAMES} frames s {spread(list(seconds))}")
    print(f"peak of the reading process    MiB {spread(list(own))}   {frames_mb[0]:.0f} MB frames")
    print(f"peak of the decoding process   MiB {spread(list(child))}   wanted < 1024")
    for name, value in read_shares(path):
        print(f"{name:34} {value}")


def _fresh(path: str) -> tuple[float, ...]:
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", ALONE, path]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return tuple(float(word) for word in done.stdout.split())


def read_shares(path: str) -> Iterator[tuple[str, str]]:
    """What the reader demanded from the system for its work, apart from the hash of the file."""
    if not Path("/proc/self/io").exists():
        return
    size = os.path.getsize(path)
    before = _read_bytes()
    reader = PyavReader(path, 1)
    opening = _read_bytes() - before
    frames = sum(1 for _ in reader.shown_at(uniform_times(Span(0, reader.end), FRAMES)))
    decoding = _read_bytes() - before - opening
    assert frames == FRAMES
    yield "bytes read to open, index and end", f"{opening / size:.3f} of the file"
    yield "bytes read for 64 frames", f"{decoding / size:.3f} of the file"


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    """Make the clips, read them, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the clips, which are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        print(f"PyAV {av.__version__}, NumPy {np.__version__}, {os.cpu_count()} cores")
        short_clip(_there(folder / "short.mp4", CLIP), options.turns)
        if options.hour:
            long_clip(_there(folder / "hour.mp4", HOUR), options.turns)


def _there(path: Path, size: Size) -> str:
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        write(part, size)
        part.rename(path)
    return str(path)


if __name__ == "__main__":
    main()
