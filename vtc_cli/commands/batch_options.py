"""The options of a batch: which jobs, where they are done, how a results file is gone on with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vtc_cli.core.errors import UsageError

if TYPE_CHECKING:
    from vtc_cli.jobs.engines import EngineOptions

PANEL, ENGINE = "Batch", "Engine"
EngineName = Literal["local", "ray"]

BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="JOBS",
        help="In place of MEDIA: a file of jobs, or - for stdin; lines go to -o or stdout.",
        rich_help_panel=PANEL,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(help="Go on with the file of -o, or write it anew.", rich_help_panel=PANEL),
]
RetryOption = Annotated[
    bool,
    typer.Option("--retry-failed", help="Do failed jobs of -o again.", rich_help_panel=PANEL),
]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, help="Jobs decoded together.", rich_help_panel=PANEL)
]
EngineOption = Annotated[
    EngineName, typer.Option(help="Who does the work.", rich_help_panel=ENGINE)
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster, or auto; none: start one.", rich_help_panel=ENGINE),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Ray workers, a model each.", rich_help_panel=ENGINE)
]
GpusOption = Annotated[
    float, typer.Option(min=0.0, help="GPU share of a Ray worker.", rich_help_panel=ENGINE)
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, help="CPU threads of a Ray worker.", rich_help_panel=ENGINE)
]


@dataclass(frozen=True, kw_only=True)
class JobsGroup:
    """Which jobs, and what becomes of a results file that is there; names are the option names."""

    batch: BatchOption = None
    resume: ResumeOption = True
    retry_failed: RetryOption = False
    batch_size: BatchSizeOption = 1


@dataclass(frozen=True, kw_only=True)
class EngineGroup:
    """Where jobs are done; field names are the option names."""

    engine: EngineOption = "local"
    address: AddressOption = None
    workers: WorkersOption = None
    gpus_per_worker: GpusOption = 0.0
    worker_threads: ThreadsOption = 1

    def check(self, given: frozenset[str]) -> None:
        """Refuse what the local engine has no use for.

        Raises:
            UsageError: a cluster's option without a cluster, or no Ray.
        """
        if self.engine == "ray":
            from vtc_cli.jobs.cluster import check_ray

            check_ray()
            return
        for name in ("address", "workers", "gpus_per_worker", "worker_threads"):
            if name in given:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} without a cluster", allowed=f"--engine ray {flag}")

    def engine_options(self) -> EngineOptions:
        """The same for the engines."""
        from vtc_cli.jobs.connecting import ClusterOptions
        from vtc_cli.jobs.engines import EngineOptions

        cluster = ClusterOptions(
            address=self.address,
            workers=self.workers,
            gpus_per_worker=self.gpus_per_worker,
            worker_threads=self.worker_threads,
        )
        return EngineOptions(self.engine, cluster)


@dataclass(frozen=True, kw_only=True)
class BatchGroup(EngineGroup, JobsGroup):
    """All options of a batch."""

    def check_absent(self, given: frozenset[str]) -> None:
        """Refuse the options of a batch where there is none.

        Raises:
            UsageError: one of them was given.
        """
        for item in fields(self):
            if item.name in given:
                flag = "--" + item.name.replace("_", "-")
                raise UsageError(f"{flag} without --batch", allowed=f"--batch jobs.jsonl {flag}")
