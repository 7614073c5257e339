"""When frames are taken: equal slices of a span, or where the picture changes most."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import FrameOptions

CANDIDATES = 256  # frames looked at for the largest changes; all of a short clip
GREY_SIDE = 32  # the shorter side of the small grey versions, in pixels
TOLERANCE_S = 0.0005  # a frame that begins this much later still counts as begun


class Frame(NamedTuple):
    """One upright frame: the second at which it appears, and its pixels (H, W, 3) uint8."""

    seconds: float
    pixels: NDArray[np.uint8]


class Reader(Protocol):
    """What gives frames in the order of time."""

    @property
    def width(self) -> int:
        """Pixels of an upright frame."""

    @property
    def height(self) -> int:
        """Pixels of an upright frame."""

    @property
    def end(self) -> float:
        """Seconds from the start of the stream to the end of its last frame."""

    @property
    def rate(self) -> float | None:
        """Frames a second on average, None if nobody knows."""

    @property
    def notes(self) -> list[str]:
        """What was done to the frames; complete once they were read."""

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """The frames on screen at these ascending seconds, each of them once."""

    def between(self, start: float, end: float) -> Iterator[Frame]:
        """Every frame that is on screen at some time of `[start, end)`."""


@dataclass(frozen=True)
class Span:
    """The part `[start, end)` of a video, in seconds."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


def span_of(options: FrameOptions, end: float, notes: list[str]) -> Span:
    """The wanted part of a video that ends at `end`.

    Raises:
        MediaError: it begins behind the end.
    """
    if options.start > 0 and options.start >= end:
        raise MediaError(
            f"start at {options.start:g} s, but the video ends at {end:.2f} s",
            allowed="a start before the end",
            hint=f"--start {end / 2:.2f}, or leave it out",
        )
    if options.end is not None and options.end > end + TOLERANCE_S:
        notes.append(f"the video ends at {end:.2f} s, before the wanted end at {options.end:g} s")
    return Span(options.start, end if options.end is None else min(options.end, end))


def uniform_times(span: Span, count: int) -> Iterator[float]:
    """Centres of `count` equal slices: `start + (i + 1/2) (end - start) / count`.

    Centres and not edges: no frame of the sample stands for more of the span than another, the
    first and the last (often black) are not favoured, and at a constant rate a sample of as many
    frames as there are hits each of them once, in its middle, where rounding cannot matter.
    """
    for index in range(count):
        yield span.start + (index + 0.5) * span.length / count


def rate_times(span: Span, fps: float) -> Iterator[float]:
    """Centres of slices of 1 / fps seconds that lie within the span, or its own centre."""
    count = math.ceil(span.length * fps - 0.5)
    if count < 1:
        yield span.start + span.length / 2
    for index in range(count):
        yield span.start + (index + 0.5) / fps


def keyframe_times(reader: Reader, span: Span, count: int) -> list[float]:
    """Seconds of the `count` candidates that differ most from the candidate before them.

    Candidates are the frames at `max(256, 4 count)` uniform times: every frame of a short clip,
    a thinned sequence of a long one. The change is the mean absolute difference of small grey
    versions; the first candidate changes from nothing and is always taken; of equal changes the
    earlier wins. One small version is held at a time.
    """
    changes: list[tuple[float, float]] = []
    before = None
    for frame in reader.shown_at(uniform_times(span, max(CANDIDATES, 4 * count))):
        grey = small_grey(frame.pixels)
        change = math.inf if before is None else float(np.abs(grey - before).mean())
        changes.append((change, -frame.seconds))
        before = grey
    return sorted(-negative for _, negative in heapq.nlargest(count, changes))


def small_grey(pixels: NDArray[np.uint8]) -> Any:
    """Grey values (h, w) float32 of a version whose shorter side has about 32 pixels."""
    from PIL import Image

    factor = max(1, min(pixels.shape[:2]) // GREY_SIDE)
    return np.asarray(Image.fromarray(pixels).reduce(factor).convert("L"), dtype=np.float32)


def indices_at(begins: list[float], times: Iterable[float]) -> Iterator[int]:
    """Numbers of the frames on screen at ascending seconds, each once.

    Args:
        begins: ascending seconds at which the frames appear; the first is on screen before, too.
        times: when to look.
    """
    last = -1
    for time in times:
        index = max(0, bisect_right(begins, time + TOLERANCE_S) - 1)
        if index != last:
            yield index
        last = index


def indices_between(begins: list[float], start: float, end: float) -> Iterator[int]:
    """Numbers of the frames on screen at some time of `[start, end)`."""
    (first,) = indices_at(begins, [start])
    yield first
    yield from range(first + 1, bisect_left(begins, end - TOLERANCE_S))
