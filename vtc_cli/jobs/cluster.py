"""Tasks spread over Ray workers, one model each; each ends once, whatever becomes of a worker.

The driver holds no more tasks than the workers can have in hand. A worker that dies is replaced;
the tasks that it had are done again, each alone, and one that takes three workers with it has
failed. Results come in the order in which tasks end.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.words import counted
from vtc_cli.jobs.connecting import ClusterOptions, connected, workers_of
from vtc_cli.jobs.doing import Result, Task, Work
from vtc_cli.jobs.ray_worker import RayWorker, unpacked

FLAG = "--engine ray"
IN_HAND = 2  # chunks a worker has: one with the model, one whose media are read
MOST_TRIES = 3


class WorkerLostError(VtcError):
    """A job took several workers with it."""

    title = "worker lost"


def check_ray() -> None:
    """See that Ray is there, without loading it.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "Ray is not installed",
            where=FLAG,
            allowed="local, or ray with the package `ray`",
            hint="pip install 'vtc-cli[ray]'",
        )


@dataclass(eq=False)
class _Load(Generic[Task]):
    """Tasks that travel together, and how often that was tried."""

    tasks: list[Task]
    tries: int = 0


@dataclass(eq=False)
class _Hand:
    """A worker and what it has in hand, by Ray's reference; None stands for its start."""

    actor: Any
    loads: dict[Any, _Load[Any] | None] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Loads that it can still take; a task that is done again runs alone."""
        loads = self.loads.values()
        alone = any(load is None or load.tries for load in loads)
        return 0 if alone else IN_HAND - len(loads)


class Cluster(Generic[Task, Result]):
    """Tasks done by Ray workers, between `start` and `close`.

    Args:
        work: what is to be done.
        options: where and how many.
        note: is told what the reader should know.

    Attributes:
        told: by the first worker that was ready, see `Doer`.

    Raises:
        UsageError: Ray is missing.
    """

    def __init__(
        self,
        work: Work[Task, Result],
        options: ClusterOptions,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        check_ray()
        self._work, self._options, self._note = work, options, note
        self.told: Any = None
        self._hands: list[_Hand] = []
        self._again: deque[_Load[Task]] = deque()
        self._told: set[str] = set()
        self._failed_starts = 0
        self._folder = str(Path.cwd())
        self._ray: Any = None
        self._stdout = ExitStack()

    def start(self) -> None:
        """Connect, and wait until the first worker has its model.

        Raises:
            UsageError: the cluster has too little.
            VtcError: no cluster at the address, or the model cannot be loaded.
        """
        own: Any = _OwnOutput(sys.stdout)
        self._stdout.enter_context(redirect_stdout(own))
        try:
            self._ray = connected(self._options)
            for _ in range(workers_of(self._ray, self._options)):
                self._hire()
            self.await_workers(1)
        except BaseException:
            self.close()
            raise

    def await_workers(self, count: int) -> None:
        """Wait until as many workers have their model, before any tasks are given.

        Raises:
            VtcError: why they cannot have one.
        """
        while sum(None not in hand.loads.values() for hand in self._hands) < count:
            list(self._next_results())

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        self._stdout.close()
        if self._ray is None:
            return
        for hand in self._hands:
            with suppress(Exception):
                self._ray.kill(hand.actor)
        self._ray.shutdown()

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Results of tasks, in the order in which these end.

        Raises:
            VtcError: no worker can be started any more.
            Exception: what the source of the tasks raised.
        """
        source = iter(tasks)
        while True:
            self._hand_out(source)
            if not any(hand.loads for hand in self._hands):
                return
            yield from self._next_results()

    def _hire(self) -> None:
        """Start one worker."""
        options = self._options
        remote = self._ray.remote(
            num_cpus=options.worker_threads,
            num_gpus=options.gpus_per_worker,
            max_concurrency=IN_HAND,
            max_restarts=0,  # a worker without its model is no use; it is replaced here
        )(RayWorker)
        hand = _Hand(remote.remote())
        started = hand.actor.start.remote(self._work, self._folder, options.environment())
        hand.loads[started] = None
        self._hands.append(hand)

    def _hand_out(self, source: Iterator[Task]) -> None:
        """Give every worker as much as it can take, the least busy first."""
        while True:
            hand = max(self._hands, key=lambda hand: hand.free)
            if hand.free <= 0 or (self._again and hand.loads):
                return  # tasks that are done again wait for a worker that has nothing else
            if self._again:
                load = self._again.popleft()
            else:
                load = _Load(list(islice(source, self._work.batch_size)))
                if not load.tasks:
                    return
            hand.loads[hand.actor.results.remote(load.tasks)] = load

    def _next_results(self) -> Iterator[Result]:
        """Wait for one call to end."""
        references = {ref: hand for hand in self._hands for ref in hand.loads}
        (done,), _ = self._ray.wait(list(references), num_returns=1)
        hand = references[done]
        try:
            answer = self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:  # not the worker's end, but the call's
            load = hand.loads.pop(done)
            cause = error.cause if isinstance(error.cause, Exception) else error
            if load is None:
                raise cause from error
            yield from (self._work.failed(task, cause) for task in load.tasks)
        except self._ray.exceptions.RayError as error:
            yield from self._lost(hand, error)
        else:
            yield from self._received(hand.loads.pop(done), answer)

    def _received(self, load: _Load[Task] | None, answer: Any) -> Iterator[Result]:
        """What a call gave: an error of the start or none, or results and notes."""
        if load is None:
            error, told = answer
            if error is not None:
                raise unpacked(error)
            self.told = told if self.told is None else self.told
            self._failed_starts = 0
            return
        results, notes = answer
        for text in notes:
            if text not in self._told:
                self._told.add(text)
                self._note(text)
        yield from results

    def _lost(self, hand: _Hand, error: Exception) -> Iterator[Result]:
        """Replace a dead worker; its tasks are done again, or given up."""
        self._hands.remove(hand)
        reason = _reason(error)
        loads = [load for load in hand.loads.values() if load is not None]
        if not loads and None in hand.loads.values():
            self._failed_starts += 1
            if self._failed_starts >= MOST_TRIES:
                raise WorkerLostError(
                    f"workers die while they load the model: {reason}",
                    where=FLAG,
                    hint="a smaller --dtype or model, or fewer --workers",
                )
        count = sum(len(load.tasks) for load in loads)
        self._note(f"a worker died ({reason}); {counted(count, 'job')} of it: done again")
        self._hire()
        for load in loads:
            for task in load.tasks:
                if load.tries + 1 < MOST_TRIES:
                    self._again.append(_Load([task], load.tries + 1))
                else:
                    found = f"{MOST_TRIES} workers died over this job, the last one: {reason}"
                    yield self._work.failed(task, WorkerLostError(found, where=FLAG))


def _reason(error: Exception) -> str:
    """Why a worker died: Ray knows when its own monitor ended it, not when the system did."""
    low = "running low on memory" in str(error) or "OutOfMemory" in type(error).__name__
    return "out of memory" if low else "killed or crashed"


class _OwnOutput:
    """A stream that only the thread which made it can write to.

    Ray tells of dead workers on stdout, from a thread of its own and whatever it was asked; stdout
    carries results only, and the death is told in a note.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._owner = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write, or say that it was done."""
        mine = threading.get_ident() == self._owner
        return int(self._stream.write(text)) if mine else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
