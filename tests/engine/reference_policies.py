"""Cache policies written a second time, on lists, and the untouched model that obeys them.

The model runs with eager attention, shows its full maps and cuts nothing: what a policy evicts is
hidden by masks, head by head. Nothing here comes from the engine or from the stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.engine.families import own_arguments
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt

Map = NDArray[np.float32]  # (heads, rows, columns)


class Streaming:
    """Sinks and recent entries."""

    def __init__(self, sink: int, recent: int) -> None:
        self.sink, self.recent = sink, recent

    def prompt(self, head: Head, maps: Map, rows: list[int]) -> None:
        self.step(head, maps)

    def step(self, head: Head, maps: Map) -> None:
        ruled = head.ruled()
        for entry in ruled[self.sink : max(len(ruled) - self.recent, self.sink)]:
            head.alive.remove(entry)


class Snap:
    """A vote of the last rows, pooled in a loop."""

    def __init__(self, capacity: int, window: int, kernel: int, largest: bool) -> None:
        self.capacity, self.window, self.kernel = capacity, window, kernel
        self.largest = largest

    def prompt(self, head: Head, maps: Map, rows: list[int]) -> None:
        ruled = head.ruled()
        if len(ruled) <= self.capacity:
            return
        late = set(head.alive[-self.window :])
        before = [entry for entry in ruled if entry not in late]
        votes = [self._pooled(one, rows[-self.window :], before) for one in maps]
        score = np.mean(votes, axis=0)
        room = self.capacity - (len(ruled) - len(before))
        best = set(np.argsort(-score, kind="stable")[:room].tolist())
        for place, entry in enumerate(before):
            if place not in best:
                head.alive.remove(entry)

    def _pooled(self, attention: Any, rows: list[int], columns: list[int]) -> list[float]:
        vote = [float(sum(attention[row, column] for row in rows)) for column in columns]
        reach = self.kernel // 2
        pooled = []
        for place in range(len(vote)):
            near = vote[max(place - reach, 0) : place + reach + 1]
            pooled.append(max(near) if self.largest else sum(near) / self.kernel)
        return pooled

    def step(self, head: Head, maps: Map) -> None:
        pass


class Heavy:
    """Sums of attention that grow with every query."""

    def __init__(self, heavy: int, recent: int) -> None:
        self.heavy, self.recent = heavy, recent

    def prompt(self, head: Head, maps: Map, rows: list[int]) -> None:
        self._count(head, maps[:, rows])

    def step(self, head: Head, maps: Map) -> None:
        self._count(head, maps)

    def _count(self, head: Head, maps: Map) -> None:
        for entry in head.alive:
            got = float(maps[:, :, entry].sum()) / len(maps)
            head.sums[entry] = head.sums.get(entry, 0.0) + got
        ruled = head.ruled()
        old = ruled[: max(len(ruled) - self.recent, 0)]
        surplus = len(ruled) - self.heavy - self.recent
        for entry in sorted(old, key=lambda entry: (head.sums[entry], -entry))[: max(surplus, 0)]:
            head.alive.remove(entry)


@dataclass
class Head:
    """One key/value head of a layer: which tokens it still holds."""

    alive: list[int]
    visual: frozenset[int] | None
    sums: dict[int, float] = field(default_factory=dict)

    def ruled(self) -> list[int]:
        """What the policy may evict."""
        return [entry for entry in self.alive if self.visual is None or entry in self.visual]


class MaskedModel:
    """The untouched model under `policy`; `dropped` are the columns that pruning took, by layer."""

    def __init__(
        self,
        adapter: Adapter,
        prompt: Prompt,
        policy: Any,
        *,
        visual_only: bool = False,
        dropped: dict[int, Tensor] | None = None,
    ) -> None:
        self.adapter, self.prompt, self.policy = adapter, prompt, policy
        visual = frozenset(prompt.visual_index.tolist()) if visual_only else None
        self.layers: list[list[Head]] = []
        for layer in range(adapter.shape.decoder.layers):
            gone = set() if dropped is None else set(dropped[layer].nonzero()[:, 0].tolist())
            alive = [token for token in range(prompt.prompt_tokens) if token not in gone]
            heads = range(adapter.shape.decoder.kv_heads)
            self.layers.append([Head(list(alive), visual) for _ in heads])

    @torch.inference_mode()
    def logits(self, forced: list[int]) -> Tensor:
        """(steps, V) logits, `forced` fed in."""
        from transformers import DynamicCache

        model, count = self.adapter.model, self.prompt.prompt_tokens
        given = {"past_key_values": DynamicCache(), "use_cache": True, "output_attentions": True}
        with self._masks():
            own = own_arguments(self.adapter, self.prompt)
            output = model(input_ids=self.prompt.input_ids, logits_to_keep=1, **own, **given)
            logits = [output.logits[0, -1]]
            self._decide(output.attentions, prompt=True)
            for step, token in enumerate(forced[:-1]):
                for head in (head for heads in self.layers for head in heads):
                    head.alive.append(count + step)
                position = torch.tensor([[count + step]])
                output = model(input_ids=torch.tensor([[token]]), position_ids=position, **given)
                logits.append(output.logits[0, -1])
                self._decide(output.attentions, prompt=False)
        return torch.stack(logits)

    def _decide(self, attentions: tuple[Tensor, ...], *, prompt: bool) -> None:
        for heads, attention in zip(self.layers, attentions, strict=True):
            maps = attention[0].numpy()
            each = maps.shape[0] // len(heads)
            for place, head in enumerate(heads):
                own = maps[place * each : (place + 1) * each]
                if prompt:
                    self.policy.prompt(head, own, list(head.alive))
                else:
                    self.policy.step(head, own)

    @contextmanager
    def _masks(self) -> Iterator[None]:
        groups = self.adapter.shape.decoder.heads // self.adapter.shape.decoder.kv_heads

        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            layer, rows = module.self_attn.layer_idx, args[0].shape[1]
            past = kwargs["past_key_values"].get_seq_length(layer)
            column, row = torch.arange(past + rows), torch.arange(rows)[:, None] + past
            own = kwargs.get("attention_mask")
            seen = (column <= row)[None, None] if own is None else own > -1
            held = torch.zeros(len(self.layers[layer]), past + rows, dtype=torch.bool)
            for place, head in enumerate(self.layers[layer]):
                held[place, head.alive] = True
            seen = seen & held.repeat_interleave(groups, 0)[None, :, None] | (column == row)
            lowest = torch.finfo(torch.float32).min
            kwargs["attention_mask"] = torch.zeros(seen.shape).masked_fill(~seen, lowest)
            return args, kwargs

        blocks = self.adapter.decoder_layers
        handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
