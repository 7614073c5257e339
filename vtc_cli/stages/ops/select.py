"""Ranking and selection with defined ties."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.errors import StageError


def top_indices(scores: Tensor, count: int) -> Tensor:
    """(count,) indices of the highest scores, best first; the lowest index wins a tie."""
    return torch.argsort(scores, descending=True, stable=True)[: max(count, 0)]


def require_finite(scores: Tensor, what: str) -> Tensor:
    """`scores` unchanged.

    Raises:
        StageError: NaN or infinity among them, so that no ranking exists.
    """
    if not bool(torch.isfinite(scores).all()):
        raise StageError(f"{what} with NaN or infinity", hint="try --dtype float32")
    return scores
