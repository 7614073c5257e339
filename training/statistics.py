"""Accuracy with its Wilson interval."""

from __future__ import annotations

import math
from typing import TypedDict


class Score(TypedDict):
    """Right answers out of n, the accuracy and its 95 % Wilson interval (all 0..1)."""

    right: int
    n: int
    accuracy: float
    low: float
    high: float


def score(values: list[bool]) -> Score:
    """Return the score of a list of judgements."""
    right, count, bound = sum(values), len(values), 1.959964
    share = right / count
    middle = share + bound**2 / (2 * count)
    reach = bound * math.sqrt(share * (1 - share) / count + bound**2 / (4 * count**2))
    scale = 1 + bound**2 / count
    low, high = (middle - reach) / scale, (middle + reach) / scale
    return Score(
        right=right, n=count, accuracy=round(share, 5), low=round(low, 5), high=round(high, 5)
    )
