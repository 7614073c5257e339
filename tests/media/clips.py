"""Clips whose frames carry their number in black and white, so that pixels tell which they are."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
WIDTH, HEIGHT, RATE = 192, 96, 25
KEYS = {"g": "12"}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """Above: the number as twelve black or white bars. Below: a coloured ramp."""
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    bar = max(1, width // BITS)
    for bit in range(BITS):
        pixels[: height // 2, bit * bar : (bit + 1) * bar] = 255 if number >> bit & 1 else 0
    pixels[height // 2 :, :, 0] = np.arange(width) * 255 // width
    pixels[height // 2 :, :, 2] = 200
    return pixels


def number_of(pixels: Any) -> int:
    """The number that a frame carries."""
    height, width = pixels.shape[:2]
    bar = width // BITS
    rows = pixels[height // 8 : height // 4]
    inner = [rows[:, bit * bar + bar // 4 : bit * bar + 3 * bar // 4] for bit in range(BITS)]
    return sum((part.mean() > 128) << bit for bit, part in enumerate(inner))


def numbers(media: Any) -> list[int]:
    return [number_of(frame) for frame in media.frames]


def write(
    path: Path,
    frames: Iterable[Any],
    codec: str = "libx264",
    *,
    pixels: str = "yuv420p",
    rate: int = RATE,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    times_ms: list[int] | None = None,
    turn: int = 0,
    target: Any = None,
) -> str:
    """Encode frames, at a constant rate or at given milliseconds, with keys every 12 frames."""
    with av.open(target or str(path), "w", format=_format(path), options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=KEYS if options is None else options)
        stream.pix_fmt = pixels
        base = Fraction(1, rate) if times_ms is None else Fraction(1, 1000)
        stream.codec_context.time_base = base
        if turn:
            stream.set_display_rotation(turn)
        for index, picture in enumerate(frames):
            if not index:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index if times_ms is None else times_ms[index]
            frame.time_base = base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return str(path)


def _format(path: Path) -> str | None:
    return {".mkv": "matroska", ".dat": "mp4"}.get(path.suffix)


def count_up(path: Path, count: int, codec: str = "libx264", **settings: Any) -> str:
    """A clip of numbered frames."""
    return write(path, map(numbered, range(count)), codec, **settings)


def repeated(path: Path, seconds: int, pictures: list[Any], rate: int = RATE) -> str:
    """A long clip: the same few coded seconds again and again, without coding them again."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"g": "50", "preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        packets = []
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for turn in range(seconds * rate // len(pictures)):
            for packet in packets:
                file.mux(_copy(packet, stream, turn * len(pictures), rate))
    return str(path)


def _copy(packet: Any, stream: Any, frames_later: int, rate: int) -> Any:
    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base = stream, packet.time_base
    later = int(frames_later / rate / packet.time_base)
    copy.pts, copy.dts = packet.pts + later, packet.dts + later
    copy.duration = int(1 / rate / packet.time_base)
    copy.is_keyframe = packet.is_keyframe
    return copy
