"""Stages inside the vision tower, against the tower run by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.support import (
    QUESTION,
    TowerPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import close
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.encode import encode
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.engine.step import Scene
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.stages.mustdrop import SpatialMerge


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


def features_of(session: Session, prompt: Prompt, plan: object) -> tuple[Tensor, Scene]:
    trace = session._empty_trace(prompt, plan)  # type: ignore[arg-type]
    scene = Scene(trace, prompt.layout, 6, None, 0, torch.device("cpu"))
    with torch.inference_mode():
        encoded = encode(session.adapter, prompt, plan, scene)  # type: ignore[arg-type]
    return encoded.table.features, scene


def tower_by_hand(
    adapter: LlavaAdapter, prompt: Prompt, layer: int, change: object, hidden: Tensor | None = None
) -> Tensor:
    """Projected features with `change(patches)` applied to the input of tower block `layer`."""
    tower = adapter.model.model.vision_tower
    with torch.inference_mode():
        states = tower.pre_layrnorm(tower.embeddings(prompt.encoder_inputs["pixel_values"]))
        for index, block in enumerate(tower.encoder.layers[:-1]):  # feature layer -2
            if index == layer:
                states = torch.cat([states[:, :1], change(states[0, 1:])[None]], 1)  # type: ignore[operator]
            mask = None
            if hidden is not None and index >= layer:
                mask = torch.zeros(1, 1, 37, 37).masked_fill(hidden, float("-inf"))
            states = block(states, mask)
        projected: Tensor = adapter.projector(states[0, 1:])
    return projected


def test_dropping_patches_equals_the_masked_tower(adapter: LlavaAdapter, prompt: Prompt) -> None:
    features, scene = features_of(session_of(adapter), prompt, plan_of(TowerPrune()))
    index = torch.arange(36)
    dropped = index % 4 == 1
    columns = torch.cat([torch.tensor([False]), dropped])
    masked = tower_by_hand(adapter, prompt, 2, lambda rows: rows, columns)[~dropped]
    full = tower_by_hand(adapter, prompt, 2, lambda rows: rows)[~dropped]
    close(features, masked, model=adapter)
    assert float((features - full).abs().max()) > 1e-2
    assert scene.trace.tower[0].rows == [37, 37, 28, 28]


def test_merging_windows_equals_means_taken_by_hand(adapter: LlavaAdapter, prompt: Prompt) -> None:
    stage = SpatialMerge(vision_layer=1, tokens=20)  # two of the four 3 x 3 windows
    features, scene = features_of(session_of(adapter), prompt, plan_of(stage))
    decision = scene.trace.records[0].decision
    assert decision.kept_tokens == 20
    weights = decision.mix.to_dense()
    by_hand = tower_by_hand(adapter, prompt, 1, lambda rows: weights @ rows)
    close(features, by_hand, model=adapter)


def test_class_attention_is_the_eager_map_of_that_layer(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    from tests.engine.probes import ProbeClassAttention

    _, scene = features_of(session_of(adapter), prompt, plan_of(ProbeClassAttention()))
    scores = scene.trace.records[0].decision.scores
    eager = small_adapter("eager")
    with torch.inference_mode():
        maps = eager.model.model.vision_tower(
            prompt.encoder_inputs["pixel_values"], output_attentions=True
        ).attentions
    close(scores, maps[3][0, :, 0, 1:].mean(0), model=adapter)


def test_tokens_of_the_tower_reach_the_decoder(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace, _ = session_of(adapter)._pass(
        Request(prompt, plan_of(TowerPrune()), Generation(max_new_tokens=2))
    )
    assert trace.visual_tokens == [27] * 6
    assert trace.sequence_tokens == [prompt.prompt_tokens - 9] * 6
