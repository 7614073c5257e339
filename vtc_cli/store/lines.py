"""Files of JSON lines that hold whole lines only, whatever happens to process, disk or machine.

A line is appended with one write and an fsync, so that at any moment the file holds whole lines and
at most one torn one at its end. That one is cut off when the file is opened again. An exclusive
lock keeps a second process away for as long as the file is open; the system lifts it however the
process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.files import open_handle, open_regular, own_stream, sync_folder

FLAG = "--output"
BLOCK_BYTES = 1 << 16
Line = dict[str, Any]


def read_lines(path: Path) -> Iterator[Line]:
    """The objects of a file, one after the other; a last line that was cut off is left out.

    Raises:
        UsageError: it cannot be read, or a whole line is no JSON object.
    """
    try:
        with open_regular(path) as stream:
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
    except (ValueError, RecursionError) as error:
        raise _no_line(path, number) from error
    if not isinstance(value, dict):
        raise _no_line(path, number)
    return value


def _no_line(path: Path, number: int) -> UsageError:
    where = f"{path}, line {number}"
    return UsageError("no JSON object", where=where, allowed="a file of results, one object a line")


class LineFile:
    """An open, locked and repaired file that grows by whole lines.

    Args:
        path: the file, made if it is not there.
        anew: forget what it holds, at the first line that is written.

    Attributes:
        path: as given.
        repaired_bytes: length of the torn line that was cut off, 0 without one.
        end: length of the file.

    Raises:
        UsageError: it cannot be written, is no regular file, or another process writes to it.
    """

    kind: ClassVar[str] = "a file of results"
    other_file: ClassVar[str] = "another file for -o"
    line_starts: ClassVar[tuple[bytes, ...]] = (b'{"',)

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        self.repaired_bytes = 0
        self.anew, self._made = anew, not os.path.exists(path)
        self.handle = _locked(path)
        self.end = os.fstat(self.handle).st_size
        if anew:
            return
        try:
            self._repair()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._check_name()
        finally:
            self.close()

    def close(self) -> None:
        """Lift the lock; a file that was made here and holds nothing goes away."""
        if self._made and os.fstat(self.handle).st_size == 0 and self._has_name():
            with suppress(OSError):
                self.path.unlink()
        os.close(self.handle)

    def append(self, text: str) -> None:
        """Write one line (without its line end) so that it survives a crash from here on.

        Raises:
            VtcError: no room left, or another fault of the disk; what was written before is whole.
                Also a file that was removed or replaced meanwhile: its lines, this one too, are
                saved under another name, which the error says.
        """
        if self.anew:
            os.ftruncate(self.handle, 0)
            self.end, self.anew = 0, False
        data = memoryview(text.encode("utf-8") + b"\n")
        end = self.end
        try:
            while data:
                count = os.pwrite(self.handle, data, end)
                data, end = data[count:], end + count
            os.fsync(self.handle)
        except OSError as error:
            self._take_back()
            raise not_written(self.path, error) from error
        except BaseException:  # an interrupt: a whole line stays, half a line is none
            if data:
                self._take_back()
            raise
        self.end = end
        self._check_name()

    def _has_name(self) -> bool:
        """Whether the file is still the one of its name."""
        with suppress(OSError):
            return os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        return False

    def _check_name(self) -> None:
        """See that who looks under the name finds the lines.

        Raises:
            VtcError: the file was removed, moved or replaced; where its lines are now.
        """
        if self._has_name():
            return
        try:
            saved = _saved(self.handle, self.path)
        except OSError as error:
            hint = f"nothing: its lines could not be saved either ({error.strerror or error})"
        else:
            hint = f"its lines are in {saved}: move it there and repeat the command"
        raise VtcError(
            "the file was removed, moved or replaced while lines were written to it",
            where=str(self.path),
            allowed="a file that stays where it is until the command ends",
            hint=hint,
        )

    def _take_back(self) -> None:
        with suppress(OSError):
            os.ftruncate(self.handle, self.end)

    def _repair(self) -> None:
        """Cut off a last line without an end; whose it is must be plain."""
        tail = self._tail()
        if not tail:
            return
        begun = any(tail[: len(start)] == start[: len(tail)] for start in self.line_starts)
        if not begun and tail.strip(b"\0"):
            raise UsageError(
                "its last line is neither whole nor the beginning of a result",
                where=str(self.path),
                allowed=self.kind,
                hint=self.other_file,
            )
        self.end -= len(tail)
        self.repaired_bytes = len(tail)
        os.ftruncate(self.handle, self.end)
        os.fsync(self.handle)

    def _tail(self) -> bytes:
        """What stands behind the last line end."""
        tail, begin = b"", self.end
        while begin > 0 and b"\n" not in tail:
            size = min(BLOCK_BYTES, begin)
            begin -= size
            tail = os.pread(self.handle, size, begin) + tail
        return tail.rpartition(b"\n")[2]


def _locked(path: Path) -> int:
    """A handle with the lock; of the file that has the name now, not of one that was replaced."""
    allowed = "a file of its own in a folder that exists and can be written"
    if own_stream(path) is not None:
        found = f"{path} is stdout, stderr or a device"
        raise UsageError(found, where=FLAG, allowed=allowed)
    while True:
        try:
            handle = open_handle(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            found = f"{path}: {error.strerror or error}"
            raise UsageError(found, where=FLAG, allowed=allowed) from error
        try:
            _lock(handle, path)
            sync_folder(path)
            with suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(handle)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            "another process is writing to this file",
            where=str(path),
            allowed="one process a file",
            hint="wait for it, or give another -o",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot be locked: {error.strerror}",
            where=str(path),
            allowed="a file system with locks",
            hint="another -o",
        ) from error


def _saved(handle: int, path: Path) -> Path:
    """A copy of an open file that has lost its name; beside it, or in the temporary folder."""
    prefix, folder = f"{path.name[:40]}.saved-", path.resolve().parent
    try:
        target, name = tempfile.mkstemp(dir=folder, prefix=prefix)
    except OSError:  # the folder is gone too
        target, name = tempfile.mkstemp(prefix=prefix)
    with open(handle, "rb", closefd=False) as source, os.fdopen(target, "wb") as copy:
        source.seek(0)
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    sync_folder(Path(name))
    return Path(name)


def not_written(path: Path, error: OSError) -> VtcError:
    """The error for lines that the disk did not take."""
    return VtcError(
        f"could not be written: {error.strerror or error}",
        where=str(path),
        allowed="room on the disk; all lines before this one are whole",
        hint="make room and repeat the command: it goes on where it stopped",
    )
