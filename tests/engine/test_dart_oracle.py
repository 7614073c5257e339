"""DART official on a model: the loop of its sheet over the library's own cache and states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tests.engine.support import (
    QUESTION,
    ShrinkingPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.stages.test_dart import official_loop
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.stages.dart import Pivots

SHOWN: dict[int, tuple[Tensor, Tensor]] = {}


@dataclass(frozen=True, kw_only=True)
class Places(PrefillStage):
    """Shows where tokens stand."""

    needs: ClassVar[frozenset[str]] = frozenset({"visual_places", "text_places"})
    layers: tuple[int, ...] = (1, 3)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        SHOWN[signals.layer] = signals.visual_places(), signals.text_places()
        return Decision.identity(len(tokens), tokens.features.device)


def test_places_are_those_in_the_sequence_that_the_layer_is_given() -> None:
    """36 visual tokens before layer 2 drops two thirds of them, 12 behind it."""
    adapter = small_adapter()
    prompt = adapter.prepare(noise_media(), QUESTION)
    plan = plan_of(ShrinkingPrune(layers=(2,)), Places())
    session_of(adapter)._pass(Request(prompt, plan, Generation(max_new_tokens=1)))
    before, total = int(prompt.visual_index[0]), prompt.prompt_tokens
    for layer, count in ((1, 36), (3, 12)):
        visual, text = SHOWN[layer]
        assert visual.tolist() == list(range(before, before + count))
        assert text.tolist() == list(range(before + count, total - 36 + count))


def test_official_turns_on_a_model() -> None:
    """The set of pivots is walked in the same order, and the same tokens stay."""
    from transformers import DynamicCache

    adapter = small_adapter()
    prompt = adapter.prepare(noise_media(), QUESTION)
    stage = Pivots(layers=(2,), keep_ratio=0.5, fidelity="official")  # int(36 x 0.5 / 8) = 2 each
    trace, _ = session_of(adapter)._pass(
        Request(prompt, plan_of(stage), Generation(max_new_tokens=1))
    )
    cache = DynamicCache(config=adapter.decoder.config)
    with torch.inference_mode():
        states = adapter.model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        ).hidden_states[2][0]
        normed = adapter.decoder.norm(states)
    keys = cache.layers[1].keys
    assert keys is not None
    before = int(prompt.visual_index[0])
    found = trace.records[0].anchor.tolist()
    assert found == official_loop(normed, keys[0], before, 36, (4, 4), 2)
    longer = [  # a longer system prompt would give the set other places
        official_loop(
            torch.cat([normed[:more], normed]),
            torch.cat([keys[0][:, :more], keys[0]], dim=1),
            before + more,
            36,
            (4, 4),
            2,
        )
        for more in range(1, 17)
    ]
    assert any(found != other for other in longer)
