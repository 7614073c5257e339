"""Every check of the SnapKV sheet, worked out by hand, and a second writing in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.stages.entries import entries, kept, view
from vtc_cli.core.errors import BudgetError, StageError
from vtc_cli.stages.snapkv import ObservationWindow

SHEET = torch.tensor([[[0.1, 0.4, 0.1, 0.2, 0.2]]])


def keep(kernel: int, pool: str, **options: object) -> list[int]:
    stage = ObservationWindow(
        capacity_tokens=3,
        window_tokens=1,
        kernel=kernel,
        pool=pool,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    return kept(stage.decide(entries(5), view(SHEET)))[0]


def test_without_pooling_the_two_best_and_the_window_stay() -> None:
    assert keep(1, "average") == [1, 3, 4]


def test_an_average_over_three_counts_the_zeros_of_the_padding() -> None:
    """[.1, .4, .1, .2] becomes [.167, .2, .233, .1]: 2 and 1 are the best."""
    assert keep(3, "average") == [1, 2, 4]


def test_a_maximum_over_three_ties_and_the_first_win() -> None:
    """[.4, .4, .4, .2]: the lowest two of three alike."""
    assert keep(3, "max") == [0, 1, 4]


def test_the_padding_of_an_average_lowers_the_ends() -> None:
    """Votes [.3, .1, .2, .2, .2]: /3 gives [.133, .2, .167, .2, .133], not counting would .2."""
    rows = torch.tensor([[[0.3, 0.1, 0.2, 0.2, 0.2, 0.0]]])
    stage = ObservationWindow(capacity_tokens=3, window_tokens=1, kernel=3)
    assert kept(stage.decide(entries(6), view(rows)))[0] == [1, 3, 5]


def test_the_attention_of_the_window_to_itself_is_no_vote() -> None:
    """Pooled over the border, the last place before the window would win."""
    rows = torch.tensor([[[0.1, 0.0, 0.0, 0.9, 0.9], [0.1, 0.0, 0.0, 0.9, 0.9]]])
    stage = ObservationWindow(capacity_tokens=3, window_tokens=2, kernel=3)
    assert kept(stage.decide(entries(5), view(rows)))[0] == [0, 3, 4]


def test_rows_add_up() -> None:
    rows = torch.tensor([[[0.5, 0.0, 0.3, 0, 0], [0.0, 0.4, 0.3, 0, 0]]])
    stage = ObservationWindow(capacity_tokens=3, window_tokens=2, kernel=1)
    assert kept(stage.decide(entries(5), view(rows)))[0] == [2, 3, 4]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_prompt_within_the_capacity_stays_and_asks_for_nothing(count: int) -> None:
    stage = ObservationWindow(capacity_tokens=3, window_tokens=2)
    answer = stage.decide(entries(count), view())
    assert not isinstance(answer, tuple) and answer.is_identity


def test_sizes_that_leave_no_choice_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        ObservationWindow(kernel=4)
    with pytest.raises(ValueError, match="capacity of 32"):
        ObservationWindow(capacity_tokens=32, window_tokens=32)
    with pytest.raises(BudgetError) as refused:
        ObservationWindow().decide(entries(64), view(budget=32))
    assert str(refused.value.hint).startswith("--budget 33")


def test_grouped_heads_join_after_pooling() -> None:
    """Heads [.6, 0, .2] and [0, .5, .3]: mean [.3, .25, .25], maximum [.6, .5, .3]; alone apart."""
    rows = torch.tensor([[[0.6, 0.0, 0.2, 0.2]], [[0.0, 0.5, 0.5, 0.0]]])

    def choice(gqa: str, heads: int) -> list[list[int]]:
        stage = ObservationWindow(
            capacity_tokens=2,
            window_tokens=1,
            kernel=1,
            gqa=gqa,  # type: ignore[arg-type]
        )
        return kept(stage.decide(entries(4, heads=heads), view(rows)))

    assert choice("mean", 1) == [[2, 3]]
    assert choice("max", 1) == [[0, 3]]
    assert choice("mean", 2) == [[0, 3], [1, 3]]


@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("gqa", ["mean", "max"])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_random_attention_equals_a_second_writing(pool: str, gqa: str, kernel: int) -> None:
    generator = np.random.default_rng(kernel)
    count, window, capacity = 40, 6, 15
    rows = generator.dirichlet(np.ones(count), (4, window)).astype(np.float32)
    stage = ObservationWindow(
        capacity_tokens=capacity,
        window_tokens=window,
        kernel=kernel,
        pool=pool,  # type: ignore[arg-type]
        gqa=gqa,  # type: ignore[arg-type]
    )
    answer = kept(stage.decide(entries(count, heads=2), view(torch.from_numpy(rows))))
    votes = rows.sum(axis=1)[:, : count - window]
    reach, fill = kernel // 2, 0.0 if pool == "average" else -np.inf
    padded = np.pad(votes, ((0, 0), (reach, reach)), constant_values=fill)
    near = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=1)
    pooled = near.mean(axis=2) if pool == "average" else near.max(axis=2)
    for head in range(2):
        group = pooled[2 * head : 2 * head + 2]
        score = group.mean(axis=0) if gqa == "mean" else group.max(axis=0)
        best = sorted(np.argsort(-score, kind="stable")[: capacity - window].tolist())
        assert answer[head] == [*best, *range(count - window, count)]


def test_a_window_of_the_question_ends_behind_the_picture() -> None:
    """Two rows of question: the third from the end is visual, votes no more and may leave."""
    rows = torch.tensor(
        [[[0.9, 0.0, 0.0, 0.1, 0, 0], [0.0, 0.6, 0.3, 0.0, 0, 0], [0.0, 0.5, 0.4, 0.1, 0, 0]]]
    )
    wide = {"capacity_tokens": 4, "window_tokens": 3, "kernel": 1}
    seen = entries(6, range(1, 4))
    prompt = ObservationWindow(**wide)  # type: ignore[arg-type]
    assert kept(prompt.decide(seen, view(rows)))[0] == [1, 3, 4, 5]
    question = ObservationWindow(**wide, window_source="question")  # type: ignore[arg-type]
    assert kept(question.decide(seen, view(rows)))[0] == [1, 2, 4, 5]


def test_text_is_evicted_unless_only_visual_entries_are_ruled() -> None:
    rows = torch.tensor([[[0.0, 0.3, 0.1, 0.2, 0.4, 0.0, 0.0]]])
    seen = entries(7, range(1, 5))
    stage = ObservationWindow(capacity_tokens=2, window_tokens=1, kernel=1)
    assert stage.evicts_text and kept(stage.decide(seen, view(rows)))[0] == [4, 6]
    stage = ObservationWindow(capacity_tokens=2, window_tokens=1, kernel=1, visual_only=True)
    assert not stage.evicts_text
    assert kept(stage.decide(seen, view(rows)))[0] == [0, 1, 4, 5, 6]


def test_a_protected_entry_stays_and_counts() -> None:
    rows = torch.tensor([[[0.1, 0.4, 0.0, 0.2, 0.2]]])
    stage = ObservationWindow(capacity_tokens=3, window_tokens=1, kernel=1)
    held = kept(stage.decide(entries(5, range(1, 4), protected=2), view(rows)))[0]
    assert held == [1, 2, 4]


def test_attention_that_is_no_number_is_an_error() -> None:
    stage = ObservationWindow(capacity_tokens=3, window_tokens=1)
    with pytest.raises(StageError, match="NaN"):
        stage.decide(entries(5), view(SHEET * float("nan")))
