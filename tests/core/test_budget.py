"""The schedule meets every budget that can be met, within half a token."""

import random

import pytest

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import BudgetError


def test_arbitrary_recipes_meet_their_budget() -> None:
    chance = random.Random(0)
    met = 0
    for _ in range(5000):
        depth = chance.randint(1, 40)
        layers = sorted(chance.sample(range(depth), chance.randint(1, min(4, depth))))
        entering, protected = chance.choice([10, 50, 576]), chance.choice([0, 5, 20])
        budget = LayerBudget(chance.uniform(1, entering * 1.2), depth, tuple(layers))
        try:
            counts = [entering, *budget.schedule(entering, protected)]
        except BudgetError:
            continue
        met += 1
        wanted = min(budget.layer_average, entering)
        assert abs(budget.average(counts) - wanted) <= 0.5, (budget, counts)
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] >= min(protected, entering)
    assert met > 3000


@pytest.mark.parametrize("wanted", [9.95, 9.6])
def test_a_budget_just_below_all_tokens(wanted: float) -> None:
    budget = LayerBudget(wanted, 29, (0, 4, 14, 28))
    counts = [10, *budget.schedule(10, 0)]
    assert abs(budget.average(counts) - wanted) <= 0.5
