"""A KV cache whose layers know which logical token each stored column is.

After pruning and eviction layers have different lengths, and heads of one layer may too. The
library asks a cache for its length to place the next token; here that is the *logical* length,
which no eviction changes, while `order` says what is really stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from vtc_cli.engine.attended import Received
from vtc_cli.engine.tap import Capture

EMPTY = -1  # logical index of a column that only pads a shorter head


class LogicalLayer(DynamicLayer):
    """One layer of the cache, batch 1.

    Attributes:
        seen: logical tokens that ever passed.
        order: (1, kv_heads, n) int64, logical index of each stored column, -1 for padding.
        ragged: whether some head is padded; known without asking the device at every step.
        prompt_order: (n,) int64, logical index of each column that the prefill stored.
        last_rows: attention of the prompt's last rows over these columns, while policies may ask.
        received: attention that each stored column has received, if a policy asks for it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = 0
        self.order: Tensor | None = None
        self.ragged = False
        self.prompt_order = torch.zeros(0, dtype=torch.int64)
        self.last_rows: Capture | None = None
        self.received: Received | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values and note their logical indices."""
        batch, heads, count, _ = key_states.shape
        fresh = torch.arange(self.seen, self.seen + count, device=key_states.device)
        fresh = fresh.expand(batch, heads, count)
        self.order = fresh if self.order is None else torch.cat([self.order, fresh], dim=-1)
        self.seen += count
        if self.received is not None:
            self.received.grow(count)
        pair: tuple[Tensor, Tensor] = super().update(key_states, value_states)
        return pair

    def get_seq_length(self) -> int:
        """Logical length."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Physical length with the query, and the offset between logical and physical."""
        return self.stored + query_length, self.seen - self.stored

    def filled(self) -> Tensor:
        """`order` of a layer that has been written to."""
        assert self.order is not None
        return self.order

    @property
    def stored(self) -> int:
        """Columns stored now, padding included."""
        return 0 if self.order is None else int(self.order.shape[-1])

    def relabel(self, index: Tensor, seen: int) -> None:
        """After a pruned prefill: the stored columns are the logical tokens `index` (n,)."""
        self.order = index.expand(1, self.filled().shape[1], -1)
        self.seen = seen
        self.prompt_order = index

    def keep(self, columns: Tensor) -> None:
        """Retain columns (kv_heads, m) of each head, in that order; -1 pads shorter heads."""
        order = self.filled()
        index = columns[None]
        safe = index.clamp_min(0)
        self.ragged = bool((columns < 0).any())
        wide = safe[..., None].expand(-1, -1, -1, self.key_states.shape[-1])
        self.keys = self.key_states.gather(2, wide)
        self.values = self.value_states.gather(2, wide)
        self.order = torch.where(index >= 0, order.gather(2, safe), EMPTY)
        if self.received is not None:
            self.received.keep(columns)

    def mask(self, queries: int, groups: int, window: int | None = None) -> Tensor | None:
        """(1, heads or 1, queries, n + queries) bool, or None if every column may be seen.

        Args:
            queries: rows about to be appended.
            groups: query heads a key/value head.
            window: logical tokens that a query sees, itself included; None for all.
        """
        narrow = window is not None and self.seen + queries > window
        if queries == 1 and not self.ragged and not narrow:
            return None
        order = self.filled()[:, :, None, :]
        heads = order.shape[1]
        past = (order >= 0).expand(-1, -1, queries, -1)
        if window is not None and narrow:
            last = self.seen + torch.arange(queries, device=order.device)
            past = past & (order > last[:, None] - window)
        triangle = torch.ones(queries, queries, dtype=torch.bool, device=order.device).tril()
        mask = torch.cat([past, triangle.expand(1, heads, -1, -1)], dim=-1)
        if bool((mask == mask[:, :1]).all()):
            return mask[:, :1]
        return mask.repeat_interleave(groups, dim=1)

    @property
    def key_states(self) -> Tensor:
        """(1, kv_heads, n, head_dim) stored keys, after RoPE."""
        assert self.keys is not None
        return self.keys

    @property
    def value_states(self) -> Tensor:
        """(1, kv_heads, n, head_dim) stored values."""
        assert self.values is not None
        return self.values

    @property
    def entries(self) -> float:
        """Mean true entries a head."""
        if not self.ragged or self.order is None:
            return float(self.stored)
        return int((self.order >= 0).sum()) / int(self.order.shape[1])

    @property
    def bytes(self) -> int:
        """Bytes of the true entries, keys and values, from the real tensors."""
        if self.order is None:
            return 0
        true = int((self.order >= 0).sum())
        return 2 * true * int(self.key_states.shape[-1]) * int(self.key_states.element_size())


def logical_cache(layers: int) -> Any:
    """An empty cache of `layers` logical layers."""
    return Cache(layers=[LogicalLayer() for _ in range(layers)])
