"""The error family: each carries where, what was found, what is allowed and what to try."""

from __future__ import annotations

from typing import ClassVar

from vtc_cli.core.words import counted


class VtcError(Exception):
    """A fault that the command edge prints as one block; subclasses fix the exit code.

    Args:
        found: what was met, in one sentence.
        where: file, line, stage or layer at which it was met.
        allowed: what would have been accepted.
        hint: what the user may try next.
    """

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "failure at run time"

    def __init__(
        self,
        found: str,
        *,
        where: str | None = None,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(found)
        self.found = found
        self.where = where
        self.allowed = allowed
        self.hint = hint

    def rows(self) -> list[tuple[str, str]]:
        """The labelled lines of the block, without the parts that are not known."""
        parts = (
            ("where", self.where),
            ("found", self.found),
            ("allowed", self.allowed),
            ("try", self.hint),
        )
        return [(label, text) for label, text in parts if text]

    def __str__(self) -> str:
        """One line, for logs and for the error field of batch results."""
        return "; ".join(f"{label}: {text}" for label, text in self.rows())


class UsageError(VtcError):
    """A command line that cannot be carried out."""

    exit_code = 2
    title = "wrong usage"


class RecipeError(VtcError):
    """A recipe with one or more faults; `faults` holds each of them."""

    exit_code = 2
    title = "invalid recipe"

    def __init__(self, faults: list[VtcError], *, where: str) -> None:
        super().__init__(counted(len(faults), "fault"), where=where)
        self.faults = faults

    def __str__(self) -> str:
        """All faults, one after the other."""
        return " | ".join(str(fault) for fault in self.faults) or super().__str__()


class MethodError(RecipeError):
    """A stage class with one or more faults; `faults` holds each of them."""

    title = "invalid stage"


class MediaError(VtcError):
    """A picture or video that cannot be read."""

    exit_code = 2
    title = "unusable input"


class TokenFileError(VtcError):
    """A file of compressed tokens that is broken or does not fit."""

    exit_code = 2
    title = "unusable token file"


class SignalError(VtcError):
    """A stage asks for a signal that this model or phase does not provide."""

    exit_code = 2
    title = "signal not available"


class BudgetError(VtcError):
    """A token budget that cannot be met."""

    exit_code = 2
    title = "budget cannot be met"


class StageError(VtcError):
    """A stage broke its contract; a fault of the stage, not of the user."""

    title = "stage broke its contract"


class MisfitError(StageError):
    """A stage cannot act as the recipe asks on this grid; a fault of the recipe."""

    exit_code = 2
    title = "recipe does not fit the input"


class MeasurementError(VtcError):
    """A figure that could not be measured as asked."""

    title = "measurement failed"


class CheckError(VtcError):
    """A check that the user asked for (`--strict`, `--fail-if`) did not hold."""

    exit_code = 3
    title = "check failed"


class ModelError(VtcError):
    """A model or its weights are not usable or not available offline."""

    exit_code = 4
    title = "model not available"


class MemoryExhaustedError(VtcError):
    """The device has no memory left for this run."""

    exit_code = 5
    title = "out of memory"
