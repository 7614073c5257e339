"""Who does the jobs: a model in this process, or the workers of a Ray cluster; the lines are alike.

with started(settings, EngineOptions(), output) as lines_of:
    for line in lines_of(jobs):
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from vtc_cli.commands.loading import busy, load_session
from vtc_cli.commands.output import Output
from vtc_cli.jobs.cluster import Cluster, ClusterOptions
from vtc_cli.jobs.job import Job, Settings
from vtc_cli.jobs.work import Line

EngineName = Literal["local", "ray"]
LinesOf = Callable[[Iterable[Job]], Iterator[Line]]
Note = Callable[[str], None]


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and the cluster's options if it is Ray."""

    name: EngineName = "local"
    cluster: ClusterOptions = field(default_factory=ClusterOptions)


@contextmanager
def started(
    settings: Settings, engine: EngineOptions, output: Output, note: Note = lambda text: None
) -> Iterator[LinesOf]:
    """An engine whose model is loaded; gives the function that turns jobs into lines.

    Jobs are taken as they are needed and may be a generator. The local engine keeps their order;
    lines of a cluster come as jobs end, and `Line.job_line` says whose they are.

    Args:
        settings: of the batch; a job may have its own recipe and budget.
        engine: which one.
        output: for a spinner while the model loads.
        note: is told what the reader should know.

    Raises:
        VtcError: the model cannot be loaded, the recipe does not fit it, or there is no cluster.
    """
    if engine.name == "ray":
        cluster = Cluster(settings, engine.cluster, note)
        with busy(output, f"starting workers with {settings.model}"):
            cluster.start()
        try:
            yield cluster.lines
        finally:
            cluster.close()
        return
    from vtc_cli.jobs.local import local_lines
    from vtc_cli.jobs.work import Worker

    names = (settings.model, settings.device, settings.dtype, settings.attn)
    worker = Worker(load_session(output, *names))
    worker.check(settings)
    yield partial(local_lines, worker=worker, batch_size=settings.batch_size, note=note)
