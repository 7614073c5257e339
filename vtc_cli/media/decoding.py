"""The process that decodes: started with one job, it sends frames and ends.

It is a process of its own because decoders hang, crash and take memory without bound inside native
code, where neither a thread nor an exception helps: this one can be killed. Memory and lifetime
are bounded by the system itself, even if the process that wanted the frames is gone.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import CONVERT, FrameOptions
from vtc_cli.media.job import Job
from vtc_cli.media.sampling import (
    Frame,
    Reader,
    Span,
    keyframe_times,
    rate_times,
    span_of,
    uniform_times,
)
from vtc_cli.media.size import too_many_frames

MOST_THREADS = 4
MOST_WRITTEN_BYTES = 1 << 20  # to files: what libraries write on stderr, nothing else
GRACE_S = 5  # longer than the process that waits; it kills first if it still lives
MOST_CHARACTERS = 200
DIGITS = 6  # of seconds; clocks of containers are no finer, and products of floats are untidy
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
DOUBT = 2  # how far the claimed frame rate may be off before frames are refused for it


def main(values: dict[str, Any]) -> None:
    """Carry out a job and end the process, whatever native threads think of it."""
    out = _own_output()
    job = Job.from_json(values)
    try:
        _bound(job)
        _carry_out(job, out)
    except MediaError as error:
        _send(out, "fault", **_parts(error), final=True)
    except MemoryError:  # another reader may need less
        _send(out, "fault", **_parts(_out_of_memory(job)), final=False)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # whatever a decoder raises over a broken file
        _send(out, "fault", **_parts(_undecodable(job, error)), final=False)
    with suppress(BrokenPipeError):
        out.flush()
    os._exit(0)  # decord may hang when it lets go of a file


def _own_output() -> BinaryIO:
    """Standard output for frames alone: what libraries print there goes to stderr instead."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _bound(job: Job) -> None:
    """Let the system end this process if it grows or lives beyond what is allowed."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows; not above a hard limit
        import resource

        limit_bytes = job.options.memory_limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN_BYTES, MOST_WRITTEN_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a quiet end on Ctrl-C
        signal.alarm(math.ceil(job.seconds) + GRACE_S)
    with suppress(OSError, AttributeError, TypeError):  # Linux only
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _carry_out(job: Job, out: BinaryIO) -> None:
    options, notes = job.options, list[str]()
    look, reader = _readers(job, out)
    span = span_of(options, look.end, notes)
    asked = _asked(options, span)
    expected = _expected(asked, span, look, options.memory_limit_bytes)
    _send(out, "clip", width=look.width, height=look.height, expected=expected)
    count = 0
    for frame in _wanted(options, look, reader, span):
        pixels = np.ascontiguousarray(frame.pixels)
        _send(out, "frame", seconds=round(frame.seconds, DIGITS))
        out.write(pixels.data)
        count += 1
    if asked is not None and count < asked:
        notes.append(f"asked for {asked} frames, took {count}: no others are on screen then")
    _send(out, "done", notes=[*reader.notes, *notes])


def _readers(job: Job, out: BinaryIO) -> tuple[Reader, Reader]:
    """The reader that knows the file, and the one that decodes the wanted frames."""
    if job.content.kind != "video":
        from vtc_cli.media.pillow_reader import AnimationReader, FolderReader

        _send(out, "reader", name="pillow")
        folder = job.content.kind == "folder"
        names = list(job.content.names)
        pillow = FolderReader(job.path, names, job.label) if folder else AnimationReader(job.path)
        return pillow, pillow
    from vtc_cli.media.pyav_reader import PyavReader

    threads = min(MOST_THREADS, _cores())
    look = PyavReader(job.path, threads)
    if job.reader == "pyav":
        return look, look
    from vtc_cli.media.decord_reader import DecordReader, against

    reason = against(look, insist=job.reader == "decord")
    if reason and job.reader == "decord":
        found, hint = f"decord cannot read this: {reason}", "--reader auto or pyav"
        raise MediaError(found, allowed="what both readers give the same frames of", hint=hint)
    if reason:
        return look, look
    _send(out, "reader", name="decord")
    return look, DecordReader(job.path, look, threads)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _asked(options: FrameOptions, span: Span) -> int | None:
    """How many frames are asked for; None for all that there are."""
    if options.fps is not None:
        return sum(1 for _ in rate_times(span, options.fps))
    return options.keyframes or options.count


def _wanted(options: FrameOptions, look: Reader, reader: Reader, span: Span) -> Iterator[Frame]:
    """The wanted frames in the order of time."""
    if options.keyframes is not None:
        return reader.shown_at(keyframe_times(look, span, options.keyframes))
    if options.fps is not None:
        return reader.shown_at(rate_times(span, options.fps))
    if options.count is not None:
        return reader.shown_at(uniform_times(span, options.count))
    return reader.between(span.start, span.end)


def _expected(asked: int | None, span: Span, look: Reader, allowed_bytes: int) -> int:
    """The most frames that there can be, if the claimed rate holds.

    Raises:
        MediaError: they would not fit.
    """
    there = math.ceil(span.length * look.rate) + 1 if look.rate else asked or 1
    expected = there if asked is None else min(asked, there)
    if expected * look.width * look.height * 3 > allowed_bytes * DOUBT:
        raise too_many_frames(expected, look.width, look.height, allowed_bytes)
    return expected


def _out_of_memory(job: Job) -> MediaError:
    return MediaError(
        "decoding takes more memory",
        allowed=f"{job.options.memory_limit_bytes / (1 << 30):.1f} GiB of address space",
        hint="--reader pyav" if job.reader == "decord" else "scale the video down",
    )


def _undecodable(job: Job, error: Exception) -> MediaError:
    insists = job.reader == "decord"
    return MediaError(
        f"cannot be decoded: {_short(error)}",
        allowed="a sound file",
        hint="--reader auto or pyav" if insists else CONVERT,
    )


def _short(error: Exception) -> str:
    """The words of an error, without the places in foreign source that decord puts before them."""
    words = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", " ".join(str(error).split()))
    return words[:MOST_CHARACTERS] or type(error).__name__


def _parts(error: MediaError) -> dict[str, str | None]:
    return {
        "found": error.found,
        "where": error.where,
        "allowed": error.allowed,
        "hint": error.hint,
    }


def _send(out: BinaryIO, key: str, **values: Any) -> None:
    out.write(json.dumps({key: values}).encode() + b"\n")
    if key != "frame":
        out.flush()
