"""The end of a Ray cluster at which jobs are done: one process, one model.

This module loads nothing heavy: the process learns here how many threads it may use before torch
is loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vtc_cli.core import errors
from vtc_cli.core.errors import RecipeError, UsageError, VtcError

if TYPE_CHECKING:
    from vtc_cli.jobs.job import Job, Settings
    from vtc_cli.jobs.work import Line


class RayWorker:
    """An actor. Two calls may run at a time: one reads its media while the other has the model."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._worker: Any = None

    def start(
        self, settings: Settings, folder: str, environment: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Load the model.

        Args:
            settings: of the batch.
            folder: current folder of the command, from which paths are seen.
            environment: variables to be set before anything heavy is loaded.

        Returns:
            The error, packed, or None.
        """
        os.environ.update(environment)
        try:
            _enter(folder)
            from vtc_cli.commands.loading import load_session
            from vtc_cli.commands.output import Output
            from vtc_cli.jobs.work import Worker

            session = load_session(
                Output(quiet=True), settings.model, settings.device, settings.dtype, settings.attn
            )
            self._worker = Worker(session)
            self._worker.check(settings)
        except VtcError as error:
            return packed(error)
        return None

    def lines(self, jobs: Sequence[Job]) -> tuple[list[Line], list[str]]:
        """Do jobs, more than one of them together; their lines, and notes for the reader."""
        from vtc_cli.jobs.work import read_ready

        ready = [read_ready(job) for job in jobs]
        with self._model:
            return self._worker.lines(ready), self._worker.notes()


def packed(error: VtcError) -> dict[str, Any]:
    """An error as plain values, so that it can travel."""
    names = ("found", "where", "allowed", "hint")
    values: dict[str, Any] = {name: getattr(error, name) for name in names}
    faults = error.faults if isinstance(error, RecipeError) else []
    return {"type": type(error).__name__, **values, "faults": [packed(fault) for fault in faults]}


def unpacked(values: Mapping[str, Any]) -> VtcError:
    """The error that was packed."""
    if values["faults"]:
        return RecipeError([unpacked(fault) for fault in values["faults"]], where=values["where"])
    kind = getattr(errors, values["type"], VtcError)
    names = ("where", "allowed", "hint")
    error: VtcError = kind(values["found"], **{name: values[name] for name in names})
    return error


def _enter(folder: str) -> None:
    """Stand where the command stands.

    Raises:
        UsageError: the worker's machine does not have that folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"a worker cannot enter {folder}: {error.strerror}",
            where="--engine ray",
            allowed="a folder that all machines of the cluster share",
        ) from error
