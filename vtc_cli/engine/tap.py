"""A tap on attention: queries, keys and values of chosen modules, and softmax *rows* of them.

The library looks its attention function up by name in a table. For the duration of a context that
entry is wrapped; the wrapped function is the one that runs, so results do not change, and no full
attention map is ever made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import SignalError


@dataclass(frozen=True, eq=False)
class Capture:
    """What one attention call saw.

    Attributes:
        query: (heads, Q, head_dim), after RoPE.
        key: (kv_heads, K, head_dim), after RoPE and after the cache was updated.
        value: (kv_heads, K, head_dim).
        output: (Q, heads x head_dim), joined heads before the output projection.
        scaling: factor on the scores.
        causal: whether a row sees only the keys up to its own place; asked without a mask.
        mask: (1 or heads, Q, K) that was handed to the attention: True or 0 where a key is seen.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scaling: float
    causal: bool
    mask: Tensor | None = None

    def rows(self, index: Tensor) -> Tensor:
        """Softmax rows of the queries `index` (R,) over all keys: (heads, R, K) float32."""
        heads, total, head_dim = self.query.shape
        kv_heads, keys, _ = self.key.shape
        query = self.query.index_select(1, index).float()
        grouped = query.reshape(kv_heads, heads // kv_heads * index.shape[0], head_dim)
        scores = grouped @ self.key.float().transpose(1, 2) * self.scaling
        scores = scores.reshape(heads, index.shape[0], keys)
        if self.mask is not None:
            scores = _masked(scores, self.mask.index_select(1, index))
        elif self.causal:
            column = torch.arange(keys, device=index.device)
            hidden = column[None] > (index + keys - total)[:, None]
            scores = scores.masked_fill(hidden, float("-inf"))
        return scores.softmax(dim=-1)

    def row_flops(self, rows: int) -> int:
        """Operations of `rows`: one product of queries and keys, 2 a multiply-add."""
        heads, _, head_dim = self.query.shape
        return 2 * heads * rows * int(self.key.shape[1]) * head_dim


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (heads, R, K) under a boolean or additive mask (1 or heads, R, K)."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask.float()


def captured(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: Mapping[str, Any],
    row: int,
    output: Tensor,
) -> Capture:
    """What one attention call saw of row `row` of its batch.

    Args:
        module: the attention module.
        query: (heads, Q, head_dim) of the row, like `key` and `value`.
        key: of the row.
        value: of the row.
        mask: of the whole batch, as it was handed to the attention.
        options: further arguments of the call.
        row: which row of the batch.
        output: (Q, heads x head_dim) of the row.
    """
    causal = bool(getattr(module, "is_causal", False))
    scaling = float(options.get("scaling") or query.shape[-1] ** -0.5)
    seen = mask if mask is not None and mask.ndim == 4 else None  # 2-D is padding
    own = None if seen is None else seen[min(row, seen.shape[0] - 1)]
    return Capture(query, key, value, output, scaling, causal, own)


class AttentionTap:
    """While entered, keeps what the modules in `modules` hand to their attention function.

    Args:
        modules: attention modules, each with the number under which it is asked for.
        implementation: name of the attention function in use, for instance `sdpa`.
    """

    def __init__(self, modules: Iterable[tuple[nn.Module, int]], implementation: str) -> None:
        self._layer_of = dict(modules)
        self._name = implementation
        self.captures: dict[int, Capture] = {}  # by layer; of a batch the first row
        self.batches: dict[int, list[Capture]] = {}  # every row of every call: a tower's frames

    def __enter__(self) -> AttentionTap:
        if self._layer_of:
            from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as TABLE

            if self._name not in TABLE:
                raise SignalError(
                    f"attention signals cannot be read under {self._name} attention",
                    allowed=", ".join(sorted(TABLE)),
                    hint="--attn sdpa",
                )
            self._table = TABLE
            self._local = TABLE._local_mapping.get(self._name)
            self._base = TABLE[self._name]
            TABLE[self._name] = self._call
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.captures.clear()
        self.batches.clear()
        if self._layer_of:
            if self._local is None:
                del self._table[self._name]
            else:
                self._table[self._name] = self._local

    def release(self, layer: int) -> None:
        """Let go of what layer `layer` kept."""
        self.captures.pop(layer, None)
        self.batches.pop(layer, None)

    def _call(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Any:
        result = self._base(module, query, key, value, mask, **options)
        layer = self._layer_of.get(module)
        if layer is not None:
            rows = [
                captured(module, query[row], key[row], value[row], mask, options, row, output)
                for row, output in enumerate(result[0].flatten(2))
            ]
            self.captures[layer] = rows[0]
            self.batches.setdefault(layer, []).extend(rows)
        return result
