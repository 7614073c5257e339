"""The engine against the untouched model: bit-equal when nothing goes, masked when something does.

Every case also shows that the prune itself moves the logits by more than 1e-2, some hundred times
what rounding may.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.support import (
    QUESTION,
    STEPS,
    AttentionPrune,
    EveryStepCache,
    Hidden,
    KeepAll,
    ProjectedPrune,
    RaggedCache,
    ShrinkingPrune,
    noise_media,
    oracle,
    plain_logits,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import close
from vtc_cli.core.errors import SignalError
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt

EFFECT = 1e-2


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def adapter(request: pytest.FixtureRequest) -> LlavaAdapter:
    return small_adapter(request.param)


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


@pytest.fixture(scope="module")
def free_run(adapter: LlavaAdapter, prompt: Prompt) -> tuple[list[int], Tensor]:
    """Tokens and logits of the library's own greedy answer."""
    generated = adapter.model.generate(
        input_ids=prompt.input_ids,
        pixel_values=prompt.encoder_inputs["pixel_values"],
        max_new_tokens=STEPS,
        do_sample=False,
    )
    tokens = generated[0, prompt.prompt_tokens :].tolist()
    return tokens, plain_logits(adapter, prompt, tokens)


def run(
    adapter: LlavaAdapter, prompt: Prompt, plan: Plan, forced: list[int] | None = None
) -> tuple[Trace, Tensor]:
    generation = Generation(max_new_tokens=STEPS, forced=None if forced is None else tuple(forced))
    trace, decoded = session_of(adapter)._pass(Request(prompt, plan, generation))
    return trace, torch.stack(decoded.logits)


@pytest.mark.parametrize("plan", [plan_of(), plan_of(KeepAll())], ids=["no stages", "keep all"])
def test_keeping_everything_is_the_plain_model_bit_for_bit(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor], plan: Plan
) -> None:
    tokens, logits = free_run
    trace, ours = run(adapter, prompt, plan)
    assert trace.answer_ids == tokens
    if adapter.decoder.config._attn_implementation == "sdpa":
        assert torch.equal(ours, logits)
    else:  # the library's own eager loop differs from itself by one rounding of the mask
        close(ours, logits, model=adapter)


def alive_to_hidden(alive: dict[int, Tensor], prompt: Prompt) -> dict[int, Tensor]:
    """Layers -> hidden columns from layers -> (K,) original visual tokens that are alive."""
    hidden = {}
    for layer, anchors in alive.items():
        flags = torch.zeros(prompt.prompt_tokens, dtype=torch.bool)
        flags[prompt.visual_index] = True
        flags[prompt.visual_index[anchors]] = False
        hidden[layer] = flags
    return hidden


def alive_per_layer(trace: Trace, layers: int) -> dict[int, Tensor]:
    """Original visual tokens that each decoder layer saw, read off the records."""
    alive = torch.arange(trace.original_tokens)
    result = {}
    for layer in range(layers):
        for record in trace.records:
            if record.phase == "encoder" and layer == 0:
                alive = record.anchor
            if record.phase == "prefill" and record.layer == layer:
                alive = record.anchor
        result[layer] = alive
    return result


PRUNES = {
    "at two layers": (ShrinkingPrune(),),
    "at layer 0": (ShrinkingPrune(layers=(0,)),),
    "at the last layer": (ShrinkingPrune(layers=(5,)),),
    "behind the projector": (ProjectedPrune(),),
    "both": (ProjectedPrune(), ShrinkingPrune()),
    "three in a row": (
        ProjectedPrune(),
        ShrinkingPrune(layers=(1, 3)),
        AttentionPrune(layers=(4,)),
    ),
    "by attention": (AttentionPrune(),),
    "two stages at one layer": (ShrinkingPrune(layers=(2,)), AttentionPrune(layers=(2,))),
}


@pytest.mark.parametrize("name", PRUNES)
def test_pruning_equals_the_masked_full_model(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor], name: str
) -> None:
    tokens, full = free_run
    stages = PRUNES[name]
    if adapter.decoder.config._attn_implementation == "eager" and any(s.needs for s in stages):
        with pytest.raises(SignalError, match="eager"):
            run(adapter, prompt, plan_of(*stages), tokens)
        return
    trace, ours = run(adapter, prompt, plan_of(*stages), tokens)
    alive = alive_per_layer(trace, 6)
    assert [len(alive[layer]) for layer in range(6)] == trace.visual_tokens
    with oracle(adapter, Hidden(prefill=alive_to_hidden(alive, prompt)), prompt.prompt_tokens):
        masked = plain_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - full).abs().max()) > EFFECT


def test_ragged_heads_equal_the_masked_full_model(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, full = free_run
    trace, ours = run(adapter, prompt, plan_of(RaggedCache()), tokens)
    hidden = torch.zeros(STEPS, 2, prompt.prompt_tokens, dtype=torch.bool)
    for head in (0, 1):
        hidden[:, head, prompt.visual_index[torch.arange(36) % (3 + head) == 0]] = True
    everywhere = Hidden(decode=dict.fromkeys(range(6), hidden))
    with oracle(adapter, everywhere, prompt.prompt_tokens):
        masked = plain_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - full)[1:].abs().max()) > EFFECT
    head_entries = [prompt.prompt_tokens - 12, prompt.prompt_tokens - 9]
    assert trace.kv_entries == [sum(head_entries) / 2] * 6
    assert trace.kv_bytes == 6 * sum(head_entries) * 2 * 16 * 4


def test_evicting_after_each_token_equals_the_masked_full_model(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, full = free_run
    trace, ours = run(adapter, prompt, plan_of(EveryStepCache()), tokens)
    hidden = torch.zeros(STEPS, 2, prompt.prompt_tokens, dtype=torch.bool)
    for step in range(STEPS):  # one entry goes after the prompt and one after each token
        hidden[step, :, prompt.visual_index[: step + 1]] = True
    with oracle(adapter, Hidden(decode=dict.fromkeys(range(2, 6), hidden)), prompt.prompt_tokens):
        masked = plain_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - full)[1:].abs().max()) > EFFECT
    assert trace.final_kv_entries[2] == prompt.prompt_tokens - 1


def test_prune_and_cache_policy_together_equal_the_masked_full_model(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, _ = free_run
    trace, ours = run(adapter, prompt, plan_of(ShrinkingPrune(), RaggedCache()), tokens)
    prefill = alive_to_hidden(alive_per_layer(trace, 6), prompt)
    decode = {}
    for layer, columns in prefill.items():
        flags = columns.expand(STEPS, 2, -1).clone()
        for head in (0, 1):
            flags[:, head, prompt.visual_index[torch.arange(36) % (3 + head) == 0]] = True
        decode[layer] = flags
    with oracle(adapter, Hidden(prefill, decode), prompt.prompt_tokens):
        masked = plain_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)


def test_renumbered_positions_equal_the_masked_model_with_those_positions(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    """Each layer counts its tokens anew; a query stands at its layer's own number of entries."""
    tokens, _ = free_run
    plan = plan_of(ShrinkingPrune(), positions="renumbered")
    trace, ours = run(adapter, prompt, plan, tokens)
    hidden = Hidden(prefill=alive_to_hidden(alive_per_layer(trace, 6), prompt))
    for layer, columns in hidden.prefill.items():
        hidden.prompt_positions[layer] = ((~columns).cumsum(0) - 1).clamp_min(0)
        hidden.first_query[layer] = int((~columns).sum())
    with oracle(adapter, hidden, prompt.prompt_tokens):
        masked = plain_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)


def test_renumbered_positions_are_another_answer(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, _ = free_run
    _, original = run(adapter, prompt, plan_of(ShrinkingPrune()), tokens)
    _, renumbered = run(adapter, prompt, plan_of(ShrinkingPrune(), positions="renumbered"), tokens)
    assert float((original - renumbered).abs().max()) > EFFECT


def test_renumbering_an_unpruned_prompt_changes_nothing(
    adapter: LlavaAdapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, logits = free_run
    _, ours = run(adapter, prompt, plan_of(KeepAll(), positions="renumbered"), tokens)
    close(ours, logits, model=adapter)
