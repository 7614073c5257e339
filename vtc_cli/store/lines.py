"""A file of JSON lines that survives the end of its writer: what is in it stays in it.

Each line is on the disk before the next one is made. A last line that was cut off is taken off when
the file is opened again, and one writer at a time holds the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any

from vtc_cli.core.errors import UsageError, VtcError

Line = dict[str, Any]


def read_lines(path: Path) -> Iterator[Line]:
    """The objects of a file, one after the other; a last line that was cut off is left out.

    Raises:
        UsageError: it cannot be read, or a whole line is no JSON object.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                yield _decoded(line, path, number)
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise UsageError(found, where=str(path), allowed="a file of results") from error


def _decoded(line: bytes, path: Path, number: int) -> Line:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise _no_line(path, number) from error
    if not isinstance(value, dict):
        raise _no_line(path, number)
    return value


def _no_line(path: Path, number: int) -> UsageError:
    where = f"{path}, line {number}"
    return UsageError("no JSON object", where=where, allowed="a file of results, one object a line")


class LineFile:
    """A file that grows by whole lines; as a context manager it is locked against other writers.

    Args:
        path: created if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> LineFile:
        """Open, lock, and take off what was cut off.

        Raises:
            UsageError: another process writes to it, or it cannot be written.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            found = f"cannot be written: {error.strerror or error}"
            raise UsageError(found, where=str(self.path)) from error
        self._stream: BufferedRandom = os.fdopen(descriptor, "r+b")
        try:
            self._lock()
            self._repair()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()  # the lock goes with it

    def append(self, line: Line) -> None:
        """Write one object as a line and see it on the disk.

        Raises:
            VtcError: no room or no right to write.
            ValueError: NaN or infinity, which JSON has not.
        """
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            self._stream.write(text.encode("utf-8") + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            reason = error.strerror or str(error)
            raise VtcError(f"could not be written: {reason}", where=str(self.path)) from error

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on Windows; there two writers are not kept apart
            return
        try:
            fcntl.flock(self._stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                "another process writes to it",
                where=str(self.path),
                hint="wait for it, or choose another file",
            ) from error

    def _repair(self) -> None:
        """Cut the file behind its last whole line and stand there."""
        end = self._stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - 65536, 0)
            self._stream.seek(start)
            at = self._stream.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        self._stream.truncate(end)
        self._stream.seek(end)
