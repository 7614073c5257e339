"""Evict: cache policies decide which entries each layer, and each head, goes on holding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.decision import Decision, not_a_decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.signals import Produced, Producer, Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage
from vtc_cli.core.trace import StageRecord
from vtc_cli.engine.attended import watches
from vtc_cli.engine.cache import EMPTY, LogicalLayer
from vtc_cli.engine.sequence import Sequence
from vtc_cli.engine.step import Scene, timed
from vtc_cli.engine.tap import AttentionTap


class Evictor:
    """Applies the decode stages of a plan to a filled cache.

    A policy has one record a layer for its decision after the prompt. One that goes on deciding has
    a second one for all decisions while the answer grows: what was there before the first and after
    the last of them, and what they cost together.

    Args:
        plan: the plan.
        scene: shared by all decisions of the pass.
        cache: the logical cache after the prefill.
        entry: the sequence that entered layer 0.
        final: the sequence that the last layer processed.

    Attributes:
        reading: decoder layers whose attention is read while the answer grows.
        follows: whether a policy goes on deciding while the answer grows.
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
        asked = watches(plan, len(cache.layers))
        self.reading = [layer for layer, watch in asked.items() if watch.steps]
        self.follows = any(planned.stage.every_step for planned in plan.decode)
        self._growing: dict[tuple[int, int], int] = {}  # policy and layer: place of the record

    def after_prompt(self) -> None:
        """Let every policy decide once."""
        for planned in self._plan.decode:
            for layer in self._layers_of(planned):
                self._scene.trace.records.append(self._apply(planned, layer))
        for layer, stored in enumerate(self._cache.layers):
            stored.last_rows = None  # its keys are those of the whole prompt
            if layer not in self.reading:
                stored.received = None
        self._scene.trace.kv_text_entries = [self._text(stored) for stored in self._cache.layers]

    def after_token(self, tap: AttentionTap) -> None:
        """Let the policies that follow decoding decide again, `tap` having seen the step."""
        for layer in self.reading:
            self._cache.layers[layer].received.add(tap.captures[layer])
            tap.release(layer)
        for place, planned in enumerate(self._plan.decode):
            if planned.stage.every_step:
                for layer in self._layers_of(planned):
                    self._record_step((place, layer), self._apply(planned, layer))

    def _layers_of(self, planned: Planned[DecodeStage]) -> range:
        return range(planned.stage.first_layer, len(self._cache.layers))

    def _record_step(self, key: tuple[int, int], fresh: StageRecord) -> None:
        """Join the record of one more step to that of the steps before."""
        records = self._scene.trace.records
        if key not in self._growing:
            self._growing[key] = len(records)
            records.append(replace(fresh, steps=1))
            return
        past = records[self._growing[key]]
        idle = fresh.decision.is_identity
        unused = fresh.decision if idle else past.decision
        records[self._growing[key]] = replace(
            fresh,
            before=past.before,
            decision=past.decision if idle else fresh.decision,
            decision_ms=past.decision_ms + fresh.decision_ms,
            signal_ms=past.signal_ms + fresh.signal_ms,
            signal_flops=past.signal_flops + fresh.signal_flops + unused.flops,
            steps=past.steps + 1,
        )

    def _apply(self, planned: Planned[DecodeStage], layer: int) -> StageRecord:
        """Decide for one layer, gather its columns, write one record."""
        stored: LogicalLayer = self._cache.layers[layer]
        where = f"{planned.name} at decoder layer {layer}"
        groups = self._groups(stored, layer)
        before = sum(int(group.visual.sum()) * len(group.heads) for group in groups)
        views = [self._signals(stored, group) for group in groups]
        decisions, elapsed_ms = timed(
            lambda: [
                self._per_head(planned, group, signals, where)
                for group, signals in zip(groups, views, strict=True)
            ],
            self._scene,
            planned.stage,
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
        costs = [signals.cost for signals in views]
        asked_ms = sum(cost.ms for cost in costs)
        summed_ms, summed_flops = _cost_of_sums(planned, stored)
        other_flops = sum(each[0].flops for each in decisions[1:])  # `decision` has the first's
        return StageRecord(
            stage=planned.name,
            phase="decode",
            layer=layer,
            before=round(before / heads),
            after=round(sum(int(flags.sum()) for flags in visual) / heads),
            decision=flat[0],
            holder=None,
            anchor=self._anchor_of(kept[0][visual[0]]),
            protected_tokens=0,
            decision_ms=max(elapsed_ms - asked_ms, 0.0),
            signal_ms=asked_ms + summed_ms,
            signal_flops=sum(cost.flops for cost in costs) + summed_flops + other_flops,
            signals=tuple(dict.fromkeys(name for cost in costs for name in cost.names)),
        )

    def _per_head(
        self, planned: Planned[DecodeStage], group: CacheEntries, signals: Any, where: str
    ) -> list[Decision]:
        """One decision for each head of `group`, checked."""
        answer: object = planned.stage.decide(group, signals)
        heads = len(group.heads)
        decisions: object = [answer] * heads if isinstance(answer, Decision) else answer
        if not isinstance(decisions, (list, tuple)):
            raise not_a_decision(answer, where)
        if len(decisions) != heads:
            raise StageError(f"{len(decisions)} decisions for {heads} heads", where=where)
        for decision in decisions:
            if not isinstance(decision, Decision):
                raise not_a_decision(decision, where)
            if decision.incoming_tokens != len(group):
                raise StageError(
                    f"a decision over {decision.incoming_tokens} of {len(group)} entries",
                    where=where,
                )
            if not decision.is_pruning:
                raise StageError(
                    "cached entries cannot be mixed", where=where, allowed="pruning decisions"
                )
            if not planned.stage.evicts_text and _text_lost(group, decision):
                raise StageError("text leaves the cache", where=where, allowed="visual entries")
        return list(decisions)

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

    def _text(self, stored: LogicalLayer) -> float:
        """Mean text entries a head."""
        order = stored.filled()[0]
        return int(((order != EMPTY) & ~self._is_visual(order)).sum()) / int(order.shape[0])

    def _signals(self, stored: LogicalLayer, group: CacheEntries) -> Signals:
        """What a policy may ask about the entries of `group`."""
        entering = int(self._visual.sum())
        return self._scene.signals(
            self._producers(stored, group),
            group.layer,
            entering,
            prompt_entries=int(stored.prompt_order.shape[0]),
        )

    def _producers(self, stored: LogicalLayer, group: CacheEntries) -> Mapping[str, Producer]:
        """Keys and values of the layer as they are stored, attention of the group's heads."""
        producers: dict[str, Producer] = {
            "keys": lambda: Produced(stored.key_states[0]),
            "values": lambda: Produced(stored.value_states[0]),
        }
        if stored.last_rows is not None:
            producers["window_attention"] = lambda rows: _window(stored, group, rows)
        if stored.received is not None:
            producers["received_attention"] = lambda: _received(stored, group)
        return producers


def _text_lost(group: CacheEntries, decision: Decision) -> bool:
    """Whether a text entry of the group is not kept."""
    return int((~group.visual[decision.keep]).sum()) < int((~group.visual).sum())


def _query_heads(rows: Tensor, group: CacheEntries) -> Tensor:
    """Of `rows` (heads, ...) those of the query heads that read the group's key/value heads."""
    each = rows.shape[0] // group.kv_heads
    return rows[group.heads[0] * each : (group.heads[-1] + 1) * each]


def _window(stored: LogicalLayer, group: CacheEntries, rows: int) -> Produced:
    """(heads, W, n) attention of the prompt's last rows to the entries of the group."""
    capture = stored.last_rows
    assert capture is not None
    total = int(capture.query.shape[1])
    index = torch.arange(max(total - rows, 0), total, device=group.index.device)
    ordered, columns = stored.prompt_order.sort()
    place = columns[torch.searchsorted(ordered, group.index)]
    attention = _query_heads(capture.rows(index), group)[:, :, place]
    return Produced(attention, capture.row_flops(int(index.shape[0])))


def _received(stored: LogicalLayer, group: CacheEntries) -> Produced:
    """(heads, n) attention that the entries of the group received so far."""
    received = stored.received
    assert received is not None
    columns = (stored.filled()[0, group.heads[0]] != EMPTY).nonzero()[:, 0]
    return Produced(_query_heads(received.sums, group)[:, columns])


def _cost_of_sums(planned: Planned[DecodeStage], stored: LogicalLayer) -> tuple[float, int]:
    """Milliseconds and operations of summing attention since the last decision that reads it."""
    if stored.received is None or "received_attention" not in planned.stage.needs:
        return 0.0, 0
    return stored.received.take_cost()


def _columns(keeps: list[Tensor], columns: list[Tensor]) -> Tensor:
    """(heads, m) stored columns to retain, shorter heads padded on the left with -1."""
    picked = [column[keep] for keep, column in zip(keeps, columns, strict=True)]
    longest = max(int(item.shape[0]) for item in picked)
    padded = torch.full((len(picked), longest), EMPTY, dtype=torch.int64, device=picked[0].device)
    for head, item in enumerate(picked):
        padded[head, longest - item.shape[0] :] = item
    return padded
