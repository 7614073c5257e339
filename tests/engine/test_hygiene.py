"""Nothing stays behind: hooks, the attention table, the random state; rows are true rows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.engine.probes import ProbeRows
from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    ShrinkingPrune,
    TowerPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


def hooks_of(adapter: LlavaAdapter) -> int:
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks)
        for module in adapter.model.modules()
    )


@dataclass(frozen=True, kw_only=True)
class Explode(PrefillStage):
    """Fails at its layer."""

    layers: tuple[int, ...] = (3,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        raise StageError("on purpose")


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_removed_again(adapter: LlavaAdapter, prompt: Prompt, fails: bool) -> None:
    adapter.encode(prompt)  # the library installs its own recorders on first use and keeps them
    hooks, entry = hooks_of(adapter), ALL_ATTENTION_FUNCTIONS["sdpa"]
    local = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    random_state = torch.get_rng_state()
    stages = [TowerPrune(), AttentionPrune(), *([Explode()] if fails else [])]
    session = session_of(adapter)
    generation = Generation(max_new_tokens=3, temperature=1.0, seed=5)
    if fails:
        with pytest.raises(StageError) as caught:
            session.run(prompt, plan_of(*stages), generation)
        assert "explode at prefill layer 3" in str(caught.value)
    else:
        session.run(prompt, plan_of(*stages), generation)
    assert hooks_of(adapter) == hooks
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is entry
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == local
    assert torch.equal(torch.get_rng_state(), random_state)


def test_rows_of_the_tap_are_rows_of_the_eager_map(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace, _ = session_of(adapter)._pass(
        Request(prompt, plan_of(ProbeRows()), Generation(max_new_tokens=1))
    )
    eager = small_adapter("eager")
    with torch.inference_mode():
        maps = eager.model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            output_attentions=True,
        ).attentions
    after = int(prompt.visual_index.max()) + 1
    for record in trace.records:
        expected = maps[record.layer - 1][0, :, after:, prompt.visual_index].mean(dim=(0, 1))
        close(record.decision.scores, expected, model=adapter)


def test_an_ordinary_run_captures_nothing(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace = session_of(adapter).run(prompt, plan_of(ShrinkingPrune()), Generation(max_new_tokens=2))
    assert trace.captured == {}
    assert all(record.signals == () for record in trace.records)


def test_sampling_is_that_of_generate(adapter: LlavaAdapter, prompt: Prompt) -> None:
    generation = Generation(max_new_tokens=8, temperature=0.8, top_p=0.9, seed=11)
    ours = session_of(adapter).run(prompt, plan_of(), generation).answer_ids
    torch.manual_seed(11)
    library = adapter.model.generate(
        input_ids=prompt.input_ids,
        pixel_values=prompt.encoder_inputs["pixel_values"],
        max_new_tokens=8,
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
        top_k=0,
    )[0, prompt.prompt_tokens :].tolist()
    assert ours == library
    again = session_of(adapter).run(prompt, plan_of(), generation).answer_ids
    assert again == ours


def test_repeats_time_the_same_answer(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace = session_of(adapter).run(
        prompt, plan_of(ShrinkingPrune()), Generation(max_new_tokens=4), repeats=3
    )
    assert len(trace.timings) == 3
    assert all(len(timing.decode_ms) == 3 for timing in trace.timings)
    assert all(timing.ttft_ms >= timing.vision_ms + timing.prefill_ms for timing in trace.timings)
    assert len(trace.records) == 2


def test_nan_features_name_the_stage_and_the_layer(prompt: Prompt) -> None:
    broken = small_adapter()
    with torch.no_grad():
        broken.decoder.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(StageError) as caught:
        session_of(broken).run(prompt, plan_of(ShrinkingPrune()), Generation(max_new_tokens=2))
    assert "shrinking_prune at prefill layer 2" in str(caught.value)
