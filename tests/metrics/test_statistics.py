"""Statistics against other libraries, published examples, closed forms and plain counting."""

from __future__ import annotations

from itertools import pairwise
from math import comb
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, false_discovery_control

from vtc_cli.metrics.statistics import (
    Paired,
    holm,
    items_to_see,
    mcnemar,
    mcnemar_power,
    paired_interval,
    pareto_front,
    signed_rank,
    wilson,
)

# Tables as a comparison of 400 items leaves them, and the corners: nothing, all, one side only.
TABLES = [
    Paired(300, 20, 35, 45),
    Paired(210, 61, 18, 111),
    Paired(36, 12, 2, 0),
    Paired(0, 7, 0, 0),
    Paired(5, 0, 0, 5),
    Paired(0, 3, 3, 0),
    Paired(388, 1, 0, 11),
]


def coin(table: Paired) -> float:
    """Both tails of a fair coin over the items that only one answers rightly, term by term."""
    thrown = table.first_only + table.second_only
    tail = sum(comb(thrown, k) for k in range(min(table.first_only, table.second_only) + 1))
    return min(2 * tail / 2**thrown, 1.0)


@pytest.mark.parametrize("table", TABLES)
def test_mcnemar_is_a_fair_coin(table: Paired) -> None:
    assert mcnemar(table) == pytest.approx(coin(table), rel=1e-12)
    thrown = table.first_only + table.second_only
    if thrown:
        assert mcnemar(table) == pytest.approx(binomtest(table.first_only, thrown).pvalue)


def test_power_agrees_with_experiments_and_with_the_closed_form() -> None:
    """0 of 11 items differ: 847 are needed. Experiments are drawn, tested by `coin` and counted."""
    table = Paired(8, 0, 0, 3)
    share = binomtest(0, 11).proportion_ci(method="wilson").high
    needed = items_to_see(0.05, table)
    normal = NormalDist()
    root = normal.inv_cdf(0.975) * share**0.5 + normal.inv_cdf(0.8) * (share - 0.0025) ** 0.5
    assert (root / 0.05) ** 2 <= needed <= 1.1 * (root / 0.05) ** 2  # Connor 1987
    chance, runs = np.random.default_rng(0), 4000
    differ = chance.binomial(needed, share, runs)
    wins = chance.binomial(differ, (1 + 0.05 / share) / 2)
    pairs = list(zip(wins.tolist(), (differ - wins).tolist(), strict=True))
    known = {pair: coin(Paired(0, *pair, 0)) < 0.05 for pair in set(pairs)}
    shown = sum(known[pair] for pair in pairs) / runs
    spread = (0.8 * 0.2 / runs) ** 0.5
    assert shown == pytest.approx(mcnemar_power(needed, 0.05, share), abs=4 * spread)
    assert 0.8 <= mcnemar_power(needed, 0.05, share) < 0.81


def test_power_by_hand() -> None:
    """Every item differs and one side always wins: below 6 items the test can show nothing."""
    assert [round(mcnemar_power(n, 1.0, 1.0), 12) for n in (1, 5, 6, 20)] == [0, 0, 1, 1]
    assert mcnemar_power(6, 0.5, 1.0) == pytest.approx(0.75**6 + 0.25**6)
    assert items_to_see(0.05, Paired(380, 10, 10, 0)) < items_to_see(0.05, Paired(300, 50, 50, 0))


def test_pairs_are_counted_by_kind() -> None:
    first, second = [True, True, True, False, False], [True, False, False, True, False]
    table = Paired.of(first, second)
    assert table == Paired(both=1, first_only=2, second_only=1, neither=1)
    assert table.count == 5 and table.difference == pytest.approx(0.2)
    with pytest.raises(ValueError, match="shorter"):
        Paired.of(first, second[:3])


@pytest.mark.parametrize(("right", "count"), [(8, 10), (0, 7), (7, 7), (331, 400)])
def test_wilson_agrees_with_scipy(right: int, count: int) -> None:
    other = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx((other.low, other.high), abs=1e-12)


def test_wilson_of_the_textbook() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_the_paired_interval_of_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17, the example 36, 12, 2, 0 under method 10.
    assert paired_interval(Paired(36, 12, 2, 0)) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize("table", TABLES)
def test_the_paired_interval_holds_the_difference_and_turns_with_it(table: Paired) -> None:
    low, high = paired_interval(table)
    assert -1 <= low <= table.difference <= high <= 1 and low < high
    turned = Paired(table.both, table.second_only, table.first_only, table.neither)
    assert paired_interval(turned) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("table", TABLES[:2])
def test_the_paired_interval_is_near_the_bootstrap(table: Paired) -> None:
    counts = (table.both + table.neither, table.first_only, table.second_only)
    steps = np.repeat([0.0, 1.0, -1.0], counts)
    drawn = bootstrap((steps,), np.mean, method="percentile", n_resamples=3000, rng=1)
    near = (drawn.confidence_interval.low, drawn.confidence_interval.high)
    # An interval over 400 items is some 0.07 wide; resampling shakes its ends by 0.003.
    assert paired_interval(table) == pytest.approx(near, abs=0.006)


def by_hand(values: list[float]) -> list[float]:
    """Holm, step by step: the k-th smallest of m times m - k, never below the one before."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        largest = max(largest, min((len(values) - rank) * values[place], 1.0))
        corrected[place] = largest
    return corrected


def test_holm_steps_down() -> None:
    values = [0.01, 0.04, 0.03, 0.005, 1.0, 0.04]
    assert holm(values) == pytest.approx(by_hand(values))
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([]) == []
    # It guards against any error, so it is never laxer than the rate of false discoveries.
    assert all(np.array(holm(values)) >= false_discovery_control(values) - 1e-12)


def test_signed_rank_counts_signs_of_ranks() -> None:
    # All 8 differences of one sign: 2 of the 2 ** 8 ways to set signs are as extreme.
    first = [0.1 * k for k in range(1, 9)]
    assert signed_rank(first, [0.0] * 8) == pytest.approx(2 / 2**8)
    assert signed_rank(first, first) == 1.0
    assert signed_rank(first[:5], [0.0] * 5) is None


def test_the_front_holds_what_nothing_beats() -> None:
    costs, gains = [1.0, 0.5, 0.5, 0.2, 0.6, 0.2], [0.9, 0.8, 0.7, 0.3, 0.8, 0.3]
    assert pareto_front(costs, gains) == [True, True, False, True, False, True]
    front = sorted(
        (cost, gain)
        for cost, gain, on in zip(costs, gains, pareto_front(costs, gains), strict=True)
        if on
    )
    assert all(a[1] <= b[1] for a, b in pairwise(front))
