"""Media read ahead of the model, in a thread of its own and within bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from vtc_cli.jobs.doing import Ready

MOST_TASKS = 4
MOST_BYTES = 1 << 29


class ReadAhead:
    """Tasks with their media, in order; the next ones are read while one is worked on.

    A context: leaving it stops the reading. Decoders work outside Python's lock, and videos are
    decoded in processes of their own, so that a thread is enough.

    Args:
        tasks: they too are only taken as far as is read ahead.
        read: reads the media of one.
        most_tasks: as many are held at most.
        most_bytes: nothing more is read while as many bytes of frames are held.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        read: Callable[[Any], Ready],
        *,
        most_tasks: int = MOST_TASKS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._tasks, self._read = tasks, read
        self._most_tasks, self._most_bytes = most_tasks, most_bytes
        self._held: deque[Ready] = deque()
        self._change = threading.Condition()
        self._finished = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read_all, daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Ready]:
        """Each task in turn.

        Raises:
            BaseException: what the source of the tasks raised.
        """
        while True:
            with self._change:
                while not self._held and not self._finished:
                    self._change.wait()
                if not self._held:
                    break
                ready = self._held.popleft()
                self._change.notify_all()
            yield ready
        if self._error is not None:
            raise self._error

    def _read_all(self) -> None:
        try:
            for task in self._tasks:
                ready = self._read(task)
                with self._change:
                    self._held.append(ready)
                    self._change.notify_all()
                    while self._is_full() and not self._stopped:
                        self._change.wait()
                    if self._stopped:
                        break
        except BaseException as error:  # raised again where the tasks are taken
            self._error = error
        finally:
            with self._change:
                self._finished = True
                self._change.notify_all()

    def _is_full(self) -> bool:
        size = sum(_bytes(ready) for ready in self._held)
        return len(self._held) >= self._most_tasks or size >= self._most_bytes


def _bytes(ready: Ready) -> int:
    return 0 if isinstance(ready.media, Exception) else int(ready.media.frames.nbytes)
