"""What an engine knows of its work: tasks go in, a loaded model does them, results come out.

A `Work` is small and travels to other machines as it is; there it loads a model and becomes a
`Doer`. Batches (`jobs/work.py`) and comparisons (`commands/compare_work.py`) are such work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vtc_cli.core.media import Media

if TYPE_CHECKING:
    from vtc_cli.commands.output import Output

Task = TypeVar("Task")
Result = TypeVar("Result")
Takes = TypeVar("Takes", contravariant=True)
Gives = TypeVar("Gives", covariant=True)


@dataclass(frozen=True, eq=False)
class Ready:
    """A task and its picture or video, or what is wrong with either."""

    task: Any
    media: Media | Exception

    def sound(self) -> Media:
        """The media.

        Raises:
            Exception: what was wrong with it.
        """
        if isinstance(self.media, Exception):
            raise self.media
        return self.media


class Doer(Protocol[Takes, Gives]):
    """A loaded model at work.

    Attributes:
        told: what whoever started the work must know, plain enough to travel.
    """

    told: Any

    def read(self, task: Takes) -> Ready:
        """Read the media of a task; needs no model and may run beside it."""

    def results(self, ready: Sequence[Ready]) -> Iterable[Gives]:
        """Do tasks and give results as they come; a task that fails has a result that says so."""

    def notes(self) -> list[str]:
        """What the reader should know, each thing once; then forgotten."""


class Work(Protocol[Takes, Gives]):
    """What is to be done with which model."""

    @property
    def model(self) -> str:
        """Name of the model, for whoever waits for it."""

    @property
    def batch_size(self) -> int:
        """Tasks that are done together."""

    def load(self, output: Output) -> Doer[Takes, Gives]:
        """Load the model and see that the work fits it.

        Raises:
            VtcError: it cannot be loaded, or the work does not fit.
        """

    def failed(self, task: Takes, error: Exception) -> Gives:
        """The result of a task that could not be done."""
