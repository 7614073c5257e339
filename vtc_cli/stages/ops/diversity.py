"""Choosing rows that lie far from each other.

Few rows are compared all at once, which takes one product of matrices; with many that matrix would
not fit in memory, so they are compared with one chosen row after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12  # below this norm a vector has no direction; it lies 1 away from everything
BLOCK_ROWS = 512
PAIR_ROWS = 4096  # up to so many rows all pairs are held, 67 MB in float32


def unit_rows(features: Tensor) -> Tensor:
    """(N, d) float32 rows of length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(features.float(), dim=1, eps=EPSILON)


def pair_cosines(unit: Tensor) -> Tensor | None:
    """(N, N) cosines of all pairs of unit rows, None with more than `PAIR_ROWS` of them.

    On the diagonal stands -2, less than any cosine: a row is no neighbour of itself.
    """
    if unit.shape[0] > PAIR_ROWS:
        return None
    cosines: Tensor = (unit @ unit.T).fill_diagonal_(-2.0)
    return cosines


def most_isolated(unit: Tensor, sample_rows: int, pairs: Tensor | None = None) -> int:
    """The row whose nearest other row is the furthest away; the lowest index wins a tie.

    Args:
        unit: (N, d) float32, rows of length 1.
        sample_rows: with more rows than this, "other" means every k-th row, so many that no more
            than this are looked at. Time grows with N x sample_rows, memory with one block of it.
        pairs: of `pair_cosines`, which stand for all others.
    """
    if pairs is not None:
        return int((1 - pairs.amax(dim=1)).argmax())
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


def farthest_points(unit: Tensor, first: Tensor, count: int, pairs: Tensor | None = None) -> Tensor:
    """`count` rows, each the furthest from those before it: greedy max-min diversity.

    Distance is 1 - cosine. One vector of distances to the nearest chosen row is kept up to date:
    without `pairs` time is N x count x d and memory N.

    Args:
        unit: (N, d) float32, rows of length 1.
        first: (f,) int64, rows that are chosen already, f >= 1.
        count: rows in all, f <= count <= N.
        pairs: of `pair_cosines`; the choice is the same without, but for distances that differ by
            no more than float32 rounds.

    Returns:
        (count,) int64 in the order of choice, no row twice; the lowest index wins a tie.
    """

    def cosines(row: Tensor) -> Tensor:
        return unit @ unit[row] if pairs is None else pairs[row]

    nearest = torch.full((unit.shape[0],), torch.inf, device=unit.device)
    for row in first:
        nearest = torch.minimum(nearest, 1 - cosines(row))
    nearest[first] = -torch.inf
    chosen = torch.empty(count, dtype=torch.int64, device=unit.device)
    chosen[: first.shape[0]] = first
    for place in range(first.shape[0], count):
        row = nearest.argmax()
        nearest = torch.minimum(nearest, 1 - cosines(row))
        nearest[row] = -torch.inf
        chosen[place] = row
    return chosen
