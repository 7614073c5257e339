"""Errors of a pass: memory, a broken checkpoint, logits that are no numbers, a prompt too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.families import small_family
from tests.engine.support import (
    QUESTION,
    ProjectedPrune,
    ShrinkingPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import MemoryExhaustedError, ModelError, StageError, UsageError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.models.support.shapes import context_of


@dataclass(frozen=True, kw_only=True)
class Failing(PrefillStage):
    layers: tuple[int, ...] = (2,)
    error: type[BaseException] = RuntimeError
    words: str = "a fault of the stage"

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        raise self.error(self.words)


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


ONE = Generation(max_new_tokens=1)


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, NotImplementedError, IndexError])
def test_an_error_of_a_stage_stays_what_it_is(
    adapter: LlavaAdapter, prompt: Prompt, error: type[Exception]
) -> None:
    with pytest.raises(StageError, match=f"{error.__name__}: a fault of the stage") as caught:
        session_of(adapter).run(prompt, plan_of(Failing(error=error)), ONE)
    assert type(caught.value.__cause__) is error


def test_only_a_failed_allocation_is_out_of_memory(adapter: LlavaAdapter, prompt: Prompt) -> None:
    for error, words in (
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        (MemoryError, ""),
        (torch.OutOfMemoryError, "CUDA out of memory"),
    ):
        with pytest.raises(MemoryExhaustedError):
            session_of(adapter).run(prompt, plan_of(Failing(error=error, words=words)), ONE)


def test_a_model_that_cannot_run_is_the_checkpoints_fault(prompt: Prompt) -> None:
    other = small_adapter()
    other.model.lm_head = nn.Linear(3, 5)
    with pytest.raises(ModelError, match="cannot read a prompt: RuntimeError"):
        session_of(other).run(prompt, plan_of(ShrinkingPrune()), ONE)


@contextmanager
def weight(adapter: LlavaAdapter, value: float) -> Iterator[None]:
    """One weight of the output head is no number."""
    head = adapter.model.lm_head.weight.detach()
    before = float(head[3, 0])
    head[3, 0] = value
    try:
        yield
    finally:
        head[3, 0] = before


CHOICES = {
    "greedy": Generation(max_new_tokens=2),
    "sampled": Generation(max_new_tokens=2, temperature=1.0, top_p=0.9),
    "forced": Generation(forced=(5, 6)),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("plan", [plan_of(), plan_of(ShrinkingPrune())], ids=["full", "pruned"])
def test_logits_that_are_no_numbers_are_an_error(
    adapter: LlavaAdapter, prompt: Prompt, value: float, choice: str, plan: Any
) -> None:
    with weight(adapter, value), pytest.raises(ModelError, match="NaN or infinite") as caught:
        session_of(adapter).run(prompt, plan, CHOICES[choice])
    assert caught.value.exit_code == 4


def test_logits_of_answers_decoded_together_are_checked(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    session = session_of(adapter)
    reads = [session.read_prompt(Request(prompt, plan_of(), CHOICES["greedy"])) for _ in range(2)]
    with weight(adapter, float("nan")), pytest.raises(ModelError, match="NaN or infinite"):
        session.answer_together(reads)


@contextmanager
def context(adapter: Any, positions: int) -> Iterator[None]:
    config = adapter.decoder.config
    before, config.max_position_embeddings = config.max_position_embeddings, positions
    try:
        yield
    finally:
        config.max_position_embeddings = before


def no_tower(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the tower ran")


def test_a_prompt_and_answer_fill_the_context_and_no_more(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    session, answer = session_of(adapter), Generation(max_new_tokens=5)
    with context(adapter, prompt.prompt_tokens + 5):
        session.run(prompt, plan_of(), answer)
    with context(adapter, prompt.prompt_tokens + 4):
        handle = adapter.tower_layers[0].register_forward_pre_hook(no_tower)
        for plan in (plan_of(), plan_of(ShrinkingPrune()), plan_of(ProjectedPrune())):
            with pytest.raises(UsageError) as caught:
                session.run(prompt, plan, answer)
            assert f"{prompt.prompt_tokens + 5}" in caught.value.found
            assert (caught.value.allowed or "").startswith(f"{prompt.prompt_tokens + 4},")
        with pytest.raises(UsageError):
            session.run(prompt, plan_of(), ONE, turns=("what is above?",))
        handle.remove()
        session.compress(prompt, plan_of(ShrinkingPrune()))


def test_a_plan_that_counts_positions_anew_may_shorten_a_longer_prompt(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    """A third of 36 tokens leaves: 24 stay."""
    session, anew = session_of(adapter), plan_of(ProjectedPrune(), positions="entered")
    entering = prompt.prompt_tokens - 12
    with context(adapter, entering + 1):
        assert session.run(prompt, anew, ONE).visual_tokens[0] == 24
        with pytest.raises(UsageError):
            session.run(prompt, replace(anew, positions="original"), ONE)
    with context(adapter, entering), pytest.raises(UsageError, match=f"{entering} tokens"):
        session.run(prompt, anew, ONE)


def test_places_in_time_and_space_count_where_a_model_has_them() -> None:
    from tests.engine.qwen_support import SMALL

    kind, vision = SMALL["qwen2_vl"]
    qwen = kind.random(3, width=64, layers=6, vision=vision, tokens=(4, 64))
    prompt = qwen.prepare(noise_media(0, 200, 200), QUESTION)
    highest = int(prompt.position_ids[1:].max()) + 1
    assert highest < prompt.prompt_tokens
    assert qwen.positions_of(prompt) == highest
    assert small_family("gemma3").context == 4096


def test_rope_scaling_extends_the_context() -> None:
    """Published settings: linear and YaRN without, Llama 3 and YaRN with the original length."""
    for known, rope, most in (
        (4096, {"rope_type": "default"}, 4096),
        (4096, {"rope_type": "linear", "factor": 2.0}, 8192),
        (32768, {"rope_type": "yarn", "factor": 4.0}, 131072),
        (
            131072,
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            131072,
        ),
        (
            131072,
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
    ):
        config = SimpleNamespace(max_position_embeddings=known, rope_parameters=rope)
        assert context_of(config) == most
    assert context_of(SimpleNamespace()) is None
