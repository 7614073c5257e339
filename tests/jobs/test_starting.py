"""A cluster that starts slowly is waited for while it gets on; without Ray, by its answers."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vtc_cli.jobs import starting
from vtc_cli.jobs.starting import MOST_S, QUIET_S, Progress, patient


class Clock:
    """Seconds that pass by themselves whenever somebody looks."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_it_is_given_up_a_minute_after_the_last_sign() -> None:
    clock, signs = Clock(1.0), iter(range(200))
    progress = Progress(lambda: min(next(signs), 100), clock)
    looks = 0
    while progress.goes_on():
        looks += 1
    assert looks == 100 + QUIET_S  # the sign of look 101 is the last new one
    assert f"the last {QUIET_S + 1:.0f} s without" in progress.text()


def test_signs_without_end_are_no_proof_that_it_will_end() -> None:
    clock, signs = Clock(1.0), iter(range(10_000))
    progress = Progress(lambda: next(signs), clock)
    looks = 0
    while progress.goes_on():
        looks += 1
    assert looks == MOST_S - 1


@pytest.mark.parametrize("there_after", [0, 100, None])
def test_ray_gets_its_answer_when_the_node_is_there(
    monkeypatch: pytest.MonkeyPatch, there_after: int | None
) -> None:
    """Ray itself gives up at the first refusal that comes after 30 s."""
    asked: list[str] = []

    def get_node(address: str, node: str) -> str:
        asked.append(node)
        if there_after is None or len(asked) <= there_after:
            raise RuntimeError("not known")
        return address

    services = SimpleNamespace(get_node=get_node)
    monkeypatch.setitem(sys.modules, "ray._private.services", services)
    monkeypatch.setattr(starting, "LOOK_S", 0.0)
    signs = iter(range(1000))
    progress = Progress(lambda: min(next(signs), 200), Clock(0.5))
    with patient(progress):
        if there_after is None:
            with pytest.raises(RuntimeError):
                services.get_node("here", "node")
            assert len(asked) > 200
        else:
            assert services.get_node("here", node="node") == "here"
            assert len(asked) == there_after + 1
    assert services.get_node is get_node
