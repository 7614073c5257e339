"""Decoded frames of a video file, in the order of time from a chosen place on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import CONVERT
from vtc_cli.media.sampling import TOLERANCE_S
from vtc_cli.media.video_file import VideoFile


class Timed(NamedTuple):
    """A decoded frame and the second at which it appears."""

    seconds: float
    frame: VideoFrame


class Decoder:
    """The frame on screen now and the next one, decoding on as time advances.

    Args:
        path: absolute path.
        threads: decoding threads.

    Attributes:
        first: the very first frame.
        after: the frame after the present one, None at the end.
        broken: times of decoding of packets that could not be decoded.
        backward: frames left out because their time lies before that of the frame before.

    Raises:
        MediaError: not one frame can be decoded.
    """

    def __init__(self, path: str, threads: int) -> None:
        self._path, self._threads = path, threads
        self.broken: set[int | None] = set()
        self.backward = 0
        self.after: Timed | None = None
        self._shown: Timed | None = None
        self._frames: Iterator[Timed] = iter(())
        self._key_ticks: int | None = None
        self._delay_ticks: int | None = None
        self.restart()
        self.first = self._present()

    @property
    def seconds(self) -> float:
        """When the present frame appeared; infinite if there is none."""
        present = self._shown or self.after
        return present.seconds if present else math.inf

    def restart(self) -> None:
        """Open the file anew and stand before its first frame."""
        self._file = VideoFile(self._path)
        self._file.stream.thread_type = "AUTO"
        self._file.stream.codec_context.thread_count = self._threads
        self._begin()

    def jump(self, target: float, wanted: float) -> bool:
        """Go on from the place where the file jumps to for `target`.

        Returns:
            Whether the frame on screen at `wanted` can be reached from there.
        """
        if not self._file.seek(target):
            return False
        self._begin()
        return self.after is not None and self.after.seconds <= wanted + TOLERANCE_S

    def shown_at(self, time: float) -> Timed:
        """The frame on screen at a time that is not before the present frame.

        Raises:
            MediaError: no frame can be decoded from here on.
        """
        while self.after and (self._shown is None or self.after.seconds <= time + TOLERANCE_S):
            self._shown, self.after = self.after, next(self._frames, None)
        return self._present()

    def _present(self) -> Timed:
        if present := self._shown or self.after:
            return present
        allowed = "a complete file"
        raise MediaError("no frame that can be decoded", allowed=allowed, hint=CONVERT)

    def _begin(self) -> None:
        self._shown = None
        self._frames = self._decoded()
        self.after = next(self._frames, None)

    def _decoded(self) -> Iterator[Timed]:
        last: float | None = None
        self._key_ticks = self._delay_ticks = None
        for packet in self._file.packets():
            if self._key_ticks is None and packet.size:
                self._key_ticks = packet.dts
            for frame in self._frames_of(packet, counting=last is not None):
                seconds = self._seconds_of(frame, last)
                if last is not None and seconds <= last:
                    self.backward += 1
                    continue
                yield Timed(seconds, frame)
                last = seconds

    def _frames_of(self, packet: Packet[Any], *, counting: bool) -> list[VideoFrame]:
        """Frames that a packet completes; right after a jump its faults are no news."""
        try:
            return self._file.stream.codec_context.decode(packet if packet.size else None)
        except MemoryError:
            raise
        except av.EOFError:  # nothing was still inside
            return []
        except av.FFmpegError:
            if counting:
                self.broken.add(packet.dts)
            return []

    def _seconds_of(self, frame: VideoFrame, last: float | None) -> float:
        ticks = self._shown_ticks(frame) if self._file.decoding_times else frame.pts
        if ticks is not None:
            return self._file.seconds(ticks)
        if last is None:
            raise MediaError(
                "a raw stream without times",
                allowed="a video in a container: MP4, MKV, ...",
                hint="wrap it, for instance: ffmpeg -r 25 -i IN -c copy OUT.mp4",
            )
        return last + (1 / self._file.rate if self._file.rate else 0.0)

    def _shown_ticks(self, frame: VideoFrame) -> int | None:
        """When a frame is shown, from times of decoding.

        A frame carries that of the packet that completed it, later by the frames that the decoder
        holds back. The first frame after a jump is the key picture, which is shown at its own.
        """
        if frame.dts is None or self._key_ticks is None:
            return None
        if self._delay_ticks is None:
            self._delay_ticks = frame.dts - self._key_ticks
        return frame.dts - self._delay_ticks
