"""Who does the work: a model in this process, or the workers of a Ray cluster; results are alike.

with started(work, EngineOptions(), output) as running:
    for result in running.results(tasks):
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal

from vtc_cli.commands.loading import busy, warn_of_noise
from vtc_cli.commands.output import Output
from vtc_cli.jobs.cluster import Cluster
from vtc_cli.jobs.connecting import ClusterOptions
from vtc_cli.jobs.doing import Result, Task, Work
from vtc_cli.jobs.local import local_results

EngineName = Literal["local", "ray"]
Note = Callable[[str], None]


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and the cluster's options if it is Ray."""

    name: EngineName = "local"
    cluster: ClusterOptions = field(default_factory=ClusterOptions)


@dataclass(frozen=True)
class Running(Generic[Task, Result]):
    """An engine whose model is loaded.

    Attributes:
        told: see `Doer`.
        results: turns tasks into results. Tasks are taken as they are needed and may be a
            generator. The local engine keeps their order and gives results as they come; a cluster
            gives those of a task together, as tasks end.
    """

    told: Any
    results: Callable[[Iterable[Task]], Iterator[Result]]


@contextmanager
def started(
    work: Work[Task, Result],
    engine: EngineOptions,
    output: Output,
    note: Note = lambda text: None,
) -> Iterator[Running[Task, Result]]:
    """Load the model of `work` and be ready for its tasks.

    Args:
        work: what is to be done.
        engine: which one.
        output: for a spinner while the model loads.
        note: is told what the reader should know.

    Raises:
        VtcError: the model cannot be loaded, the work does not fit it, or there is no cluster.
    """
    if engine.name == "ray":
        cluster = Cluster(work, engine.cluster, note)
        with busy(output, f"starting workers with {work.model}"):
            cluster.start()
        try:
            _name_noise(work.model, output)
            yield Running(cluster.told, cluster.results)
        finally:
            cluster.close()
        return
    doer = work.load(output)
    _name_noise(work.model, output)
    yield Running(
        doer.told, partial(local_results, doer=doer, batch_size=work.batch_size, note=note)
    )


def _name_noise(model: str, output: Output) -> None:
    """Warn where a name asks for random weights; a driver of a cluster loads no model to see it."""
    if ":" not in model:
        return
    from vtc_cli.models.support.load import NARROW, SHAPE

    if model.startswith((NARROW, SHAPE)):
        warn_of_noise(output)
