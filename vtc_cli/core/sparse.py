"""Products of sparse COO matrices, written with index joins so that no N x N matrix appears."""

from __future__ import annotations

import torch
from torch import Tensor


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The product `outer @ inner` of two coalesced sparse COO matrices.

    Args:
        outer: (K, N) sparse, for instance the mix of a decision.
        inner: (N, N0) sparse, for instance the origin of a token table.

    Returns:
        (K, N0) coalesced sparse COO of the dtype of `inner`.
    """
    survivor, row = outer.indices()
    per_row = torch.bincount(inner.indices()[0], minlength=inner.shape[0])
    start = torch.cumsum(per_row, 0) - per_row  # first entry of each row: coalesced is row-sorted
    repeats = per_row[row]
    total = int(repeats.sum())
    first = torch.cumsum(repeats, 0) - repeats
    within = torch.arange(total, device=row.device) - torch.repeat_interleave(first, repeats)
    entry = torch.repeat_interleave(start[row], repeats) + within
    indices = torch.stack([torch.repeat_interleave(survivor, repeats), inner.indices()[1][entry]])
    values = torch.repeat_interleave(outer.values(), repeats) * inner.values()[entry]
    size = (outer.shape[0], inner.shape[1])
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True).coalesce()
