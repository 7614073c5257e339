"""Results files of batches: lines that survive, and what each says of its job.

There is no header: each line says which job it answers and what was asked, so that a resumed batch
knows what is done and another recipe or model is refused. The job of a torn line was not done.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from vtc_cli.core.errors import UsageError
from vtc_cli.core.files import sync_folder, temporary_beside
from vtc_cli.core.terminal import show
from vtc_cli.store.lines import LineFile, not_written


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


class ResultsStream:
    """The results of a batch on stdout: nothing was there before, so nothing is gone on with."""

    path = "stdout"
    repaired_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is to be closed: stdout is not ours."""

    def written(self) -> Iterator[Written]:
        """No line."""
        return iter(())

    def append(self, text: str) -> None:
        """Write one line, at once, for whoever reads the other end of a pipe."""
        show(text)
        sys.stdout.flush()


class ResultsFile(LineFile):
    """The results of a batch; see `LineFile`."""

    kind = "a results file of `vtc run --batch`"
    other_file = "another -o, or --no-resume to write this one anew"
    line_starts = (b'{"id":"', b'{"id":null')

    def written(self) -> Iterator[Written]:
        """What each line says.

        Raises:
            UsageError: a line that is no result of a batch.
        """
        if self.anew:
            return
        with open(self.handle, "rb", closefd=False) as stream:
            stream.seek(0)
            for number, line in enumerate(stream, start=1):
                yield self._written(number, line)

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
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(handle, stat.S_IMODE(os.fstat(self.handle).st_mode))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before it has the name
            with (
                open(handle, "wb", closefd=False) as out,
                open(self.handle, "rb", closefd=False) as stream,
            ):
                stream.seek(0)
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
                raise not_written(self.path, error) from error
            raise
        os.close(self.handle)
        self.handle, self.end = handle, os.fstat(handle).st_size
        sync_folder(goal)
        return dropped

    def _written(self, number: int, line: bytes) -> Written:
        try:
            values = json.loads(line)
            job, job_id = values["job"], values["id"]
            return Written(job_id, str(job["key"]), dict(job["asked"]), values["error"] is not None)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"line {number} is no result of a batch",
                where=str(self.path),
                allowed=self.kind,
                hint=self.other_file,
            ) from error
