"""Frames of a video grouped into events: runs of alike frames between the sharpest changes."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.stages.ops.windows import EPSILON


def frame_means(features: Tensor, frames: int) -> Tensor:
    """(F, d) float32 mean feature of each frame; features (N, d) in raster order, N = F P."""
    grouped = features.float().reshape(frames, -1, features.shape[-1])
    return grouped.mean(dim=1)


def adjacent_cosine(vectors: Tensor) -> Tensor:
    """(F - 1,) cosine of each of (F, d) vectors and the next; a zero vector has 0 to everything."""
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(EPSILON)
    cosine: Tensor = (unit[:-1] * unit[1:]).sum(dim=1)
    return cosine


def cut_events(similarity: Tensor, cuts: int) -> Tensor:
    """The event of each frame, cut where neighbours are least alike.

    Args:
        similarity: (F - 1,) of each frame and the next; the earliest wins a tie.
        cuts: boundaries wanted; from F - 1 on every frame is its own event.

    Returns:
        (F,) int64 event numbers 0, 1, 2, ..., never decreasing.
    """
    closes = torch.zeros(similarity.shape[0] + 1, dtype=torch.int64, device=similarity.device)
    lowest = torch.argsort(similarity, stable=True)[:cuts]
    closes[lowest + 1] = 1  # a boundary at f closes its event: frame f + 1 opens the next
    return closes.cumsum(0)


def place_in_group(scores: Tensor, group: Tensor) -> Tensor:
    """(N,) int64: how many rows of the same group stand before each, best score first.

    Args:
        scores: (N,); the lowest index wins a tie.
        group: (N,) int64 >= 0.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    sizes = torch.bincount(group)
    starts = sizes.cumsum(0) - sizes
    place = torch.empty_like(group)
    place[order] = torch.arange(group.shape[0], device=group.device) - starts[group[order]]
    return place


def group_max(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups,) highest score of each group."""
    lowest = torch.full((groups,), float("-inf"), dtype=scores.dtype, device=scores.device)
    return lowest.scatter_reduce(0, group, scores, "amax")
