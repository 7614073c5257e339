"""Choosing tokens that lie evenly over the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.tokens import Grid


def evenly_spread(position: Tensor, grid: Grid, count: int) -> Tensor:
    """Indices of `count` of N tokens that lie evenly over the grid, also when it has holes.

    Tokens are put into bands of rows with equal numbers of tokens, as many bands as make the cells
    square; each band gives its share, evenly spaced along the columns. On a full grid with a count
    that divides it this is the strided grid. Frames of a video stand one below the other.

    Args:
        position: (N, 3) t, y, x.
        grid: of the original tokens.
        count: 1 <= count <= N.

    Returns:
        (count,) int64, ascending.
    """
    total, height = position.shape[0], grid.frames * grid.rows
    bands = round((count * height / max(grid.columns, 1)) ** 0.5)
    bands = min(max(bands, 1), count, height)
    number = torch.arange(bands + 1, device=position.device)
    starts = number * total // bands
    quota = starts * count // total  # by share of the tokens: no band owes more than it has
    order = _order(position, starts)
    pick = torch.arange(count, device=position.device)
    band = torch.searchsorted(quota[1:], pick, right=True)
    size, wanted = (starts[1:] - starts[:-1])[band], (quota[1:] - quota[:-1])[band]
    place = (2 * (pick - quota[band]) + 1) * size // (2 * wanted)
    return order[starts[band] + place].sort().values


def _order(position: Tensor, starts: Tensor) -> Tensor:
    """(N,) tokens sorted by band and, within a band, by column."""
    frame, row, column = position.unbind(dim=1)
    order = torch.argsort(column, stable=True)
    for key in (row, frame):
        order = order[torch.argsort(key[order], stable=True)]
    rank = torch.arange(order.shape[0], device=position.device)
    band = torch.searchsorted(starts[1:], rank, right=True)
    by_column = torch.argsort(column[order], stable=True)
    return order[by_column[torch.argsort(band[by_column], stable=True)]]
