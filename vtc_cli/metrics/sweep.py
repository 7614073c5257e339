"""Points of a sweep over token counts: means over inputs and how the columns go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 2000
ROUNDING = 1e-12  # of two sums over the same products in another order


@dataclass(frozen=True)
class Point:
    """One selection at one token count, of one input or the mean over inputs.

    Attributes:
        tokens: asked for.
        kept: visual tokens behind the selection.
        rank_first: numerical rank of the output of the first layer that processes the selection.
        effective_rank_first: its entropy effective rank.
        rank_last: numerical rank of the output of the last layer.
        effective_rank_last: its entropy effective rank.
        energy_kept: share of the energy of the projected features in the span of the kept rows.
        ics_kept: share of the information contribution score that lives on.
        kl_first_token: KL(full || compressed) of the first answer token, nats.
        top1_agree: 1 if both choose the same first token.
        answer_nll_delta: mean NLL of the full model's answer minus that under itself, nats a token.
        exact_match: 1 if the greedy answer equals the full model's token for token.
        correct: 1 if the answer is the expected one; None if none is known.
    """

    tokens: float
    kept: float
    rank_first: float
    effective_rank_first: float
    rank_last: float
    effective_rank_last: float
    energy_kept: float
    ics_kept: float
    kl_first_token: float
    top1_agree: float
    answer_nll_delta: float
    exact_match: float
    correct: float | None = None


@dataclass(frozen=True)
class Association:
    """Spearman's rank correlation of two columns.

    Attributes:
        rho: between -1 and 1.
        p_value: two-sided, of no association.
        count: pairs, or inputs.
    """

    rho: float
    p_value: float
    count: int


def mean_point(points: Sequence[Point]) -> Point:
    """The mean over inputs of each column; `correct` is the accuracy over inputs that have one."""
    columns = {item.name: [getattr(point, item.name) for point in points] for item in fields(Point)}
    known = {name: [v for v in values if v is not None] for name, values in columns.items()}
    return Point(**{name: float(np.mean(v)) if v else None for name, v in known.items()})  # type: ignore[arg-type]


def spearman(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Association | None:
    """Spearman's rho of two columns; None for fewer than 3 pairs or a constant column.

    The p-value is that of a permutation test, for the t approximation calls four points certain.
    """
    return spearman_within([first], [second], seed)


def spearman_within(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], seed: int = 0
) -> Association | None:
    """Mean rho over token counts: does the figure tell inputs apart at one budget?

    Across counts every figure that falls with the count goes along with every other; within one
    count that common cause is gone. The p-value is that of a permutation test that exchanges whole
    inputs, so that an input which is easy at every count weighs once.

    Args:
        first: (counts, inputs) of one figure.
        second: (counts, inputs) of the other.
        seed: of the permutations.

    Returns:
        None if no count has at least 3 inputs and two values in both figures; `count` is the number
        of inputs.
    """
    pairs = [
        (_standard_ranks(x), _standard_ranks(y))
        for x, y in zip(first, second, strict=True)
        if len(x) > 2 and len(set(x)) > 1 and len(set(y)) > 1
    ]
    if not pairs:
        return None
    left, right = (np.stack(side) for side in zip(*pairs, strict=True))
    observed = float((left * right).sum(axis=1).mean())
    chance = np.random.default_rng(seed)
    orders = [chance.permutation(left.shape[1]) for _ in range(PERMUTATIONS)]
    drawn = np.array([(left * right[:, order]).sum(axis=1).mean() for order in orders])
    extreme = int((np.abs(drawn) >= abs(observed) - ROUNDING).sum())
    return Association(observed, (extreme + 1) / (PERMUTATIONS + 1), left.shape[1])


def _standard_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks (ties share theirs), centred, of unit length: their product is Spearman's rho."""
    from scipy.stats import rankdata

    centred = rankdata(values) - (len(values) + 1) / 2
    length: NDArray[np.float64] = centred / np.sqrt((centred**2).sum())
    return length
