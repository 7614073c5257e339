"""Cache policies of whole papers against the untouched model that is masked by a second writing.

The prompt and ten steps, every family, grouped queries, heads of different lengths; each policy
also moves the logits by more than 1e-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.engine.families import SMALL, family_prompt, family_session, own_logits, small_family
from tests.engine.reference_policies import Heavy, MaskedModel, Snap, Streaming
from tests.engine.support import (
    QUESTION,
    STEPS,
    RaggedCache,
    ShrinkingPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError, StageError
from vtc_cli.core.plan import Plan
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage
from vtc_cli.core.trace import Trace
from vtc_cli.engine.attended import column_sums
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.engine.tap import Capture
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.stages.h2o import HeavyHitters
from vtc_cli.stages.snapkv import ObservationWindow
from vtc_cli.stages.streamingllm import AttentionSinks

EFFECT = 1e-2
LAYERS, KV_HEADS = 6, 2
NARROW = "gemma3 of narrow windows"  # most layers see 20 tokens, the prompt has more than 60
# Line ends are protected tokens, which policies keep and the second writing knows nothing of.
LINED = ("llava_next", "llava_onevision")
FAMILIES = ["llava", *(name for name in SMALL if name not in LINED), NARROW]

SNAP = {"capacity_tokens": 24, "window_tokens": 6, "kernel": 3}
POLICIES: dict[str, tuple[DecodeStage, Any]] = {
    "streamingllm": (AttentionSinks(sink_tokens=4, recent_tokens=20), Streaming(4, 20)),
    "snapkv": (ObservationWindow(**SNAP, pool="max"), Snap(24, 6, 3, True)),
    "h2o": (HeavyHitters(heavy_tokens=14, recent_tokens=10), Heavy(14, 10)),
    "h2o, no recent": (HeavyHitters(heavy_tokens=24, recent_tokens=0), Heavy(24, 0)),
}
VISUAL: dict[str, tuple[DecodeStage, Any]] = {
    "streamingllm": (
        AttentionSinks(sink_tokens=2, recent_tokens=6, visual_only=True),
        Streaming(2, 6),
    ),
    "snapkv": (
        ObservationWindow(capacity_tokens=8, window_tokens=6, kernel=3, visual_only=True),
        Snap(8, 6, 3, False),
    ),
    "h2o": (HeavyHitters(heavy_tokens=5, recent_tokens=3, visual_only=True), Heavy(5, 3)),
}


def make(family: str, attention: str) -> Adapter:
    if family == NARROW:
        return small_family("gemma3", attention, sliding_window=20)
    return small_adapter(attention) if family == "llava" else small_family(family, attention)


@dataclass(frozen=True, eq=False)
class Case:
    """One family: our model, the same weights with eager attention, a prompt, an answer."""

    adapter: Adapter
    eager: Adapter
    prompt: Prompt
    tokens: list[int]
    full: Tensor

    @property
    def session(self) -> Session:
        of = session_of if self.adapter.family == "llava" else family_session
        return of(self.adapter)  # type: ignore[arg-type, operator]

    def run(self, plan: Plan) -> tuple[Trace, Tensor]:
        generation = Generation(forced=tuple(self.tokens))
        trace, decoded = self.session._pass(Request(self.prompt, plan, generation))
        return trace, torch.stack(decoded.logits)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    adapter, eager = make(request.param, "sdpa"), make(request.param, "eager")
    llava = request.param == "llava"
    prompt = adapter.prepare(noise_media(), QUESTION) if llava else family_prompt(adapter)
    tokens = torch.randint(5, 200, (STEPS + 1,), generator=torch.Generator().manual_seed(4))
    full = own_logits(adapter, prompt, tokens.tolist(), library_cache=False)
    return Case(adapter, eager, prompt, tokens.tolist(), full)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_equals_the_masked_full_model(case: Case, name: str) -> None:
    stage, policy = POLICIES[name]
    trace, ours = case.run(plan_of(stage))
    masked = MaskedModel(case.eager, case.prompt, policy)
    close(ours, masked.logits(case.tokens), model=case.adapter)
    assert torch.equal(ours[0], case.full[0])
    assert float((ours - case.full)[1:].abs().max()) > EFFECT
    held = [[len(head.alive) for head in heads] for heads in masked.layers]
    assert trace.final_kv_entries == [sum(each) / KV_HEADS for each in held]
    assert trace.kv_entries == [24] * LAYERS
    head_bytes = 2 * case.adapter.shape.decoder.head_dim * 4
    assert trace.kv_bytes == LAYERS * KV_HEADS * 24 * head_bytes


@pytest.mark.parametrize("name", VISUAL)
def test_a_policy_over_visual_entries_equals_the_masked_full_model(case: Case, name: str) -> None:
    stage, policy = VISUAL[name]
    trace, ours = case.run(plan_of(stage))
    masked = MaskedModel(case.eager, case.prompt, policy, visual_only=True)
    close(ours, masked.logits(case.tokens), model=case.adapter)
    assert float((ours - case.full)[1:].abs().max()) > EFFECT
    text = trace.text_tokens
    assert trace.kv_text_entries == [text] * LAYERS
    assert trace.kv_entries == [text + 8] * LAYERS
    assert trace.final_kv_entries == [text + 8 + STEPS] * LAYERS


@pytest.mark.parametrize("name", ["snapkv", "h2o"])
def test_a_policy_behind_a_prune_equals_the_masked_full_model(case: Case, name: str) -> None:
    """Layers differ in length, and rows of tokens that are gone give no attention."""
    stage, policy = POLICIES[name]
    trace, ours = case.run(plan_of(ShrinkingPrune(layers=(2, 4)), stage))
    dropped = alive_to_hidden(alive_per_layer(trace, LAYERS), case.prompt)
    masked = MaskedModel(case.eager, case.prompt, policy, dropped=dropped)
    close(ours, masked.logits(case.tokens), model=case.adapter)
    assert trace.kv_entries == [24] * LAYERS


@pytest.mark.parametrize("name", ["snapkv", "h2o"])
def test_a_policy_behind_another_takes_each_head_as_it_stands(case: Case, name: str) -> None:
    """Heads come in ragged: each is asked alone, with the attention of its own query heads."""
    stage, policy = POLICIES[name]
    _, ours = case.run(plan_of(RaggedCache(), stage))
    places = case.prompt.visual_index
    masked = MaskedModel(case.eager, case.prompt, Behind(policy, places, KV_HEADS))
    close(ours, masked.logits(case.tokens), model=case.adapter)


class Behind:
    """The toy policy of ragged heads, then `policy`."""

    def __init__(self, policy: Any, places: Tensor, kv_heads: int) -> None:
        self.policy, self.places, self.kv_heads, self.asked = policy, places.tolist(), kv_heads, 0

    def prompt(self, head: Any, maps: Any, rows: list[int]) -> None:
        every = 3 + self.asked % self.kv_heads
        self.asked += 1
        for place in self.places[::every]:
            head.alive.remove(place)
        self.policy.prompt(head, maps, rows)

    def step(self, head: Any, maps: Any) -> None:
        self.policy.step(head, maps)


ROOMY: dict[str, DecodeStage] = {
    "streamingllm": AttentionSinks(recent_tokens=500),
    "snapkv": ObservationWindow(),
    "h2o": HeavyHitters(heavy_tokens=300, recent_tokens=300),
    "h2o by shares": HeavyHitters(heavy_ratio=1.0, recent_ratio=1.0),
}


@pytest.mark.parametrize("name", ROOMY)
def test_a_policy_with_room_for_all_is_the_plain_model_bit_for_bit(case: Case, name: str) -> None:
    trace, ours = case.run(plan_of(ROOMY[name]))
    assert torch.equal(ours, case.full)
    assert trace.kv_entries == [case.prompt.prompt_tokens] * LAYERS
    assert all(record.decision.is_identity for record in trace.records)


@pytest.fixture(scope="module")
def llava() -> Case:
    adapter = small_adapter()
    prompt = adapter.prepare(noise_media(), QUESTION)
    tokens = list(range(20, 20 + STEPS))
    return Case(adapter, adapter, prompt, tokens, own_logits(adapter, prompt, tokens))


def records_of(trace: Trace, *, growing: bool) -> list[Any]:
    return [record for record in trace.records if bool(record.steps) == growing]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_follows_decoding_has_two_records_a_layer(llava: Case, name: str) -> None:
    """However long the answer: one of the prompt, one of all steps with their costs together."""
    stage, _ = POLICIES[name]
    trace, _ = llava.run(plan_of(stage))
    assert len(records_of(trace, growing=False)) == LAYERS
    grown = records_of(trace, growing=True)
    assert [record.steps for record in grown] == [STEPS - 1] * (LAYERS if stage.every_step else 0)
    steps = trace.timings[0].policies_ms
    assert len(steps) == (STEPS - 1 if stage.every_step else 0)
    assert all(
        0 < part < step for part, step in zip(steps, trace.timings[0].decode_ms, strict=bool(steps))
    )
    assert sum(record.decision_ms + record.signal_ms for record in grown) <= sum(steps)


def test_operations_are_those_of_the_rows_that_were_made(llava: Case) -> None:
    """2 a multiply-add: W or n rows over the prompt, one row a step over what is there then."""
    decoder, count = llava.adapter.shape.decoder, llava.prompt.prompt_tokens
    row = 2 * decoder.heads * decoder.head_dim
    trace, _ = llava.run(plan_of(POLICIES["snapkv"][0]))
    assert [record.signal_flops for record in trace.records] == [6 * count * row] * LAYERS
    trace, _ = llava.run(plan_of(POLICIES["h2o"][0]))
    for record in records_of(trace, growing=False):
        assert record.signal_flops == count * count * row
    for record in records_of(trace, growing=True):
        own = decoder.heads * 25  # the sums of all heads over 25 entries, ranked once a step
        decided = (STEPS - 1) * own - record.decision.flops
        assert record.signal_flops == (STEPS - 1) * 25 * row + decided


def test_a_full_cache_that_overflows_only_while_answering_is_no_idle_stage(llava: Case) -> None:
    from vtc_cli.metrics.tokens import token_counts

    room = llava.prompt.prompt_tokens + 1
    stage = AttentionSinks(sink_tokens=0, recent_tokens=room)
    trace, _ = llava.run(plan_of(stage))
    assert trace.kv_entries == [room - 1] * LAYERS and trace.final_kv_entries == [room] * LAYERS
    counts = token_counts(trace)
    assert counts.warnings == ()
    notes = [stage.note for stage in counts.by_stage]
    assert notes[0] == f"{room} entries allowed, {room - 1} here"
    assert notes[-1].startswith(f"after {STEPS - 1} tokens: {room} entries a head")


@dataclass(frozen=True, kw_only=True)
class Forgetful(DecodeStage):
    """Drops the first entry, which is text, and never said that it would."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision:
        return Decision.prune(torch.arange(1, len(entries)), len(entries))


def test_text_leaves_only_where_a_policy_says_so(llava: Case) -> None:
    with pytest.raises(StageError, match="text leaves the cache"):
        llava.run(plan_of(Forgetful()))
    trace, _ = llava.run(plan_of(POLICIES["streamingllm"][0]))
    left = trace.kv_text_entries[0]
    assert 4 <= left < trace.text_tokens


@pytest.mark.parametrize(
    ("stage", "least"), [(AttentionSinks(), 5), (ObservationWindow(window_tokens=7), 8)]
)
def test_a_budget_too_small_names_the_least_and_that_one_works(
    llava: Case, stage: DecodeStage, least: int
) -> None:
    with pytest.raises(BudgetError) as refused:
        llava.run(plan_of(stage, requested=float(least - 1)))
    assert f"--budget {least}" in str(refused.value.hint)
    trace, _ = llava.run(plan_of(stage, requested=float(least)))
    assert trace.kv_entries == [least] * LAYERS


@pytest.mark.parametrize(
    "stage", [AttentionSinks(), ObservationWindow(window_tokens=6), HeavyHitters()]
)
@pytest.mark.parametrize("budget", [16, 33, 60])
def test_a_budget_is_met_by_every_layer_and_head(
    llava: Case, stage: DecodeStage, budget: int
) -> None:
    trace, _ = llava.run(plan_of(stage, requested=float(budget)))
    assert trace.kv_entries == [budget] * LAYERS
    later = budget if stage.every_step else budget + STEPS - 1
    assert trace.final_kv_entries == [later] * LAYERS
    assert trace.visual_tokens == [36] * LAYERS


def test_shares_of_the_prompt_stay_what_they_were_while_the_answer_grows(llava: Case) -> None:
    trace, _ = llava.run(plan_of(HeavyHitters(heavy_ratio=0.2, recent_ratio=0.1)))
    count = llava.prompt.prompt_tokens
    held = int(0.2 * count) + int(0.1 * count)
    assert trace.kv_entries == trace.final_kv_entries == [held] * LAYERS


def test_sums_in_blocks_are_the_sums_of_the_whole_map() -> None:
    """Each query spends exactly 1, and a block size changes nothing."""
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(heads, 17, 8, generator=generator) for heads in (4, 2))
    capture = Capture(query, key, key, torch.zeros(17, 32), 8**-0.5, causal=True)
    whole = capture.rows(torch.arange(17)).sum(dim=1)
    for block in (1, 4 * 17 * 5, 1 << 20):
        close(column_sums(capture, block), whole, terms=17)
    close(whole.sum(dim=1), torch.full((4,), 17.0), terms=17 * 17)


def test_nothing_is_kept_of_the_prompts_attention_afterwards(llava: Case) -> None:
    """The last rows hold the keys of the whole prompt: kept on, no byte would be saved."""
    from vtc_cli.engine import session as module

    caches = []
    made = module.logical_cache
    module.logical_cache = lambda layers: caches.append(made(layers)) or caches[-1]  # type: ignore
    try:
        llava.run(plan_of(POLICIES["snapkv"][0]))
    finally:
        module.logical_cache = made
    assert all(layer.last_rows is None and layer.received is None for layer in caches[0].layers)
