"""FastV after its sheet: the hand case, the last row only, ties, no-ops, average counts."""

from __future__ import annotations

import pytest
import torch

from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.tokens import Grid
from vtc_cli.stages.fastv import LastRow


def test_hand_case_of_the_sheet() -> None:
    """S = 8, s = 2, N = 4, n = 2: positions 3 and 4 of the sequence are kept."""
    tokens = table(noise(4), 1, 4)
    view = signals(Grid(1, 1, 4), attention=torch.tensor([[0.1, 0.4, 0.3, 0.05]]))
    decision = LastRow(tokens=2).decide(tokens, view)
    assert (decision.keep + 2).tolist() == [3, 4]
    assert decision.is_pruning


def test_only_the_last_row_decides() -> None:
    rows = torch.tensor([[0.9, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0], [0.1, 0.2, 0.4, 0.3]])
    decision = LastRow(tokens=2).decide(
        table(noise(4), 1, 4), signals(Grid(1, 1, 4), attention=rows)
    )
    assert decision.keep.tolist() == [2, 3]


def test_kept_tokens_stand_in_raster_order_and_the_first_wins_a_tie() -> None:
    attention = torch.tensor([[0.1, 0.3, 0.2, 0.3, 0.2, 0.2]])
    view = signals(Grid(1, 1, 6), attention=attention)
    assert LastRow(tokens=3).decide(table(noise(6), 1, 6), view).keep.tolist() == [1, 2, 3]


@pytest.mark.parametrize("allowed", [6, 7, 600])
def test_nothing_changes_with_room_for_all(allowed: int) -> None:
    decision = LastRow(tokens=allowed).decide(table(noise(6), 1, 6), signals(Grid(1, 1, 6)))
    assert decision.is_identity  # and no signal was asked for: there is none to give


@pytest.mark.parametrize(
    ("first_layer", "tokens", "average"),
    [(2, 288, 306.0), (2, 144, 171.0), (2, 72, 103.5), (3, 288, 315.0)],
)
def test_average_counts_of_the_sheet(first_layer: int, tokens: int, average: float) -> None:
    assert LayerBudget(0, 32, (first_layer,)).average([576, tokens]) == average


@pytest.mark.parametrize(("average", "tokens"), [(192, 166), (128, 98), (64, 30)])
def test_counts_for_the_equivalent_budgets_of_other_papers(average: int, tokens: int) -> None:
    budget = LayerBudget(average, 32, (2,))
    attention = torch.rand(1, 576, generator=torch.Generator().manual_seed(0))
    view = signals(Grid(1, 24, 24), attention=attention, layer=2, entering=576, budget=budget)
    assert abs(LastRow().decide(table(noise(576), 24, 24), view).kept_tokens - tokens) <= 1
