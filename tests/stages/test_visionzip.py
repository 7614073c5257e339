"""VisionZip after its sheet: dominant tokens, targets, joining by keys, both kinds of mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from tests.tolerance import close
from vtc_cli.core.layout import Grid
from vtc_cli.core.signals import Signals
from vtc_cli.stages.visionzip import DominantContextual

SHEET = torch.tensor([0.3, 0.05, 0.2, 0.1, 0.05, 0.3])
TOWER = frozenset({"vision_received_attention", "vision_keys"})


def view(attention: Tensor, keys: Tensor, **options: Any) -> Signals:
    """`keys` (N, head_dim) are those of one head, or (N, heads, head_dim)."""
    keys = keys[:, None] if keys.ndim == 2 else keys
    return signals(Grid(1, 1, len(attention)), cls=attention, vision_keys=keys, **options)


def hand_case(**options: Any) -> tuple[list[int], Tensor, Tensor]:
    """Patches 2 and 4 have keys near that of patch 1; the targets are patches 1 and 3."""
    features = noise(6)
    keys = torch.tensor([[0.0, 1], [1, 0], [2, 0.1], [0, 1], [1, 0.2], [0, 1]])
    stage = DominantContextual(tokens=4, contextual_ratio=0.5, **options)
    tokens = table(features, 1, 6)
    decision = stage.decide(tokens, view(SHEET, keys))
    return decision.keep.tolist(), tokens.apply(decision).features, features


def test_hand_case_of_the_sheet_in_raster_order() -> None:
    keep, after, features = hand_case()
    assert keep == [0, 1, 3, 5]
    close(after[1], (features[1] + features[2] + features[4]) / 3, terms=3)
    assert torch.equal(after[[0, 2, 3]], features[[0, 3, 5]])


def test_the_official_sum_stands_behind_the_dominant_tokens() -> None:
    """h1 + (h2 + h4) / 2, and an empty cluster leaves its target as it is."""
    keep, after, features = hand_case(fidelity="official")
    assert keep == [0, 5, 1, 3]
    close(after[2], features[1] + (features[2] + features[4]) / 2, terms=3)
    assert torch.equal(after[[0, 1, 3]], features[[0, 5, 3]])


def test_the_official_code_hands_on_the_class_token_in_place_of_a_patch() -> None:
    """n = 5: [CLS], patches 0 and 5, and targets 1 and 3 of the rest 1, 2, 3, 4 (the sheet)."""
    features, state = noise(6), noise(1, seed=9)
    keys = torch.tensor([[0.0, 1], [1, 0], [2, 0.1], [0, 1], [1, 0.2], [0, 1]])
    tokens = table(features, 1, 6)
    rows = view(SHEET, keys, vision_class_state=state.expand(6, -1))
    stage = DominantContextual(tokens=5, contextual_ratio=0.4, fidelity="official")
    decision = stage.decide(tokens, rows)
    after = tokens.apply(decision)
    contextual = features[1] + (features[2] + features[4]) / 2
    expected = torch.stack([state[0], features[0], features[5], contextual, features[3]])
    close(after.features, expected, terms=3)
    assert decision.details == {"dominant": 3, "contextual": 2}
    assert decision.keep.tolist()[1:] == [0, 5, 1, 3]
    close(decision.mix.to_dense()[0], SHEET)  # they sum to 1
    close(after.size.sum(), torch.tensor(6.0), terms=6)
    sound = DominantContextual(tokens=5, contextual_ratio=0.4).decide(tokens, rows)
    assert sound.details == decision.details and len(set(sound.keep.tolist())) == 5


@pytest.mark.parametrize(
    ("tokens", "step", "last"), [(192, 13, 377), (128, 23, 437), (64, 52, 468)]
)
def test_official_targets_with_the_class_token(tokens: int, step: int, last: int) -> None:
    """576 patches of which 161, 107 and 53 are dominant: steps over 415, 469 and 523 others."""
    attention = torch.arange(576, 0, -1).float()  # the first patches are dominant
    rows = view(attention, noise(576), vision_class_state=noise(1).expand(576, -1))
    decision = DominantContextual(tokens=tokens, fidelity="official").decide(
        table(noise(576), 24, 24), rows
    )
    contextual = int(decision.details["contextual"])
    patches = tokens - contextual - 1
    targets = decision.keep[-contextual:]
    assert decision.keep[1 : 1 + patches].tolist() == list(range(patches))
    assert set(targets.diff().tolist()) == {step} and int(targets[0]) == patches
    assert int(targets[-1]) == patches + last


def test_keys_are_averaged_over_heads_before_they_are_compared() -> None:
    """Patch 2 is like target 0 head by head, but its mean key points to target 1."""
    heads = [[[1.0, 0], [-1, -0.2]], [[0, 1], [0, 1]], [[1, 0], [-1, 0.2]], [[0, 0], [0, 0]]]
    keys = torch.tensor(heads)
    joined = torch.nn.functional.normalize(keys[:3].flatten(1), dim=1)
    assert float(joined[2] @ joined[0]) > float(joined[2] @ joined[1])
    rows = view(torch.tensor([0.0, 0.0, 0.0, 0.9]), keys)
    stage = DominantContextual(tokens=3, contextual_ratio=2 / 3)
    decision = stage.decide(table(noise(4), 1, 4), rows)
    assert decision.keep.tolist() == [0, 1, 3]
    assert decision.mix.to_dense()[:, 2].nonzero()[:, 0].tolist() == [1]


@pytest.mark.parametrize("seed", range(4))
def test_against_loops(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    attention = torch.rand(40, generator=chance)
    keys = torch.randn(40, 3, 4, generator=chance)
    tokens = table(noise(40, seed=seed), 1, 40)
    stage = DominantContextual(tokens=16, contextual_ratio=0.25)
    decision = stage.decide(tokens, view(attention, keys))
    dominant = np.argsort(-attention.numpy(), kind="stable")[:12]
    rest = [i for i in range(40) if i not in dominant]
    targets = [rest[j * 28 // 4] for j in range(4)]
    metric = keys.double().numpy().mean(axis=1)
    metric /= np.linalg.norm(metric, axis=1, keepdims=True)
    members: dict[int, list[int]] = {target: [target] for target in targets}
    for i in set(rest) - set(targets):
        members[max(targets, key=lambda t: metric[i] @ metric[t])].append(i)
    keep = sorted([*dominant.tolist(), *targets])
    assert decision.keep.tolist() == keep
    rows = tokens.features.double().numpy()
    expected = [rows[members[i]].mean(axis=0) if i in members else rows[i] for i in keep]
    after = tokens.apply(decision)
    close(after.features, np.stack(expected), terms=28)
    assert after.size.tolist() == [len(members.get(i, [i])) for i in keep]
    assert float(after.size.sum()) == 40


def test_rows_that_were_merged_before_weigh_more() -> None:
    tokens = replace(table(noise(3), 1, 3), size=torch.tensor([1.0, 3.0, 1.0]))
    stage = DominantContextual(tokens=1, contextual_ratio=1.0)
    decision = stage.decide(tokens, view(torch.rand(3), torch.ones(3, 2)))
    close(decision.mix.to_dense(), [[0.2, 0.6, 0.2]], terms=3)


def test_alike_keys_all_join_the_first_target() -> None:
    tokens = table(noise(8), 1, 8)
    stage = DominantContextual(tokens=4, contextual_ratio=0.5)
    attention = torch.tensor([0.9, 0.8, 0, 0, 0, 0, 0, 0])
    for keys in (torch.ones(8, 2), torch.zeros(8, 2)):
        mix = stage.decide(tokens, view(attention, keys)).mix.to_dense()
        assert (mix > 0).sum(dim=1).tolist() == [1, 1, 5, 1]


@pytest.mark.parametrize(("tokens", "contextual"), [(192, 30), (128, 20), (64, 10), (32, 5)])
def test_the_split_of_the_paper(tokens: int, contextual: int) -> None:
    stage = DominantContextual(tokens=tokens)
    chance = torch.Generator().manual_seed(0)
    rows = view(torch.rand(576, generator=chance), torch.randn(576, 2, 4, generator=chance))
    decision = stage.decide(table(noise(576), 1, 576), rows)
    assert decision.kept_tokens == tokens
    assert decision.details == {"dominant": tokens - contextual, "contextual": contextual}


def test_official_steps_leave_a_tail_and_sound_ones_do_not() -> None:
    """13 tokens for 5 targets: a step of 2 ends at 8, an even spread at 10."""
    assert DominantContextual(fidelity="official")._targets(13, 5).tolist() == [0, 2, 4, 6, 8]
    assert DominantContextual()._targets(13, 5).tolist() == [0, 2, 5, 7, 10]


def test_without_contextual_tokens_no_key_is_asked_for() -> None:
    rows = signals(Grid(1, 1, 6), cls=SHEET)
    decision = DominantContextual(tokens=2, contextual_ratio=0.0).decide(
        table(noise(6), 1, 6), rows
    )
    assert decision.is_pruning and decision.keep.tolist() == [0, 5]


def test_protected_tokens_are_dominant() -> None:
    marks = torch.tensor([False, True, False, False, True, False])
    tokens = replace(table(noise(6), 1, 6), protected=marks)
    rows = view(SHEET, torch.ones(6, 2))
    decision = DominantContextual(tokens=3, contextual_ratio=0.9).decide(tokens, rows)
    alone = (decision.mix.to_dense() > 0).sum(dim=1) == 1
    assert {1, 4} <= set(decision.keep[alone].tolist()) and decision.kept_tokens == 3
    assert DominantContextual(tokens=1).decide(tokens, rows).keep.tolist() == [1, 4]


def test_the_official_class_token_of_a_frame_stands_in_that_frame() -> None:
    """Its place says in overlays and positions which frame it speaks of."""
    tokens, states = table(noise(24), 2, 4, frames=3), noise(3, seed=9)
    rows = view(noise(24, seed=3)[:, 0].abs(), noise(24), vision_class_state=states[tokens.frame])
    decision = DominantContextual(tokens=12, contextual_ratio=0.25, fidelity="official").decide(
        tokens, rows
    )
    after = tokens.apply(decision)
    assert after.frame[:3].tolist() == [0, 1, 2]
    assert torch.equal(after.features[:3], states)
    assert len(set(decision.keep.tolist())) == len(after) == 12


def test_each_frame_gives_as_many_dominant_tokens() -> None:
    tokens = table(noise(24), 2, 4, frames=3)
    attention = torch.cat([torch.full((8,), 0.9), torch.full((16,), 0.1)])
    rows = signals(tokens.layout.only, cls=attention, vision_keys=torch.ones(24, 1, 2))
    decision = DominantContextual(tokens=6, contextual_ratio=0.0).decide(tokens, rows)
    assert torch.bincount(tokens.frame[decision.keep]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_official_fidelity_applies_the_numbers_of_the_paper(tokens: int) -> None:
    planned = plan("visionzip", budget=float(tokens), fidelity="official", family_signals=TOWER)
    stage = planned.encoder[0].stage
    assert isinstance(stage, DominantContextual)
    assert (stage.tokens, stage.attention_layer, stage.fidelity) == (tokens, 22, "official")
    assert planned.positions == "renumbered"
