"""Choosing rows that lie far from each other, without a matrix of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12  # below this norm a vector has no direction; it lies 1 away from everything
BLOCK_ROWS = 512


def unit_rows(features: Tensor) -> Tensor:
    """(N, d) float32 rows of length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(features.float(), dim=1, eps=EPSILON)


def most_isolated(unit: Tensor, sample_rows: int) -> int:
    """The row whose nearest other row is the furthest away; the lowest index wins a tie.

    Args:
        unit: (N, d) float32, rows of length 1.
        sample_rows: with more rows than this, "other" means every k-th row, so many that no more
            than this are looked at. Time grows with N x sample_rows, memory with one block of it.
    """
    total = unit.shape[0]
    stride = -(-total // sample_rows)
    others = unit[::stride]
    nearest = []
    for start in range(0, total, BLOCK_ROWS):
        likeness = unit[start : start + BLOCK_ROWS] @ others.T
        rows = torch.arange(start, start + likeness.shape[0], device=unit.device)
        own = rows % stride == 0  # rows that are among the others must not meet themselves
        likeness[own.nonzero()[:, 0], rows[own] // stride] = -2.0
        nearest.append(1 - likeness.amax(dim=1))
    return int(torch.cat(nearest).argmax())


def farthest_points(unit: Tensor, first: Tensor, count: int) -> Tensor:
    """`count` rows, each the furthest from those before it: greedy max-min diversity.

    Distance is 1 - cosine. One vector of distances to the nearest chosen row is kept up to date, so
    that time is N x count and memory N.

    Args:
        unit: (N, d) float32, rows of length 1.
        first: (f,) int64, rows that are chosen already, f >= 1.
        count: rows in all, f <= count <= N.

    Returns:
        (count,) int64 in the order of choice, no row twice; the lowest index wins a tie.
    """
    nearest = torch.full((unit.shape[0],), torch.inf, device=unit.device)
    for row in first:
        nearest = torch.minimum(nearest, 1 - unit @ unit[row])
    nearest[first] = -torch.inf
    chosen = [first]
    for _ in range(count - first.shape[0]):
        row = nearest.argmax()
        nearest = torch.minimum(nearest, 1 - unit @ unit[row])
        nearest[row] = -torch.inf
        chosen.append(row[None])
    return torch.cat(chosen)
