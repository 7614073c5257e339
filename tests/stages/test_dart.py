"""DART after its sheet: the hand cases, counts of the code, pivots among text, a numpy loop.

That keys and states are those of the model is checked in `tests/engine/test_peers.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, signals, table
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import RecipeError
from vtc_cli.core.layout import Grid
from vtc_cli.core.signals import Signals
from vtc_cli.recipe.load import load_recipe
from vtc_cli.stages.dart import Pivots

NEEDS = frozenset({"keys", "hidden"})
SHEET = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def view(states: Tensor, norms: Tensor, **options: Any) -> Signals:
    """Keys whose L1 norms are `norms` (N,); text without rows unless `options` give some.

    `before` tokens stand before the visual ones.
    """
    text = {"text_keys": torch.zeros(2, 0, 4), "normed_text": torch.zeros(0, states.shape[1])}
    text |= {name: options.pop(name) for name in list(options) if "text" in name}
    behind = options.pop("before", 35) + len(states)
    text["visual_places"] = torch.arange(behind - len(states), behind)
    text["text_places"] = torch.arange(behind, behind + text["text_keys"].shape[1])
    keys = (norms[None, :, None] / 8).expand(2, -1, 4)
    grid = Grid(1, 1, len(states))
    return signals(grid, keys=keys, normed_hidden=states, **text, **options)


def kept(states: Tensor, norms: list[float], given: dict[str, Any], **options: Any) -> list[int]:
    tokens = table(noise(len(states)), 1, len(states))
    decision = Pivots(**options).decide(tokens, view(states, torch.tensor(norms), **given))
    assert decision.is_pruning
    return decision.keep.tolist()


def test_hand_case_of_the_sheet() -> None:
    """a is the pivot and d opposes it; c stands across; b duplicates a."""
    one = {"visual_pivots": 1, "text_pivots": 0}
    norms = [4.0, 1.0, 1.0, 1.0]
    assert kept(SHEET, norms, {}, tokens=3, **one) == [0, 2, 3]
    assert kept(SHEET, norms, {}, keep_ratio=0.5, fidelity="official", **one) == [0, 2, 3]
    assert kept(SHEET, norms, {}, keep_ratio=0.25, fidelity="official", **one) == [0, 3]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep_ratio": 0.333}, 188),
        ({"keep_ratio": 0.222}, 124),
        ({"keep_ratio": 0.111}, 60),
        ({"tokens": 128}, 132),
        ({"keep_ratio": 1.0}, 576),
    ],
)
def test_official_counts_of_the_sheet(options: dict[str, Any], left: int) -> None:
    states, text = noise(576, 16), {"text_keys": torch.rand(2, 9, 4), "normed_text": noise(9, 16)}
    norms = torch.rand(576, generator=torch.Generator().manual_seed(0)).tolist()
    assert len(kept(states, norms, text, fidelity="official", **options)) == left


@pytest.mark.parametrize(("count", "dropped"), [(40, 0.8), (320, 0.8), (4000, 0.778), (80, 0.9)])
def test_the_official_share_is_what_is_left_of_the_dropped_one(count: int, dropped: float) -> None:
    """The code cuts N (1 - r) / 8 as a machine has it: a whole number may be a little less."""
    states, text = noise(count), {"text_keys": torch.rand(2, 9, 4), "normed_text": noise(9)}
    share = {"keep_ratio": round(1 - dropped, 3), "fidelity": "official"}
    left = kept(states, torch.rand(count).tolist(), text, **share)
    assert len(left) == 4 + 8 * int(count * (1 - dropped) / 8)


def test_five_of_eight_with_a_pivot_of_each_kind() -> None:
    text = {"text_keys": torch.rand(2, 3, 4), "normed_text": noise(3, 8, 5)}
    one = {"visual_pivots": 1, "text_pivots": 1, "keep_ratio": 0.5, "fidelity": "official"}
    assert len(kept(noise(8), [1.0] * 8, text, **one)) == 5


@pytest.mark.parametrize("wanted", [1, 2, 4, 5, 11, 63, 575])
def test_sound_fidelity_keeps_exactly_what_is_allowed(wanted: int) -> None:
    norms = torch.rand(576, generator=torch.Generator().manual_seed(0)).tolist()
    text = {"text_keys": torch.rand(2, 2, 4), "normed_text": noise(2, 16)}
    assert len(kept(noise(576, 16), norms, text, tokens=wanted)) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_against_a_loop_over_pivots(seed: int) -> None:
    states, words = noise(50, 6, seed), noise(7, 6, seed + 100)
    chance = torch.Generator().manual_seed(seed)
    keys, text_keys = (torch.randn(2, n, 3, generator=chance) for n in (50, 7))
    rows = signals(
        Grid(1, 1, 50), keys=keys, text_keys=text_keys, normed_hidden=states, normed_text=words
    )
    stage = Pivots(tokens=20, visual_pivots=3, text_pivots=2)
    found = stage.decide(table(noise(50), 1, 50), rows).keep.tolist()

    def longest(array: Tensor, count: int) -> list[int]:
        norm = np.abs(array.double().numpy()).sum(axis=(0, 2))
        return np.argsort(-norm, kind="stable")[:count].tolist()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    visual, text = states.double().numpy(), words.double().numpy()
    chosen = longest(keys, 3)
    directions = [visual[i] for i in chosen] + [text[i] for i in longest(text_keys, 2)]
    for place, direction in enumerate(directions):
        left = [i for i in range(50) if i not in chosen]
        left.sort(key=lambda i: (cosine(visual[i], direction), i))
        chosen += left[: 4 if place < 2 else 3]  # 17 among 5 pivots: 4 4 3 3 3
    assert found == sorted(chosen)


def official_loop(
    states: Tensor, keys: Tensor, before: int, count: int, pivots: tuple[int, int], share: int
) -> list[int]:
    """The algorithm of the sheet on absolute places, with sets as CPython has them.

    States (S, d) and keys (heads, S, head_dim) are of the whole sequence, `count` visual tokens
    behind `before` others.
    """
    norm = keys.abs().sum(dim=(0, 2))
    behind = before + count
    longest = (norm[before:behind].topk(pivots[0]).indices + before).tolist()
    words = (norm[behind:].topk(pivots[1]).indices + behind).tolist()
    kept, free = set(longest), set(range(before, behind)) - set(longest)
    for place in list(set(longest + words)):
        left = sorted(free)
        likeness = torch.nn.functional.cosine_similarity(states[place], states[left], dim=-1)
        chosen = {left[i] for i in (-likeness).topk(min(share, len(left))).indices}
        kept |= chosen
        free -= chosen
    return sorted(place - before for place in kept)


@pytest.mark.parametrize("before", [0, 5, 17, 35, 36, 62])
def test_official_turns_are_those_of_a_python_set(before: int) -> None:
    """With 5 of 8 places among visual tokens the set's order is neither by norm nor by place."""
    states, keys = noise(before + 200 + 13, 12, before), noise(2 * (before + 213), 6, 1)
    keys = keys.reshape(2, -1, 6)
    behind = before + 200
    rows = signals(
        Grid(1, 1, 200),
        keys=keys[:, before:behind],
        text_keys=keys[:, behind:],
        normed_hidden=states[before:behind],
        normed_text=states[behind:],
        visual_places=torch.arange(before, behind),
        text_places=torch.arange(behind, behind + 13),
    )
    tokens = table(noise(200), 1, 200)
    stage = Pivots(keep_ratio=0.222, fidelity="official")  # int(200 x 0.222 / 8) = 5 a pivot
    found = stage.decide(tokens, rows).keep.tolist()
    assert found == official_loop(states, keys, before, 200, (4, 4), 5)
    assert len(found) == 44
    if before in (5, 35):
        assert Pivots(tokens=44).decide(tokens, rows).keep.tolist() != found


def test_the_turns_of_a_set_by_hand() -> None:
    """A set of three has 8 slots: 32 falls into slot 0; 1 and 9 into slot 1, the later one behind.

    So the longer of 1 and 9 has its turn first, and 32 has its turn before both.
    """
    stage = Pivots(visual_pivots=3, text_pivots=0, fidelity="official")
    none = torch.tensor([], dtype=torch.int64)
    for before in (0, 1):
        rows = view(noise(40), torch.ones(40), before=before)
        places = torch.tensor([9, 1, 32]) - before
        assert stage._turns(places, none, rows) == [2, 0, 1]
        assert stage._turns(places[[1, 0, 2]], none, rows) == [2, 0, 1]
    assert Pivots()._turns(torch.tensor([9, 1, 32]), none, rows) == [0, 1, 2]


def test_text_pivots_are_references_and_change_the_choice() -> None:
    """A word like token 1 makes its opposite, token 3, the least alike."""
    states = torch.tensor([[0.0, 1], [1, 0], [0.6, 0.8], [-1, 0.1], [0.0, -1]])
    word = {"text_keys": torch.ones(2, 1, 4), "normed_text": torch.tensor([[1.0, 0.0]])}
    norms = [9.0, 1, 1, 1, 1]
    assert kept(states, norms, {}, tokens=2, visual_pivots=1) == [0, 4]
    both = {"tokens": 3, "visual_pivots": 1}
    assert kept(states, norms, word, **both, text_pivots=1) == [0, 3, 4]
    assert kept(states, norms, word, **both, text_pivots=0) == [0, 1, 4]


def test_the_longest_word_of_several_is_the_pivot() -> None:
    states = torch.tensor([[0.0, 0.0, 1.0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    words = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for longer, opposite in ((0, 2), (1, 4)):
        lengths = torch.ones(2, 2, 4)
        lengths[:, longer] = 2
        text = {"text_keys": lengths, "normed_text": words}
        # the visual pivot has cosine 0 to all and takes the first; the word takes its opposite
        found = kept(states, [9.0, 1, 1, 1, 1], text, tokens=3, visual_pivots=1, text_pivots=1)
        assert found == [0, 1, opposite]


def test_norms_sum_over_heads_and_channels_and_ignore_signs() -> None:
    keys = torch.tensor([[[1.0, 1.0], [-3.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0], [0, 0]]])
    rows = signals(
        Grid(1, 1, 2),
        keys=keys,
        text_keys=torch.zeros(3, 0, 2),
        normed_hidden=noise(2),
        normed_text=noise(0),
    )
    decision = Pivots(tokens=1).decide(table(noise(2), 1, 2), rows)
    assert decision.scores is not None and decision.scores.tolist() == [4.0, 3.0]
    assert decision.keep.tolist() == [0]


def test_ties_go_to_the_lowest_index_and_zero_vectors_have_cosine_zero() -> None:
    assert kept(torch.ones(6, 2), [1.0] * 6, {}, tokens=4, visual_pivots=2) == [0, 1, 2, 3]
    states = torch.tensor([[1.0, 0], [1, 0], [0, 0], [0.5, 0.5], [-1, 0]])
    assert kept(states, [9.0, 1, 1, 1, 1], {}, tokens=3, visual_pivots=1) == [0, 2, 4]


def test_protected_tokens_stay_and_count() -> None:
    marks = torch.tensor([False, True, False, False, True, True])
    tokens = replace(table(noise(6), 1, 6), protected=marks)
    rows = view(noise(6), torch.tensor([9.0, 1, 1, 1, 1, 1]))
    for wanted in (3, 4, 5):
        stage = Pivots(tokens=wanted, visual_pivots=2)
        keep = stage.decide(tokens, rows).keep.tolist()
        assert len(keep) == wanted and {1, 4, 5} <= set(keep)
    assert Pivots(tokens=1).decide(tokens, rows).keep.tolist() == [1, 4, 5]


def test_room_for_all_asks_for_no_signal() -> None:
    decision = Pivots(tokens=6).decide(table(noise(6), 1, 6), signals(Grid(1, 1, 6)))
    assert decision.is_identity


def test_a_budget_rules_the_count() -> None:
    budget = LayerBudget(64, 32, (2,))
    rows = view(noise(576), torch.rand(576), layer=2, entering=576, budget=budget)
    count = Pivots().decide(table(noise(576), 24, 24), rows).kept_tokens
    assert abs(budget.average([576, count]) - 64) <= 0.5


@pytest.mark.parametrize(("budget", "share"), [(192, 0.333), (128, 0.222), (64, 0.111)])
def test_official_fidelity_applies_the_shares_of_the_paper(budget: int, share: float) -> None:
    planned = plan("dart", budget=float(budget), fidelity="official", family_signals=NEEDS)
    stage = planned.prefill[0].stage
    assert isinstance(stage, Pivots)
    assert (stage.keep_ratio, stage.layers, stage.fidelity) == (share, (2,), "official")
    assert (stage.visual_pivots, stage.text_pivots) == (4, 4)
    assert (planned.positions, planned.budget) == ("original", None)


def test_layer_0_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "early.yaml"
    path.write_text("name: early\nprefill:\n  - dart.pivots: {layers: [0]}\n")
    with pytest.raises(RecipeError, match="no layer before it"):
        load_recipe(path)
