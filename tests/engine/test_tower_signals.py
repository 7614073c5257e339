"""Signals of towers whose rows are joined to tokens, against the library's eager maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.engine.families import SMALL, family_prompt, family_session, small_family
from tests.engine.probes import ProbeClassAttention
from tests.engine.support import plan_of
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter, Prompt

LAYER = 2


@dataclass(frozen=True, kw_only=True)
class Drop(EncoderStage):
    """Drops the first five tokens, so that later signals must follow."""

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.prune(torch.arange(5, len(tokens)), len(tokens))


@dataclass(frozen=True, kw_only=True)
class ProbeReceived(EncoderStage):
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention"})
    attention_layer: int = parameter(LAYER, "", layer_of="vision")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        scores = signals.vision_received_attention(self.attention_layer)
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)


@dataclass(frozen=True, kw_only=True)
class ProbeSimilarity(EncoderStage):
    """Shows the norms of the keys, and of the states that enter the projector."""

    needs: ClassVar[frozenset[str]] = frozenset({"vision_keys", "vision_features"})
    attention_layer: int = parameter(LAYER, "", layer_of="vision")
    keys: bool = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        keys, features = signals.vision_keys(self.attention_layer), signals.vision_features()
        scores = (keys.flatten(1) if self.keys else features).norm(dim=1)
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)


@pytest.fixture(scope="module", params=SMALL)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return small_family(request.param)


@pytest.fixture(scope="module")
def prompt(adapter: Adapter) -> Prompt:
    return family_prompt(adapter)


def scores_of(adapter: Adapter, prompt: Prompt, stage: EncoderStage) -> Tensor:
    plan = plan_of(Drop(), stage)
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=1))
    scores = trace.records[-1].decision.scores
    assert scores is not None
    return scores


def eager_maps(adapter: Adapter, prompt: Prompt) -> Tensor:
    """(frames, heads, rows, rows) of tower layer `LAYER`."""
    eager = small_family(adapter.family, "eager")
    (pixels,) = prompt.encoder_inputs.values()
    with torch.inference_mode():
        tower = eager.model.model.vision_tower(pixels.flatten(0, -4), output_attentions=True)
    maps: Tensor = tower.attentions[LAYER]
    return maps


def joined(adapter: Adapter, prompt: Prompt, patches: Tensor) -> Tensor:
    """Means by hand, token after token; patches (frames, P, ...)."""
    grid, side = prompt.grid, round(adapter.shape.merged_patches**0.5)
    wide = grid.columns * side
    tokens = []
    for frame in range(grid.frames):
        for row in range(grid.rows):
            for column in range(grid.columns):
                of_token = [
                    (row * side + y) * wide + column * side + x
                    for y in range(side)
                    for x in range(side)
                ]
                tokens.append(patches[frame, of_token].mean(dim=0))
    return torch.stack(tokens)


def test_class_attention_is_the_mean_over_the_patches_of_a_token(
    adapter: Adapter, prompt: Prompt
) -> None:
    if not adapter.shape.class_tokens:
        assert "vision_cls_attention" not in adapter.provides
        return
    scores = scores_of(adapter, prompt, ProbeClassAttention(attention_layer=LAYER))
    own = joined(adapter, prompt, eager_maps(adapter, prompt)[:, :, 0, 1:].mean(dim=1))
    torch.testing.assert_close(scores, own[5:], atol=1e-6, rtol=0)


def test_received_attention_is_the_mean_over_the_patches_of_a_token(
    adapter: Adapter, prompt: Prompt
) -> None:
    scores = scores_of(adapter, prompt, ProbeReceived())
    received = eager_maps(adapter, prompt).mean(dim=(1, 2))[:, adapter.shape.class_tokens :]
    own = joined(adapter, prompt, received)
    torch.testing.assert_close(scores, own[5:], atol=1e-6, rtol=0)


def test_keys_are_the_mean_keys_of_the_patches(adapter: Adapter, prompt: Prompt) -> None:
    module = adapter.tower_attention(LAYER)
    seen: list[Tensor] = []
    handle = module.k_proj.register_forward_hook(lambda m, a, out: seen.append(out.clone()))  # type: ignore[union-attr,operator]
    try:
        scores = scores_of(adapter, prompt, ProbeSimilarity())
    finally:
        handle.remove()
    own = joined(adapter, prompt, seen[0][:, adapter.shape.class_tokens :])
    torch.testing.assert_close(scores, own[5:].norm(dim=1), atol=1e-5, rtol=0)


def test_features_before_the_projector_have_one_row_a_token(
    adapter: Adapter, prompt: Prompt
) -> None:
    """Projecting them by hand gives the features at the decoder's door."""
    seen: list[Tensor] = []
    handle = adapter.projector.register_forward_hook(lambda m, a, out: seen.append(a[0].clone()))
    try:
        scores = scores_of(adapter, prompt, ProbeSimilarity(keys=False))
    finally:
        handle.remove()
    rows = seen[0].reshape(-1, seen[0].shape[-1])
    assert rows.shape[0] == 36
    torch.testing.assert_close(scores, rows[5:].norm(dim=1), atol=1e-5, rtol=0)
    with torch.inference_mode():
        features = adapter.encode(prompt).features
        projected = adapter.projector(rows[None])[0]
        if adapter.family == "gemma3":
            whole = adapter.model.model.multi_modal_projector
            projected = projected @ whole.mm_input_projection_weight
    torch.testing.assert_close(projected, features, atol=1e-5, rtol=0)
