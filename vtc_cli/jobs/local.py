"""Tasks done in this process, one model, media read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from vtc_cli.jobs.ahead import MOST_TASKS, ReadAhead
from vtc_cli.jobs.doing import Doer, Ready, Result, Task


def local_results(
    tasks: Iterable[Task],
    doer: Doer[Task, Result],
    *,
    batch_size: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Result]:
    """Results of tasks, in their order.

    Args:
        tasks: taken as they are needed.
        doer: does them.
        batch_size: as many are done together.
        note: is told what the reader should know.

    Raises:
        Exception: what the source of the tasks raised, behind the results of those it gave.
    """
    with ReadAhead(tasks, doer.read, most_tasks=max(MOST_TASKS, 2 * batch_size)) as ahead:
        for chunk in chunks(ahead, batch_size):
            yield from doer.results(chunk)
            for text in doer.notes():
                note(text)


def chunks(items: Iterable[Ready], size: int) -> Iterator[list[Ready]]:
    """As many items at a time, the last time fewer; an error of the source comes behind them."""
    source, error = iter(items), None
    while True:
        chunk: list[Ready] = []
        try:
            for item in islice(source, size):
                chunk.append(item)  # one by one: those before an error count
        except Exception as raised:
            error = raised
        if chunk:
            yield chunk
        if error is not None:
            raise error
        if len(chunk) < size:
            return
