"""Results files: whole lines only, whatever happens to the process, the disk or the machine.

A line is appended with one write and an fsync, so that at any moment the file holds whole lines and
at most one torn one at its end. That one is cut off when the file is opened again; its job was not
done. There is no header: each line says which job it answers and what was asked, so that a resumed
batch knows what is done and another recipe or model is refused. An exclusive lock keeps a second
process away for as long as the file is open; the system lifts it however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.files import temporary_beside

FLAG = "--output"
LINE_STARTS = (b'{"id":"', b'{"id":null')
OTHER_FILE = "another -o, or --no-resume to write this one anew"
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Written:
    """What one line of a results file says of its job.

    Attributes:
        id: the job's.
        key: hash of all that shaped the answer.
        asked: the same in words; empty for a line with a fault.
        failed: whether the job failed.
    """

    id: str | None
    key: str
    asked: dict[str, Any]
    failed: bool


class ResultsFile:
    """An open, locked and repaired results file.

    Args:
        path: the file, made if it is not there.
        anew: forget what it holds, at the first line that is written.

    Raises:
        UsageError: it cannot be written, is no regular file, or another process writes to it.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        self.repaired_bytes = 0
        self._anew, self._made = anew, not path.exists()
        self._handle = _locked(path)
        self._end = os.fstat(self._handle).st_size
        if anew:
            return
        try:
            self._repair()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lift the lock; a file that was made here and holds nothing goes away."""
        if self._made and os.fstat(self._handle).st_size == 0:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._handle)

    def written(self) -> Iterator[Written]:
        """What each line says.

        Raises:
            UsageError: a line that is no result of a batch.
        """
        if self._anew:
            return
        with open(self._handle, "rb", closefd=False) as stream:
            stream.seek(0)
            for number, line in enumerate(stream, start=1):
                yield self._written(number, line)

    def append(self, text: str) -> None:
        """Write one line (without its line end) so that it survives a crash from here on.

        Raises:
            VtcError: no room left, or another fault of the disk; what was written before is whole.
        """
        if self._anew:
            os.ftruncate(self._handle, 0)
            self._end, self._anew = 0, False
        data = memoryview(text.encode("utf-8") + b"\n")
        end = self._end
        try:
            while data:
                count = os.pwrite(self._handle, data, end)
                data, end = data[count:], end + count
            os.fsync(self._handle)
        except OSError as error:
            self._take_back()
            raise _not_written(self.path, error) from error
        except BaseException:  # an interrupt: a whole line stays, half a line is none
            if data:
                self._take_back()
            raise
        self._end = end

    def _take_back(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._handle, self._end)

    def drop_failed(self) -> int:
        """Take out the lines of failed jobs, so that they are done again; how many went.

        The file is replaced as a whole: it is never without a line that it had and keeps.

        Raises:
            UsageError: a line that is no result of a batch.
            VtcError: no room for the new file.
        """
        goal = self.path.resolve()
        part = temporary_beside(goal)
        dropped = 0
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.fchmod(handle, stat.S_IMODE(os.fstat(self._handle).st_mode))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before it has the name
            with open(handle, "wb", closefd=False) as out, open(goal, "rb") as stream:
                for number, line in enumerate(stream, start=1):
                    failed = self._written(number, line).failed
                    dropped += failed
                    if not failed:
                        out.write(line)
            os.fsync(handle)
            part.replace(goal)
        except BaseException as error:
            os.close(handle)
            part.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _not_written(self.path, error) from error
            raise
        os.close(self._handle)
        self._handle, self._end = handle, os.fstat(handle).st_size
        _sync_folder(goal)
        return dropped

    def _repair(self) -> None:
        """Cut off a last line without an end; whose it is must be plain."""
        tail = self._tail()
        if not tail:
            return
        begun = any(tail[: len(start)] == start[: len(tail)] for start in LINE_STARTS)
        if not begun and tail.strip(b"\0"):
            raise UsageError(
                "its last line is neither whole nor the beginning of a result",
                where=str(self.path),
                allowed="a results file of `vtc run --batch`",
                hint=OTHER_FILE,
            )
        self._end -= len(tail)
        self.repaired_bytes = len(tail)
        os.ftruncate(self._handle, self._end)
        os.fsync(self._handle)

    def _tail(self) -> bytes:
        """What stands behind the last line end."""
        tail, begin = b"", self._end
        while begin > 0 and b"\n" not in tail:
            size = min(BLOCK_BYTES, begin)
            begin -= size
            tail = os.pread(self._handle, size, begin) + tail
        return tail.rpartition(b"\n")[2]

    def _written(self, number: int, line: bytes) -> Written:
        try:
            values = json.loads(line)
            job, job_id = values["job"], values["id"]
            return Written(job_id, str(job["key"]), dict(job["asked"]), values["error"] is not None)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"line {number} is no result of a batch",
                where=str(self.path),
                allowed="a results file of `vtc run --batch`",
                hint=OTHER_FILE,
            ) from error


def _locked(path: Path) -> int:
    """A handle with the lock; of the file that has the name now, not of one that was replaced."""
    allowed = "a file in a folder that exists and can be written"
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{path}: {reason}", where=FLAG, allowed=allowed) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UsageError(f"{path} is a device or a pipe", where=FLAG, allowed="a file")
            _lock(handle, path)
            _sync_folder(path)
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
            allowed="one batch a results file",
            hint="wait for it, or give another -o",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot be locked: {error.strerror}",
            where=str(path),
            allowed="a file system with locks",
            hint="another -o",
        ) from error


def _sync_folder(path: Path) -> None:
    """Make the name of a new file survive a crash too, where the system can do that."""
    with suppress(OSError):
        handle = os.open(path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _not_written(path: Path, error: OSError) -> VtcError:
    return VtcError(
        f"could not be written: {error.strerror or error}",
        where=str(path),
        allowed="room on the disk; all lines before this one are whole",
        hint="make room and repeat the command: it goes on where it stopped",
    )
