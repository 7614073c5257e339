"""Non-overlapping square windows of a token grid and how alike the tokens in them are."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.layout import Layout

EPSILON = 1e-8  # below this norm a vector has no direction; its cosines count as 0


def window_members(layout: Layout, window: int, device: torch.device) -> Tensor:
    """(W, window * window) int64 indices of the tokens of each full window.

    Windows stand in raster order, frame after frame and grid after grid. Rows and columns that no
    full window covers belong to none, and neither do line ends.
    """
    members = [torch.empty(0, window * window, dtype=torch.int64, device=device)]
    for grid, start in layout.placed():
        down, across = grid.rows // window, grid.patch_columns // window
        index = torch.arange(start, start + grid.tokens, device=device)
        index = index.reshape(grid.frames, grid.rows, grid.columns)
        covered = index[:, : down * window, : across * window]
        tiles = covered.reshape(grid.frames, down, window, across, window).permute(0, 1, 3, 2, 4)
        members.append(tiles.reshape(-1, window * window))
    return torch.cat(members)


def window_count(layout: Layout, window: int) -> int:
    """W, the full windows of `window_members`."""
    sides = ((grid.frames, grid.rows, grid.patch_columns) for grid in layout.grids)
    return sum(frames * (rows // window) * (columns // window) for frames, rows, columns in sides)


def mean_pair_cosine(features: Tensor, members: Tensor) -> Tensor:
    """Mean cosine similarity over the ordered pairs of different tokens of each window.

    With unit vectors u_i the sum over all ordered pairs is |sum u_i|^2 and the diagonal is
    sum |u_i|^2, so no matrix of pairs is needed.

    Args:
        features: (N, d).
        members: (W, m) indices into the rows, m >= 2.

    Returns:
        (W,) float32; a zero vector has cosine 0 to everything.
    """
    rows = features.float()
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(EPSILON)
    grouped = unit[members]
    total = grouped.sum(dim=1).square().sum(dim=1)
    diagonal = grouped.square().sum(dim=(1, 2))
    count = members.shape[1]
    mean: Tensor = (total - diagonal) / (count * (count - 1))
    return mean


def pair_cosine_flops(tokens: int, width: int) -> int:
    """Operations of `mean_pair_cosine`: norms, scaling, sums and squares, about 8 a value."""
    return 8 * tokens * width
