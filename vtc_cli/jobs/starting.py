"""Starting Ray on this machine: as slow as the machine is, and given up when nothing moves."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUIET_S = 60.0
MOST_S = 600.0  # idle processes work a little too, so what moves is no proof that it will end
LOOK_S = 0.5


class Progress:
    """Whether processes that start are getting anywhere.

    Args:
        signs: what changes while they do.
        clock: seconds.
    """

    def __init__(
        self, signs: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signs, self._clock = signs, clock
        self._last: object = None
        self._began = self._changed = clock()

    def goes_on(self) -> bool:
        """Whether something moved in the last minute, and no more than ten are over."""
        now, signs = self._clock(), self._signs()
        if signs != self._last:
            self._last, self._changed = signs, now
        return now - self._changed < QUIET_S and now - self._began < MOST_S

    def text(self) -> str:
        """What was waited for, and how long."""
        now = self._clock()
        return (
            f"waited {now - self._began:.0f} s for its processes, the last "
            f"{now - self._changed:.0f} s without a new one and without work in them"
        )


@contextmanager
def patient(progress: Progress) -> Iterator[None]:
    """Let Ray wait for its own node for as long as there is progress.

    Ray asks for the node until 30 s are over, which no setting changes. So each time that it asks
    it gets its answer later: when the node is there, or when nothing moves any more.
    """
    services: Any = importlib.import_module("ray._private.services")
    ask = services.get_node

    def wait_for_node(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return ask(*arguments, **named)
            except RuntimeError:  # the node is not known yet
                if not progress.goes_on():
                    raise
            time.sleep(LOOK_S)

    services.get_node = wait_for_node
    try:
        yield
    finally:
        services.get_node = ask


def work_of_children() -> tuple[int, int]:
    """How many processes were started below this one, and the seconds that they have worked."""
    psutil: Any = importlib.import_module("psutil")  # Ray brings it
    children = psutil.Process().children(recursive=True)
    seconds = 0.0
    for child in children:
        try:
            times = child.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        seconds += times.user + times.system
    return len(children), int(seconds)
