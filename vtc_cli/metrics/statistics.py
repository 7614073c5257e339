"""Statistics of answers: intervals, paired tests, correction for many tests, Pareto fronts.

The tests are those of statsmodels and scipy, imported where they are used, for they load slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt

ALPHA, POWER = 0.05, 0.8
FEWEST_FOR_RANKS = 6  # with fewer pairs the signed-rank test cannot reach p < 0.05


@dataclass(frozen=True)
class Paired:
    """Right and wrong answers of two ways over the same items.

    Attributes:
        both: items that both answer rightly.
        first_only: items that only the first answers rightly.
        second_only: items that only the second answers rightly.
        neither: items that both answer wrongly.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Paired:
        """The table of two equally long rows of verdicts."""
        pairs = list(zip(first, second, strict=True))
        kinds = ((True, True), (True, False), (False, True), (False, False))
        return cls(*(pairs.count(kind) for kind in kinds))

    @property
    def count(self) -> int:
        """Items."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second; at least one item."""
        return (self.first_only - self.second_only) / self.count


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval of `right` out of `count` >= 1."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(right, count, alpha=0.05, method="wilson")
    return float(low), float(high)


def mcnemar(table: Paired) -> float:
    """Two-sided p-value of McNemar's exact test: are the two equally often right alone?

    The exact test is taken at every size: under no difference the items that only one of the two
    answers rightly fall to either side like a fair coin. It is conservative where they are few.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    square = [[table.both, table.first_only], [table.second_only, table.neither]]
    return min(float(test(square, exact=True).pvalue), 1.0)


def mcnemar_power(items: int, difference: float, discordant: float, alpha: float = ALPHA) -> float:
    """How often McNemar's exact test over `items` pairs shows a true difference at level `alpha`.

    The number of items that only one of the two answers rightly is binomial with the share
    `discordant`; of k such items the first wins a binomial number with the share
    (1 + difference / discordant) / 2, and the test rejects in both tails of the fair coin that hold
    at most alpha / 2 each. Both sums are taken whole, so that no normal approximation is made.

    Args:
        items: pairs.
        difference: of the two accuracies, 0 < difference <= discordant.
        discordant: share of items that only one of the two answers rightly.
        alpha: of the two-sided test.
    """
    import numpy as np
    from scipy.stats import binom

    thrown = np.arange(items + 1)
    tail = binom.ppf(alpha / 2, thrown, 0.5)  # the largest count whose tail is small enough
    tail -= binom.cdf(tail, thrown, 0.5) > alpha / 2
    share = (1 + difference / discordant) / 2
    rejected = binom.cdf(tail, thrown, share) + binom.sf(thrown - tail - 1, thrown, share)
    return float(binom.pmf(thrown, items, discordant) @ np.where(tail < 0, 0.0, rejected))


def items_to_see(difference: float, table: Paired, power: float = POWER) -> int:
    """How many items McNemar's exact test needs to show a difference with that power.

    The share of items answered differently is the upper end of its 95 % Wilson interval over
    `table` (at least `difference`): few items leave it open, and the least favourable share that
    they allow promises nothing that they do not show. The search begins at the closed form of
    Connor, "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43 (1987), n = (z_a sqrt(d) + z_b sqrt(d - difference^2))^2 / difference^2 with the
    share d, and goes on in steps of 1 % until the exact power is reached.

    Args:
        difference: of the two accuracies, 0 < difference < 1.
        table: what was observed, at least one item.
        power: chance of showing the difference.
    """
    _, most = wilson(table.first_only + table.second_only, table.count)
    return _items_to_see(difference, max(most, difference), power)


@cache
def _items_to_see(difference: float, share: float, power: float) -> int:
    from scipy.stats import norm

    sure, likely = float(norm.ppf(1 - ALPHA / 2)), float(norm.ppf(power))
    root = sure * sqrt(share) + likely * sqrt(share - difference**2)
    items: int = ceil((root / difference) ** 2)
    while mcnemar_power(items, difference, share) < power:
        items += ceil(items / 100)
    return items


def paired_interval(table: Paired) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies over the same items.

    Method 10 of Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17 (1998): the Wilson intervals of
    the two accuracies, joined with their correlation, which is corrected for continuity. With no
    item answered differently it is still wider than zero. `table` holds at least one item.
    """
    right = (table.both + table.first_only, table.both + table.second_only)
    first, second = (share / table.count for share in right)
    (low1, high1), (low2, high2) = (wilson(share, table.count) for share in right)
    phi = _correlation(table)
    below, above = (first - low1, high2 - second), (high1 - first, second - low2)
    low, high = (sqrt(a * a - 2 * phi * a * b + b * b) for a, b in (below, above))
    return max(first - second - low, -1.0), min(first - second + high, 1.0)


def _correlation(table: Paired) -> float:
    """The phi coefficient, a positive one corrected for continuity; 0 where it is not defined."""
    margins = (
        (table.both + table.first_only)
        * (table.second_only + table.neither)
        * (table.both + table.second_only)
        * (table.first_only + table.neither)
    )
    if margins == 0:
        return 0.0
    covariance = table.both * table.neither - table.first_only * table.second_only
    corrected = max(covariance - table.count / 2, 0.0) if covariance > 0 else covariance
    return float(corrected / sqrt(margins))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction, in the order given.

    A corrected value below 0.05 holds with a chance of at most 5 % that any of them is false,
    whatever the tests have in common.
    """
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(value) for value in multipletests(p_values, method="holm")[1]]


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired figures (scipy).

    Returns:
        None with fewer than 6 pairs; 1 if no pair differs.
    """
    from scipy.stats import wilcoxon

    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < FEWEST_FOR_RANKS:
        return None
    if not any(differences):
        return 1.0
    return float(wilcoxon(differences).pvalue)


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Whether each point is on the front: no other is as good in both ways and better in one.

    Args:
        costs: less is better.
        gains: more is better.
    """
    points = list(zip(costs, gains, strict=True))
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
    return other != point and other[0] <= point[0] and other[1] >= point[1]
