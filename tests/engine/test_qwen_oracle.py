"""The Qwen families against the untouched library: `generate` itself, and the mask oracle.

The prune moves the logits by more than 1e-2 each time.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.qwen_support import CASE_NAMES, CASES, Plain, forced_logits, plain_case, run_under
from tests.engine.support import (
    STEPS,
    AttentionPrune,
    Hidden,
    KeepAll,
    ProjectedPrune,
    RaggedCache,
    ShrinkingPrune,
    oracle,
    plan_of,
)
from tests.engine.test_hygiene import Explode, hooks_of
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.sequence import enter

EFFECT = 1e-2
LAYERS = 6


@pytest.fixture(params=CASES, ids=CASE_NAMES)
def plain(request: pytest.FixtureRequest) -> Plain:
    return plain_case(*request.param)


@pytest.mark.parametrize("plan", [plan_of(), plan_of(KeepAll())], ids=["no stages", "keep all"])
def test_keeping_everything_is_generate_bit_for_bit(plain: Plain, plan: Any) -> None:
    trace, ours = run_under(plain, plan, forced=False)
    assert trace.answer_ids == plain.tokens
    assert torch.equal(ours, plain.logits)


PRUNES = {
    "at two layers": (ShrinkingPrune(),),
    "at layers 1 and 2": (ShrinkingPrune(layers=(1, 2)),),
    "behind the projector": (ProjectedPrune(),),
    "three in a row": (
        ProjectedPrune(),
        ShrinkingPrune(layers=(1, 3)),
        AttentionPrune(layers=(4,)),
    ),
}


@pytest.mark.parametrize("name", PRUNES)
def test_pruning_equals_the_masked_full_model(plain: Plain, name: str) -> None:
    trace, ours = run_under(plain, plan_of(*PRUNES[name]))
    masked = masked_logits(plain, trace)
    close(ours, masked, model=plain.adapter)
    assert float((ours - plain.logits).abs().max()) > EFFECT
    assert trace.sequence_tokens == [trace.text_tokens + count for count in trace.visual_tokens]


def test_prune_and_cache_policy_together_equal_the_masked_full_model(plain: Plain) -> None:
    trace, ours = run_under(plain, plan_of(ShrinkingPrune(), RaggedCache()))
    masked = masked_logits(plain, trace, ragged=True)
    close(ours, masked, model=plain.adapter)
    alone, _ = run_under(plain, plan_of(ShrinkingPrune()))
    assert sum(trace.kv_entries) < sum(alone.kv_entries)


@pytest.mark.parametrize("case", [("qwen2_vl", "image"), ("qwen3_vl", "video")])
def test_eager_attention_is_served_too(case: tuple[str, str]) -> None:
    plain = plain_case(*case, "eager")
    _, kept = run_under(plain, plan_of())
    close(kept, plain.logits, model=plain.adapter)
    trace, ours = run_under(plain, plan_of(ShrinkingPrune()))
    close(ours, masked_logits(plain, trace), model=plain.adapter)


def masked_logits(plain: Plain, trace: Trace, *, ragged: bool = False) -> Tensor:
    """The full model that sees, in each layer, only what was alive there."""
    prompt = plain.prompt
    prefill = alive_to_hidden(alive_per_layer(trace, LAYERS), prompt)
    decode = {}
    place = torch.arange(prompt.layout.tokens)
    for layer, columns in prefill.items() if ragged else ():
        flags = columns.expand(STEPS, 2, -1).clone()
        for head in (0, 1):
            flags[:, head, prompt.visual_index[place % (3 + head) == 0]] = True
        decode[layer] = flags
    with oracle(plain.adapter, Hidden(prefill, decode), prompt.prompt_tokens):  # type: ignore[arg-type]
        return forced_logits(plain)


def test_tokens_keep_the_positions_of_the_uncompressed_prompt(plain: Plain) -> None:
    """What the last layer rotates by is what the library computed for the tokens that are left."""
    adapter, prompt = plain.adapter, plain.prompt
    seen: list[Tensor] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["position_embeddings"][0])

    handle = adapter.decoder_layers[-1].self_attn.register_forward_pre_hook(look, with_kwargs=True)
    try:
        trace, _ = run_under(plain, plan_of(ShrinkingPrune()))
    finally:
        handle.remove()
    ids = adapter.model._prepare_position_ids_for_generation(prompt.input_ids, dict(plain.inputs))
    stays = ~alive_to_hidden(alive_per_layer(trace, LAYERS), prompt)[LAYERS - 1]
    zeros = torch.zeros(1, 1, 64)
    expected, _ = adapter.decoder.rotary_emb(zeros, ids[1:, :, stays])
    assert torch.equal(seen[0], expected)
    following = ids[1:, :, -1:] + 1
    assert torch.equal(seen[1], adapter.decoder.rotary_emb(zeros, following)[0])


def test_positions_counted_anew_equal_the_masked_model_with_those_positions(plain: Plain) -> None:
    """Each layer counts its tokens anew, the same number in all rows of the position ids."""
    _, original = run_under(plain, plan_of(ShrinkingPrune()))
    trace, ours = run_under(plain, plan_of(ShrinkingPrune(), positions="renumbered"))
    prompt = plain.prompt
    hidden = Hidden(prefill=alive_to_hidden(alive_per_layer(trace, LAYERS), prompt))
    for layer, columns in hidden.prefill.items():
        hidden.prompt_positions[layer] = ((~columns).cumsum(0) - 1).clamp_min(0)
        hidden.first_query[layer] = int((~columns).sum())
    with oracle(plain.adapter, hidden, prompt.prompt_tokens):  # type: ignore[arg-type]
        masked = forced_logits(plain)
    close(ours, masked, model=plain.adapter)
    assert float((original - ours).abs().max()) > EFFECT


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_are_removed_again(plain: Plain, fails: bool) -> None:
    before = hooks_of(plain.adapter)  # type: ignore[arg-type]
    if fails:
        with pytest.raises(StageError):
            run_under(plain, plan_of(AttentionPrune(), Explode()))
    else:
        run_under(plain, plan_of(AttentionPrune()))
    assert hooks_of(plain.adapter) == before  # type: ignore[arg-type]


def test_text_between_frames_is_no_question() -> None:
    """Rows after the visual tokens stay those of the question when the last frames are gone."""
    prompt = plain_case("qwen3_vl", "video").prompt
    assert bool((prompt.visual_index.diff() > 1).any())
    table = TokenTable.from_layout(torch.zeros(prompt.layout.tokens, 4), prompt.layout)
    sequence = enter(prompt, table, renumbered=False).sequence
    behind = prompt.prompt_tokens - int(prompt.visual_index.max()) - 1
    assert len(sequence.queries_after_visual()) == behind
    decision = Decision.prune(torch.arange(5), len(table))
    shorter, _ = sequence.shrink(decision, table.apply(decision))
    expected = torch.arange(len(shorter) - behind, len(shorter))
    assert torch.equal(shorter.queries_after_visual(), expected)
    entered = enter(prompt, table.apply(decision), renumbered=False).sequence
    assert torch.equal(entered.queries_after_visual(), expected)
