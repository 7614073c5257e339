"""Live progress of a batch on stderr: jobs done, rate, time left, failures as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from vtc_cli.commands.output import Output
from vtc_cli.core.terminal import escaped, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from vtc_cli.jobs.work import Line

MOST_TOLD = 10  # failures told in full; the rest stands in the results file


class Watcher(Protocol):
    """What is shown of a batch while it runs."""

    def line(self, line: Line) -> None:
        """A line was written."""

    def tell(self, text: str) -> None:
        """Something that the reader must know."""


@contextmanager
def watching(output: Output, total: int | None, done: int) -> Iterator[Watcher]:
    """A bar where one may be drawn; failures and notes are told in any case, unless quiet.

    Args:
        output: how much may be said.
        total: jobs, None if that is not known.
        done: of them done before.
    """
    if not output.shows_progress:
        yield _Quiet(output)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from vtc_cli.core.console import Console

    columns = (
        TextColumn("jobs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeLeft(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as progress:
        task = progress.add_task("jobs", total=total, completed=done, rate="")
        yield _Bar(output, progress, task)


class _Quiet:
    """No bar."""

    def __init__(self, output: Output) -> None:
        self._output, self._told = output, 0

    def line(self, line: Line) -> None:
        """A failure is told."""
        if line.error is None:
            return
        self._told += 1
        if self._told <= MOST_TOLD:
            self.tell(f"job {line.id or '?'} (line {line.job_line}) failed: {line.error.message}")
        elif self._told == MOST_TOLD + 1:
            self.tell("further failures stand in the results file only")

    def tell(self, text: str) -> None:
        """A line on stderr."""
        if not self._output.quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        say(escaped(text))


class _Bar(_Quiet):
    """A bar with rate and time left."""

    def __init__(self, output: Output, progress: Progress, task: TaskID) -> None:
        super().__init__(output)
        self._progress, self._task = progress, task

    def line(self, line: Line) -> None:
        """One job more."""
        super().line(line)
        task = self._progress.tasks[0]
        rate = f"{task.speed:.2f} jobs/s" if task.speed else ""
        self._progress.update(self._task, advance=1, rate=rate)

    def _print(self, text: str) -> None:
        self._progress.console.print(escaped(text))
