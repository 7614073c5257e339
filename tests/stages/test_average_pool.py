"""Average pooling: blocks where the count divides the grid, even cells where it does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
import torch

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.average_pool import Cells
from vtc_cli.stages.baselines import Uniform


def pooled(tokens: TokenTable, count: int) -> tuple[Decision, TokenTable]:
    decision = Cells(tokens=count).decide(tokens, signals(tokens.layout.only))
    return decision, tokens.apply(decision)


def test_two_by_two_is_the_mean_of_four() -> None:
    _, after = pooled(table(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 2, 2), 1)
    assert after.features.tolist() == [[2.5]] and after.size.tolist() == [4.0]
    assert after.position.tolist() == [[0.0, 0.5, 0.5]]


@pytest.mark.parametrize(("count", "block"), [(144, 2), (64, 3), (36, 4), (16, 6), (4, 12)])
def test_a_count_that_divides_the_grid_is_the_pooling_of_the_library(
    count: int, block: int
) -> None:
    features = noise(576, 5)
    _, after = pooled(table(features, 24, 24), count)
    image = features.T.reshape(1, 5, 24, 24)
    expected = torch.nn.functional.avg_pool2d(image, block).flatten(2)[0].T
    close(after.features, expected, terms=block * block)


def cells_by_loop(rows: int, columns: int, count: int) -> list[set[int]]:
    """The rule in words: bands of equal token counts, cut along columns by their share."""
    total, cells = rows * columns, []
    bands = min(max(round((count * rows / columns) ** 0.5), 1), count, rows)
    edges = [band * total // bands for band in range(bands + 1)]
    for start, end in pairwise(edges):
        own = end * count // total - start * count // total
        tokens = sorted(range(start, end), key=lambda i: (i % columns, i // columns))
        # the token of rank r lies in cell r x own // tokens
        for cell in range(own):
            cells.append({t for r, t in enumerate(tokens) if r * own // len(tokens) == cell})
    return cells


@pytest.mark.parametrize("count", [1, 2, 7, 63, 100, 192, 299, 300, 575])
@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (16, 36), (1, 576)])
def test_any_count_is_met_by_even_cells(count: int, rows: int, columns: int) -> None:
    tokens = table(noise(576), rows, columns)
    decision, after = pooled(tokens, count)
    assert len(after) == count and bool((decision.keep.diff() > 0).all())
    assert float(after.size.sum()) == 576
    mix = decision.mix.to_dense().double().numpy()
    close(after.features, mix @ tokens.features.double().numpy(), terms=ceil(576 / count))
    expected = cells_by_loop(rows, columns, count)
    found = [set(row.nonzero()[0].tolist()) for row in mix]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    for row, members in zip(mix, found, strict=True):
        close(row[sorted(members)].astype(np.float32), [1 / len(members)] * len(members))


@pytest.mark.parametrize("count", [20, 50, 64, 100, 192, 300])
def test_no_cell_is_long_or_thin(count: int) -> None:
    """A square cell of 576 / n tokens has a diagonal of sqrt(2 x 576 / n); half of it each way."""
    tokens = table(noise(576), 24, 24)
    decision, after = pooled(tokens, count)
    row, member = decision.mix.indices()
    reach = (tokens.position[member] - after.position[row]).norm(dim=1)
    assert float(reach.max()) <= (2 * 576 / count) ** 0.5


@pytest.mark.parametrize("count", [1, 9, 64, 100, 192])
def test_a_pooled_token_stands_where_uniform_keeps_one(count: int) -> None:
    tokens = table(noise(576), 24, 24)
    uniform = Uniform(tokens=count).decide(tokens, signals(tokens.layout.only))
    assert torch.equal(pooled(tokens, count)[0].keep, uniform.keep)


def test_frames_are_pooled_apart_where_the_count_is_a_multiple() -> None:
    tokens = table(noise(4 * 36), 6, 6, frames=4)
    decision, after = pooled(tokens, 16)
    row, member = decision.mix.indices()
    assert torch.equal(tokens.frame[member], after.frame[row])
    assert torch.bincount(after.frame).tolist() == [4] * 4


def test_rows_that_were_merged_before_weigh_more_and_holes_are_no_harm() -> None:
    tokens = table(torch.tensor([[0.0], [4.0], [9.0]]), 1, 3)
    tokens = replace(tokens, size=torch.tensor([3.0, 1.0, 1.0]))
    tokens = tokens.apply(Decision.prune(torch.tensor([0, 1]), 3))
    _, after = pooled(tokens, 1)
    assert after.features.tolist() == [[1.0]] and after.size.tolist() == [4.0]


def test_protected_tokens_stand_alone_and_count() -> None:
    tokens = table(noise(100), 10, 10)
    marks = torch.zeros(100, dtype=torch.bool)
    marks[[3, 50, 99]] = True
    tokens = replace(tokens, protected=marks)
    decision, after = pooled(tokens, 20)
    assert len(after) == 20 and float(after.size.sum()) == 100
    alone = after.size == 1
    assert decision.keep[alone].tolist() == [3, 50, 99] == decision.keep[after.protected].tolist()
    assert torch.equal(after.features[alone], tokens.features[marks])
    assert pooled(tokens, 2)[0].keep.tolist() == [3, 50, 99]


def test_a_budget_rules_the_count_and_room_for_all_changes_nothing() -> None:
    tokens = table(noise(576), 24, 24)
    view = signals(tokens.layout.only, budget=LayerBudget(100, 12, ()))
    assert Cells().decide(tokens, view).kept_tokens == 100
    assert pooled(tokens, 576)[0].is_identity
    planned = plan("average_pool", budget="default")
    assert planned.budget is not None and planned.budget.layer_average == 192
