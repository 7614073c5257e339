"""Evict: cache policies decide which entries each layer, and each head, goes on holding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.signals import Produced, Producer
from vtc_cli.core.stage import CacheEntries, DecodeStage
from vtc_cli.core.trace import StageRecord
from vtc_cli.engine.cache import EMPTY, LogicalLayer
from vtc_cli.engine.sequence import Sequence
from vtc_cli.engine.step import Scene, timed


class Evictor:
    """Applies the decode stages of a plan to a filled cache.

    Args:
        plan: the plan.
        scene: shared by all decisions of the pass.
        cache: the logical cache after the prefill.
        entry: the sequence that entered layer 0.
        final: the sequence that the last layer processed.
    """

    def __init__(
        self, plan: Plan, scene: Scene, cache: Any, entry: Sequence, final: Sequence
    ) -> None:
        self._plan, self._scene, self._cache = plan, scene, cache
        count = len(entry)
        self._visual = entry.is_visual()
        self._alive = torch.zeros_like(self._visual)
        self._alive[final.entry] = True
        self._anchor = torch.full((count,), -1, dtype=torch.int64, device=self._visual.device)
        self._anchor[entry.visual] = entry.table.anchor
        self._protected = torch.zeros_like(self._visual)
        self._protected[final.entry[final.visual]] = final.table.protected

    def after_prompt(self) -> None:
        """Let every policy decide once."""
        for planned in self._plan.decode:
            self._apply(planned)

    def after_token(self) -> None:
        """Let the policies that follow decoding decide again."""
        for planned in self._plan.decode:
            if planned.stage.every_step:
                self._apply(planned)

    def _apply(self, planned: Planned[DecodeStage]) -> None:
        for layer in range(planned.stage.first_layer, len(self._cache.layers)):
            self._apply_layer(planned, layer)

    def _apply_layer(self, planned: Planned[DecodeStage], layer: int) -> None:
        """Decide for one layer, gather its columns, write one record."""
        stored: LogicalLayer = self._cache.layers[layer]
        signals = self._scene.signals(self._producers(stored), layer, int(self._visual.sum()))
        where = f"{planned.name} at decoder layer {layer}"
        groups = self._groups(stored, layer)
        before = sum(int(group.visual.sum()) * len(group.heads) for group in groups)
        decisions, elapsed_ms = timed(
            lambda: [self._per_head(planned, group, signals, where) for group in groups],
            self._scene,
            where,
        )
        flat = [decision for per_head in decisions for decision in per_head]
        kept = [
            group.index[d.keep] for group, ds in zip(groups, decisions, strict=True) for d in ds
        ]
        visual = [self._is_visual(index) for index in kept]
        if not all(decision.is_identity for decision in flat):
            stored.keep(_columns([d.keep for d in flat], self._columns_of(stored)))
        heads = len(flat)
        self._scene.trace.records.append(
            StageRecord(
                stage=planned.name,
                phase="decode",
                layer=layer,
                before=round(before / heads),
                after=round(sum(int(flags.sum()) for flags in visual) / heads),
                decision=flat[0],
                holder=None,
                anchor=self._anchor_of(kept[0][visual[0]]),
                protected_tokens=0,
                decision_ms=max(elapsed_ms - signals.cost.ms, 0.0),
                signal_ms=signals.cost.ms,
                signal_flops=signals.cost.flops,
                signals=tuple(signals.cost.names),
            )
        )

    def _per_head(
        self, planned: Planned[DecodeStage], group: CacheEntries, signals: Any, where: str
    ) -> list[Decision]:
        """One decision for each head of `group`, checked."""
        answer = planned.stage.decide(group, signals)
        heads = len(group.heads)
        decisions = [answer] * heads if isinstance(answer, Decision) else list(answer)
        if len(decisions) != heads:
            raise StageError(f"{len(decisions)} decisions for {heads} heads", where=where)
        for decision in decisions:
            if decision.incoming_tokens != len(group):
                raise StageError(
                    f"a decision over {decision.incoming_tokens} of {len(group)} entries",
                    where=where,
                )
            if not decision.is_pruning:
                raise StageError(
                    "cached entries cannot be mixed", where=where, allowed="pruning decisions"
                )
        return decisions

    def _groups(self, stored: LogicalLayer, layer: int) -> list[CacheEntries]:
        """The entries of a layer: one group while all heads agree, else one a head."""
        order = stored.filled()
        heads = int(order.shape[1])
        if bool((order == order[:, :1]).all()):
            return [self._entries(order[0, 0], layer, heads, tuple(range(heads)))]
        return [self._entries(order[0, head], layer, heads, (head,)) for head in range(heads)]

    def _entries(
        self, order: Tensor, layer: int, kv_heads: int, heads: tuple[int, ...]
    ) -> CacheEntries:
        index = order[order != EMPTY]
        prompt = index.clamp_max(self._visual.shape[0] - 1)
        generated = index >= self._visual.shape[0]
        return CacheEntries(
            layer=layer,
            kv_heads=kv_heads,
            heads=heads,
            index=index,
            visual=self._visual[prompt] & ~generated,
            anchor=torch.where(generated, -1, self._anchor[prompt]),
            alive=self._alive[prompt] | generated,
            protected=self._protected[prompt] & ~generated,
        )

    def _is_visual(self, index: Tensor) -> Tensor:
        inside = index < self._visual.shape[0]
        return self._visual[index.clamp_max(self._visual.shape[0] - 1)] & inside

    def _anchor_of(self, index: Tensor) -> Tensor:
        return self._anchor[index].cpu()

    def _columns_of(self, stored: LogicalLayer) -> list[Tensor]:
        """For each head the stored columns that hold true entries."""
        order = stored.filled()
        return [(row != EMPTY).nonzero()[:, 0] for row in order[0]]

    def _producers(self, stored: LogicalLayer) -> Mapping[str, Producer]:
        """Keys and values of the layer as they are stored."""
        return {
            "keys": lambda: Produced(stored.key_states[0]),
            "values": lambda: Produced(stored.value_states[0]),
        }


def _columns(keeps: list[Tensor], columns: list[Tensor]) -> Tensor:
    """(heads, m) stored columns to retain, shorter heads padded on the left with -1."""
    picked = [column[keep] for keep, column in zip(keeps, columns, strict=True)]
    longest = max(int(item.shape[0]) for item in picked)
    padded = torch.full((len(picked), longest), EMPTY, dtype=torch.int64, device=picked[0].device)
    for head, item in enumerate(picked):
        padded[head, longest - item.shape[0] :] = item
    return padded
