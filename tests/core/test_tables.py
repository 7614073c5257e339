"""Tables, decisions, sparse products and budgets against dense and closed forms."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError, StageError
from vtc_cli.core.layout import Grid
from vtc_cli.core.sparse import compose
from vtc_cli.core.tokens import TokenTable


def random_decision(count: int, seed: int) -> Decision:
    """Groups rows at random, drops some rows, averages the groups with random weights."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(count, generator=generator)[: max(count // 2, 1)].sort().values
    survivor = torch.randint(kept.shape[0], (count,), generator=generator)
    used = torch.rand(count, generator=generator) < 0.7
    used[kept] = True
    survivor[kept] = torch.arange(kept.shape[0])
    rows = used.nonzero()[:, 0]
    weights = torch.rand(rows.shape[0], generator=generator) + 0.1
    return Decision.merge(kept, torch.stack([survivor[rows], rows]), weights, count)


@pytest.mark.parametrize("seed", range(6))
def test_origin_is_the_dense_product_of_all_decisions(seed: int) -> None:
    features = torch.randn(24, 5, generator=torch.Generator().manual_seed(seed))
    tokens = TokenTable.from_grid(features, Grid(1, 4, 6))
    dense = torch.eye(24)
    for step in range(3):
        decision = random_decision(len(tokens), seed * 10 + step)
        tokens = tokens.apply(decision)
        dense = decision.mix.to_dense() @ dense
    close(tokens.origin.to_dense(), dense, terms=24, depth=3)
    close(tokens.features, dense @ features, terms=24, depth=3)
    close(dense.sum(1), torch.ones(len(tokens)), terms=24, depth=3)
    assert int(tokens.size.sum()) == int((tokens.state() >= 0).sum())


def test_compose_of_random_sparse_matrices() -> None:
    generator = torch.Generator().manual_seed(1)
    outer = torch.rand(7, 9, generator=generator) * (torch.rand(7, 9, generator=generator) < 0.3)
    inner = torch.rand(9, 11, generator=generator) * (torch.rand(9, 11, generator=generator) < 0.3)
    product = compose(outer.to_sparse().coalesce(), inner.to_sparse().coalesce())
    close(product.to_dense(), outer @ inner, terms=9)


def test_pruning_keeps_values_bit_for_bit() -> None:
    features = torch.randn(10, 3).to(torch.bfloat16)
    tokens = TokenTable.from_grid(features, Grid(1, 2, 5))
    after = tokens.apply(Decision.prune(torch.tensor([9, 1, 4]), 10))
    assert torch.equal(after.features, features[[9, 1, 4]])
    assert after.anchor.tolist() == [9, 1, 4]
    assert after.state().tolist() == [-1, 1, -1, -1, 2, -1, -1, -1, -1, 0]


def test_grid_positions_are_time_row_column() -> None:
    tokens = TokenTable.from_grid(torch.zeros(12, 1), Grid(2, 2, 3))
    assert tokens.position[0].tolist() == [0, 0, 0]
    assert tokens.position[10].tolist() == [1, 1, 1]
    assert tokens.frame.tolist() == [0] * 6 + [1] * 6


BROKEN: dict[str, Any] = {
    "repeated row": lambda: Decision.prune(torch.tensor([1, 1]), 4),
    "foreign row": lambda: Decision(torch.tensor([4]), torch.ones(1, 4).to_sparse() / 4),
    "rows that do not sum to 1": lambda: Decision(
        torch.tensor([0]), torch.full((1, 4), 0.5).to_sparse()
    ),
    "another number of rows": lambda: Decision(torch.tensor([0, 1]), torch.eye(4).to_sparse()),
    "wrong protect": lambda: Decision.prune(
        torch.tensor([0]), 4, protect=torch.ones(4, dtype=torch.bool)
    ),
    "wrong events": lambda: Decision.prune(torch.tensor([0]), 4, segment=torch.zeros(4).long()),
    "events that are no numbers": lambda: Decision.prune(
        torch.tensor([0]), 4, segment=torch.zeros(1)
    ),
    "key rows that are no flags": lambda: Decision.prune(
        torch.tensor([0]), 4, key=torch.ones(1).long()
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_decision_is_refused(name: str) -> None:
    with pytest.raises(StageError):
        BROKEN[name]()


def test_a_protected_row_may_merge_but_not_go() -> None:
    tokens = TokenTable.from_grid(torch.zeros(4, 1), Grid(1, 2, 2))
    marks = torch.tensor([False, True, False, False])
    everything = torch.arange(4)
    tokens = tokens.apply(Decision.prune(everything, 4, protect=marks))
    with pytest.raises(StageError, match="protected"):
        tokens.apply(Decision.prune(torch.tensor([0, 2]), 4))
    pair = Decision.merge(torch.tensor([0]), torch.tensor([[0, 0], [0, 1]]), None, 4)
    assert tokens.apply(pair).protected.tolist() == [True]


def test_a_row_in_two_survivors_is_counted_once() -> None:
    tokens = TokenTable.from_grid(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), Grid(1, 1, 4))
    pairs = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    after = tokens.apply(Decision.merge(torch.tensor([0, 2]), pairs, weights, 4))
    close(after.features, torch.tensor([[2.0], [3.5]]), terms=2)
    close(after.size, torch.tensor([1.4, 1.6]), terms=2)  # row 1: 0.5 to 0.75


def test_a_decision_may_mark_events_which_then_follow_their_rows() -> None:
    tokens = TokenTable.from_grid(torch.zeros(4, 1), Grid(2, 1, 2))
    assert tokens.segment.tolist() == [-1] * 4 and not bool(tokens.key.any())
    event = torch.tensor([0, 0, 1, 1])
    tokens = tokens.apply(Decision.prune(torch.arange(4), 4, segment=event, key=event == 1))
    tokens = tokens.apply(Decision.prune(torch.tensor([3, 1]), 4))
    assert tokens.segment.tolist() == [1, 0]
    assert tokens.key.tolist() == [True, False]


def test_a_decision_for_another_table_is_refused() -> None:
    tokens = TokenTable.from_grid(torch.zeros(4, 1), Grid(1, 2, 2))
    with pytest.raises(StageError, match="3 of 4"):
        tokens.apply(Decision.prune(torch.tensor([0]), 3))


def test_no_row_at_all_is_a_decision() -> None:
    tokens = TokenTable.from_grid(torch.zeros(4, 1), Grid(1, 2, 2))
    after = tokens.apply(Decision.prune(torch.zeros(0, dtype=torch.int64), 4))
    assert len(after) == 0
    assert after.state().tolist() == [-1] * 4


def test_a_schedule_meets_any_budget_that_can_be_met() -> None:
    chance = random.Random(0)
    met = 0
    for _ in range(400):
        depth = chance.choice((12, 24, 32, 40))
        layers = tuple(sorted(chance.sample(range(1, depth), chance.randint(1, 4))))
        budget = LayerBudget(chance.randint(4, 400), depth, layers)
        entering = chance.randint(1, 576)
        protected = chance.randint(0, entering)
        if budget.smallest_average(entering, protected) > budget.layer_average + 0.5:
            with pytest.raises(BudgetError):
                budget.schedule(entering, protected)
            continue
        counts = [entering, *budget.schedule(entering, protected)]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] >= min(max(protected, 1), entering)
        wanted = min(budget.layer_average, entering)
        assert abs(budget.average(counts) - wanted) <= 0.5
        met += 1
    assert met > 100


def test_rows_that_layers_add_move_with_their_tokens() -> None:
    added = tuple(torch.randn(4, 3) for _ in range(2))
    table = replace(TokenTable.from_grid(torch.randn(4, 3), Grid(1, 2, 2)), added=added)
    pairs = torch.tensor([[0, 0, 1], [1, 3, 2]])
    after = table.apply(Decision.merge(torch.tensor([3, 2]), pairs, torch.tensor([3.0, 1, 1]), 4))
    for before, now in zip(added, after.added, strict=True):
        close(now[0], 0.75 * before[1] + 0.25 * before[3], terms=2)
        assert torch.equal(now[1], before[2])
