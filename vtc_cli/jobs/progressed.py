"""What a results file already holds, and whether it is of the batch that is to go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from vtc_cli.core.errors import UsageError
from vtc_cli.jobs.job import Job, Settings
from vtc_cli.jobs.results_file import ResultsFile, ResultsStream

OWN = ("recipe", "recipe_sha256", "budget")  # what a job may choose for itself


class Progressed:
    """Which jobs of a results file are done; two numbers a job are held, not its line.

    Args:
        results: the open file, or stdout.

    Attributes:
        count: how many lines it has.
        failed: how many of them are those of failed jobs.

    Raises:
        UsageError: a line that is no result of a batch.
    """

    def __init__(self, results: ResultsFile | ResultsStream) -> None:
        self._path, self.failed, self.count = str(results.path), 0, 0
        self._keys: set[int] = set()
        self._key_of: dict[int, int] = {}
        self._asked: dict[str, dict[str, Any]] = {}  # each different set of settings once
        for line in results.written():
            self.count, self.failed = self.count + 1, self.failed + line.failed
            self._keys.add(_number(line.key))
            if line.id is not None:
                self._key_of[_number(line.id)] = _number(line.key)
            if line.asked:
                self._asked.setdefault(_text(line.asked), line.asked)

    def has(self, job: Job) -> bool:
        """Whether the job is done.

        Raises:
            UsageError: the file holds a job of this id that asked something else.
        """
        if _number(job.key) in self._keys:
            return True
        if job.fault is None and _number(job.id or "") in self._key_of:
            raise self._other(job.settings.asked(job.recipe_sha256), f"the job {job.id!r}")
        return False

    def check_settings(self, settings: Settings) -> None:
        """See that the lines were made under these settings, recipes and budgets aside.

        Raises:
            UsageError: another model, seed or the like.
        """
        mine = settings.asked(None)
        for theirs in self._asked.values():
            if _common(theirs) != _common(mine):
                raise self._other({**theirs, **_common(mine)})

    def check_recipes(self, jobs: Iterable[Job]) -> tuple[int, int]:
        """See that every recipe and budget of the lines is that of some job.

        Returns:
            How many jobs there are, and how many of them are done.

        Raises:
            UsageError: results of another recipe or budget.
        """
        wanted: dict[str, dict[str, Any]] = {}
        total = done = 0
        for job in jobs:
            total, done = total + 1, done + self.has(job)
            if job.fault is None:
                asked = job.settings.asked(job.recipe_sha256)
                wanted.setdefault(_text(asked), asked)
        if wanted and self._asked.keys() - wanted.keys():
            raise self._other(next(iter(wanted.values())))
        return total, done

    def check_recipe(self, job: Job) -> None:
        """The same for one job of a stream, which cannot be read ahead.

        Raises:
            UsageError: the lines are of other recipes and budgets than this job.
        """
        asked = job.settings.asked(job.recipe_sha256)
        if self._asked and job.fault is None and _text(asked) not in self._asked:
            raise self._other(asked)

    def _other(self, mine: dict[str, Any], who: str = "") -> UsageError:
        differing = [_difference(asked, mine) for asked in self._asked.values()]
        nearest = sorted((names for names in differing if names), key=len)[:1]
        told = ", ".join(*nearest) if nearest else f"{who} asked something else there"
        return UsageError(
            f"made otherwise: {told}",
            where=self._path,
            allowed="results of the same jobs under the same recipe, model and settings",
            hint=ResultsFile.other_file,
        )


def _common(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in OWN}


def _difference(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    names = [name for name in here if there.get(name) != here[name]]
    if "recipe" in names:
        names = [name for name in names if name != "recipe_sha256"]
    return [f"{name} {_short(there.get(name))} there, {_short(here[name])} here" for name in names]


def _short(value: Any) -> str:
    return str(value)[:60] if isinstance(value, str) else json.dumps(value)[:60]


def _text(asked: dict[str, Any]) -> str:
    return json.dumps(asked, sort_keys=True)


def _number(text: str) -> int:
    """64 bits that stand for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
