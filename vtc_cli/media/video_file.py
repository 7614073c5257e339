"""A video file as packets in time: opening it safely, jumping in it, and where it really ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vtc_cli.core.errors import MediaError
from vtc_cli.core.files import open_handle, open_regular
from vtc_cli.media.frame_options import CONVERT
from vtc_cli.media.size import check_size

# Demuxers that read one file and nothing beside it: no playlists, no text, no networks.
FORMATS = (
    "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,nut,ivf,mxf,rm,dv,wtv,yuv4mpegpipe,"
    "h264,hevc,m4v,obu"
)
ALLOWED = "a video (MP4, MKV, WebM, AVI, ...), a picture, an animation or a folder of pictures"
UNKNOWN_END_S = 1e6  # where to look for the end if the file does not say
# After a jump in an MPEG program stream, times are wrong by up to a frame: most have none there.
UNSOUND_JUMPS = ("mpeg",)
MATROSKA = b"\x1a\x45\xdf\xa3"
STEP_S = 1.0  # first step back from a place that holds nothing


class VideoFile:
    """One open file and its video stream; seconds count from the start of that stream.

    Args:
        path: absolute path.

    Attributes:
        stream: the best stream that is no cover picture.
        videos: how many such streams there are.
        formats: names of the container format.
        tick_s: seconds of a tick of the stream's clock.
        origin_s: the stream's start on that clock.
        rate: frames a second on average, None if nobody knows.

    Raises:
        MediaError: no video in it.
    """

    def __init__(self, path: str) -> None:
        self._container = _open(path)
        self.formats = self._container.format.name.split(",")
        self.stream, self.videos = _choose(self._container)
        self.tick_s = float(self.stream.time_base or 0)
        self.origin_s = (self.stream.start_time or 0) * self.tick_s
        self.rate = float(self.stream.average_rate or self.stream.guessed_rate or 0) or None

    def seconds(self, ticks: int) -> float:
        """A time of the stream's clock."""
        return ticks * self.tick_s - self.origin_s

    @property
    def decoding_times(self) -> bool:
        """Whether the file has times of decoding only: times of showing would be guesses."""
        return "avi" in self.formats

    def ticks(self, packet: Packet[Any]) -> int | None:
        """When a packet is shown, as far as the file knows."""
        guessed = packet.pts is None or self.decoding_times
        return packet.dts if guessed else packet.pts

    @property
    def codec(self) -> str:
        """Name of the coding, for instance h264."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def jumps(self) -> bool:
        """Whether times after a jump are those of the file."""
        return not set(UNSOUND_JUMPS) & set(self.formats)

    def seek(self, seconds: float) -> bool:
        """Go to the place from which on decoding reaches that second; False if refused."""
        try:
            ticks = round((seconds + self.origin_s) / self.tick_s)
            self._container.seek(ticks, stream=self.stream)
        except (av.FFmpegError, OverflowError, ZeroDivisionError):
            return False
        return True

    def packets(self) -> Iterator[Packet[Any]]:
        """Packets from here to the end, and an empty one that asks for what is still inside.

        A file that breaks off ends there.
        """
        with suppress(av.FFmpegError):
            yield from self._container.demux(self.stream)
            return
        yield Packet()

    def key_before(self, seconds: float) -> float | None:
        """When the first picture appears from which on decoding can start after a jump.

        Returns:
            Seconds, perhaps later than asked for; None if nothing can be read there.
        """
        if self.seek(seconds):
            for packet in self.packets():
                if packet.is_keyframe and (ticks := self.ticks(packet)) is not None:
                    return self.seconds(ticks)
        return None

    def claimed_end(self) -> float | None:
        """Seconds at which the file says that it ends."""
        if self.stream.duration:
            return float(self.stream.duration * self.tick_s)
        if self._container.duration:  # may count from 0 of the clock and not from the first frame
            return max(0.0, self._container.duration / av.time_base - max(0.0, self.origin_s))
        return None

    def found_end(self) -> float | None:
        """Seconds at which the last readable packet ends, without reading what lies before.

        Claims are not believed: a jump to the claimed end shows whether anything is there, and if
        not, halving finds the last place that holds something.
        """
        if not self.jumps:
            return self._end_from(0.0)
        high = self.claimed_end() or UNKNOWN_END_S
        end = self._end_from(high)
        if end is not None:
            return end
        low = 0.0
        while high - low > STEP_S:
            middle = (low + high) / 2
            low, high = (middle, high) if self.key_before(middle) is not None else (low, middle)
        return self._end_from(low)

    def _end_from(self, seconds: float) -> float | None:
        end = None
        frame_s = 1 / self.rate if self.rate else 0.0
        start = max(0.0, seconds - STEP_S)  # packets out of order: the last need not end last
        if not self.seek(start) and start > 0:
            return None
        for packet in self.packets():
            if packet.size and (ticks := self.ticks(packet)) is not None:
                length_s = packet.duration * self.tick_s if packet.duration else frame_s
                end = max(end or 0.0, self.seconds(ticks) + length_s)
        return end


def _open(path: str) -> InputContainer:
    """Open a file and let it open no other.

    Raises:
        MediaError: it is no video.
    """
    try:
        return _open_unnamed(path)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise _not_opened(path, getattr(error, "strerror", None) or str(error)) from error


def _open_unnamed(path: str) -> InputContainer:
    """Open by descriptor: a name like `%d.jpg` means a row of pictures to FFmpeg."""
    descriptor = open_handle(path, os.O_RDONLY)
    options = {
        "fd": str(descriptor),
        "protocol_whitelist": "fd",
        "format_whitelist": FORMATS,
    }
    try:
        return av.open("fd:", container_options=options, metadata_errors="replace")
    finally:
        os.close(descriptor)  # FFmpeg has its own copy


def _not_opened(path: str, reason: str) -> MediaError:
    with open_regular(path) as file:
        head = file.read(12)
    if head.startswith(MATROSKA):
        return MediaError(
            f"a Matroska or WebM file without a readable frame: {reason}",
            allowed="a complete file",
            hint="copy or record it again",
        )
    if head[4:8] == b"ftyp":
        return MediaError(
            f"an MP4 whose index cannot be read: {reason}",
            allowed="a complete file; the index may stand at its end",
            hint="copy or record it again",
        )
    return MediaError(
        f"no video and no picture: {reason}",
        allowed=ALLOWED,
        hint="check the file; its name does not matter, its content does",
    )


def _choose(container: InputContainer) -> tuple[VideoStream, int]:
    """The best video stream that is no cover picture, and how many there are."""
    cover = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not moving:
        others = ", ".join(stream.type for stream in container.streams)
        found = f"no video stream, only: {others}" if others else "a video file without streams"
        raise MediaError(found, allowed=ALLOWED, hint="copy or record it again, with its video")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if best and stream.index == best.index), moving[0])
    if stream.codec_context is None:
        raise MediaError("a video whose coding is unknown", allowed=ALLOWED, hint=CONVERT)
    check_size(stream.codec_context.width, stream.codec_context.height)
    return stream, len(moving)
