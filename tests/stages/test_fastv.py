"""FastV after its sheet: the hand case, the last row only, ties, rounding, average counts.

What needs a model (masking equals dropping, cache lengths, no-ops bit for bit) is checked in
`tests/engine/test_selections.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import RecipeError
from vtc_cli.core.layout import Grid
from vtc_cli.engine.sequence import Sequence
from vtc_cli.recipe.load import load_recipe
from vtc_cli.stages.fastv import LastRow


def test_hand_case_of_the_sheet() -> None:
    """S = 8, s = 2, N = 4, n = 2: places 0 1 3 4 6 7 of the prompt stay, text among them."""
    tokens = table(noise(4), 1, 4)
    view = signals(Grid(1, 1, 4), attention=torch.tensor([[0.1, 0.4, 0.3, 0.05]]))
    decision = LastRow(tokens=2).decide(tokens, view)
    assert decision.is_pruning
    prompt = Sequence(torch.arange(8), torch.arange(2, 6), tokens, 6)
    shorter, _ = prompt.shrink(decision, tokens.apply(decision))
    assert shorter.entry.tolist() == [0, 1, 3, 4, 6, 7]


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


@pytest.mark.parametrize(
    ("count", "keep_ratio", "left"),
    [
        (5, 0.5, 2),
        (7, 0.5, 4),
        (576, 0.25, 144),
        (9, 1.0, 9),
        (9, 0.0, 0),
        (3, 0.1, 1),
        (1, 0.5, 1),
    ],
)
def test_a_share_is_rounded_half_to_even_and_leaves_one_unless_it_is_zero(
    count: int, keep_ratio: float, left: int
) -> None:
    view = signals(Grid(1, 1, count), attention=torch.rand(1, count))
    tokens = table(noise(count), 1, count)
    assert LastRow(keep_ratio=keep_ratio).decide(tokens, view).kept_tokens == left


@pytest.mark.parametrize(("count", "dropped"), [(15, 0.7), (5, 0.7), (25, 0.7), (45, 0.9)])
def test_the_official_share_is_what_is_left_of_the_dropped_one(count: int, dropped: float) -> None:
    """The port rounds N (1 - R) as a machine has it: half a token may be a little more."""
    stage = LastRow(keep_ratio=round(1 - dropped, 2), fidelity="official")
    view = signals(Grid(1, 1, count), attention=torch.rand(1, count))
    left = stage.decide(table(noise(count), 1, count), view).kept_tokens
    assert left == round(count * (1 - dropped))


@pytest.mark.parametrize(("count", "keep_ratio", "left"), [(3, 0.1, 0), (1, 0.5, 0), (5, 0.5, 2)])
def test_the_official_rounding_may_leave_none(count: int, keep_ratio: float, left: int) -> None:
    view = signals(Grid(1, 1, count), attention=torch.rand(1, count))
    stage = LastRow(keep_ratio=keep_ratio, fidelity="official")
    assert stage.decide(table(noise(count), 1, count), view).kept_tokens == left


def test_protected_tokens_stay_and_count() -> None:
    marks = torch.tensor([True, False, False, False, False, True])
    tokens = replace(table(noise(6), 1, 6), protected=marks)
    attention = torch.tensor([[0.0, 0.1, 0.5, 0.2, 0.3, 0.0]])
    view = signals(Grid(1, 1, 6), attention=attention)
    assert LastRow(tokens=3).decide(tokens, view).keep.tolist() == [0, 2, 5]
    assert LastRow(tokens=1).decide(tokens, view).keep.tolist() == [0, 5]


@pytest.mark.parametrize("tokens", [432, 288, 144, 72])
def test_official_fidelity_applies_the_ranks_of_the_paper_at_original_positions(
    tokens: int,
) -> None:
    planned = plan("fastv", budget=float(tokens), fidelity="official")
    stage = planned.prefill[0].stage
    assert isinstance(stage, LastRow)
    assert (stage.layers, stage.tokens, planned.positions) == ((2,), tokens, "original")
    assert planned.budget is None


def test_layer_0_is_a_fault_of_the_recipe_and_none_in_a_shallow_model(tmp_path: Path) -> None:
    path = tmp_path / "early.yaml"
    path.write_text("name: early\nprefill:\n  - fastv.last_row: {layers: [0, 4]}\n")
    with pytest.raises(RecipeError, match="no layer before it"):
        load_recipe(path)
    assert plan("fastv", llm=6, budget=300.0).prefill[0].stage.layers == (1,)
