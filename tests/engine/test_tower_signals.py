"""Signals of towers whose rows are joined to tokens, against the library's eager maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.engine.families import (
    CASES,
    Case,
    case_prompt,
    eager_copy,
    family_session,
    library_arrangement,
    small_family,
)
from tests.engine.probes import ProbeClassAttention
from tests.engine.support import plan_of
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt

LAYER = 2


@dataclass(frozen=True, kw_only=True)
class Drop(EncoderStage):
    """Drops the first five tokens, learned ones aside, so that later signals must follow."""

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        stays = (torch.arange(len(tokens)) >= 5) | tokens.protected
        return Decision.prune(stays.nonzero()[:, 0], len(tokens))


@dataclass(frozen=True, kw_only=True)
class ProbeReceived(EncoderStage):
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention"})
    attention_layer: int = parameter(LAYER, "", layer_of="vision")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        scores = signals.vision_received_attention(self.attention_layer)
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)


@dataclass(frozen=True, kw_only=True)
class ProbeSimilarity(EncoderStage):
    """Shows the norms of the keys, or the first channel of what enters the projector.

    Behind a norm of the tower all states are of one length.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vision_keys", "vision_features"})
    attention_layer: int = parameter(LAYER, "", layer_of="vision")
    keys: bool = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        keys, features = signals.vision_keys(self.attention_layer), signals.vision_features()
        scores = keys.flatten(1).norm(dim=1) if self.keys else features[:, 0].clone()
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def adapter(case: Case) -> Adapter:
    return small_family(case.family)


@pytest.fixture(scope="module")
def prompt(adapter: Adapter, case: Case) -> Prompt:
    return case_prompt(adapter, case)


def scores_of(adapter: Adapter, prompt: Prompt, stage: EncoderStage) -> Tensor:
    plan = plan_of(Drop(), stage)
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=1))
    scores = trace.records[-1].decision.scores
    assert scores is not None
    return scores


def left(prompt: Prompt) -> Tensor:
    """Tokens that are there behind `Drop`, which acts on each span."""
    layout = prompt.layout
    kept = [torch.arange(layout.tokens_of(span)) >= 5 for span in range(layout.spans)]
    learned = layout.columns(torch.device("cpu")).learned
    return (torch.cat(kept) | learned).nonzero()[:, 0]


def eager_maps(adapter: Adapter, prompt: Prompt) -> Tensor:
    """(inputs, heads, rows, rows) of tower layer `LAYER`."""
    model = eager_copy(adapter).model.model
    tower = model.vision_model if hasattr(model, "vision_model") else model.vision_tower
    names = ("pixel_values", "pixel_values_videos")
    by_kind = [[one.inputs.get(name) for one in prompt.seen] for name in names]
    pixels = [each.flatten(0, -4) for kind in by_kind for each in kind if each is not None]
    with torch.inference_mode():
        return torch.cat([tower(each, output_attentions=True).attentions[LAYER] for each in pixels])


def joined(adapter: Adapter, prompt: Prompt, patches: Tensor) -> Tensor:
    """Values of tokens; patches (inputs, P) or (inputs, P, C).

    Means by hand, token after token; where crops are packed, the library's own arrangement, with 0
    for the number and the mean for the vector of a learned token.
    """
    if adapter.shape.packing:
        numbers = patches.ndim == 2
        learned = (lambda own: own.new_zeros(1)) if numbers else (lambda own: own.mean(dim=0))
        wide = patches[..., None] if numbers else patches
        values = library_arrangement(adapter, prompt, wide, learned)
        return values[:, 0] if numbers else values
    side = round(adapter.shape.merged_patches**0.5)
    rows, columns = prompt.layout.grids[0].rows, prompt.layout.grids[0].columns
    wide = columns * side
    tokens = []
    for frame in range(sum(seen.count for seen in prompt.tower)):
        for row in range(rows):
            for column in range(columns):
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
    close(scores, own[left(prompt)], model=adapter)


def test_received_attention_is_the_mean_over_the_patches_of_a_token(
    adapter: Adapter, prompt: Prompt
) -> None:
    scores = scores_of(adapter, prompt, ProbeReceived())
    received = eager_maps(adapter, prompt).mean(dim=(1, 2))[:, adapter.shape.class_tokens :]
    own = joined(adapter, prompt, received)
    close(scores, own[left(prompt)], model=adapter)


def test_keys_are_the_mean_keys_of_the_patches(adapter: Adapter, prompt: Prompt) -> None:
    module = adapter.tower_attention(LAYER)
    seen: list[Tensor] = []
    handle = module.k_proj.register_forward_hook(lambda m, a, out: seen.append(out.clone()))  # type: ignore[union-attr,operator]
    try:
        scores = scores_of(adapter, prompt, ProbeSimilarity())
    finally:
        handle.remove()
    own = joined(adapter, prompt, torch.cat(seen)[:, adapter.shape.class_tokens :])
    close(scores, own[left(prompt)].norm(dim=1), model=adapter)


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
    with torch.inference_mode():
        features = adapter.encode(prompt).features
    rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in seen])
    if adapter.shape.packing and adapter.family != "llava":
        patches = rows.reshape(-1, adapter.shape.patches, rows.shape[1])
        rows = joined(adapter, prompt, patches)
    assert rows.shape[0] == prompt.layout.tokens
    close(scores, rows[left(prompt), 0], model=adapter)
    with torch.inference_mode():
        projected = adapter.projector(rows[None])[0]
        if adapter.family == "gemma3":
            whole = adapter.model.model.multi_modal_projector
            projected = projected @ whole.mm_input_projection_weight
    alone = projected_alone(adapter, prompt)
    close(projected[alone], features[alone], model=adapter)
    pooled = adapter.family == "llava_onevision" and prompt.kinds == ("video",)
    assert bool(alone.any()) != pooled


def projected_alone(adapter: Adapter, prompt: Prompt) -> Tensor:
    """(N,) bool: tokens that are one projected row, neither read between several nor learned."""
    alone = []
    for one in prompt.seen:
        for grid in one.grids:
            read_between = one.kind == "video" or grid.view == "detail"
            column = torch.arange(grid.tokens) % grid.columns
            row = column < grid.patch_columns
            alone.append(row & (adapter.family != "llava_onevision" or not read_between))
    return torch.cat(alone)
