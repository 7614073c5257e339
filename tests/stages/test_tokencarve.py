"""Every check of the TokenCarve sheet, worked out by hand or against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.stages.support import noise, signals, table
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.spectrum import information_contribution
from vtc_cli.core.stage import CacheEntries
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.information import rank_points
from vtc_cli.stages.tokencarve import Carve, CarvedCache

SHEET = torch.tensor([[4.0, 0.0], [0.0, 2.0], [0.0, -1.0], [3.0, 0.0]])
ATTENTION = torch.tensor([0.1, 0.2, 0.4, 0.3])


def line(features: Tensor) -> TokenTable:
    return table(features, 1, features.shape[0])


def carve(stage: Carve, tokens: TokenTable, attention: Tensor, layer: int = 2) -> Decision:
    rows = torch.stack([torch.zeros_like(attention), attention])  # only the last row may count
    view = signals(tokens.layout, attention=rows, output=tokens.features * 3, layer=layer)
    return stage.decide(tokens, view)


def by_svd(rows: Tensor) -> np.ndarray:
    left, sigma, _ = np.linalg.svd(rows.double().numpy(), full_matrices=False)
    return np.abs(left) @ sigma


def test_the_hand_case_of_the_sheet() -> None:
    assert information_contribution(SHEET).tolist() == pytest.approx([4.0, 2.0, 1.0, 3.0])
    tokens = line(SHEET)
    decision = carve(Carve(tokens=2), tokens, ATTENTION)
    assert decision.scores is not None
    assert decision.scores.tolist() == [2.5, 2.0, 2.5, 3.0]
    assert decision.keep.tolist() == [2, 3]
    merged = tokens.apply(decision)
    close(merged.features, torch.tensor([[0.0, -1.0], [3.5, 0.0]]), terms=2)
    assert merged.anchor.tolist() == [2, 3]  # position ids stay


@pytest.mark.parametrize(("count", "width"), [(12, 30), (30, 12), (20, 20)])
def test_the_gram_form_is_the_svd(count: int, width: int) -> None:
    rows = noise(count, width, 4)
    np.testing.assert_allclose(information_contribution(rows).numpy(), by_svd(rows), rtol=1e-9)


def test_the_score_is_invariant_to_rotation_and_scales() -> None:
    rows = noise(10, 6, 1)
    rotation, _ = torch.linalg.qr(noise(6, 6, 2).double())
    score = information_contribution(rows)
    assert information_contribution(rows.double() @ rotation).tolist() == pytest.approx(
        score.tolist()
    )
    assert information_contribution(rows.double() * -3).tolist() == pytest.approx(
        (score * 3).tolist()
    )


def test_the_score_lies_between_norm_and_root_rank_times_norm() -> None:
    rows = noise(20, 5, 3)
    score, norm = information_contribution(rows), rows.double().norm(dim=1)
    assert bool((score >= norm - 1e-9).all())
    assert bool((score <= 5**0.5 * norm + 1e-9).all())


def test_a_zero_row_scores_zero_and_harms_nothing() -> None:
    rows = noise(9, 4, 0)
    rows[5] = 0
    assert information_contribution(rows)[5].item() == pytest.approx(0.0, abs=1e-9)
    decision = carve(Carve(tokens=4), line(rows), torch.rand(9))
    assert decision.kept_tokens == 4
    assert bool(torch.isfinite(line(rows).apply(decision).features).all())


def test_points_go_to_the_lowest_index_first() -> None:
    assert rank_points(torch.tensor([1.0, 3.0, 3.0, 2.0])).tolist() == [1, 4, 3, 2]


@pytest.mark.parametrize(
    ("wanted", "stay", "merges", "half"),
    [(192, 288, 96, 144), (128, 192, 64, 96), (64, 96, 32, 48)],
)
def test_budget_table_of_the_paper(wanted: int, stay: int, merges: int, half: int) -> None:
    tokens = table(noise(576, 32), 24, 24)
    attention = torch.rand(576, generator=torch.Generator().manual_seed(0))
    decision = carve(Carve(tokens=wanted), tokens, attention)
    assert decision.kept_tokens == wanted
    used = int(decision.used().sum())
    assert used == stay
    assert used - decision.kept_tokens == merges
    order = torch.argsort(decision.scores, descending=True, stable=True)  # type: ignore[arg-type]
    assert set(order[:half].tolist()) <= set(decision.keep.tolist())  # the better half is A


def test_merging_is_a_loop_over_the_worse_half() -> None:
    """Against a plain double loop over B and A."""
    tokens = line(noise(40, 16, 7))
    attention = torch.rand(40, generator=torch.Generator().manual_seed(1))
    decision = carve(Carve(tokens=10), tokens, attention)
    rows = tokens.features.numpy().astype(np.float64)
    order = np.argsort(-np.asarray(decision.scores), kind="stable")[:15]
    better, worse = order[:7], order[7:]
    best = {}
    for b in worse:
        likeness = [
            rows[b] @ rows[a] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]) for a in better
        ]
        best[b] = (max(likeness), better[int(np.argmax(likeness))])
    gone = sorted(worse, key=lambda b: -best[b][0])[:5]
    kept = sorted(set(order) - set(gone))
    expected = {a: [rows[a]] for a in kept}
    for b in gone:
        expected[best[b][1]].append(rows[b])
    assert decision.keep.tolist() == kept
    means = np.stack([np.mean(expected[a], axis=0) for a in kept])
    close(tokens.apply(decision).features, means, terms=15)


def test_sizes_weigh_in_sound_and_not_in_official() -> None:
    tokens = replace(line(SHEET), size=torch.tensor([3.0, 1.0, 1.0, 1.0]))
    sound = tokens.apply(carve(Carve(tokens=2), tokens, ATTENTION)).features[1]
    official = carve(Carve(tokens=2, fidelity="official"), tokens, ATTENTION)
    close(sound, torch.tensor([(3 * 4 + 3) / 4, 0.0]), terms=2)
    close(tokens.apply(official).features[1], torch.tensor([3.5, 0.0]), terms=2)


def test_weight_one_is_attention_alone_and_zero_is_information_alone() -> None:
    tokens = line(noise(20, 8))
    attention = torch.rand(20, generator=torch.Generator().manual_seed(3))
    alone = carve(Carve(tokens=2, attention_weight=1.0), tokens, attention).scores
    assert alone.argmax() == attention.argmax()  # type: ignore[union-attr]
    alone = carve(Carve(tokens=2, attention_weight=0.0), tokens, attention).scores
    assert alone.argmax() == int(by_svd(tokens.features).argmax())  # type: ignore[union-attr]


def test_official_points_are_added_in_float32() -> None:
    """0.3 x 8 + 0.7 x 4 and 0.3 x 1 + 0.7 x 7 are 5.2; in float32 the second is larger."""
    attention = torch.tensor([8.0, 1, 2, 3, 4, 5, 6, 7])  # points of the last prompt token
    information = torch.tensor([4.0, 7, 1, 2, 3, 5, 6, 8])  # norms of rows at right angles
    tokens = line(torch.diag(information))
    sound = carve(Carve(tokens=1, attention_weight=0.3), tokens, attention).scores
    official = carve(
        Carve(tokens=1, attention_weight=0.3, fidelity="official"), tokens, attention
    ).scores
    assert sound is not None and official is not None
    assert float(sound[0]) == float(sound[1]) and float(official[1]) > float(official[0])
    points = attention.numpy(), information.numpy()
    expected = np.float32(0.3) * points[0] + np.float32(0.7) * points[1]
    assert official.tolist() == expected.tolist()


@pytest.mark.parametrize(("count", "width"), [(30, 50), (50, 30)])
def test_official_information_is_that_of_a_float32_decomposition(count: int, width: int) -> None:
    rows = noise(count, width, 5)
    left, sigma, _ = np.linalg.svd(rows.numpy(), full_matrices=False)
    expected = (np.abs(left) * sigma).sum(axis=1)
    decision = carve(
        Carve(tokens=4, attention_weight=0.0, fidelity="official"), line(rows), torch.rand(count)
    )
    assert decision.scores is not None and expected.dtype == np.float32
    assert decision.scores.tolist() == rank_points(torch.tensor(expected)).tolist()


def test_minmax_joins_raw_scores() -> None:
    decision = carve(Carve(tokens=2, combine="minmax"), line(SHEET), ATTENTION)
    attention, information = (ATTENTION - 0.1) / 0.3, torch.tensor([3.0, 1.0, 0.0, 2.0]) / 3
    close(decision.scores, (attention + information) / 2, terms=4)


def test_each_source_of_information_is_read() -> None:
    tokens = line(noise(12, 6))
    view = signals(
        tokens.layout,
        attention=torch.rand(2, 12),
        output=torch.full((12, 6), float("nan")),
        layer=2,
    )
    Carve(tokens=4).decide(tokens, view)
    for source in ("attention_output", "o_proj"):
        with pytest.raises(StageError, match=source):
            Carve(tokens=4, info_source=source).decide(tokens, view)  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [12, 20])
def test_more_than_there_are_changes_nothing(wanted: int) -> None:
    assert carve(Carve(tokens=wanted), line(noise(12)), torch.rand(12)).is_identity


def test_a_single_token_is_kept_unmerged() -> None:
    decision = carve(Carve(tokens=1), line(SHEET), ATTENTION)
    assert decision.keep.tolist() == [3]
    assert decision.is_pruning


def test_more_than_two_thirds_clamp_stage_one() -> None:
    tokens = table(noise(576, 16), 24, 24)
    decision = carve(Carve(tokens=500), tokens, torch.rand(576))
    assert decision.kept_tokens == 500
    assert int(decision.used().sum()) == 576


def test_equal_rows_keep_the_lowest_indices() -> None:
    tokens = line(torch.ones(12, 4))
    decision = carve(Carve(tokens=4), tokens, torch.ones(12))
    assert decision.keep.tolist() == [0, 1, 2, 5]  # A = 0, 1, 2; B = 3, 4, 5; two of B merge


def test_more_tokens_than_channels() -> None:
    tokens = line(noise(60, 5))
    assert carve(Carve(tokens=20), tokens, torch.rand(60)).kept_tokens == 20


def test_protected_tokens_are_carved_first() -> None:
    marks = torch.zeros(40, dtype=torch.bool)
    marks[[3, 30]] = True
    tokens = replace(line(noise(40)), protected=marks)
    after = tokens.apply(carve(Carve(tokens=8), tokens, torch.rand(40)))
    assert bool((after.state()[marks] >= 0).all())


def test_a_budget_is_met_over_several_layers() -> None:
    budget = LayerBudget(100, 32, (2, 8))
    tokens = table(noise(576, 16), 24, 24)
    counts = [576]
    for layer in budget.prune_layers:
        view = signals(
            tokens.layout,
            attention=torch.rand(2, len(tokens)),
            output=tokens.features,
            layer=layer,
            entering=576,
            budget=budget,
        )
        tokens = tokens.apply(Carve(layers=(2, 8)).decide(tokens, view))
        counts.append(len(tokens))
    assert abs(budget.average(counts) - 100) <= 0.5


def test_the_cache_is_the_carved_set_in_every_layer() -> None:
    visual = torch.tensor([False, True, True, False])
    entries = CacheEntries(
        layer=0,
        kv_heads=1,
        heads=(0,),
        index=torch.arange(4),
        visual=visual,
        anchor=torch.tensor([-1, 0, 1, -1]),
        alive=torch.tensor([True, False, True, True]),
        protected=torch.zeros(4, dtype=torch.bool),
    )
    decision = CarvedCache().decide(entries, signals(line(SHEET).layout.only))
    assert decision.keep.tolist() == [0, 2, 3]
