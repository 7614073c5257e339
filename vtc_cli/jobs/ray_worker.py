"""The end of a Ray cluster at which tasks are done: one process, one model.

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
    from vtc_cli.jobs.doing import Doer, Work


class RayWorker:
    """An actor. Two calls may run at a time: one reads its media while the other has the model."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._doer: Doer[Any, Any]

    def start(
        self, work: Work[Any, Any], folder: str, environment: Mapping[str, str]
    ) -> tuple[dict[str, Any] | None, Any]:
        """Load the model.

        Args:
            work: what is to be done.
            folder: current folder of the command, from which paths are seen.
            environment: variables to be set before anything heavy is loaded.

        Returns:
            The error, packed, or None; and what the doer tells.
        """
        os.environ.update(environment)
        try:
            _enter(folder)
            from vtc_cli.commands.output import Output

            self._doer = work.load(Output(quiet=True))
        except VtcError as error:
            return packed(error), None
        return None, self._doer.told

    def results(self, tasks: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """Do tasks, more than one of them together; their results, and notes for the reader."""
        ready = [self._doer.read(task) for task in tasks]
        with self._model:
            return list(self._doer.results(ready)), self._doer.notes()


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
