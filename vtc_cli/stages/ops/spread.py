"""Choosing tokens that lie evenly over the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.layout import Grid
from vtc_cli.core.tokens import TokenTable


def spread_over_views(tokens: TokenTable, rows: Tensor, count: int) -> Tensor:
    """`count` of the given rows of a table that lie evenly over each view of what it shows.

    Args:
        tokens: N rows.
        rows: (M,) of them to choose from.
        count: 1 <= count <= M.

    Returns:
        (count,) of `rows`, ascending where these are.
    """
    return rows[cells_over_views(tokens, rows, count)[1].sort().values]


def cells_over_views(tokens: TokenTable, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` cells that share out rows of a table evenly over each view of what it shows.

    Every view has its share of the cells, by its share of the rows; what rounding leaves goes to
    the largest remainders, the first views on ties. A view whose share is less than half a cell may
    have none.

    Args:
        tokens: N rows.
        rows: (M,) of them to share out.
        count: 1 <= count <= M.

    Returns:
        (M,) int64, the cell of each row, -1 in a view without one, and (count,) int64, for each
        cell the index in `rows` of the token nearest to its middle.
    """
    view = tokens.layout.columns(tokens.anchor.device).view[tokens.anchor[rows]]
    grids = tokens.layout.views()
    share = torch.bincount(view, minlength=len(grids)).cpu() * count
    quota = share // rows.shape[0]
    left = count - int(quota.sum())
    quota[torch.argsort(-(share % rows.shape[0]), stable=True)[:left]] += 1
    cell, middles, first = torch.full_like(rows, -1), [], 0
    for number, (grid, wanted) in enumerate(zip(grids, quota.tolist(), strict=True)):
        mine = (view == number).nonzero()[:, 0]
        if wanted:
            own, middle = even_cells(tokens.position[rows[mine]], grid, wanted)
            cell[mine] = own + first
            middles.append(mine[middle])
        first += wanted
    return cell, torch.cat(middles)


def evenly_spread(position: Tensor, grid: Grid, count: int) -> Tensor:
    """Indices of `count` of N tokens that lie evenly over the grid, also when it has holes.

    Each of the cells of `even_cells` gives the token nearest to its middle. On a full grid with a
    count that divides it this is a strided grid.

    Args:
        position: (N, 3) t, y, x.
        grid: of the original tokens.
        count: 1 <= count <= N.

    Returns:
        (count,) int64, ascending.
    """
    return even_cells(position, grid, count)[1].sort().values


def even_cells(position: Tensor, grid: Grid, count: int) -> tuple[Tensor, Tensor]:
    """`count` cells that share out N tokens evenly, also when the grid has holes.

    Tokens are put into bands of rows with equal numbers of tokens, as many bands as make the cells
    square; each band is cut along its columns into cells, as many as are its share. Frames of a
    video stand one below the other.

    Args:
        position: (N, 3) t, y, x.
        grid: of the original tokens.
        count: 1 <= count <= N.

    Returns:
        (N,) int64, the cell of each token, and (count,) int64, the token nearest to the middle of
        each cell.
    """
    places = position.cpu().double()  # the same choice on every device
    total, height = places.shape[0], grid.frames * grid.rows
    bands = round((count * height / max(grid.columns, 1)) ** 0.5)
    bands = min(max(bands, 1), count, height)
    starts = torch.arange(bands + 1) * total // bands
    quota = starts * count // total  # by share of the tokens: no band owes more than it has
    rank = torch.arange(total)
    band = torch.searchsorted(starts[1:], rank, right=True)
    size, wanted = starts.diff()[band], quota.diff()[band]
    cell = quota[band] + (rank - starts[band]) * wanted // size
    order = _order(places, band)
    middle = order[_middles(places[order], cell, count)]
    own = torch.empty_like(order)
    own[order] = cell
    return own.to(position.device), middle.to(position.device)


def _order(places: Tensor, band: Tensor) -> Tensor:
    """(N,) tokens sorted by band and, within a band, by column; `band` (N,) is that of a rank."""
    frame, row, column = places.unbind(dim=1)
    order = torch.argsort(column, stable=True)
    for key in (row, frame):
        order = order[torch.argsort(key[order], stable=True)]
    by_column = torch.argsort(column[order], stable=True)
    return order[by_column[torch.argsort(band[by_column], stable=True)]]


def _middles(places: Tensor, cell: Tensor, count: int) -> Tensor:
    """(count,) for each cell the row nearest to the mean of its rows, the first wins a tie."""
    held = torch.bincount(cell, minlength=count)
    middle = torch.zeros(count, 3, dtype=places.dtype).index_add(0, cell, places) / held[:, None]
    distance = (places - middle[cell]).square().sum(dim=1).round(decimals=6)
    near = torch.argsort(distance, stable=True)
    near = near[torch.argsort(cell[near], stable=True)]
    return near[held.cumsum(0) - held]
