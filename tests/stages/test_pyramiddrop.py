"""PyramidDrop after its sheet: floors of the entering count, the last row, what cannot be met.

That the row is the one the next layer will have is checked in `tests/engine/test_peers.py`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import BudgetError, RecipeError
from vtc_cli.core.layout import Grid
from vtc_cli.recipe.load import load_recipe
from vtc_cli.stages.pyramiddrop import LastInstruction

NEEDS = frozenset({"attention_rows"})


def walk(stage: LastInstruction, count: int, budget: LayerBudget | None = None) -> list[list[int]]:
    """Places kept after each of the stage's layers, of `count` tokens under random attention."""
    tokens, chance = table(noise(count), 1, count), torch.Generator().manual_seed(0)
    kept = [tokens.anchor.tolist()]
    for layer in stage.layers:
        rows = torch.rand(1, len(tokens), generator=chance)
        view = signals(
            tokens.layout.only, attention=rows, layer=layer, entering=count, budget=budget
        )
        tokens = tokens.apply(stage.decide(tokens, view))
        kept.append(tokens.anchor.tolist())
    return kept


@pytest.mark.parametrize(
    ("count", "counts"), [(10, [10, 5, 2, 1]), (576, [576, 288, 144, 72]), (9, [9, 4, 2, 1])]
)
def test_floors_of_the_entering_count(count: int, counts: list[int]) -> None:
    """7 tokens: floors of the count before would go 3, 1, 1."""
    kept = walk(LastInstruction(), count)
    assert [len(places) for places in kept] == counts
    for before, after in pairwise(kept):
        assert set(after) < set(before) and after == sorted(after)


def test_floors_are_not_of_the_count_before() -> None:
    stage = LastInstruction(keep_ratios=(0.9, 0.8, 0.7))
    assert [len(places) for places in walk(stage, 10)] == [10, 9, 8, 7]


def test_score_oracle_of_the_sheet() -> None:
    """q = (1, 0), keys (2,0) (0,5) (1,0) (-1,0): the logits are 2, 0, 1 and -1."""
    query, keys = torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0], [0, 5], [1, 0], [-1, 0]])
    row = (keys @ query / 2**0.5).softmax(dim=0)[None]
    view = signals(Grid(1, 1, 4), attention=row, layer=8, entering=4)
    assert LastInstruction().decide(table(noise(4), 1, 4), view).keep.tolist() == [0, 2]


def test_only_the_last_row_decides_and_the_first_wins_a_tie() -> None:
    rows = torch.tensor([[0.9, 0.0, 0.0, 0.0], [0.1, 0.3, 0.3, 0.3]])
    view = signals(Grid(1, 1, 4), attention=rows, layer=8, entering=4)
    assert LastInstruction().decide(table(noise(4), 1, 4), view).keep.tolist() == [1, 2]


def test_none_may_be_left_under_official_fidelity_only() -> None:
    assert [len(p) for p in walk(LastInstruction(), 7)] == [7, 3, 1, 1]
    assert [len(p) for p in walk(LastInstruction(fidelity="official"), 7)] == [7, 3, 1, 0]
    none = LastInstruction(keep_ratios=(0.5, 0.25, 0.0))
    assert [len(p) for p in walk(none, 7)] == [7, 3, 1, 0]


def test_the_published_shares_are_the_schedule_of_their_average() -> None:
    budget = LayerBudget(270, 32, (8, 16, 24))
    assert budget.average([576, 288, 144, 72]) == 270
    assert [len(places) for places in walk(LastInstruction(), 576, budget)] == [576, 288, 144, 72]


def test_an_average_below_the_first_stage_is_refused_with_the_smallest() -> None:
    with pytest.raises(BudgetError) as caught:
        walk(LastInstruction(), 576, LayerBudget(64, 32, (8, 16, 24)))
    assert caught.value.hint == "--budget 145"
    counts = [len(p) for p in walk(LastInstruction(), 576, LayerBudget(145, 32, (8, 16, 24)))]
    assert abs(LayerBudget(145, 32, (8, 16, 24)).average(counts) - 145) <= 0.5


def test_positions_that_a_generated_token_sees() -> None:
    """S = 640 with N = 576: stages of 640, 352, 208 and 136 tokens."""
    counts = [len(places) for places in walk(LastInstruction(), 576)]
    assert [640 - 576 + count for count in counts] == [640, 352, 208, 136]


def test_protected_tokens_stay_and_count() -> None:
    marks = torch.tensor([True, False, False, False, False, True])
    tokens = replace(table(noise(6), 1, 6), protected=marks)
    attention = torch.tensor([[0.0, 0.1, 0.5, 0.2, 0.3, 0.0]])
    for layer, kept in ((8, [0, 2, 5]), (24, [0, 5])):
        view = signals(Grid(1, 1, 6), attention=attention, layer=layer, entering=6)
        assert LastInstruction().decide(tokens, view).keep.tolist() == kept


def test_room_for_all_asks_for_no_signal() -> None:
    view = signals(Grid(1, 1, 6), layer=8, entering=6)
    stage = LastInstruction(keep_ratios=(1.0, 1.0, 1.0))
    assert stage.decide(table(noise(6), 1, 6), view).is_identity


@pytest.mark.parametrize(
    ("values", "words"),
    [("{layers: [8, 16]}", "3 shares for 2"), ("{keep_ratios: [0.1, 0.5, 0.2]}", "larger than")],
)
def test_shares_that_do_not_fit_are_a_fault_of_the_recipe(
    tmp_path: Path, values: str, words: str
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: odd\nprefill:\n  - pyramiddrop.last_instruction: {values}\n")
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)


def test_official_fidelity_is_the_published_schedule_with_positions_counted_anew() -> None:
    planned = plan("pyramiddrop", budget=270.0, fidelity="official", family_signals=NEEDS)
    stage = planned.prefill[0].stage
    assert isinstance(stage, LastInstruction)
    assert (stage.layers, stage.keep_ratios) == ((8, 16, 24), (0.5, 0.25, 0.125))
    assert (planned.positions, stage.fidelity) == ("renumbered", "official")
    assert plan("pyramiddrop", llm=12, family_signals=NEEDS).prefill[0].stage.layers == (3, 6, 9)
