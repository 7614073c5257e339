"""Means and rank correlations of a sweep against closed forms and scipy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vtc_cli.metrics.sweep import Point, mean_point, spearman, spearman_within


def point(value: float, correct: float | None) -> Point:
    return Point(*[value] * 12, correct)


def test_the_mean_takes_accuracy_over_the_inputs_that_have_an_answer() -> None:
    mean = mean_point([point(1, 1.0), point(2, None), point(6, 0.0)])
    assert (mean.kl_first_token, mean.correct) == (3.0, 0.5)
    assert mean_point([point(1, None)]).correct is None


def test_spearman_of_orders_and_ties() -> None:
    found = spearman([1, 2, 3, 4], [1, 10, 100, 1000])
    assert found is not None and (found.rho, found.count) == (1.0, 4)
    tied = spearman([1, 1, 2, 3], [4, 3, 2, 1])
    assert tied is not None and tied.rho == pytest.approx(spearmanr([1, 1, 2, 3], [4, 3, 2, 1])[0])
    assert found.p_value > 0.03  # 2 of the 24 orders of four points are as extreme
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def test_a_common_fall_with_the_count_is_no_association_within_counts() -> None:
    chance = np.random.default_rng(3)
    fall = np.arange(6, 0, -1)[:, None] * 10.0
    first, second = (fall + chance.normal(size=(6, 40)) for _ in range(2))
    across = spearman(first.ravel().tolist(), second.ravel().tolist())
    within = spearman_within(first.tolist(), second.tolist())
    assert across is not None and across.rho > 0.9
    assert within is not None and abs(within.rho) < 0.2 and within.p_value > 0.05


def test_within_counts_is_the_mean_of_scipys_rhos_and_finds_a_true_one() -> None:
    chance = np.random.default_rng(4)
    first = chance.normal(size=(5, 30))
    second = (first + chance.normal(size=(5, 30)) > 0).astype(float)
    found = spearman_within(first.tolist(), second.tolist())
    assert found is not None
    expected = np.mean([spearmanr(x, y)[0] for x, y in zip(first, second, strict=True)])
    assert found.rho == pytest.approx(expected)
    assert found.p_value < 0.01 and found.count == 30
    assert spearman_within([[1, 2, 3]], [[1, 1, 1]]) is None


def test_inputs_and_not_pairs_are_exchanged() -> None:
    # One input decides all: repeated counts must not make its p-value smaller.
    first = [[0.0, 0, 0, 1]] * 20
    found = spearman_within(first, first)
    assert found is not None and found.rho == pytest.approx(1.0)
    assert found.p_value == pytest.approx(0.25, abs=0.05)
