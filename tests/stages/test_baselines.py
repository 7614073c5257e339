"""Blind selections: the strided grid, even spread over holes, seeded chance, protected tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.layout import Grid
from vtc_cli.stages.baselines import Random, Uniform
from vtc_cli.stages.ops.spread import evenly_spread

GRID = Grid(1, 24, 24)


def places(rows: int, columns: int, frames: int = 1) -> torch.Tensor:
    return table(torch.zeros(frames * rows * columns, 1), rows, columns, frames).position


@pytest.mark.parametrize(("count", "stride"), [(144, 2), (64, 3), (36, 4), (4, 12)])
def test_a_count_that_divides_the_grid_gives_the_strided_grid(count: int, stride: int) -> None:
    position = places(24, 24)
    chosen = position[evenly_spread(position, GRID, count)]
    rows, columns = chosen[:, 1].unique(), chosen[:, 2].unique()
    assert len(rows) == len(columns) == 24 // stride
    assert set(rows.diff().tolist()) == set(columns.diff().tolist()) == {float(stride)}


@pytest.mark.parametrize("count", [1, 2, 5, 63, 100, 192, 300, 575, 576])
def test_every_part_of_the_picture_gets_its_share(count: int) -> None:
    position = places(24, 24)
    index = evenly_spread(position, GRID, count)
    assert len(index.unique()) == count and bool((index.diff() > 0).all())
    chosen = position[index]
    for axis in (1, 2):
        half = int((chosen[:, axis] < 12).sum())
        assert abs(half - count / 2) <= max(1, count**0.5)


def test_no_part_of_the_picture_is_far_from_a_kept_token() -> None:
    """Cells of N / n tokens are sqrt(N / n) wide: no token lies further than that from the next."""
    position = places(24, 24)
    for count in range(1, 576, 5):
        kept = position[evenly_spread(position, GRID, count)]
        nearest = torch.cdist(position, kept).amin(dim=1)
        assert float(nearest.max()) <= max((576 / count) ** 0.5, 1.0) + 1e-6, count


@pytest.mark.parametrize("count", [1, 9, 25])
def test_kept_tokens_lie_in_the_middle_of_their_cells(count: int) -> None:
    position = places(15, 15)
    kept = position[evenly_spread(position, Grid(1, 15, 15), count)]
    assert kept.mean(dim=0).tolist() == [0.0, 7.0, 7.0]


def test_an_empty_half_is_left_alone_and_the_other_is_covered() -> None:
    position = places(24, 24)
    position = position[position[:, 2] >= 12]
    for count in (8, 32, 72, 100):
        kept = position[evenly_spread(position, GRID, count)]
        nearest = torch.cdist(position, kept).amin(dim=1)
        assert float(nearest.max()) <= (288 / count) ** 0.5 + 1e-6, count


def test_holes_and_odd_shapes_never_repeat_a_token() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows, columns = (int(torch.randint(1, 12, (1,), generator=generator)) for _ in range(2))
        position = places(rows, columns)
        left = torch.randperm(rows * columns, generator=generator)
        position = position[left[: int(torch.randint(1, len(left) + 1, (1,), generator=generator))]]
        count = int(torch.randint(1, len(position) + 1, (1,), generator=generator))
        index = evenly_spread(position, Grid(1, rows, columns), count)
        assert len(index.unique()) == count
        assert int(index.min()) >= 0 and int(index.max()) < len(position)


def test_frames_of_a_video_share_evenly() -> None:
    position = places(6, 6, frames=4)
    chosen = position[evenly_spread(position, Grid(4, 6, 6), 36)]
    assert [int((chosen[:, 0] == frame).sum()) for frame in range(4)] == [9] * 4


@pytest.mark.parametrize("stage", [Random(tokens=20), Uniform(tokens=20)])
def test_protected_tokens_stay_and_count(stage: Any) -> None:
    tokens = table(noise(100), 10, 10)
    marks = torch.zeros(100, dtype=torch.bool)
    marks[[3, 50, 99]] = True
    tokens = replace(tokens, protected=marks)
    decision = stage.decide(tokens, signals(tokens.layout))
    assert decision.kept_tokens == 20 and bool(
        torch.isin(torch.tensor([3, 50, 99]), decision.keep).all()
    )
    assert bool((decision.keep.diff() > 0).all())


def test_chance_comes_from_the_seed() -> None:
    tokens = table(noise(100), 10, 10)
    first, second = (
        Random(tokens=30).decide(tokens, signals(tokens.layout)).keep for _ in range(2)
    )
    assert torch.equal(first, second)
    view = signals(tokens.layout)
    view.generator.manual_seed(1)
    assert not torch.equal(first, Random(tokens=30).decide(tokens, view).keep)


def test_chance_prefers_no_place() -> None:
    tokens, counts = table(noise(16), 4, 4), torch.zeros(16)
    for seed in range(2000):
        view = signals(tokens.layout)
        view.generator.manual_seed(seed)
        counts[Random(tokens=4).decide(tokens, view).keep] += 1
    # Each place is expected 500 times with a standard deviation of 19.
    assert bool(((counts - 500).abs() < 100).all())


@pytest.mark.parametrize("stage", [Random(layers=(2, 5)), Uniform(layers=(2, 5))])
def test_a_budget_rules_the_counts(stage: Any) -> None:
    budget = LayerBudget(100, 12, (2, 5))
    tokens, counts = table(noise(576), 24, 24), [576]
    for layer in budget.prune_layers:
        view = signals(GRID, layer=layer, entering=576, budget=budget)
        tokens = tokens.apply(stage.decide(tokens, view))
        counts.append(len(tokens))
    assert abs(budget.average(counts) - 100) <= 0.5


@pytest.mark.parametrize("name", ["random", "uniform"])
@pytest.mark.parametrize("depth", [6, 12, 32, 80])
def test_the_recipes_act_at_the_door_of_a_decoder_of_any_depth(name: str, depth: int) -> None:
    planned = plan(name, llm=depth, budget="default")
    assert planned.prefill[0].stage.layers == (0,)
    budget = planned.budget
    assert budget is not None
    assert budget.schedule(576, 0) == (192,)
    assert budget.average([576, 192]) == 192
