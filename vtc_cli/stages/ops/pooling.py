"""Spatial pooling of a frame's tokens, written as the weights that each pooled token gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["average", "bilinear"]


@dataclass(frozen=True, eq=False)
class Pooled:
    """The pooled tokens of one frame.

    Attributes:
        pairs: (2, P) int64, (pooled token, raster index in the frame) of each weight.
        weights: (P,) float32, those of a pooled token sum to 1.
        anchor: (K,) int64, the frame token nearest to each pooled one, increasing.
    """

    pairs: Tensor
    weights: Tensor
    anchor: Tensor


def pool_frame(rows: int, columns: int, stride: int, mode: Pooling, device: torch.device) -> Pooled:
    """Pool a `rows` x `columns` frame with `stride` along both sides.

    `average` gives floor(side / stride) windows a side and leaves the rest of the frame out;
    `bilinear` samples ceil(side / stride) points a side. A side shorter than the stride is one
    window.
    """
    down, down_anchor = _axis(rows, stride, mode)
    across, across_anchor = _axis(columns, stride, mode)
    weights = torch.kron(down, across)
    pairs = weights.nonzero().T
    anchor = (down_anchor[:, None] * columns + across_anchor[None]).flatten()
    return Pooled(pairs.to(device), weights[pairs[0], pairs[1]].to(device), anchor.to(device))


def join_frames(frames: list[Pooled], frame_tokens: int, protected: Tensor) -> Pooled:
    """The pooled tokens of all frames, in raster order.

    Args:
        frames: F of them.
        frame_tokens: P, tokens of a frame before pooling.
        protected: (F P,) bool; those of them that no pooled token takes up stand for themselves.
    """
    pairs, anchors, count = [], [], 0
    for number, frame in enumerate(frames):
        shift = torch.tensor([[count], [number * frame_tokens]], device=frame.pairs.device)
        pairs.append(frame.pairs + shift)
        anchors.append(frame.anchor + number * frame_tokens)
        count += frame.anchor.shape[0]
    taken = torch.zeros_like(protected)
    taken[torch.cat(pairs, dim=1)[1]] = True
    alone = (protected & ~taken).nonzero()[:, 0]
    pairs.append(torch.stack([torch.arange(len(alone), device=alone.device) + count, alone]))
    anchor, order = torch.cat([*anchors, alone]).sort()
    joined = torch.cat(pairs, dim=1)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    weights = torch.cat([*(frame.weights for frame in frames), torch.ones_like(alone).float()])
    return Pooled(torch.stack([place[joined[0]], joined[1]]), weights, anchor)


def _axis(length: int, stride: int, mode: Pooling) -> tuple[Tensor, Tensor]:
    """(out, length) float32 weights along one side and (out,) the place nearest to each."""
    stride = min(stride, length)
    count = length // stride if mode == "average" else -(-length // stride)
    weights = torch.zeros(count, length)
    index = torch.arange(count)
    if mode == "average":
        window = index[:, None] * stride + torch.arange(stride)
        return weights.scatter_(1, window, 1 / stride), (2 * index + 1) * stride // 2
    # The point i lies at (i + 1/2) length / count - 1/2; whole numbers keep its two weights exact.
    scaled, unit = (2 * index + 1) * length - count, 2 * count
    low, part = scaled // unit, (scaled % unit) / unit
    high = (low + 1).clamp_max(length - 1)
    weights.scatter_add_(1, low[:, None], (1 - part)[:, None])
    weights.scatter_add_(1, high[:, None], part[:, None])
    return weights, ((2 * index + 1) * length) // unit
