"""Every check of the StreamingLLM sheet, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stages.entries import entries, kept, view
from vtc_cli.core.errors import BudgetError
from vtc_cli.stages.streamingllm import AttentionSinks


def keep(count: int, sink: int, recent: int, **options: object) -> list[int]:
    stage = AttentionSinks(sink_tokens=sink, recent_tokens=recent)
    return kept(stage.decide(entries(count), view()))[0]


def test_ten_entries_two_sinks_three_recent() -> None:
    assert keep(10, 2, 3) == [0, 1, 7, 8, 9]


def test_one_step_later_the_oldest_recent_entry_leaves() -> None:
    """Five entries held and one appended: the place behind the sinks falls out."""
    assert keep(6, 2, 3) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_cache_that_is_not_full_stays(count: int) -> None:
    answer = AttentionSinks(sink_tokens=2, recent_tokens=3).decide(entries(count), view())
    assert not isinstance(answer, tuple) and answer.is_identity
    assert answer.note == f"5 entries allowed, {count} here"


def test_without_recent_entries_the_sinks_stay_and_without_sinks_the_recent() -> None:
    assert keep(10, 2, 0) == [0, 1]
    assert keep(10, 0, 3) == [7, 8, 9]


def test_the_defaults_are_four_and_512() -> None:
    held = kept(AttentionSinks().decide(entries(600), view()))[0]
    assert held == [0, 1, 2, 3, *range(600 - 512, 600)]


def test_every_head_holds_the_same() -> None:
    stage = AttentionSinks(sink_tokens=1, recent_tokens=2)
    assert kept(stage.decide(entries(7, heads=3), view())) == [[0, 5, 6]] * 3


def test_the_rule_is_two_slices_for_every_size() -> None:
    for count in range(1, 12):
        for sink in range(4):
            for recent in range(4):
                place = np.arange(count)
                if count > sink + recent:
                    place = np.concatenate([place[:sink], place[count - recent :]])
                assert keep(count, sink, recent) == place.tolist()


def test_a_budget_counts_the_sinks() -> None:
    stage = AttentionSinks()
    assert kept(stage.decide(entries(20), view(budget=7)))[0] == [0, 1, 2, 3, 17, 18, 19]
    with pytest.raises(BudgetError) as refused:
        stage.decide(entries(20), view(budget=4))
    assert refused.value.hint == "--budget 5"


def test_text_is_evicted_unless_only_visual_entries_are_ruled() -> None:
    assert AttentionSinks().evicts_text
    stage = AttentionSinks(sink_tokens=1, recent_tokens=2, visual_only=True)
    assert not stage.evicts_text
    held = kept(stage.decide(entries(12, range(3, 9)), view()))[0]
    assert held == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert kept(stage.decide(entries(12, range(3, 6)), view()))[0] == list(range(12))


def test_a_protected_entry_takes_the_place_of_the_oldest_recent_one() -> None:
    stage = AttentionSinks(sink_tokens=1, recent_tokens=3)
    assert kept(stage.decide(entries(10, range(2, 8), protected=4), view()))[0] == [0, 4, 8, 9]
    stage = AttentionSinks(sink_tokens=0, recent_tokens=0)
    assert kept(stage.decide(entries(10, range(2, 8), protected=4), view()))[0] == [4]


def test_the_note_says_what_a_head_holds() -> None:
    stage = AttentionSinks(sink_tokens=2, recent_tokens=3)
    answer = stage.decide(entries(10, range(1, 8)), view())
    assert isinstance(answer, tuple) and answer[0].note == "5 entries a head, 3 text"
