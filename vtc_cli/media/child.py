"""Frames from a process of its own, which is killed if it hangs, grows or is no longer wanted.

A plain subprocess and not `multiprocessing`: that one runs the caller's main module again (which
may load torch, or be a notebook), and it may not be used inside daemonic workers. This one imports
NumPy and one decoder. Frames come back as raw bytes through a pipe, straight into the array that
holds them in the end: nothing lies in a temporary file or in shared memory that could be left
behind, and the child holds one frame at a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import CONVERT
from vtc_cli.media.job import Job
from vtc_cli.media.size import too_many_frames

START = (
    "import json, sys; job = json.loads(sys.stdin.buffer.readline()); "
    "sys.path[:] = job.pop('search'); from vtc_cli.media.decoding import main; main(job)"
)
PIPE_BYTES = 1 << 20
WATCH_S = 0.05
SILENCE_S = 20.0  # decord is given up after so long without a frame, for PyAV can take over
SHORT_OF_MEMORY = "free some memory, or take fewer frames"


class ReaderFailedError(Exception):
    """A reader could not do it; another may.

    Attributes:
        reader: which one.
        fault: what to tell the user if there is no other.
    """

    def __init__(self, reader: str, fault: MediaError) -> None:
        super().__init__(str(fault))
        self.reader, self.fault = reader, fault


@dataclass(frozen=True)
class Decoded:
    """What came back.

    Attributes:
        frames: (F, H, W, 3) uint8 RGB, upright; at least one.
        timestamps: seconds of each.
        notes: what was done to them.
    """

    frames: NDArray[np.uint8]
    timestamps: tuple[float, ...]
    notes: tuple[str, ...]


def decode(job: Job) -> Decoded:
    """Carry out a job in a process that is gone when this returns, however it returns.

    Raises:
        MediaError: the input is at fault, or the limits; no other reader can help.
        ReaderFailedError: this reader could not do it.
    """
    with tempfile.TemporaryFile() as errors:  # without a name: none can be left behind
        child = _Child(job, errors)
        try:
            child.start()
            return _Received(child).decoded()
        finally:
            child.end()


class _Child:
    """The decoding process and the watch over its time.

    Attributes:
        job: what it does.
        reader: which reader decodes, as far as is known.
    """

    def __init__(self, job: Job, errors: IO[bytes]) -> None:
        self.job, self._errors = job, errors
        self.reader: str = job.reader
        self._late: str | None = None
        self._deadline = time.monotonic() + job.seconds
        self._heard = time.monotonic()
        self._finished = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and say what to do."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={"MALLOC_ARENA_MAX": "2", **os.environ},  # arenas count as address space
        )
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()
        self._widen_pipe()
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError):  # it died at once; reading tells
            stdin.write(json.dumps({"search": sys.path, **self.job.to_json()}).encode() + b"\n")
            stdin.close()

    @property
    def output(self) -> BufferedReader:
        """Where its answers come from."""
        assert self._process is not None and isinstance(self._process.stdout, BufferedReader)
        return self._process.stdout

    def message(self) -> tuple[str, dict[str, Any]]:
        """The next answer: its name and values.

        Raises:
            MediaError: time is over.
            ReaderFailedError: it died.
        """
        line = self.output.readline()
        self._heard = time.monotonic()
        if not line.endswith(b"\n"):
            raise self.death()
        ((name, values),) = json.loads(line).items()
        return str(name), values

    def death(self) -> BaseException:
        """Why no more comes."""
        assert self._process is not None
        ending = _ending(self._process.wait())
        if ending == "SIGINT":  # Ctrl-C is for the whole group, and the child was first
            return KeyboardInterrupt()
        if self._late == "time" or (self._late is None and ending == "SIGALRM"):
            return _too_slow(self.job)
        if self._late == "silence":
            found = f"gave nothing for {SILENCE_S:g} s"
        else:
            found = f"died ({ending})"
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        found = f"the decoder {found}" + (f": {last[:300]}" if last else "")
        killed = ending == "SIGKILL" and self._late is None
        hint = SHORT_OF_MEMORY if killed else CONVERT
        return self.failure(MediaError(found, allowed="a sound file, and memory", hint=hint))

    def failure(self, fault: MediaError) -> ReaderFailedError:
        """A fault of the present reader."""
        return ReaderFailedError(self.reader, fault)

    def end(self) -> None:
        """Kill it if it still lives, and wait for it, so that no zombie stays."""
        self._finished.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what could not be written is given up
                        pipe.close()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        may_give_up = self.job.reader == "auto"
        while not self._finished.wait(WATCH_S):
            now = time.monotonic()
            if now > self._deadline:
                self._late = "time"
            elif may_give_up and self.reader == "decord" and now > self._heard + SILENCE_S:
                self._late = "silence"
            if self._late:
                process.kill()
                return

    def _widen_pipe(self) -> None:
        """A larger pipe means fewer turns for a frame of some megabytes; Linux only."""
        with suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self.output.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Received:
    """Answers of the child, put together."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        self._limit_bytes = child.job.options.memory_limit_bytes
        self._frames: NDArray[np.uint8] = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._seconds: list[float] = []
        self._notes: list[str] | None = None

    def decoded(self) -> Decoded:
        """Everything, when the child is done.

        Raises:
            MediaError: see `decode`.
            ReaderFailedError: see `decode`.
        """
        handlers: dict[str, Callable[..., None]] = {
            "reader": self._reader,
            "clip": self._clip,
            "frame": self._frame,
            "fault": self._fault,
            "done": self._done,
        }
        while self._notes is None:
            name, values = self._child.message()
            handlers[name](**values)
        if not self._seconds:
            fault = MediaError("not one frame", allowed="a complete file", hint=CONVERT)
            raise self._child.failure(fault)
        self._resize(len(self._seconds))
        return Decoded(self._frames, tuple(self._seconds), tuple(self._notes))

    def _reader(self, name: str) -> None:
        self._child.reader = name

    def _clip(self, width: int, height: int, expected: int) -> None:
        self._frames = np.empty((0, height, width, 3), dtype=np.uint8)
        self._resize(max(1, min(expected, self._most())))

    def _frame(self, seconds: float) -> None:
        count = len(self._seconds)
        if count == len(self._frames):
            if count >= self._most():
                raise self._too_large(count + 1)
            self._resize(min(2 * count, self._most()))
        if self._child.output.readinto(self._frames[count].data) < self._frames[count].nbytes:
            raise self._child.death()
        self._seconds.append(seconds)

    def _done(self, notes: list[str]) -> None:
        self._notes = notes

    def _fault(self, final: bool, **parts: Any) -> None:
        fault = MediaError(**parts)
        raise fault if final else self._child.failure(fault)

    def _most(self) -> int:
        """Frames that fit into the limit."""
        _, height, width, _ = self._frames.shape
        return max(1, self._limit_bytes // int(height * width * 3))

    def _resize(self, count: int) -> None:
        """Room for that many frames; the system moves pages, not bytes."""
        try:
            self._frames.resize((count, *self._frames.shape[1:]), refcheck=False)
        except MemoryError as error:
            raise self._too_large(count) from error

    def _too_large(self, count: int) -> MediaError:
        _, height, width, _ = self._frames.shape
        return too_many_frames(count, width, height, self._limit_bytes)


def _too_slow(job: Job) -> MediaError:
    other = "--reader pyav, which jumps; " if job.reader == "decord" else ""
    return MediaError(
        f"not decoded after {job.options.time_limit:g} s",
        allowed="as much wall time for reading",
        hint=f"{other}take fewer frames, or raise --time-limit",
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
