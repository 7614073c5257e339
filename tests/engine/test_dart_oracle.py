"""DART official on a model: the loop of its sheet over the library's own cache and states."""

from __future__ import annotations

import torch

from tests.engine.support import QUESTION, noise_media, plan_of, session_of, small_adapter
from tests.stages.test_dart import official_loop
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.stages.dart import Pivots


def test_places_are_those_of_the_prompt() -> None:
    """So the set of pivots is walked in the same order, and the same tokens stay."""
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
