"""FastV and the blind selections in the engine: dropping equals masking, and what is cached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.support import (
    QUESTION,
    STEPS,
    Hidden,
    noise_media,
    oracle,
    plain_logits,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import apart, close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import SignalError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.stages.baselines import Random, Uniform
from vtc_cli.stages.fastv import LastRow

LAYERS, VISUAL = 6, 36
FORCED = list(range(5, 5 + STEPS))


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


@pytest.fixture(scope="module")
def full(adapter: LlavaAdapter, prompt: Prompt) -> Tensor:
    return plain_logits(adapter, prompt, FORCED)


def run(adapter: LlavaAdapter, prompt: Prompt, *stages: Any, seed: int = 0) -> tuple[Trace, Tensor]:
    generation = Generation(max_new_tokens=STEPS, forced=tuple(FORCED), seed=seed)
    trace, decoded = session_of(adapter)._pass(Request(prompt, plan_of(*stages), generation))
    return trace, torch.stack(decoded.logits)


def masked(adapter: LlavaAdapter, prompt: Prompt, kept: Tensor, first_layer: int) -> Tensor:
    """The untouched model that hides all visual tokens but `kept` from `first_layer` on."""
    flags = torch.zeros(prompt.prompt_tokens, dtype=torch.bool)
    flags[prompt.visual_index] = True
    flags[prompt.visual_index[kept]] = False
    hidden = Hidden(prefill=dict.fromkeys(range(first_layer, LAYERS), flags))
    with oracle(adapter, hidden, prompt.prompt_tokens):
        return plain_logits(adapter, prompt, FORCED)


SELECTIONS = {
    "fastv at 2": (LastRow(layers=(2,), tokens=12), 2, 12),
    "fastv at 3, half": (LastRow(layers=(3,)), 3, 18),
    "fastv, one token": (LastRow(layers=(2,), tokens=1), 2, 1),
    "fastv, none: all visual tokens leave": (LastRow(layers=(2,), keep_ratio=0.0), 2, 0),
    "random at the door": (Random(tokens=12), 0, 12),
    "uniform at the door": (Uniform(tokens=12), 0, 12),
    "random at 3": (Random(layers=(3,), tokens=12), 3, 12),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_dropping_equals_masking_and_shortens_the_cache_from_its_layer_on(
    adapter: LlavaAdapter, prompt: Prompt, full: Tensor, name: str
) -> None:
    stage, layer, count = SELECTIONS[name]
    trace, ours = run(adapter, prompt, stage)
    kept = trace.records[0].anchor
    assert len(kept) == count
    expected = masked(adapter, prompt, kept, layer)
    close(ours, expected, model=adapter)
    assert float((ours - full).abs().max()) > 1e-2
    long, short = prompt.prompt_tokens, prompt.prompt_tokens - VISUAL + count
    assert trace.kv_entries == [long] * layer + [short] * (LAYERS - layer)
    shape = adapter.shape.decoder
    stored = layer * long + (LAYERS - layer) * short
    assert trace.kv_bytes == 2 * stored * shape.kv_heads * shape.head_dim * 4


def test_the_row_is_that_of_the_last_token_in_the_layer_before(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    """Against the library's own eager attention maps."""
    eager = small_adapter("eager")
    with torch.inference_mode():
        maps = eager.model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            output_attentions=True,
        ).attentions
    for layer in (1, 2, 5):
        row = maps[layer - 1][0].mean(dim=0)[-1, prompt.visual_index]
        best = row.argsort(descending=True, stable=True)[:7].sort().values
        apart(row, best, model=adapter)
        trace, _ = run(adapter, prompt, LastRow(layers=(layer,), tokens=7))
        assert torch.equal(trace.records[0].anchor, best)
        close(trace.records[0].decision.scores, row, model=adapter)


@pytest.mark.parametrize(
    "stage",
    [
        LastRow(keep_ratio=1.0),
        LastRow(tokens=VISUAL),
        LastRow(tokens=99),
        Random(tokens=VISUAL),
        Uniform(tokens=99),
    ],
)
def test_room_for_all_is_the_plain_model_bit_for_bit(
    adapter: LlavaAdapter, prompt: Prompt, full: Tensor, stage: Any
) -> None:
    trace, ours = run(adapter, prompt, stage)
    assert torch.equal(ours, full)
    assert "36 here" in trace.records[0].decision.note


@dataclass(frozen=True, kw_only=True)
class DoorPrune(EncoderStage):
    """Keeps given tokens behind the projector, so that the decoder never sees the others."""

    kept: tuple[int, ...]

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.prune(torch.tensor(self.kept), len(tokens))


@pytest.mark.parametrize("stage", [Random(tokens=12), Uniform(tokens=12)])
def test_leaving_at_layer_0_is_never_entering_the_decoder(
    adapter: LlavaAdapter, prompt: Prompt, stage: Any
) -> None:
    trace, ours = run(adapter, prompt, stage)
    kept = tuple(trace.records[0].anchor.tolist())
    other, door = run(adapter, prompt, DoorPrune(kept=kept))
    assert torch.equal(ours, door)
    assert trace.visual_tokens == other.visual_tokens == [12] * LAYERS
    assert trace.kv_bytes == other.kv_bytes


def test_the_seed_of_the_run_draws_the_random_tokens(adapter: LlavaAdapter, prompt: Prompt) -> None:
    drawn = [run(adapter, prompt, Random(tokens=12), seed=seed)[0] for seed in (0, 0, 1)]
    first, again, other = (trace.records[0].anchor.tolist() for trace in drawn)
    assert first == again != other


def test_a_prompt_that_ends_with_the_picture_is_refused(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    end = int(prompt.visual_index.max()) + 1
    cut = replace(
        prompt,
        input_ids=prompt.input_ids[:, :end],
        position_ids=prompt.position_ids[..., :end],
    )
    with pytest.raises(SignalError, match="no text follows"):
        run(adapter, cut, LastRow(tokens=12))
