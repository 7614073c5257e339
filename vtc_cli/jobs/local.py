"""Jobs done in this process, one model, media read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from vtc_cli.jobs.ahead import MOST_JOBS, ReadAhead
from vtc_cli.jobs.job import Job
from vtc_cli.jobs.work import Line, Ready, Worker


def local_lines(
    jobs: Iterable[Job],
    worker: Worker,
    *,
    batch_size: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Line]:
    """Lines of jobs, in their order.

    Args:
        jobs: taken as they are needed.
        worker: does them.
        batch_size: as many are decoded together.
        note: is told what the reader should know.

    Raises:
        Exception: what the source of the jobs raised, behind the lines of those it gave.
    """
    with ReadAhead(jobs, most_jobs=max(MOST_JOBS, 2 * batch_size)) as ahead:
        for chunk in chunks(ahead, batch_size):
            yield from worker.lines(chunk)
            for text in worker.notes():
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
