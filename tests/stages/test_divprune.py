"""DivPrune after its sheet: hand cases by angle, a brute-force greedy, ties, rounding."""

from __future__ import annotations

from dataclasses import replace
from math import cos, radians, sin

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.layout import Grid
from vtc_cli.stages.divprune import MaxMin
from vtc_cli.stages.ops import diversity
from vtc_cli.stages.ops.diversity import farthest_points, most_isolated, pair_cosines, unit_rows


def at(*degrees: float) -> Tensor:
    return torch.tensor([[cos(radians(angle)), sin(radians(angle))] for angle in degrees])


def kept(features: Tensor, **options: object) -> list[int]:
    stage = MaxMin(**options)  # type: ignore[arg-type]
    decision = stage.decide(table(features, 1, len(features)), signals(Grid(1, 1, len(features))))
    assert decision.is_pruning
    return decision.keep.tolist()


def brute_force(features: np.ndarray, count: int) -> list[int]:
    """The whole matrix of distances, sorted columns for the first pick, masked rows after it."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    np.fill_diagonal(distance, 0)
    chosen = [int(np.sort(distance, axis=0)[1].argmax())]
    while len(chosen) < count:
        rest = [i for i in range(len(unit)) if i not in chosen]
        score = [min(distance[i, j] for j in chosen) for i in rest]
        chosen.append(rest[int(np.argmax(score))])
    return chosen


def test_hand_cases_of_the_sheet() -> None:
    assert kept(at(0, 10, 90, 180), tokens=3) == [0, 2, 3]
    assert kept(at(0, 30, 60, 170), tokens=2) == [0, 3]
    assert kept(at(0, 10, 90, 180), tokens=1) == [3]  # the most isolated one


def test_the_order_of_choice_of_the_sheet() -> None:
    unit = unit_rows(at(0, 10, 90, 180))
    assert most_isolated(unit, 4096) == 3
    assert farthest_points(unit, torch.tensor([3]), 3).tolist() == [3, 0, 2]


def test_max_min_and_not_max_sum() -> None:
    """The discriminating case: a sum of distances would take 2 as the third."""
    assert farthest_points(at(0, 95, 150, 155), torch.tensor([0]), 3).sort().values.tolist() == [
        0,
        1,
        3,
    ]


@pytest.mark.parametrize("seed", range(5))
def test_against_the_whole_matrix(seed: int) -> None:
    features = noise(60, 6, seed)
    expected = brute_force(features.double().numpy(), 23)
    for fidelity in ("sound", "official"):
        assert kept(features, tokens=23, fidelity=fidelity) == sorted(expected)
    unit = unit_rows(features)
    first = torch.tensor([most_isolated(unit, 4096)])
    assert farthest_points(unit, first, 23).tolist() == expected


@pytest.mark.parametrize(("count", "width"), [(40, 3), (577, 32), (1500, 64)])
def test_one_product_of_all_pairs_chooses_what_a_product_a_row_chooses(
    count: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = noise(count, width)
    unit = unit_rows(features)
    pairs, first = pair_cosines(unit), torch.tensor([0, count // 2])
    assert pairs is not None
    order = farthest_points(unit, first, count // 3, pairs)
    assert order.tolist() == farthest_points(unit, first, count // 3).tolist()
    at_once = kept(features, tokens=count // 3)
    monkeypatch.setattr(diversity, "PAIR_ROWS", count - 1)
    assert pair_cosines(unit) is None
    assert kept(features, tokens=count // 3) == at_once


def test_length_does_not_matter_and_order_only_for_ties() -> None:
    features, chance = noise(50, 5), torch.Generator().manual_seed(1)
    before = kept(features, tokens=11)
    assert kept(features * torch.rand(50, 1, generator=chance).exp(), tokens=11) == before
    order = torch.randperm(50, generator=chance)
    assert sorted(int(order[i]) for i in kept(features[order], tokens=11)) == before


def test_the_chosen_lie_further_apart_than_chance() -> None:
    unit = unit_rows(noise(200, 8))

    def apart(rows: Tensor) -> float:
        likeness = unit[rows] @ unit[rows].T
        return float((1 - likeness + 9 * torch.eye(len(rows))).min())

    chosen = apart(torch.tensor(kept(unit, tokens=20)))
    chance = torch.Generator().manual_seed(0)
    assert all(chosen > apart(torch.randperm(200, generator=chance)[:20]) for _ in range(50))


def test_no_token_is_kept_twice_among_duplicates() -> None:
    assert kept(torch.ones(9, 3), tokens=4) == [0, 1, 2, 3]
    assert len(set(kept(torch.zeros(9, 3), tokens=4))) == 4


@pytest.mark.parametrize(
    ("count", "share", "left"),
    [(576, 0.098, 56), (1152, 0.1, 115), (576, 0.1, 58), (25, 0.1, 2), (5, 0.05, 1)],
)
def test_a_share_is_rounded_as_in_the_code(count: int, share: float, left: int) -> None:
    assert len(kept(noise(count, 4), keep_ratio=share)) == left


def test_the_official_rounding_may_leave_none() -> None:
    """3 x 0.1 is 0.3: the official code drops all, here one stays."""
    assert len(kept(at(0, 90, 180), keep_ratio=0.1, fidelity="official")) == 0
    assert len(kept(at(0, 90, 180), keep_ratio=0.1)) == 1
    assert len(kept(at(0, 90, 180), keep_ratio=0.34, fidelity="official")) == 1


def test_every_kth_row_stands_for_all_beyond_the_bound() -> None:
    """7 rows, 3 to look at: rows 0, 3, 6; of these a row never meets itself."""
    features = at(0, 1, 2, 80, 81, 45, 180)
    unit = unit_rows(features).numpy()
    distance = 1 - unit @ unit[::3].T
    for column, row in enumerate((0, 3, 6)):
        distance[row, column] = np.inf
    assert most_isolated(unit_rows(features), 3) == int(distance.min(axis=1).argmax()) == 6
    # row 1 is no sample and meets row 0, which stands for it; without that it would lie further off
    assert most_isolated(unit_rows(at(0, -2, 1, 50, 51, 49, 90)), 3) == 0
    assert most_isolated(unit_rows(noise(600)), 600) == brute_force(noise(600).numpy(), 1)[0]


def test_official_fidelity_looks_at_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtc_cli.stages.divprune.PAIR_ROWS", 4)
    monkeypatch.setattr(diversity, "PAIR_ROWS", 4)
    found = [noise(40, 3, seed) for seed in range(6)]
    exact = [brute_force(features.numpy(), 1) for features in found]
    assert [kept(features, tokens=1, fidelity="official") for features in found] == exact
    assert [kept(features, tokens=1) for features in found] != exact


def test_protected_tokens_are_chosen_first() -> None:
    features = at(0, 10, 90, 180)
    tokens = replace(table(features, 1, 4), protected=torch.tensor([False, True, False, False]))
    view = signals(Grid(1, 1, 4))
    assert MaxMin(tokens=2).decide(tokens, view).keep.tolist() == [1, 3]
    assert MaxMin(tokens=1).decide(tokens, view).keep.tolist() == [1]


def test_room_for_all_changes_nothing() -> None:
    decision = MaxMin(tokens=4).decide(table(noise(4), 1, 4), signals(Grid(1, 1, 4)))
    assert decision.is_identity


@pytest.mark.parametrize(("budget", "share"), [(56, 0.098), (115, 0.1)])
def test_official_fidelity_applies_the_shares_of_the_paper(budget: int, share: float) -> None:
    planned = plan("divprune", budget=float(budget), fidelity="official")
    stage = planned.encoder[0].stage
    assert isinstance(stage, MaxMin)
    assert (stage.keep_ratio, stage.fidelity, stage.tower_layer) == (share, "official", None)
    assert planned.positions == "renumbered"
