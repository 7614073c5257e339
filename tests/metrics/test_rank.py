"""Ranks and information in closed form and against numpy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.tolerance import close
from vtc_cli.core.errors import MeasurementError
from vtc_cli.metrics.information import (
    attention_entropy,
    energy_kept,
    redundancy,
    share_kept,
)
from vtc_cli.metrics.rank import ranks, singular_values


def noise(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_a_diagonal_matrix_in_closed_form() -> None:
    family = ranks(torch.diag(torch.tensor([4.0, 3.0, 1e-7])), tau=1e-5)
    assert family.rank == 2
    assert family.nuclear_norm == pytest.approx(7.0, abs=1e-6)
    assert family.stable_rank == pytest.approx(25 / 16)
    assert family.energy_rank == 2
    entropy = -(4 / 7) * math.log(4 / 7) - (3 / 7) * math.log(3 / 7)
    assert family.effective_rank == pytest.approx(math.exp(entropy), rel=1e-5)


@pytest.mark.parametrize(("count", "width"), [(20, 50), (50, 20)])
def test_the_family_is_that_of_numpy(count: int, width: int) -> None:
    matrix = noise(count, 6, 1) @ noise(6, width, 2) + 1e-3 * noise(count, width, 3)
    sigma = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    family = ranks(matrix, tau=1e-4)
    share = sigma / sigma.sum()
    energy = np.cumsum(sigma**2) / (sigma**2).sum()
    # The Gram form gives squares: its error is a share of the largest of them.
    close(singular_values(matrix).square(), sigma**2, terms=max(count, width))
    assert family.rank == int((sigma > 1e-4 * sigma[0]).sum())
    assert family.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert family.stable_rank == pytest.approx((sigma**2).sum() / sigma[0] ** 2)
    assert family.energy_rank == int(np.searchsorted(energy, 0.99) + 1)
    assert family.nuclear_norm == pytest.approx(sigma.sum())


def test_equal_rows_have_rank_one_and_no_rows_none() -> None:
    family = ranks(torch.ones(30, 8))
    assert (family.rank, family.energy_rank) == (1, 1)
    assert family.effective_rank == pytest.approx(1.0, abs=1e-5)
    empty = ranks(torch.zeros(3, 4))
    assert (empty.rank, empty.effective_rank, empty.stable_rank, empty.energy_rank) == (0, 0, 0, 0)


def test_a_batch_is_row_by_row() -> None:
    batch = torch.stack([noise(7, 9, 1), noise(7, 9, 2)])
    for matrix, values in zip(batch, singular_values(batch), strict=True):
        close(values.square(), singular_values(matrix).square(), terms=9)


def test_nan_names_the_layer() -> None:
    with pytest.raises(MeasurementError) as caught:
        ranks(torch.tensor([[float("nan")]]), where="layer 7")
    assert caught.value.where == "layer 7"


def test_energy_of_all_rows_is_one_exactly() -> None:
    rows = noise(20, 9)
    assert energy_kept(rows, rows) == 1.0


@pytest.mark.parametrize(("count", "width", "kept"), [(30, 60, 10), (60, 12, 5), (60, 12, 30)])
def test_energy_is_the_projection_by_least_squares(count: int, width: int, kept: int) -> None:
    full = noise(count, width, 4).double()
    left = full[:kept]
    solved = np.linalg.lstsq(left.T.numpy(), full.T.numpy(), rcond=None)[0]
    inside = (left.T.numpy() @ solved) ** 2
    assert energy_kept(full, left) == pytest.approx(inside.sum() / float(full.square().sum()))


def test_energy_of_orthogonal_rows_adds_up() -> None:
    full = torch.diag(torch.tensor([3.0, 4.0]))
    assert energy_kept(full, full[:1]) == pytest.approx(9 / 25)
    assert energy_kept(full, full[:0]) == 0.0
    assert energy_kept(torch.zeros(2, 2), full) == 1.0


def test_energy_never_grows_when_tokens_go() -> None:
    full = noise(40, 30)
    shares = [energy_kept(full, full[:count]) for count in range(40, 0, -3)]
    assert all(after <= before + 1e-12 for before, after in pairwise(shares))
    assert shares[0] == 1.0 > shares[-1]


def test_share_of_scores() -> None:
    scores = torch.tensor([4.0, 2.0, 1.0, 3.0])
    assert share_kept(scores, torch.tensor([True, False, False, True])) == 0.7
    assert share_kept(torch.zeros(4), torch.zeros(4, dtype=torch.bool)) == 1.0


def test_redundancy_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtc_cli.metrics.information.BLOCK", 16)
    rows = noise(50, 4, 5)
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    pairs = (unit @ unit.T)[~torch.eye(50, dtype=torch.bool)].numpy()
    found = redundancy(rows)
    assert found.mean == pytest.approx(pairs.mean())
    assert found.median == pytest.approx(np.median(pairs), abs=1e-3)
    assert found.upper_decile == pytest.approx(np.quantile(pairs, 0.9), abs=1e-3)


def test_equal_rows_are_fully_redundant_and_one_row_has_no_pairs() -> None:
    assert redundancy(torch.ones(5, 3)).mean == pytest.approx(1.0)
    with pytest.raises(MeasurementError):
        redundancy(torch.ones(1, 3))


def test_entropy_of_uniform_and_of_one_hot_attention() -> None:
    rows = torch.stack([torch.full((8,), 0.01), torch.eye(8)[3], torch.zeros(8)])
    assert attention_entropy(rows).tolist() == pytest.approx([math.log(8), 0.0, 0.0])
