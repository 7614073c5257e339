"""Frames of a video file by decord, where decord can be trusted.

Seen with decord 0.6: it reads the whole file when it opens it; after a jump, and after skipping, it
counts wrong in open groups of pictures (the rule for HEVC), with MPEG-4 B-frames and with periodic
refresh, without a word; it makes up frames where decoding fails unless told not to; it ignores
mirrored display matrices; transport streams, program streams, FLV and AVI get wrong frames or no
times. So PyAV looks at the file first (see `against`), and decord decodes straight on from the
first frame to the last wanted one, which was right in every file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from vtc_cli.media.pyav_reader import PyavReader
from vtc_cli.media.sampling import TOLERANCE_S, Frame, indices_at, indices_between

FORMATS = {"mov", "matroska"}
# Those for which both readers were seen to give the same frames.
CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "ffv1"}
LONGEST_S = 10.0  # decoding a longer clip from its start takes longer than jumping in it
NO_INVENTED_FRAMES = 1e-9  # the share of frames that decord may make up before it must complain


class DecordError(Exception):
    """decord does not give what it should."""


def installed() -> bool:
    """Whether this machine has decord."""
    return find_spec("decord") is not None


def against(look: PyavReader, *, insist: bool) -> str | None:
    """Why decord should not read this file; None if nothing speaks against it.

    Args:
        look: PyAV's view of the file.
        insist: the user wants decord: mere slowness is no reason then.
    """
    if not installed():
        return "it is not installed"
    if not FORMATS & set(look.file.formats):
        return "it is not exact in this container"
    if look.file.videos > 1:
        return "it may choose another of the video streams"
    if look.turn.mirrors:
        return "it does not mirror frames"
    if look.bits > 8:
        return "its colours of more than 8 bits differ"
    if look.begin > TOLERANCE_S:
        return "it counts time from the first frame, which comes late"
    if look.file.claimed_end() is None:
        return "it cannot read a file without a duration"
    if look.file.codec not in CODECS and not insist:
        return f"{look.file.codec} is not known to be safe with it"
    return "the clip is long" if look.end > LONGEST_S and not insist else None


class DecordReader:
    """Frames of one video file, for one pass; see `sampling.Reader`.

    Args:
        path: absolute path.
        look: PyAV's view of the same file, for its end and its clock.
        threads: decoding threads.

    Raises:
        DecordError: decord has no sound times for it.
        Exception: whatever decord raises.
    """

    def __init__(self, path: str, look: PyavReader, threads: int) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._video: Any = decord.VideoReader(
            path, num_threads=threads, fault_tol=NO_INVENTED_FRAMES
        )
        self._position = 0  # of the frame that comes next
        self.width, self.height = look.width, look.height
        self.end, self.rate, self._look = look.end, look.rate, look
        times = self._video.get_frame_timestamp(range(len(self._video)))[:, 0]
        ticks = np.rint(times.astype(np.float64) / look.file.tick_s)  # float32 lost the last digits
        self._begins = (ticks * look.file.tick_s).tolist()
        if not (abs(self._begins[0]) <= TOLERANCE_S and np.all(np.diff(self._begins) > 0)):
            raise DecordError("no sound times")

    @property
    def notes(self) -> list[str]:
        """What was done to the frames so far."""
        return self._look.notes

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """The frames on screen at these ascending seconds, each of them once."""
        return self._frames(indices_at(self._begins, times))

    def between(self, start: float, end: float) -> Iterator[Frame]:
        """Every frame that is on screen at some time of `[start, end)`."""
        return self._frames(indices_between(self._begins, start, end))

    def _frames(self, indices: Iterator[int]) -> Iterator[Frame]:
        for index in indices:
            while self._position < index:
                self._video.next()
                self._position += 1
            pixels = self._video.next().asnumpy()
            self._position += 1
            if pixels.shape != (self.height, self.width, 3):
                raise DecordError(f"a frame of shape {pixels.shape}")
            yield Frame(self._begins[index], pixels)
