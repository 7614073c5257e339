"""Frames of a video file by PyAV: jumps to where they are and decodes no others than needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vtc_cli.core.words import counted
from vtc_cli.media.decoder import Decoder, Timed
from vtc_cli.media.sampling import TOLERANCE_S, Frame
from vtc_cli.media.size import check_size
from vtc_cli.media.turning import Turn, turn_of
from vtc_cli.media.video_file import STEP_S, VideoFile

NEAR_S = 0.25  # what is nearer than this is reached by decoding on
MISSING_S = 0.5  # a smaller gap between claimed and found end is rounding, or sound
HDR_TRANSFERS = (16, 18)  # SMPTE ST 2084 and HLG, as numbered in ISO/IEC 23091-2


class PyavReader:
    """Frames of one video file; see `sampling.Reader`.

    Args:
        path: absolute path.
        threads: decoding threads.

    Attributes:
        file: the file as packets, free for jumps that disturb no decoding.
        turn: how frames are turned upright.
        bits: depth of a colour as it is stored.
        begin: seconds at which the first frame appears, 0 but in odd files.

    Raises:
        MediaError: no video in it, or none that can be decoded.
    """

    def __init__(self, path: str, threads: int) -> None:
        self.file = VideoFile(path)
        self.rate = self.file.rate
        self._done: list[str] = []
        self._damaged = 0
        self._decoder = Decoder(path, threads)
        self._reformatter = VideoReformatter()
        self._look_at_first_frame()
        self.begin = self._decoder.first.seconds
        self.end = self._find_end()
        if self.file.videos > 1:
            self._note(f"one of {self.file.videos} video streams is used")

    @property
    def notes(self) -> list[str]:
        """What was done to the frames so far."""
        return [
            *self._done,
            *_counted(len(self._decoder.broken), "packet", "could not be decoded"),
            *_counted(self._decoder.backward, "frame", "left out: time runs backwards"),
            *_counted(self._damaged, "frame", "marked as damaged by the decoder"),
        ]

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """The frames on screen at these ascending seconds, each of them once."""
        last = -math.inf
        for time in times:
            self._approach(time)
            shown = self._decoder.shown_at(time)
            if shown.seconds > last:  # not by identity: after a jump a frame is decoded anew
                yield self._upright(shown)
                last = shown.seconds

    def between(self, start: float, end: float) -> Iterator[Frame]:
        """Every frame that is on screen at some time of `[start, end)`."""
        self._approach(start)
        yield self._upright(self._decoder.shown_at(start))
        while (after := self._decoder.after) and after.seconds < end - TOLERANCE_S:
            yield self._upright(self._decoder.shown_at(after.seconds))

    def _approach(self, time: float) -> None:
        """Jump, if that spares decoding: if a key picture after the present frame leads there."""
        here = self._decoder.seconds
        # A frame counts as begun shortly before its time: one that begins so soon is on screen.
        if -TOLERANCE_S <= time - here < NEAR_S or time < here <= self._decoder.first.seconds:
            return
        for target in _steps_back(time) if self.file.jumps else ():
            key = self.file.key_before(target)
            if key is None or key > time + TOLERANCE_S:
                continue
            if key <= self._decoder.seconds <= time or self._decoder.jump(target, time):
                return
        if self._decoder.seconds > time:
            self._decoder.restart()

    def _upright(self, timed: Timed) -> Frame:
        """Pixels of a frame, all of one size and turned."""
        frame = timed.frame
        self._damaged += frame.is_corrupt
        if (frame.width, frame.height) != self._stored:
            self._note(f"frames change their size; all are scaled to {self.width} x {self.height}")
        width, height = self._stored
        plain = self._reformatter.reformat(frame, width=width, height=height, format="rgb24")
        return Frame(max(0.0, timed.seconds), self.turn.apply(plain.to_ndarray()))

    def _look_at_first_frame(self) -> None:
        """Size, turn and colours, which hold for the whole stream."""
        frame = self._decoder.first.frame
        check_size(frame.width, frame.height)
        self._stored = (frame.width, frame.height)
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        turn = turn_of(bytes(matrix)) if matrix else Turn()
        if turn is None:
            self._note("the file asks for a turn by no right angle; it is not applied")
        self.turn = turn or Turn()
        self.width, self.height = self._stored[:: -1 if self.turn.swap else 1]
        if self.turn.note:
            self._note(f"{self.turn.note}, as the file says")
        self._note_colours(frame)

    def _note_colours(self, frame: VideoFrame) -> None:
        aspect = self.file.stream.sample_aspect_ratio
        if aspect and aspect != 1:
            self._note(f"pixels are not square ({aspect}); frames are not stretched")
        parts = frame.format.components
        self.bits = max(part.bits for part in parts)
        if self.bits > 8:
            self._note(f"{self.bits}-bit colours scaled to 8 bits")
        if any(part.is_alpha for part in parts):
            self._note("transparency is left out")
        if int(frame.color_trc) in HDR_TRANSFERS:
            self._note("high dynamic range is not mapped; colours look pale")

    def _find_end(self) -> float:
        """Where the frames end, which need not be where the file says."""
        found, claimed = self.file.found_end(), self.file.claimed_end()
        end = max(found or 0.0, self.begin + 1 / (self.rate or 1000))
        if claimed is not None and end < claimed - MISSING_S:
            self._note(f"the file claims {claimed:.2f} s, its video ends at {end:.2f} s")
        return end

    def _note(self, note: str) -> None:
        if note not in self._done:
            self._done.append(note)


def _steps_back(time: float) -> Iterator[float]:
    """Places from which to try to reach a time; the start of the file is none of them."""
    step = 0.0
    while time - step > 0:
        yield time - step
        step = 2 * step + STEP_S


def _counted(count: int, noun: str, text: str) -> list[str]:
    return [f"{counted(count, noun)} {text}"] if count else []
