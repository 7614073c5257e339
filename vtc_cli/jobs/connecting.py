"""Where Ray workers are, what each may use, and the way to their cluster."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.jobs.starting import Progress, patient, work_of_children

PROBE_S = 5.0
STORE_BYTES = 100 << 20  # lines are small
# Where packages and models are found; nothing secret.
HANDED_ON = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VTC_PATH")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # How long Ray waits for its own parts, which a loaded machine starts slowly.
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_niceness": "0",  # its workers would give way to everything else on the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # or Ray warns of its own future
}


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where the workers are and what each may use.

    Attributes:
        address: of a running cluster (`auto` finds it), None to start one on this machine.
        workers: how many, None for one a GPU share, or one.
        gpus_per_worker: share of a GPU that each one gets, 0 for a CPU worker.
        worker_threads: threads of its arithmetic, and CPU slots that it takes.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 0.0
    worker_threads: int = 1

    def environment(self) -> dict[str, str]:
        """Variables of a worker's process."""
        handed = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        threads = str(self.worker_threads)
        return {**handed, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}


def connected(options: ClusterOptions) -> Any:
    """The module `ray`, connected.

    Raises:
        VtcError: no cluster at the address.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if options.address is not None:
        _probe(options.address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own future and of its imports
        ray: Any = importlib.import_module("ray")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if options.address is None:
            _start_here(ray, options, quiet)
            return ray
        try:
            with _silent():
                ray.init(address=options.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(options.address, str(error)) from error
    return ray


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Ray's native parts from stderr while they connect; what failed is told by the error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _start_here(ray: Any, options: ClusterOptions, quiet: dict[str, Any]) -> None:
    """A cluster of this machine alone, with as many slots as are asked for.

    Raises:
        VtcError: it does not start, and what was waited for.
    """
    slots = (options.workers or 1) * options.worker_threads
    progress = Progress(work_of_children)
    try:
        with patient(progress):
            ray.init(
                address="local",
                num_cpus=max(slots, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                **quiet,
            )
    except Exception as error:  # Ray raises plain ones where its processes do not start
        with suppress(Exception):
            ray.shutdown()
        raise VtcError(
            f"Ray does not start here: {' '.join(str(error).split())[:200]}",
            where=f"--engine ray; {progress.text()}",
            allowed="a machine on which Ray starts, or the address of a cluster that runs",
            hint="less work beside it; ray start --head and --address auto; or --engine local",
        ) from error


def _probe(address: str) -> None:
    """See whether anybody listens at `host:port`; Ray itself waits for minutes.

    Raises:
        VtcError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), PROBE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> VtcError:
    found = " ".join(reason.split())[:200]
    return VtcError(
        f"no Ray cluster at {address}: {found}",
        where="--address",
        allowed="the address of a running cluster, `auto`, or none to start one here",
        hint="ray start --head; RAY_AUTH_MODE=token where the cluster asks for its token",
    )


def workers_of(ray: Any, options: ClusterOptions) -> int:
    """How many workers to start.

    Raises:
        UsageError: the cluster has too few CPUs or GPUs for them.
    """
    there = ray.cluster_resources()
    share, threads = options.gpus_per_worker, options.worker_threads
    possible = int(there.get("GPU", 0) / share) if share else int(there.get("CPU", 0) / threads)
    wanted = options.workers or (max(possible, 1) if share else 1)
    for name, each in (("GPU", share), ("CPU", float(threads))):
        if wanted * each > there.get(name, 0) + 1e-9:
            raise UsageError(
                f"{wanted} workers of {each:g} {name} each, and the cluster has "
                f"{there.get(name, 0):g}",
                where="--workers",
                allowed="what the cluster has",
                hint=f"--workers {possible}" if possible else None,
            )
    return wanted
