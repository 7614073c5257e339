"""Answers of several prompts decoded together, from caches whose lengths differ everywhere.

Each prompt is read alone, for compression decides over one input. Then every step runs the decoder
once for all answers that still grow: the weights are read once for the whole batch, which is where
the time of a decode step goes. Caches are padded on the left, layer by layer, to the longest of
the batch; a mask hides the padding, each row has its own positions, and finished rows leave.

A row's logits are those of decoding it alone up to rounding: a product of B rows at once adds up in
another order than one of a single row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from vtc_cli.core.plan import Plan
from vtc_cli.engine.cache import EMPTY, LogicalLayer
from vtc_cli.engine.decode import Decoded, chooser
from vtc_cli.engine.hooks import HookSet
from vtc_cli.engine.reading import PromptRead
from vtc_cli.models.support.base import Adapter

MASKED_ATTENTION = ("sdpa", "eager")  # implementations that take a mask a row


def alone_because(plan: Plan, attention: str) -> str | None:
    """Why answers under `plan` are decoded one by one, None if they can be decoded together.

    Args:
        plan: the stages.
        attention: implementation, for instance `sdpa`.
    """
    deciding = [planned.name for planned in plan.decode if planned.stage.every_step]
    if deciding:
        return f"{deciding[0]} decides anew after every token"
    if attention not in MASKED_ATTENTION:
        return f"the attention implementation {attention} takes no mask that hides the padding"
    return None


def decode_together(adapter: Adapter, reads: Sequence[PromptRead]) -> list[Decoded]:
    """Make the answers of prompts that were read, all of them under plans that can be batched.

    The caches of `reads` stay as they are. `step_ms` of the result is empty.
    """
    with torch.inference_mode():
        return _Together(adapter, reads).run()


class _Together:
    """State of one batch; `active` are the places in `reads` of the rows that still grow."""

    def __init__(self, adapter: Adapter, reads: Sequence[PromptRead]) -> None:
        self._adapter, self._reads = adapter, reads
        self._active = list(range(len(reads)))
        self._step = 0
        self._decoded = [Decoded() for _ in reads]
        self._choose = [_chooser_of(read, adapter) for read in reads]
        self._stops = [_stops_of(read, adapter) for read in reads]
        caches = [read.cache.layers for read in reads]
        self._layers = [RowsLayer(layers) for layers in zip(*caches, strict=True)]
        self._cache = Cache(layers=self._layers)  # type: ignore[arg-type]
        self._next = torch.cat([read.next_position for read in reads], dim=-2)
        counts = [read.request.plan.positions == "renumbered" for read in reads]
        self._counts = torch.tensor(counts, device=adapter.device)

    def run(self) -> list[Decoded]:
        """Step until the last row is done."""
        logits = [read.first for read in self._reads]
        with HookSet() as hooks:
            for layer, block in enumerate(self._adapter.decoder_layers):
                hooks.before(block, self._hook(layer))
            while self._choose_tokens(logits):
                logits = list(self._forward())
                self._step += 1
        return self._decoded

    def _choose_tokens(self, logits: list[Tensor]) -> bool:
        """One token for each active row; rows that are done leave. Whether some are left."""
        stays, step = [], self._step
        for place, row in enumerate(self._active):
            decoded, generation = self._decoded[row], self._reads[row].request.generation
            token = self._choose[row](logits[place], step)
            decoded.ids.append(token)
            decoded.logits.append(logits[place].float())
            if token not in self._stops[row] and step + 1 < generation.tokens:
                stays.append(place)
                decoded.entries.append(entries_after(self._reads[row], step))
        if len(stays) < len(self._active):
            self._leave(stays)
        return bool(stays)

    def _leave(self, stays: list[int]) -> None:
        """Go on with the rows at the places `stays` only."""
        self._active = [self._active[place] for place in stays]
        index = torch.tensor(stays, dtype=torch.int64, device=self._next.device)
        self._next = self._next.index_select(-2, index)
        self._counts = self._counts.index_select(0, index)
        for layer in self._layers if stays else ():
            layer.select(index)

    def _forward(self) -> Tensor:
        """(rows, V) logits after one more token in each active row."""
        tokens = [[self._decoded[row].ids[-1]] for row in self._active]
        output = self._adapter.model(
            input_ids=torch.tensor(tokens, device=self._adapter.device),
            position_ids=self._next + self._step,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _hook(self, layer: int) -> Any:
        """Give a layer the mask of its own caches and, where renumbered, its own positions."""
        adapter, stored = self._adapter, self._layers[layer]
        config = adapter.decoder.config
        groups = config.num_attention_heads // config.num_key_value_heads
        window = adapter.attention_window(layer)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, fitted = args[0], dict(kwargs)
            mask = stored.mask(groups, window)
            if mask is not None and config._attn_implementation == "eager":
                lowest = torch.finfo(hidden.dtype).min
                mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, lowest)
            fitted["attention_mask"] = mask
            if bool(self._counts.any()):
                own = self._next + self._step
                counted = stored.columns[:, None].expand_as(own)
                places = torch.where(self._counts[:, None], counted, own)
                fitted["position_ids"] = adapter.layer_position_ids(places)
                fitted["position_embeddings"] = adapter.rotary(hidden, places, layer)
            return args, fitted

        return hook


class RowsLayer(DynamicLayer):
    """One layer of several caches, one a row, the shorter ones padded on the left.

    Args:
        layers: the same layer of each cache, batch 1 each.

    Attributes:
        order: (B, kv_heads, n) int64, logical index of each stored column, -1 for padding.
        seen: (B,) logical tokens that ever passed.
        columns: (B,) columns that each row's cache would hold alone.
    """

    def __init__(self, layers: Sequence[LogicalLayer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        longest = max(layer.stored for layer in layers)
        self.keys = torch.cat([_padded(layer.key_states, longest, 0.0) for layer in layers])
        self.values = torch.cat([_padded(layer.value_states, longest, 0.0) for layer in layers])
        orders = [layer.filled()[..., None] for layer in layers]
        self.order = torch.cat([_padded(order, longest, EMPTY) for order in orders])[..., 0]
        device = self.order.device
        self.seen = torch.tensor([layer.seen for layer in layers], device=device)
        self.columns = torch.tensor([layer.stored for layer in layers], device=device)
        self._longest_seen = max(layer.seen for layer in layers)
        self._padded = bool((self.order == EMPTY).any())
        self.dtype, self.device, self.is_initialized = self.keys.dtype, device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append one column to every row."""
        fresh = self.seen[:, None, None].expand(-1, self.order.shape[1], 1)
        self.order = torch.cat([self.order, fresh], dim=-1)
        self.seen, self.columns = self.seen + 1, self.columns + 1
        self._longest_seen += 1
        pair: tuple[Tensor, Tensor] = super().update(key_states, value_states)
        return pair

    def get_seq_length(self) -> int:
        """Logical length of the longest row."""
        return self._longest_seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Physical length with the query; the library's own mask is replaced in any case."""
        return int(self.order.shape[-1]) + query_length, 0

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, without the columns that only pad them."""
        order = self.order.index_select(0, rows)
        filled = (order != EMPTY).any(dim=0).any(dim=0)
        begin = int(filled.int().argmax())
        assert self.keys is not None and self.values is not None
        self.order = order[..., begin:]
        self.keys = self.keys.index_select(0, rows)[:, :, begin:]
        self.values = self.values.index_select(0, rows)[:, :, begin:]
        self.seen, self.columns = self.seen[rows], self.columns[rows]
        self._longest_seen = int(self.seen.max())
        self._padded = bool((self.order == EMPTY).any())

    def mask(self, groups: int, window: int | None) -> Tensor | None:
        """(B, heads or 1, 1, n + 1) bool for one query a row, None if it may see every column.

        Args:
            groups: query heads a key/value head.
            window: logical tokens that a query sees, itself included; None for all.
        """
        narrow = window is not None and self._longest_seen + 1 > window
        if not self._padded and not narrow:
            return None
        past = self.order != EMPTY
        if window is not None and narrow:
            past = past & (self.order > self.seen[:, None, None] - window)
        mask = torch.cat([past, torch.ones_like(past[..., :1])], dim=-1)[:, :, None]
        if bool((mask == mask[:, :1]).all()):
            return mask[:, :1]
        return mask.repeat_interleave(groups, dim=1)


def _padded(states: Tensor, longest: int, value: float) -> Tensor:
    """(1, heads, longest, d) with columns of `value` in front."""
    return nn.functional.pad(states, (0, 0, longest - states.shape[2], 0), value=value)


def entries_after(read: PromptRead, steps: int) -> list[float]:
    """Mean true entries a head in each layer of one answer's cache after `steps` more tokens."""
    return [_entries_of(layer, steps) for layer in read.cache.layers]


def _entries_of(layer: LogicalLayer, step: int) -> float:
    if not layer.ragged:
        return float(layer.stored + step)
    order = layer.filled()
    heads = int(order.shape[1])
    return (int((order != EMPTY).sum()) + step * heads) / heads


def _chooser_of(read: PromptRead, adapter: Adapter) -> Callable[[Tensor, int], int]:
    """The rule that picks a row's tokens; its chance goes on from where its own prefill ended."""
    generator = None
    if read.random_state is not None:
        generator = torch.Generator(adapter.device)
        generator.set_state(read.random_state)
    return chooser(read.request.generation, generator)


def _stops_of(read: PromptRead, adapter: Adapter) -> frozenset[int]:
    forced = read.request.generation.forced is not None
    return frozenset() if forced else adapter.stop_ids()
