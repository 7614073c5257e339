"""The shipped MustDrop recipe at true depth (24 + 32 layers, 576 tokens) against the mask oracle.

The encoder's merged features enter the untouched model through its public arguments; from there on
the oracle only masks. Prefill and ten decode steps.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.support import Hidden, encoded_by, masked_logits, noise_media, session_of
from tests.tolerance import close
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.sequence import Entry
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

STEPS = 10


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    adapter = LlavaAdapter.narrow(0)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(2, 40, 60), "what colour is the shape on the left?")


def plan_for(adapter: LlavaAdapter, **options: Any) -> Plan:
    return resolve(
        load_recipe("mustdrop"),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=576,
        **options,
    )


def hidden_by(trace: Trace, entry: Entry, plan: Plan) -> Hidden:
    """What the recipe hides: by layer in the prefill; the final survivors' rest in the cache."""
    count = int(entry.input_ids.shape[1])
    anchors = entry.sequence.table.anchor, entry.sequence.visual
    place = {int(a): int(p) for a, p in zip(*anchors, strict=True)}

    def columns(anchors: Tensor) -> Tensor:
        flags = torch.zeros(count, dtype=torch.bool)
        flags[entry.sequence.visual] = True
        flags[[place[int(anchor)] for anchor in anchors]] = False
        return flags

    alive = entry.sequence.table.anchor
    hidden = Hidden()
    for layer in range(32):
        for record in trace.records:
            if record.phase == "prefill" and record.layer == layer:
                alive = record.anchor
        hidden.prefill[layer] = columns(alive)
    first = plan.decode[0].stage.first_layer
    for layer in range(32):
        seen_later = alive if layer >= first else entry.sequence.table.anchor
        hidden.decode[layer] = columns(seen_later).expand(STEPS, 2, -1)
    return hidden


@pytest.mark.parametrize("budget", [192.0, 128.0, 64.0])
def test_each_budget_equals_the_masked_model(
    adapter: LlavaAdapter, prompt: Prompt, budget: float
) -> None:
    plan = plan_for(adapter, budget=budget)
    session = session_of(adapter)
    full, _ = session._pass(Request(prompt, Plan("full"), Generation(max_new_tokens=STEPS)))
    forced = full.answer_ids
    trace, decoded = session._pass(Request(prompt, plan, Generation(forced=tuple(forced))))
    ours = torch.stack(decoded.logits)
    encoded, entry = encoded_by(adapter, prompt, plan)
    masked = masked_logits(adapter, encoded, entry, hidden_by(trace, entry, plan), forced)
    close(ours, masked, model=adapter)
    unpruned = masked_logits(adapter, encoded, entry, Hidden(), forced)
    assert float((ours - unpruned).abs().max()) > 1e-2
    assert abs(sum(trace.visual_tokens) / 32 - budget) <= 0.5
    assert trace.kv_entries[0] > trace.kv_entries[2] == trace.kv_entries[31]


def test_official_positions_restart_and_differ(adapter: LlavaAdapter, prompt: Prompt) -> None:
    """Thresholds that drop something, positions renumbered, merged windows first."""
    plan = plan_for(adapter, budget=64.0, fidelity="official")
    assert plan.positions == "renumbered"
    _, entry = encoded_by(adapter, prompt, plan)
    assert entry.position_ids[0].tolist() == list(range(entry.input_ids.shape[1]))
    sound = plan_for(adapter, budget=64.0)
    _, kept = encoded_by(adapter, prompt, sound)
    assert kept.position_ids[0, -1] == prompt.prompt_tokens - 1
    anchors = kept.sequence.table.anchor
    assert bool((anchors[1:] > anchors[:-1]).all())


def test_cache_lengths_never_grow_with_depth(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace, _ = session_of(adapter)._pass(
        Request(prompt, plan_for(adapter, budget=128.0), Generation(max_new_tokens=3))
    )
    assert trace.kv_entries == sorted(trace.kv_entries, reverse=True)
    text = trace.text_tokens
    entering, final = trace.visual_tokens[0], trace.visual_tokens[-1]
    assert trace.kv_entries == [text + entering] * 2 + [text + final] * 30
