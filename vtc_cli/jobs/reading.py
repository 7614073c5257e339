"""Jobs files: one JSON object a line, read as a stream; a broken line is a failed job, not the end.

Nothing of a job is held after it was given, only eight bytes of its id, so that a second job of the
same id is seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from vtc_cli.core.errors import MediaError, VtcError
from vtc_cli.core.files import open_regular
from vtc_cli.jobs.job import Job, Settings, faulty_job, make_job, with_fault
from vtc_cli.media.files import STDIN, refused
from vtc_cli.media.items import EXAMPLE, FIELDS, LONGEST_LINE_BYTES, check_rule, line_values

JOB_FIELDS = (*FIELDS, "recipe", "budget")
RECIPE_ENDINGS = (".yaml", ".yml")
MOST_PASSED_BYTES = 1 << 28  # of a line that is too long
BOM = b"\xef\xbb\xbf"
WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


class JobError(VtcError):
    """A line of a jobs file that is no job."""

    exit_code = 2
    title = "unusable job"


class JobsFile:
    """A jobs file, or `-` for standard input.

    Paths of media and recipes are seen from the folder of the file; those of standard input from
    the current folder.

    Args:
        source: path or `-`.
        settings: of the batch.
    """

    def __init__(self, source: str, settings: Settings) -> None:
        self.source, self._settings = source, settings
        self._folder = Path("." if source == STDIN else source).expanduser().parent
        self._known: dict[tuple[str | None, str | None], tuple[Settings, str] | VtcError] = {}

    @property
    def can_be_read_again(self) -> bool:
        """Whether it is a file, not standard input."""
        return self.source != STDIN

    def count(self) -> int | None:
        """Jobs in the file, None where counting would eat them.

        Raises:
            MediaError: unreadable, of two bytes a letter, or without a single job.
        """
        if not self.can_be_read_again:
            return None
        with self._opened() as stream:
            found = sum(1 for _ in _lines(stream))
        if not found:
            raise self._empty()
        return found

    def jobs(self) -> Iterator[Job]:
        """Each job in turn, lines with faults too.

        Raises:
            MediaError: unreadable, of two bytes a letter, or without a single job.
        """
        seen: dict[bytes, int] = {}
        with self._opened() as stream:
            for number, raw in _lines(stream):
                yield self._once(self._job(number, raw), raw, seen)
        if not seen:
            raise self._empty()

    def _empty(self) -> MediaError:
        return MediaError("no jobs", where=self.source, allowed=EXAMPLE)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The stream behind its byte-order mark, if it has one."""
        if self.source == STDIN:
            yield sys.stdin.buffer
            return
        try:
            with open_regular(Path(self.source).expanduser()) as stream:
                yield stream
        except (OSError, RuntimeError) as error:  # RuntimeError: ~user without a home
            raise refused(self.source, error) from error

    def _job(self, number: int, raw: bytes) -> Job:
        """The job of one line; a fault of the line is part of it."""
        try:
            if len(raw) > LONGEST_LINE_BYTES:
                allowed = f"one object a line, at most {LONGEST_LINE_BYTES // 1000} kB"
                raise VtcError("the line is too long", allowed=allowed)
            values = line_values(raw, JOB_FIELDS)
            if values["media"] == STDIN:
                raise JobError("media is -", allowed="a file: no picture comes from stdin here")
            check_rule(values)
            settings, sha256 = self._own(values.get("recipe"), values.get("budget"))
        except VtcError as error:
            where = f"{self.source}, line {number}" + (f", {error.where}" if error.where else "")
            fault = JobError(error.found, where=where, allowed=error.allowed, hint=error.hint)
            return faulty_job(number, raw, _id_of(raw), self._settings, fault)
        path = self._folder / os.path.expanduser(values["media"])
        return make_job(number, values, settings, sha256, str(path))

    def _own(self, recipe: str | None, budget: str | None) -> tuple[Settings, str]:
        """The settings with a job's own recipe and budget, and the hash of the recipe.

        Raises:
            VtcError: no such recipe, or no budget.
        """
        if (recipe, budget) not in self._known:
            self._known[recipe, budget] = self._checked(recipe, budget)
        found = self._known[recipe, budget]
        if isinstance(found, VtcError):
            raise found
        return found

    def _checked(self, recipe: str | None, budget: str | None) -> tuple[Settings, str] | VtcError:
        from vtc_cli.recipe.load import load_recipe

        if recipe is not None and (recipe.endswith(RECIPE_ENDINGS) or os.sep in recipe):
            recipe = str(self._folder / os.path.expanduser(recipe))
        batch = self._settings
        settings = replace(batch, recipe=recipe or batch.recipe, budget=budget or batch.budget)
        try:
            settings.plan_options()
            return settings, load_recipe(settings.recipe).sha256
        except VtcError as error:
            return VtcError(str(error))

    def _once(self, job: Job, raw: bytes, seen: dict[bytes, int]) -> Job:
        """The job, with a fault if an earlier line has its id."""
        name = job.key if job.id is None else job.id
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        first = seen.setdefault(digest, job.line)
        if first == job.line or job.fault is not None:
            return job
        fault = JobError(
            f"the id {job.id!r} is that of line {first} too",
            where=f"{self.source}, line {job.line}",
            allowed="each job once; jobs alike need ids of their own",
        )
        return with_fault(job, raw, fault)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that hold something; of one that is too long one byte more than is allowed.

    Raises:
        MediaError: UTF-16, or a line without an end.
    """
    number, line = 1, stream.readline(LONGEST_LINE_BYTES + 1)
    if line.startswith(WIDE_BOMS):
        raise MediaError(
            "UTF-16 text", where="jobs file", allowed="JSON lines in UTF-8", hint="save it as UTF-8"
        )
    line = line.removeprefix(BOM)
    while line or number == 1:
        if line.strip():
            yield number, line
        passed_bytes = 0
        while line and not line.endswith(b"\n") and len(line) >= LONGEST_LINE_BYTES:
            line = stream.readline(LONGEST_LINE_BYTES + 1)  # the rest of a line that is too long
            passed_bytes += len(line)
            if passed_bytes > MOST_PASSED_BYTES:  # a device gives bytes without end
                found, allowed = "a line without an end", "JSON lines in UTF-8"
                raise MediaError(found, where="jobs file", allowed=allowed)
        number, line = number + 1, stream.readline(LONGEST_LINE_BYTES + 1)


def _id_of(raw: bytes) -> str | None:
    """The id of a line with a fault, if it says one."""
    with suppress(ValueError, RecursionError):
        values = json.loads(raw[:LONGEST_LINE_BYTES], parse_int=str, parse_float=str)
        found = values.get("id") if isinstance(values, dict) else None
        if isinstance(found, str) and found.strip():
            found.encode()  # half a character could not be written
            return found
    return None
