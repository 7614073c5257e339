"""Every check of the MustDrop sheet, worked out by hand, and its budgets."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch

from tests.stages.support import noise, signals, table
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import BudgetError, StageError
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.stage import CacheEntries
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.mustdrop import (
    DualAttention,
    KeyTokens,
    OutputAwareCache,
    SpatialMerge,
)
from vtc_cli.stages.ops.windows import mean_pair_cosine, window_members

GRID6 = Grid(1, 6, 6)
EIGHT_PLUS_ONE = torch.tensor([[1.0, 0.0]] * 8 + [[0.0, 1.0]])


def one_alike_window() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a 6 x 6 grid whose second window is nine equal vectors, the rest all apart."""
    features = torch.eye(36, 40)
    members = window_members(Layout.of(GRID6), 3, torch.device("cpu"))
    features[members[1]] = torch.arange(40, dtype=torch.float32)
    return features, members


def test_eight_equal_vectors_and_an_orthogonal_one_score_56_of_72() -> None:
    score = mean_pair_cosine(EIGHT_PLUS_ONE, torch.arange(9)[None])
    close(score, [56 / 72], terms=72)
    decision = SpatialMerge().decide(table(EIGHT_PLUS_ONE, 3, 3), signals(Grid(1, 3, 3)))
    assert decision.kept_tokens == 9


def test_nine_equal_vectors_merge_into_that_vector() -> None:
    features = torch.tensor([[3.0, 4.0]]).expand(9, 2)
    tokens = table(features, 3, 3)
    decision = SpatialMerge().decide(tokens, signals(tokens.layout))
    assert decision.kept_tokens == 1
    merged = tokens.apply(decision)
    close(merged.features, torch.tensor([[3.0, 4.0]]), terms=9)
    assert merged.size.tolist() == [9.0]
    assert merged.position.tolist() == [[0.0, 1.0, 1.0]]


def test_six_by_six_with_one_alike_window_leaves_28_in_raster_order() -> None:
    features, members = one_alike_window()
    tokens = table(features, 6, 6)
    decision = SpatialMerge().decide(tokens, signals(GRID6))
    assert decision.kept_tokens == 36 - 8
    gone = set(members[1].tolist()) - {int(members[1, 0])}
    assert decision.keep.tolist() == [i for i in range(36) if i not in gone]
    merged = tokens.apply(decision)
    row = merged.anchor.tolist().index(int(members[1, 0]))
    close(merged.features[row], torch.arange(40, dtype=torch.float32), terms=9)
    assert bool((merged.anchor[1:] > merged.anchor[:-1]).all())


def test_official_order_is_merged_first_by_score_then_raster() -> None:
    features, members = one_alike_window()
    features[members[3]] = 1.0
    features[members[3, 0]] = 1.01  # still alike, but less than window 1
    features[members[3, 0], 0] = 3.0
    decision = SpatialMerge(fidelity="official").decide(table(features, 6, 6), signals(GRID6))
    first = [int(members[1, 0]), int(members[3, 0])]
    merged = {int(i) for w in (1, 3) for i in members[w]}
    assert decision.keep.tolist() == first + [i for i in range(36) if i not in merged]


@pytest.mark.parametrize(("wanted", "windows"), [(192, 48), (128, 56), (64, 64)])
def test_fixed_count_merges_exactly(wanted: int, windows: int) -> None:
    tokens = table(noise(576), 24, 24)
    decision = SpatialMerge(tokens=wanted).decide(tokens, signals(tokens.layout))
    assert decision.kept_tokens == 576 - 8 * windows == wanted


def test_window_scores_equal_a_double_loop() -> None:
    features = noise(81, 5, 1)
    features[4] = 0
    members = window_members(Layout.of(Grid(1, 9, 9)), 3, torch.device("cpu"))
    array = features.numpy().astype(np.float64)
    for window, score in zip(members.tolist(), mean_pair_cosine(features, members), strict=True):
        total = 0.0
        for i in window:
            for j in window:
                norms = np.linalg.norm(array[i]) * np.linalg.norm(array[j])
                total += 0.0 if i == j or norms == 0 else array[i] @ array[j] / norms
        close(score, total / 72, terms=72, scale=1.0)


def test_nothing_alike_changes_nothing() -> None:
    decision = SpatialMerge().decide(table(torch.eye(36), 6, 6), signals(GRID6))
    assert decision.is_identity


def test_a_constant_picture_merges_every_window() -> None:
    tokens = table(torch.ones(576, 3), 24, 24)
    decision = SpatialMerge().decide(tokens, signals(tokens.layout))
    assert decision.kept_tokens == 64


def test_zero_vectors_have_cosine_zero() -> None:
    assert SpatialMerge().decide(table(torch.zeros(36, 4), 6, 6), signals(GRID6)).is_identity


def test_each_frame_has_windows_of_its_own() -> None:
    tokens = table(torch.ones(18, 2), 3, 3, frames=2)
    merged = tokens.apply(SpatialMerge().decide(tokens, signals(tokens.layout)))
    assert merged.frame.tolist() == [0, 1]


def test_an_odd_grid_leaves_its_rest_and_official_refuses_it() -> None:
    tokens = table(torch.ones(16, 2), 4, 4)
    assert SpatialMerge().decide(tokens, signals(tokens.layout)).kept_tokens == 16 - 8
    with pytest.raises(StageError, match="4 x 4"):
        SpatialMerge(fidelity="official").decide(tokens, signals(tokens.layout))


def test_merging_twice_is_refused() -> None:
    tokens = table(torch.ones(36, 2), 6, 6)
    again = tokens.apply(SpatialMerge().decide(tokens, signals(GRID6)))
    with pytest.raises(StageError, match="before other encoder stages"):
        try:
            SpatialMerge().decide(again, signals(GRID6))
        except StageError as error:
            raise StageError(str(error)) from error


@pytest.mark.parametrize(("count", "keys"), [(576, 47), (28, 3), (1, 1)])
def test_the_key_set_is_the_top_eight_percent_rounded_up(count: int, keys: int) -> None:
    tokens = table(noise(count), 1, count)
    scores = torch.arange(count, dtype=torch.float32)
    decision = KeyTokens().decide(tokens, signals(tokens.layout, cls=scores))
    marked = tokens.apply(decision).protected
    assert decision.kept_tokens == count
    assert marked.nonzero()[:, 0].tolist() == list(range(count - keys, count))


def test_ties_in_the_key_set_go_to_the_lowest_index() -> None:
    tokens = table(noise(50), 5, 10)
    decision = KeyTokens().decide(tokens, signals(tokens.layout, cls=torch.ones(50)))
    assert tokens.apply(decision).protected.nonzero()[:, 0].tolist() == [0, 1, 2, 3]


SHEET = torch.tensor([[0.01, 0.20, 0.001, 0.05], [0.02, 0.01, 0.002, 0.001]])


def keyed(count: int, keys: list[int]) -> TokenTable:
    tokens = table(noise(count), 1, count)
    marks = torch.zeros(count, dtype=torch.bool)
    marks[keys] = True
    return replace(tokens, protected=marks)


def test_the_filter_of_the_sheet() -> None:
    stage = DualAttention(global_threshold=0.2, individual_threshold=0.04)
    tokens = keyed(4, [])
    decision = stage.decide(tokens, signals(tokens.layout, attention=SHEET, layer=3))
    assert decision.keep.tolist() == [1, 3]
    close(decision.scores, torch.tensor([0.03, 0.21, 0.003, 0.051]), terms=4)
    tokens = keyed(4, [0])
    decision = stage.decide(tokens, signals(tokens.layout, attention=SHEET, layer=3))
    assert decision.keep.tolist() == [0, 1, 3]
    assert tokens.apply(decision).protected.nonzero()[:, 0].tolist() == [0]


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_threshold_of_zero_drops_nothing(gamma: float, alpha: float) -> None:
    tokens = keyed(4, [])
    stage = DualAttention(global_threshold=gamma, individual_threshold=alpha)
    assert stage.decide(tokens, signals(tokens.layout, attention=SHEET, layer=3)).is_identity


def test_open_thresholds_leave_the_key_set() -> None:
    tokens = keyed(4, [2])
    stage = DualAttention(global_threshold=1.0, individual_threshold=0.5)
    decision = stage.decide(tokens, signals(tokens.layout, attention=SHEET, layer=3))
    assert decision.keep.tolist() == [2]


def test_both_bounds_are_strict() -> None:
    rows = torch.tensor([[0.25, 0.25, 0.25, 0.25]])
    tokens = keyed(4, [])
    stage = DualAttention(global_threshold=0.25, individual_threshold=0.5)
    assert stage.decide(tokens, signals(tokens.layout, attention=rows, layer=3)).is_identity
    stage = DualAttention(global_threshold=0.5, individual_threshold=0.25)
    assert stage.decide(tokens, signals(tokens.layout, attention=rows, layer=3)).is_identity


def test_keep_lists_compose_to_original_tokens() -> None:
    from vtc_cli.core.decision import Decision

    tokens = keyed(5, [])
    tokens = tokens.apply(Decision.prune(torch.tensor([0, 2, 3, 4]), 5))
    tokens = tokens.apply(Decision.prune(torch.tensor([0, 2, 3]), 4))
    assert tokens.anchor.tolist() == [0, 3, 4]


def test_a_key_share_of_one_prunes_nothing() -> None:
    tokens = keyed(30, list(range(30)))
    stage = DualAttention(global_threshold=1.0, individual_threshold=1.0)
    rows = torch.rand(3, 30)
    assert stage.decide(tokens, signals(tokens.layout, attention=rows, layer=3)).is_identity


def test_the_cache_keeps_text_and_what_is_alive() -> None:
    visual = torch.tensor([False, True, True, True, False])
    alive = torch.tensor([True, False, True, False, True])
    entries = CacheEntries(
        layer=5,
        kv_heads=2,
        heads=(0, 1),
        index=torch.arange(5),
        visual=visual,
        anchor=torch.tensor([-1, 0, 1, 2, -1]),
        alive=alive,
        protected=torch.zeros(5, dtype=torch.bool),
    )
    decision = OutputAwareCache().decide(entries, signals(Grid(1, 1, 3)))
    assert decision.keep.tolist() == [0, 2, 4]  # type: ignore[union-attr]


def run_budget(budget: LayerBudget, features: torch.Tensor, seed: int) -> list[int]:
    """Tokens entering and after each prune, through the three stages, with random attention."""
    generator = torch.Generator().manual_seed(seed)
    tokens = table(features, 24, 24)
    tokens = tokens.apply(SpatialMerge().decide(tokens, signals(tokens.layout, budget=budget)))
    cls = torch.rand(len(tokens), generator=generator)
    tokens = tokens.apply(
        KeyTokens().decide(tokens, signals(tokens.layout, cls=cls, budget=budget))
    )
    keys = set(tokens.anchor[tokens.protected].tolist())
    counts = [len(tokens)]
    stage = DualAttention(layers=budget.prune_layers)
    for layer in budget.prune_layers:
        rows = torch.rand(5, len(tokens), generator=generator)
        view = signals(
            tokens.layout, attention=rows, layer=layer, entering=counts[0], budget=budget
        )
        tokens = tokens.apply(stage.decide(tokens, view))
        assert keys <= set(tokens.anchor.tolist())  # the key set is never dropped
        counts.append(len(tokens))
    return counts


@pytest.mark.parametrize("wanted", [192, 128, 64, 100])
@pytest.mark.parametrize(("depth", "layers"), [(32, (3, 7, 11, 15)), (12, (1, 3, 4, 6))])
@pytest.mark.parametrize("kind", ["noise", "constant", "half"])
def test_a_budget_is_met_within_half_a_token(
    wanted: int, depth: int, layers: tuple[int, ...], kind: str
) -> None:
    features = noise(576)
    if kind == "constant":
        features = torch.ones(576, 8)
    if kind == "half":
        features[:288] = 1.0
    budget = LayerBudget(wanted, depth, layers, 0.08)
    counts = run_budget(budget, features, wanted)
    assert abs(budget.average(counts) - wanted) <= 0.5
    assert counts == sorted(counts, reverse=True)


def test_a_budget_too_small_names_the_smallest_and_that_one_works() -> None:
    layers = (1, 3, 4, 6)
    with pytest.raises(BudgetError) as refused:
        run_budget(LayerBudget(5, 12, layers, 0.08), noise(576), 0)
    least = int(str(refused.value.hint).removeprefix("--budget "))
    assert least == ceil((64 + 11 * 6) / 12)
    counts = run_budget(LayerBudget(least, 12, layers, 0.08), noise(576), 0)
    assert abs(LayerBudget(least, 12, layers).average(counts) - least) <= 0.5


def test_under_a_budget_the_best_of_the_rest_follow_the_key_set() -> None:
    budget = LayerBudget(5, 4, (1,), 0.0)
    tokens = keyed(8, [6])
    rows = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.0, 0.4]])
    view = signals(
        tokens.layout, attention=rows, layer=1, entering=8, budget=budget, decoder_layers=4
    )
    decision = DualAttention(layers=(1,)).decide(tokens, view)
    assert decision.keep.tolist() == [1, 3, 5, 6]  # 8 + 3 x 4 = 20 = 5 x 4 layers
