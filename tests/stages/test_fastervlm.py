"""FasterVLM after its sheet: top [CLS] attention in raster order, the same number in each view.

That the scores are the library's own attention maps is checked in `tests/engine/test_peers.py`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.fastervlm import ClsAttention
from vtc_cli.stages.ops.allowance import entering_allowed
from vtc_cli.stages.ops.views import even_top, views

TOWER = frozenset({"vision_received_attention"})


def test_hand_case_of_the_sheet() -> None:
    view = signals(Grid(1, 1, 4), cls=torch.tensor([0.1, 0.4, 0.2, 0.3]))
    decision = ClsAttention(tokens=2).decide(table(noise(4), 1, 4), view)
    assert decision.keep.tolist() == [1, 3] and decision.is_pruning and decision.note == ""


def test_uniform_attention_keeps_the_first_ones() -> None:
    view = signals(Grid(1, 1, 6), cls=torch.full((6,), 0.1))
    assert ClsAttention(tokens=3).decide(table(noise(6), 1, 6), view).keep.tolist() == [0, 1, 2]


@pytest.mark.parametrize("allowed", [6, 7, 600])
def test_nothing_changes_with_room_for_all(allowed: int) -> None:
    decision = ClsAttention(tokens=allowed).decide(table(noise(6), 1, 6), signals(Grid(1, 1, 6)))
    assert decision.is_identity  # and no signal was asked for: there is none to give


def test_a_tower_without_cls_ranks_by_what_tokens_receive_and_says_so() -> None:
    received = torch.tensor([0.1, 0.4, 0.2, 0.3])
    view = signals(Grid(1, 1, 4), vision_received_attention=received)
    decision = ClsAttention(tokens=2).decide(table(noise(4), 1, 4), view)
    assert decision.keep.tolist() == [1, 3] and "no [CLS]" in decision.note


def test_cls_wins_where_both_are_there() -> None:
    received = torch.tensor([0.9, 0.0, 0.0, 0.0])
    cls = torch.tensor([0.1, 0.4, 0.2, 0.3])
    view = signals(Grid(1, 1, 4), cls=cls, vision_received_attention=received)
    decision = ClsAttention(tokens=1).decide(table(noise(4), 1, 4), view)
    assert decision.keep.tolist() == [1]


def test_each_frame_gives_its_share_and_the_rest_goes_to_the_best() -> None:
    """Frame 0 outshines the others: a global top-k would take nothing else."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.3, 0.05, 0.11, 0.12, 0.13, 0.4])
    tokens = table(noise(12), 2, 2, frames=3)
    view = signals(tokens.layout.only, cls=scores)
    assert ClsAttention(tokens=3).decide(tokens, view).keep.tolist() == [0, 6, 11]
    assert ClsAttention(tokens=6).decide(tokens, view).keep.tolist() == [0, 1, 5, 6, 10, 11]
    # after two rounds the third best of each: 0.7, 0.1 and 0.12; one place is left
    assert ClsAttention(tokens=7).decide(tokens, view).keep.tolist() == [0, 1, 2, 5, 6, 10, 11]


def test_the_selection_against_a_loop() -> None:
    chance = np.random.default_rng(0)
    for _ in range(100):
        count, wanted = int(chance.integers(2, 40)), 0
        scores = chance.integers(0, 9, count) / 9  # with ties
        view = chance.integers(0, 3, count)
        view = np.unique(view, return_inverse=True)[1]
        held = chance.random(count) < 0.1
        wanted = int(chance.integers(held.sum(), count + 1))
        order = sorted(range(count), key=lambda i: (not held[i], -scores[i], i))
        rank, seen = {}, {}
        for i in order:
            rank[i] = seen.get(view[i], 0)
            seen[view[i]] = rank[i] + 1
        order = sorted(order, key=lambda i: (not held[i], rank[i], -scores[i], i))
        expected = sorted(order[:wanted])
        found = even_top(*map(torch.tensor, (scores, view, held)), wanted)
        assert found.tolist() == expected


def test_protected_tokens_stay_and_count() -> None:
    marks = torch.tensor([True, False, False, False, False, True])
    tokens = replace(table(noise(6), 1, 6), protected=marks)
    view = signals(Grid(1, 1, 6), cls=torch.tensor([0.0, 0.1, 0.5, 0.2, 0.3, 0.0]))
    assert ClsAttention(tokens=3).decide(tokens, view).keep.tolist() == [0, 2, 5]
    assert ClsAttention(tokens=1).decide(tokens, view).keep.tolist() == [0, 5]


def test_an_encoder_stage_lets_exactly_the_budget_in() -> None:
    tokens = table(noise(576, 1), 24, 24)
    for average in (1, 64, 191, 192.4, 576):
        view = signals(tokens.layout.only, budget=LayerBudget(average, 32, ()))
        assert entering_allowed(tokens, view, 5) == round(average)


def test_before_pruning_layers_it_lets_in_what_they_can_deal_with() -> None:
    """Layers 8 of 32 onwards can meet 100 only if no more than 400 - 24 enter."""
    tokens, budget = table(noise(576, 1), 24, 24), LayerBudget(100, 32, (8,))
    view = signals(tokens.layout.only, budget=budget)
    most = budget.largest_entering(576)
    assert budget.smallest_average(most, 0) <= 100 < budget.smallest_average(most + 1, 0)
    assert entering_allowed(tokens, view, 500) == most
    assert entering_allowed(tokens, view, 300) == 300
    assert entering_allowed(tokens, view, 50) == 100  # fewer than the average cannot meet it


def test_at_least_one_and_every_protected_token_is_let_in() -> None:
    marks = torch.tensor([True, True, False])
    tokens = table(noise(3), 1, 3)
    assert entering_allowed(tokens, signals(tokens.layout.only), 0) == 1
    assert entering_allowed(replace(tokens, protected=marks), signals(tokens.layout.only), 1) == 2
    assert entering_allowed(tokens, signals(tokens.layout.only), 9) == 3


def test_views_are_the_pictures_and_the_frames_of_each_video() -> None:
    """A picture, a video of 3 frames and one of 2, with 2 tokens in each frame."""
    grids = tuple(Grid(frames, 1, 2, span=span) for span, frames in enumerate((1, 3, 2)))
    tokens = TokenTable.from_layout(noise(12), Layout(grids))
    assert views(tokens).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    left = tokens.apply(Decision.prune(torch.tensor([11, 3, 2, 8]), 12))
    assert views(left).tolist() == [2, 0, 0, 1]


def test_the_row_of_no_tokens_is_the_official_codes_alone() -> None:
    view = signals(Grid(1, 1, 3), cls=torch.tensor([0.1, 0.3, 0.2]))
    tokens = table(noise(3), 1, 3)
    assert ClsAttention(tokens=0).decide(tokens, view).keep.tolist() == [1]
    official = ClsAttention(tokens=0, fidelity="official")
    assert official.decide(tokens, view).kept_tokens == 0
    marked = replace(tokens, protected=torch.tensor([True, False, False]))
    assert official.decide(marked, view).keep.tolist() == [0]


@pytest.mark.parametrize("tokens", [432, 288, 144, 58, 29])
def test_official_fidelity_applies_the_numbers_of_the_paper(tokens: int) -> None:
    planned = plan("fastervlm", budget=float(tokens), fidelity="official", family_signals=TOWER)
    stage = planned.encoder[0].stage
    assert isinstance(stage, ClsAttention)
    assert (stage.tokens, stage.attention_layer, stage.tower_layer) == (tokens, 22, None)
    assert (planned.positions, planned.budget) == ("renumbered", None)
    assert round(576 * (1 - {432: 0.25, 288: 0.5, 144: 0.75, 58: 0.9, 29: 0.95}[tokens])) == tokens
