"""Attention for training on few cores: plain products in bf16.

On processors the fused kernel's backward pass is several times slower than the plain one. The
result is the same, so the exported checkpoint runs under any attention implementation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "plain"
# Scores of this many rows at once stay in the processor's cache.
SCORES_AT_ONCE = 2_400_000


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend without a fused kernel; query, key and value are (batch, heads, length, width)."""
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        query, key, value = (part.to(torch.bfloat16) for part in (query, key, value))
    rows = max(1, SCORES_AT_ONCE // (query.shape[1] * query.shape[2] * key.shape[2]))
    parts = [slice(start, start + rows) for start in range(0, len(query), rows)]
    # Autocast would run the softmax, the largest tensor by far, in fp32.
    with torch.autocast(kind, enabled=False):
        mixed = torch.cat(
            [
                _attend(
                    query[part] * scaling,
                    key[part],
                    value[part],
                    None if attention_mask is None else attention_mask[part],
                )
                for part in parts
            ]
        )
    return mixed.transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend within a few rows of a batch; the query is scaled already."""
    scores = query @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ value


def use_plain_attention(model: PreTrainedModel) -> None:
    """Switch a model to plain attention."""
    AttentionInterface.register(NAME, plain_attention)
    model.set_attn_implementation(NAME)
