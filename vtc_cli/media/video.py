"""Videos: files, animated pictures and folders of pictures become upright RGB frames in time."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vtc_cli.core.errors import MediaError
from vtc_cli.core.media import Media
from vtc_cli.core.words import counted
from vtc_cli.media.files import STDIN, Hash, local_file
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.image import image_of
from vtc_cli.media.job import Content, Job
from vtc_cli.media.sniff import content_of

if TYPE_CHECKING:
    from vtc_cli.media.child import Decoded

DEFAULT = FrameOptions()
LEAST_S = 0.001  # of a clock that has run out, so that the error names a number
UNUSED = "a still picture: the choice of frames is not used"


def kind_of(path: str, options: FrameOptions = DEFAULT) -> Literal["image", "video"] | None:
    """What an input is by its header; a video of which one frame is wanted is as good as a picture.

    None of what cannot be read, and of standard input, which is read once.
    """
    if path == STDIN:
        return None
    with suppress(MediaError), local_file(path) as target:
        picture = content_of(target, path).kind == "picture" or options.count == 1
        return "image" if picture else "video"
    return None


def read_media(path: str, options: FrameOptions = DEFAULT) -> Media:
    """Read a picture or a video, whichever the content is; names do not matter.

    Animated GIF, WebP, PNG and AVIF files and folders of pictures are videos.

    Args:
        path: a file, a folder, or `-` for standard input.
        options: the wanted frames of a video; a still picture says if they do not apply.

    Raises:
        MediaError: neither a picture nor a video, or a broken one.
    """
    began = time.monotonic()
    with local_file(path) as target:
        content = content_of(target, path)
        if content.kind != "picture":
            return _video(target, path, content, options, began + options.time_limit)
        picture = image_of(target, path)
        if options == DEFAULT:
            return picture
        return replace(picture, warnings=(*picture.warnings, UNUSED))


def read_video(path: str, options: FrameOptions = DEFAULT) -> Media:
    """Read a video: a file, an animated picture or a folder of pictures.

    Frames are decoded in a process of its own, within the limits of `options`; timestamps are
    seconds from the start of the video stream to the time at which each frame is shown. What was
    done to the frames stands in `Media.warnings`.

    Args:
        path: a file, a folder, or `-` for standard input.
        options: the wanted frames.

    Raises:
        MediaError: a still picture, no video, a broken one, or one beyond the limits.
    """
    began = time.monotonic()
    with local_file(path) as target:
        content = content_of(target, path)
        if content.kind == "picture":
            raise MediaError(
                "a still picture",
                where=path,
                allowed="a video, an animated picture or a folder of pictures",
            )
        return _video(target, path, content, options, began + options.time_limit)


def _video(target: Path, path: str, content: Content, options: FrameOptions, end: float) -> Media:
    """Frames and hash, both until `end` on the monotonic clock."""
    sha256 = Hash(target, content.names, path)
    sha256.start()
    try:
        decoded = _decoded(target, path, content, options, end)
        return Media(
            frames=decoded.frames,
            timestamps=decoded.timestamps,
            kind="video",
            path=path,
            sha256=sha256.hexdigest(end),
            warnings=(*_left_out(content), *decoded.notes),
        )
    except MediaError as error:
        error.where = error.where or path
        raise
    finally:
        sha256.stop()


def _decoded(
    target: Path, path: str, content: Content, options: FrameOptions, end: float
) -> Decoded:
    """Frames of the first reader that can do it."""
    from vtc_cli.media.child import ReaderFailedError, decode

    seconds = max(LEAST_S, end - time.monotonic())
    job = Job(str(target), path, content, options, options.reader, seconds)
    try:
        return decode(job)
    except ReaderFailedError as failure:
        if options.reader != "auto" or failure.reader != "decord":
            raise failure.fault from failure
        note = f"decord failed ({failure.fault.found}); PyAV was used"
    try:
        seconds = max(1.0, end - time.monotonic())  # in which the process says what is wrong
        decoded = decode(replace(job, reader="pyav", seconds=seconds))
    except ReaderFailedError as failure:
        raise failure.fault from failure
    return replace(decoded, notes=(*decoded.notes, note))


def _left_out(content: Content) -> tuple[str, ...]:
    if not content.others:
        return ()
    if content.others == 1:
        return ("1 file of the folder is no picture and was left out",)
    return (f"left out of the folder: {counted(content.others, 'file')} of another kind",)
