"""Every check of the H2O sheet, worked out by hand, and a second writing in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.stages.entries import entries, kept, view
from tests.tolerance import close
from vtc_cli.core.errors import StageError
from vtc_cli.stages.h2o import HeavyHitters

# The sheet's rows [1, 0, 0], [.9, .1, 0], [.2, .5, .3], summed over the queries.
SHEET = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0.2, 0.5, 0.3]]).sum(dim=0)[None]


@pytest.mark.parametrize(
    ("heavy", "recent", "held"), [(1, 1, [0, 2]), (0, 2, [1, 2]), (2, 0, [0, 1])]
)
def test_the_sheets_cases(heavy: int, recent: int, held: list[int]) -> None:
    """Without a recent window the newest entry may go at once."""
    close(SHEET, torch.tensor([[2.1, 0.6, 0.3]]), terms=3)
    stage = HeavyHitters(heavy_tokens=heavy, recent_tokens=recent)
    assert kept(stage.decide(entries(3), view(received=SHEET)))[0] == held


def test_a_cache_that_is_not_full_stays() -> None:
    stage = HeavyHitters(heavy_tokens=2, recent_tokens=1)
    answer = stage.decide(entries(3), view(received=SHEET))
    assert not isinstance(answer, tuple) and answer.is_identity


def test_a_recent_entry_is_no_heavy_one_however_much_it_got() -> None:
    """The heavy ones are chosen among the old: 3 is recent anyway and takes no place."""
    received = torch.tensor([[0.1, 0.3, 0.2, 9.0, 0.0]])
    stage = HeavyHitters(heavy_tokens=1, recent_tokens=2)
    assert kept(stage.decide(entries(5), view(received=received)))[0] == [1, 3, 4]


def test_ties_go_to_the_lowest_place() -> None:
    stage = HeavyHitters(heavy_tokens=2, recent_tokens=1)
    assert kept(stage.decide(entries(6), view(received=torch.ones(1, 6))))[0] == [0, 1, 5]


def test_each_head_keeps_its_own_and_groups_are_averaged() -> None:
    received = torch.tensor([[5.0, 0, 0, 1], [0.0, 0, 9, 1], [0.0, 3, 0, 1], [2.0, 0, 0, 1]])
    stage = HeavyHitters(heavy_tokens=1, recent_tokens=1)
    assert kept(stage.decide(entries(4, heads=2), view(received=received))) == [[2, 3], [1, 3]]
    assert kept(stage.decide(entries(4, heads=4), view(received=received))) == [
        [0, 3],
        [2, 3],
        [1, 3],
        [0, 3],
    ]


def test_random_attention_equals_a_second_writing() -> None:
    generator = np.random.default_rng(5)
    maps = np.tril(generator.random((6, 30, 30), dtype=np.float32))
    sums = (maps / maps.sum(axis=2, keepdims=True)).sum(axis=1)
    stage = HeavyHitters(heavy_tokens=7, recent_tokens=4)
    answer = kept(stage.decide(entries(30, heads=3), view(received=torch.from_numpy(sums))))
    for head in range(3):
        score = (sums[2 * head] + sums[2 * head + 1])[:26]
        best = sorted(np.argsort(-score, kind="stable")[:7].tolist())
        assert answer[head] == [*best, 26, 27, 28, 29]


def test_shares_are_of_the_prompt_and_stay_while_the_answer_grows() -> None:
    """A tenth of 57 is 5 and 5, also when ten entries are left and one was added."""
    for count in (57, 11):
        signals = view(received=torch.ones(1, count), prompt_entries=57)
        assert len(kept(HeavyHitters().decide(entries(count), signals))[0]) == 10


def test_a_share_above_zero_keeps_one_and_a_share_of_zero_none() -> None:
    signals = view(received=SHEET, prompt_entries=3)
    assert kept(HeavyHitters().decide(entries(3), signals))[0] == [0, 2]
    assert kept(HeavyHitters(heavy_ratio=0.0).decide(entries(3), signals))[0] == [2]


def test_the_official_rounding_may_keep_none() -> None:
    """A tenth of 9 entries is 0.9: the official code keeps neither heavy nor recent ones."""
    received = torch.rand(1, 9, generator=torch.Generator().manual_seed(0))
    official = HeavyHitters(fidelity="official")
    assert kept(official.decide(entries(9), view(received=received))) == [[]]
    assert len(kept(HeavyHitters().decide(entries(9), view(received=received)))[0]) == 2
    longer = torch.rand(1, 19, generator=torch.Generator().manual_seed(0))
    assert len(kept(official.decide(entries(19), view(received=longer)))[0]) == 2


def test_a_budget_is_split_by_the_shares() -> None:
    received = torch.arange(20, 0, -1)[None].float()

    def held(budget: int, **shares: float) -> list[int]:
        signals = view(received=received, budget=budget, prompt_entries=20)
        return kept(HeavyHitters(**shares).decide(entries(20), signals))[0]

    assert held(6) == [0, 1, 2, 17, 18, 19]
    assert held(8, heavy_ratio=0.3, recent_ratio=0.1) == [*range(6), 18, 19]
    assert held(5, heavy_ratio=0.0, recent_ratio=0.2) == [15, 16, 17, 18, 19]
    assert len(held(7)) == 7
    assert held(3, heavy_ratio=0.0, recent_ratio=0.0) == [0, 1, 2]


def test_text_is_evicted_unless_only_visual_entries_are_ruled() -> None:
    received = torch.tensor([[0.1, 0.5, 0.2, 0.4, 0.3, 9.0, 0.0]])
    seen = entries(7, range(1, 5))
    stage = HeavyHitters(heavy_tokens=1, recent_tokens=1)
    assert stage.evicts_text and kept(stage.decide(seen, view(received=received)))[0] == [5, 6]
    stage = HeavyHitters(heavy_tokens=1, recent_tokens=1, visual_only=True)
    assert not stage.evicts_text
    assert kept(stage.decide(seen, view(received=received)))[0] == [0, 1, 4, 5, 6]


def test_a_protected_entry_stays_and_counts() -> None:
    stage = HeavyHitters(heavy_tokens=2, recent_tokens=1)
    received = torch.tensor([[0.1, 0.5, 0.0, 0.4, 0.3]])
    held = kept(stage.decide(entries(5, range(1, 4), protected=2), view(received=received)))[0]
    assert held == [1, 2, 4]


def test_attention_that_is_no_number_is_an_error() -> None:
    stage = HeavyHitters(heavy_tokens=1, recent_tokens=1)
    with pytest.raises(StageError, match="NaN"):
        stage.decide(entries(3), view(received=SHEET * float("nan")))
