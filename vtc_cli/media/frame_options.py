"""Which frames of a video are wanted, and what reading them may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vtc_cli.core.errors import UsageError

ReaderName = Literal["auto", "decord", "pyav"]
READERS = get_args(ReaderName)
DEFAULT_FRAMES = 8
MOST_FRAMES = 100_000
MOST_FPS = 1000.0
MOST_SECONDS = 1e6
CONVERT = "convert it anew, for instance to MP4 with H.264"
LEAST_MEMORY_BYTES = 1 << 30  # Python, NumPy and one decoder take most of it as address space


@dataclass(frozen=True)
class FrameOptions:
    """The wanted frames. At most one of `frames`, `fps` and `keyframes` is given.

    Sampling is by time and not by frame number, so that it means the same for a variable frame
    rate and needs no count of frames: the span `[start, end)` is cut into equal slices, and of
    each slice the frame that is on screen at its centre is taken. See `sampling`.

    Attributes:
        frames: that many slices, or `all` for every frame that is on screen during the span.
            With none of the three ways given: 8.
        fps: slices of 1 / fps seconds.
        keyframes: the frames with the largest change against the candidate before them.
        start: seconds after the first frame at which the span begins.
        end: seconds at which it ends, None for the end of the video.
        reader: `decord`, `pyav`, or `auto`: decord for short clips of kinds that it is sound for,
            PyAV for all others and where decord fails. Both give the same frames. Animated
            pictures and folders are read by Pillow in any case.
        time_limit: seconds of wall time after which reading is given up.
        memory_limit_bytes: bound of the frames, and of the address space of the process that
            decodes them.

    Raises:
        UsageError: values that contradict each other or lie out of range.
    """

    frames: int | Literal["all"] | None = None
    fps: float | None = None
    keyframes: int | None = None
    start: float = 0.0
    end: float | None = None
    reader: ReaderName = "auto"
    time_limit: float = 120.0
    memory_limit_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        ways = [name for name in ("frames", "fps", "keyframes") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise UsageError(
                " and ".join(f"--{name}" for name in ways) + " together",
                where="choice of frames",
                allowed="one of --frames, --fps and --keyframes",
            )
        if self.frames != "all":
            _check_count("--frames", self.frames)
        _check_count("--keyframes", self.keyframes)
        _check_limits(self)
        _check_span(self)

    @property
    def count(self) -> int | None:
        """Slices asked for by number; None if they follow from another choice."""
        if self.frames is None and self.fps is None and self.keyframes is None:
            return DEFAULT_FRAMES
        return None if self.frames == "all" else self.frames


def _check_count(flag: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_FRAMES:
        also = ", or all" if flag == "--frames" else ""
        raise UsageError(
            f"{value!r}", where=flag, allowed=f"a whole number from 1 to {MOST_FRAMES}{also}"
        )


def _check_limits(options: FrameOptions) -> None:
    if options.fps is not None and not 0 < options.fps <= MOST_FPS:  # also refuses NaN
        allowed = f"a number above 0 and up to {MOST_FPS:g}"
        raise UsageError(f"{options.fps}", where="--fps", allowed=allowed)
    if options.reader not in READERS:
        raise UsageError(f"{options.reader!r}", where="--reader", allowed=", ".join(READERS))
    if not 0 < options.time_limit <= MOST_SECONDS:  # clocks of the system end not far above
        allowed = f"seconds above 0 and up to {MOST_SECONDS:.0f}"
        raise UsageError(f"{options.time_limit}", where="--time-limit", allowed=allowed)
    if options.memory_limit_bytes < LEAST_MEMORY_BYTES:
        allowed = f"at least {LEAST_MEMORY_BYTES} bytes"
        raise UsageError(f"{options.memory_limit_bytes}", where="memory limit", allowed=allowed)


def _check_span(options: FrameOptions) -> None:
    if not (math.isfinite(options.start) and options.start >= 0):
        allowed = "seconds, 0 or more"
        raise UsageError(f"{options.start}", where="--start", allowed=allowed)
    if options.end is None:
        return
    if not (math.isfinite(options.end) and options.end > options.start):
        allowed = f"seconds after --start ({options.start:g})"
        raise UsageError(f"{options.end}", where="--end", allowed=allowed)
