"""Scores and matches that join information with other signals."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12


def information_flops(count: int, width: int) -> int:
    """Operations: the Gram matrix, about 9 n^3 for its eigenvectors, and the weighted sum."""
    small = min(count, width)
    return 2 * count * width * small + 9 * small**3 + 2 * count * small


def best_match(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the most similar target by cosine: (B,) values and (B,) int64 indices.

    Args:
        rows: (B, d).
        targets: (A, d), A >= 1; the lowest index wins a tie, and a zero vector is similar to none.
    """
    unit_rows = torch.nn.functional.normalize(rows.float(), dim=1, eps=EPSILON)
    unit_targets = torch.nn.functional.normalize(targets.float(), dim=1, eps=EPSILON)
    values, index = (unit_rows @ unit_targets.T).max(dim=1)
    return values, index


def rank_points(scores: Tensor) -> Tensor:
    """(N,) float64: N points for the best score, 1 for the last; the lowest index wins a tie."""
    order = torch.argsort(scores, descending=True, stable=True)
    count = scores.shape[0]
    points = torch.empty(count, dtype=torch.float64, device=scores.device)
    points[order] = torch.arange(count, 0, -1, dtype=torch.float64, device=scores.device)
    return points


def min_max(scores: Tensor) -> Tensor:
    """(N,) float64 scaled to 0..1; equal scores become 0."""
    values = scores.double()
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp_min(EPSILON)
