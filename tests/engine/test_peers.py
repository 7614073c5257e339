"""Signals of the peer methods against the library's own maps, caches and norms; whole runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.engine.families import SMALL, family_prompt, family_session, small_family
from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    ShrinkingPrune,
    noise_media,
    plain_logits,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import apart, close
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.stages.dart import Pivots
from vtc_cli.stages.divprune import MaxMin
from vtc_cli.stages.fastervlm import ClsAttention
from vtc_cli.stages.pyramiddrop import LastInstruction
from vtc_cli.stages.visionzip import DominantContextual
from vtc_cli.stages.vtc_cls import SummedAttention

SHOWN: dict[str, Tensor] = {}


@dataclass(frozen=True, kw_only=True)
class Ahead(PrefillStage):
    """Shows the rows of the layer to come."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows_ahead"})
    layers: tuple[int, ...] = (4,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        SHOWN["ahead"] = signals.attention_rows_ahead("after_visual")
        SHOWN["last"] = signals.attention_rows_ahead("last")
        SHOWN["flops"] = torch.tensor(signals.cost.flops)
        return Decision.identity(len(tokens), tokens.features.device)


@dataclass(frozen=True, kw_only=True)
class Behind(PrefillStage):
    """Shows what the layer before gave."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows", "keys", "text_keys"})
    layers: tuple[int, ...] = (5,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        SHOWN["behind"] = signals.attention_rows("after_visual")
        SHOWN["keys"], SHOWN["text_keys"] = signals.keys(), signals.text_keys()
        SHOWN["hidden"], SHOWN["normed"] = signals.hidden(), signals.normed_hidden()
        SHOWN["text"] = signals.normed_text()
        return Decision.identity(len(tokens), tokens.features.device)


@cache
def family(name: str) -> tuple[Adapter, Prompt, Session]:
    if name == "llava":
        adapter: Adapter = small_adapter()
        prompt = adapter.prepare(noise_media(), QUESTION)
        return adapter, prompt, session_of(adapter)  # type: ignore[arg-type]
    adapter = small_family(name)
    return adapter, family_prompt(adapter), family_session(adapter)


@pytest.mark.parametrize("name", ["llava", *SMALL])
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_the_rows_ahead_are_those_that_the_layer_then_has(name: str, positions: Any) -> None:
    if positions == "renumbered" and name == "gemma3":
        pytest.skip("windows and full layers: positions counted anew are told by llava")
    _, prompt, session = family(name)
    plan = plan_of(ShrinkingPrune(layers=(2,)), Ahead(), Behind(), positions=positions)
    trace, decoded = session._pass(Request(prompt, plan, Generation(max_new_tokens=2)))
    assert len(trace.records) == 3 and trace.visual_tokens[3] < trace.visual_tokens[0]
    close(SHOWN["ahead"], SHOWN["behind"], model=session.adapter)
    close(SHOWN["last"], SHOWN["behind"][:, -1:], model=session.adapter)
    assert float(SHOWN["behind"].amax()) > 1e-3
    other = plan_of(ShrinkingPrune(layers=(2,)), positions=positions)
    _, plain = session._pass(Request(prompt, other, Generation(max_new_tokens=2)))
    assert torch.equal(torch.stack(decoded.logits), torch.stack(plain.logits))


def test_a_watched_layer_can_be_looked_at_ahead_too_and_the_cost_is_counted() -> None:
    """Another stage reads layer 4 as it runs: neither sees the other."""
    adapter, prompt, session = family("llava")
    plan = plan_of(Ahead(layers=(0, 4)), AttentionPrune(layers=(5,)))
    trace, _ = session._pass(Request(prompt, plan, Generation(max_new_tokens=1)))
    shape, count = adapter.shape.decoder, prompt.prompt_tokens
    rows = SHOWN["ahead"].shape[1] + 1
    projections = 2 * shape.width * (shape.heads + 2 * shape.kv_heads) * shape.head_dim * count
    scores = 2 * shape.heads * shape.head_dim * count
    assert int(SHOWN["flops"]) == 2 * projections + rows * scores
    assert trace.visual_tokens[5] == 18


@pytest.mark.parametrize("name", ["llava", *SMALL])
def test_keys_and_states_of_the_text_are_those_of_the_model(name: str) -> None:
    adapter, prompt, session = family(name)
    blocks: dict[str, Any] = {}
    hook = adapter.decoder_layers[5].register_forward_pre_hook(
        lambda module, args: blocks.update(hidden=args[0].clone())
    )
    session._pass(Request(prompt, plan_of(Behind()), Generation(max_new_tokens=1)))
    hook.remove()
    after = torch.arange(int(prompt.visual_index.max()) + 1, prompt.prompt_tokens)
    hidden = blocks["hidden"][0]
    with torch.inference_mode():
        normed = adapter.decoder.norm(hidden)
    assert torch.equal(SHOWN["hidden"], hidden[prompt.visual_index])
    close(SHOWN["normed"], normed[prompt.visual_index], model=adapter)
    close(SHOWN["text"], normed[after], model=adapter)
    shape = adapter.shape.decoder
    assert SHOWN["keys"].shape == (shape.kv_heads, len(prompt.visual_index), shape.head_dim)
    assert SHOWN["text_keys"].shape == (shape.kv_heads, len(after), shape.head_dim)


def test_keys_of_the_text_are_those_in_the_library_s_cache() -> None:
    from transformers import DynamicCache

    adapter, prompt, session = family("llava")
    session._pass(
        Request(
            prompt, plan_of(ShrinkingPrune(layers=(5,)), Behind()), Generation(max_new_tokens=1)
        )
    )
    cache = DynamicCache(config=adapter.decoder.config)
    with torch.inference_mode():
        adapter.model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            past_key_values=cache,
            use_cache=True,
        )
    keys: Any = cache.layers[4].keys
    after = torch.arange(int(prompt.visual_index.max()) + 1, prompt.prompt_tokens)
    close(SHOWN["text_keys"], keys[0][:, after], model=adapter)
    kept = prompt.visual_index[torch.arange(36)[torch.arange(36) % 3 == 5 % 3]]
    close(SHOWN["keys"], keys[0][:, kept], model=adapter)


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


STAGES = {
    "fastervlm": ClsAttention(attention_layer=2, tokens=10),
    "vtc_cls": SummedAttention(first_layer=0, last_layer=2, tokens=10),
    "visionzip": DominantContextual(attention_layer=2, tokens=10, contextual_ratio=0.3),
    "divprune": MaxMin(tokens=10),
    "dart": Pivots(tokens=10),
    "pyramiddrop": LastInstruction(layers=(1, 3, 4)),
}


def records(adapter: LlavaAdapter, prompt: Prompt, stage: Any) -> Any:
    request = Request(prompt, plan_of(stage), Generation(max_new_tokens=2))
    return session_of(adapter)._pass(request)


def test_cls_attention_is_that_of_the_library_s_maps(adapter: LlavaAdapter, prompt: Prompt) -> None:
    eager = small_adapter("eager")
    with torch.inference_mode():
        tower = eager.model.model.vision_tower
        maps = tower(**prompt.encoder_inputs, output_attentions=True).attentions
    cls = [layer[0].mean(dim=0)[0, 1:] for layer in maps]
    trace, _ = records(adapter, prompt, ClsAttention(attention_layer=2, tokens=10))
    record = trace.records[0]
    close(record.decision.scores, cls[2], model=adapter)
    best = cls[2].argsort(descending=True, stable=True)[:10].sort().values
    apart(cls[2], best, model=adapter)
    assert torch.equal(record.anchor, best)
    trace, _ = records(adapter, prompt, STAGES["vtc_cls"])
    close(trace.records[0].decision.scores, cls[0] + cls[1] + cls[2], model=adapter)


def test_leaving_before_the_projector_is_leaving_behind_it(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    trace, _ = records(adapter, prompt, STAGES["fastervlm"])
    keep = trace.records[0].anchor
    with torch.inference_mode():
        states = adapter.model.model.vision_tower(
            **prompt.encoder_inputs, output_hidden_states=True
        ).hidden_states[-2][:, 1:]
        early = adapter.projector(states[:, keep])
        late = adapter.projector(states)[:, keep]
    close(early, late, model=adapter)


@pytest.mark.parametrize("name", STAGES)
def test_a_method_changes_the_logits_and_repeats(
    adapter: LlavaAdapter, prompt: Prompt, name: str
) -> None:
    trace, decoded = records(adapter, prompt, STAGES[name])
    again, other = records(adapter, prompt, STAGES[name])
    assert torch.equal(torch.stack(decoded.logits), torch.stack(other.logits))
    assert [r.anchor.tolist() for r in trace.records] == [r.anchor.tolist() for r in again.records]
    full = plain_logits(adapter, prompt, list(trace.answer_ids))
    assert float((decoded.logits[0] - full[0]).abs().max()) > 1e-3
    counts = [len(record.anchor) for record in trace.records]
    assert counts == ([18, 9, 4] if name == "pyramiddrop" else [10])


@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_shares_of_one_are_the_plain_model_bit_for_bit(
    adapter: LlavaAdapter, prompt: Prompt, positions: Any
) -> None:
    stage = LastInstruction(layers=(1, 3, 4), keep_ratios=(1.0, 1.0, 1.0))
    forced = (5, 6, 7)
    request = Request(prompt, plan_of(stage, positions=positions), Generation(forced=forced))
    _, decoded = session_of(adapter)._pass(request)
    assert torch.equal(torch.stack(decoded.logits), plain_logits(adapter, prompt, list(forced)))


def test_kept_positions_choose_alike_at_the_first_border_only(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    kept = {}
    for positions in ("original", "renumbered"):
        plan = plan_of(STAGES["pyramiddrop"], positions=positions)
        trace, _ = session_of(adapter)._pass(Request(prompt, plan, Generation(max_new_tokens=1)))
        kept[positions] = [record.anchor.tolist() for record in trace.records]
    assert kept["original"][0] == kept["renumbered"][0]
    assert all(len(a) == len(b) for a, b in zip(*kept.values(), strict=True))


@pytest.mark.parametrize(
    "stage",
    [
        ClsAttention(attention_layer=2, tokens=0, fidelity="official"),
        MaxMin(keep_ratio=0.01, fidelity="official"),
    ],
)
def test_where_the_official_code_keeps_none_the_text_is_read_alone(
    adapter: LlavaAdapter, prompt: Prompt, stage: Any
) -> None:
    plan = plan_of(stage, positions="renumbered")
    request = Request(prompt, plan, Generation(forced=(5, 6)))
    trace, decoded = session_of(adapter)._pass(request)
    assert set(trace.visual_tokens) == {0}
    text = torch.ones(prompt.prompt_tokens, dtype=torch.bool)
    text[prompt.visual_index] = False
    ids = torch.cat([prompt.input_ids[:, text], torch.tensor([[5]])], dim=1)
    with torch.inference_mode():
        logits = adapter.model(input_ids=ids, use_cache=False).logits[0, -2:]
    close(torch.stack(decoded.logits[:2]), logits, model=adapter)


@pytest.mark.parametrize(("name", "first"), list(product(["gemma3", "internvl"], STAGES)))
def test_a_method_runs_on_families_whose_tower_rows_are_joined(name: str, first: str) -> None:
    _, prompt, session = family(name)
    trace, _ = session._pass(Request(prompt, plan_of(STAGES[first]), Generation(max_new_tokens=1)))
    assert len(trace.records[-1].anchor) == (4 if first == "pyramiddrop" else 10)
    without = name == "gemma3" and first in ("fastervlm", "vtc_cls", "visionzip")
    assert ("no [CLS]" in trace.records[0].decision.note) == without
