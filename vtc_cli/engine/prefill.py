"""Prefill: the decoder reads the prompt while tokens leave at the inputs of its layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vtc_cli.core.cut import Stop
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import SignalError
from vtc_cli.core.observe import LayerView, Observer
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.signals import Produced, Producer, Queries
from vtc_cli.core.stage import PrefillStage
from vtc_cli.engine.ahead import attention_ahead
from vtc_cli.engine.attended import Received, Watch, last_rows, watches
from vtc_cli.engine.clock import synchronize
from vtc_cli.engine.encode import Encoded
from vtc_cli.engine.hooks import HookSet
from vtc_cli.engine.sequence import Entry, Sequence
from vtc_cli.engine.step import RowMap, Scene, decide
from vtc_cli.engine.tap import AttentionTap, Capture
from vtc_cli.models.support.base import Adapter

DECODER_CAPTURE_SIGNALS = {
    "attention_rows",
    "attention_output",
    "attention_projection",
    "keys",
    "text_keys",
    "values",
}


def prefill(
    adapter: Adapter,
    encoded: Encoded,
    entry: Entry,
    plan: Plan,
    scene: Scene,
    cache: Any,
    observer: Observer | None = None,
) -> tuple[Tensor, list[Sequence]]:
    """Read the prompt under the prefill stages of `plan` and fill `cache`.

    With an `observer` every layer is shown to it; its reductions go to the trace.

    Returns:
        (V,) logits of the first answer token, and for each decoder layer the sequence that it
        processed.
    """
    return _Prefill(adapter, entry, plan, scene, observer).run(encoded, cache)


def prefill_until_decided(
    adapter: Adapter,
    encoded: Encoded,
    entry: Entry,
    plan: Plan,
    scene: Scene,
    cache: Any,
    stop: Stop | None = None,
) -> Sequence:
    """Read the prompt only as far as `stop` or, without one, the last prefill stage of `plan` acts.

    `cache` must be given though nobody reads it: without one the library takes gaps between
    position ids for borders of packed prompts and masks across them.

    Returns:
        The sequence that leaves that stage, its table with the hidden states there.
    """
    return _Prefill(adapter, entry, plan, scene, None).run_until_decided(encoded, cache, stop)


def cut_mask(mask: Tensor, entry: Tensor) -> Tensor:
    """The attention mask of the tokens that are left, in the order in which they stand.

    Which two tokens meet is read off `entry`, so that blocks and windows stay with their tokens;
    which of the two is the later one is decided by the order as it stands, so that a reordered
    sequence is causal in its new order.

    Args:
        mask: (..., N, N) rows of queries and columns of keys, as they entered layer 0.
        entry: (n,) the entered token at each place.

    Returns:
        (..., n, n) of the same dtype.
    """
    cut = mask.index_select(-2, entry).index_select(-1, entry)
    place = torch.arange(entry.shape[0], device=entry.device)
    swapped = (entry[:, None] < entry) != (place[:, None] < place)
    return torch.where(swapped, cut.mT, cut)


class _DecidedError(Exception):
    """Ends a forward pass whose remaining layers nobody needs."""


class _Prefill:
    """State of one pass over the prompt."""

    def __init__(
        self,
        adapter: Adapter,
        entry: Entry,
        plan: Plan,
        scene: Scene,
        observer: Observer | None,
    ) -> None:
        self._adapter, self._entry, self._plan, self._scene = adapter, entry, plan, scene
        self._observer = observer
        self._stop: Stop | None = None
        self._now = entry.sequence
        self._layers: list[Sequence] = []
        self._rows = RowMap()
        self._shortened = False
        self._fits: dict[int, tuple[Any, Any]] = {}  # arguments that layers share, whole and cut
        self._renumbered = plan.positions == "renumbered"
        self._watched = self._signal_layers()
        self._tap = self._tap_of(self._watched)

    def run(self, encoded: Encoded, cache: Any) -> tuple[Tensor, list[Sequence]]:
        """Run the model once over the prompt."""
        asked = watches(self._plan, len(self._adapter.decoder_layers))
        self._tap = self._tap_of(self._watched | set(asked))
        with HookSet() as hooks:
            for layer, watch in asked.items():
                hook = self._watching_hook(cache.layers[layer], layer, watch)
                hooks.after(self._adapter.decoder_layers[layer], hook)
            output = self._forward(encoded, cache)
        for stored, sequence in zip(cache.layers, self._layers, strict=True):
            stored.relabel(sequence.entry, len(self._entry.sequence))
        return output.logits[0, -1], self._layers

    def run_until_decided(self, encoded: Encoded, cache: Any, stop: Stop | None) -> Sequence:
        """Run the model up to the input of the layer of the last action."""
        stages = enumerate(self._plan.prefill)
        acting = [(layer, place) for place, planned in stages for layer in planned.stage.layers]
        if acting:
            self._stop = stop or Stop(*max(acting))
            with suppress(_DecidedError):
                self._forward(encoded, cache)
        return self._now

    def _tap_of(self, layers: set[int]) -> AttentionTap:
        wanted = [(self._adapter.decoder_attention(layer), layer) for layer in sorted(layers)]
        return AttentionTap(wanted, self._adapter.decoder.config._attn_implementation)

    def _forward(self, encoded: Encoded, cache: Any) -> Any:
        table = encoded.table
        with HookSet() as hooks, self._tap:
            for layer, block in enumerate(self._adapter.decoder_layers):
                hooks.before(block, self._hook(layer))
                if layer < len(encoded.table.added):
                    hooks.after(block, self._adding_hook(layer))
                if self._observer is not None:
                    hooks.after(block, self._observing_hook(self._observer, layer))
            return self._adapter.model(
                input_ids=self._entry.input_ids,
                position_ids=self._entry.position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **self._adapter.prefill_arguments(encoded.output, table.features, table.span),
                **self._adapter.sequence_arguments(self._entry.input_ids),
            )

    def _signal_layers(self) -> set[int]:
        """Decoder layers whose attention a stage or the observer reads.

        A stage reads the layer before the one it acts at.
        """
        if self._observer is not None and self._observer.taps_attention:
            return set(range(len(self._adapter.decoder_layers)))
        return {
            layer - 1
            for planned in self._plan.prefill
            if planned.stage.needs & DECODER_CAPTURE_SIGNALS
            for layer in planned.stage.layers
            if layer > 0
        }

    def _hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0]
            for place, planned in enumerate(self._plan.prefill):
                if layer in planned.stage.layers and self._acts(layer, place):
                    hidden = self._shrink(planned, layer, hidden, kwargs)
            self._tap.release(layer - 1)
            if self._stop is not None and layer == self._stop.layer:
                raise _DecidedError
            self._layers.append(self._now)
            if layer in self._watched:
                self._rows.start(layer, len(self._now), hidden.device)
            return (hidden, *args[1:]), self._fitted(layer, hidden, kwargs)

        return hook

    def _acts(self, layer: int, place: int) -> bool:
        """Whether stage number `place` still acts at `layer`."""
        stop = self._stop
        return stop is None or layer < stop.layer or place <= stop.place

    def _adding_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            visual, rows = self._now.visual, self._now.table.added[layer]
            output[0, visual] = output[0, visual] + rows.to(output.dtype)

        return hook

    def _observing_hook(self, observer: Observer, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            view = self._view(observer, layer, hidden)
            self._scene.trace.observed.append(observer.reduce(view))

        return hook

    def _watching_hook(self, stored: Any, layer: int, watch: Watch) -> Any:
        """Keep what cache policies will ask about the attention of a layer."""

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            capture = self._tap.captures[layer]
            if watch.rows:
                stored.last_rows = last_rows(capture, watch.rows)
            if watch.sums:
                stored.received = Received(lambda: synchronize(self._scene.device))
                stored.received.start(capture)

        return hook

    def _view(self, observer: Observer, layer: int, hidden: Tensor) -> LayerView:
        """What the observer asked to see of `layer`; hidden (1, n, d) is its output."""
        visual, places = self._now.visual, self._now.queries_after_visual()
        capture = self._tap.captures.get(layer)
        joined = attention = None
        if capture is not None and observer.matrix == "attention_output":
            joined = capture.output.index_select(0, visual)
        if capture is not None and observer.attention and places.shape[0]:
            attention = capture.rows(places)[:, :, visual]
        return LayerView(
            layer=layer,
            anchor=self._now.table.anchor,
            hidden=hidden[0].index_select(0, visual) if observer.matrix == "hidden" else None,
            attention_output=joined,
            attention=attention,
        )

    def _shrink(
        self, planned: Planned[PrefillStage], layer: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> Tensor:
        """Let one stage decide at the input of `layer`; hidden (1, n, d)."""
        table = self._now.table.with_features(hidden[0, self._now.visual])
        if len(table) == 0:
            return hidden
        entering = len(self._entry.sequence.table)
        processed = tuple(len(sequence.table) for sequence in self._layers)
        tables = [sequence.table for sequence in self._layers]
        spans = self._scene.span_counts(self._entry.sequence.table, tables)
        producers = self._producers(layer) | self._ahead(layer, hidden, kwargs)
        signals = self._scene.signals(producers, layer, entering, processed, spans)
        decision, table = decide(planned, table, signals, self._scene)
        if decision.is_identity:
            self._now = replace(self._now, table=table)
            return hidden
        return self._cut(hidden, decision, table)

    def _cut(self, hidden: Tensor, decision: Decision, table: Any) -> Tensor:
        """Gather the survivors of every column."""
        self._now, local = self._now.shrink(decision, table)
        self._shortened, self._fits = True, {}
        self._rows.select(local)
        hidden = hidden.index_select(1, local)
        if not decision.is_pruning:
            hidden[0, self._now.visual] = table.features
        return hidden

    def _fitted(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The layer's arguments cut to the tokens that are left."""
        if not self._shortened:
            return kwargs
        fitted = dict(kwargs)
        whole, mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
        fitted["position_embeddings"] = self._once(whole, lambda: self._rotary(hidden, layer))
        if kwargs.get("position_ids") is not None:
            fitted["position_ids"] = self._adapter.layer_position_ids(self._positions())
        if mask is not None:
            fitted["attention_mask"] = self._once(mask, lambda: cut_mask(mask, self._now.entry))
        return fitted

    def _once(self, whole: Any, fit: Callable[[], Any]) -> Any:
        """`fit()`, made once for all layers that are handed the same object `whole`."""
        if id(whole) not in self._fits:
            self._fits[id(whole)] = whole, fit()  # `whole` is held, so that no other takes its id
        return self._fits[id(whole)][1]

    def _positions(self) -> Tensor:
        """Position ids of the tokens that are left."""
        position_ids = self._entry.position_ids[..., self._now.entry]
        if not self._renumbered:
            return position_ids
        return torch.arange(len(self._now), device=position_ids.device).expand_as(position_ids)

    def _rotary(self, hidden: Tensor, layer: int) -> Any:
        """Rotary embeddings of the tokens that are left."""
        return self._adapter.rotary(hidden, self._positions(), layer)

    def _producers(self, layer: int) -> dict[str, Producer]:
        """Signals of the layer before, for the tokens as they stand now."""
        producers: dict[str, Producer] = {
            "text_embeddings": self._text_embeddings,
        }
        capture = self._tap.captures.get(layer - 1)
        if capture is not None and layer - 1 in self._watched:
            rows = self._rows.rows(layer - 1)
            visual = rows[self._now.visual]
            producers["attention_rows"] = lambda queries: self._attention_rows(
                capture, rows, queries
            )
            output = capture.output.index_select(0, visual)
            producers["attention_output"] = lambda: Produced(output)
            producers["attention_projection"] = lambda: self._projection(output, layer - 1)
            producers["keys"] = lambda: Produced(capture.key.index_select(1, visual))
            text = rows[self._now.queries_after_visual()]
            producers["text_keys"] = lambda: Produced(capture.key.index_select(1, text))
            producers["values"] = lambda: Produced(capture.value.index_select(1, visual))
        return producers

    def _ahead(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Producer]:
        """Signals made of what stands at the input of `layer`; hidden (1, n, d)."""

        def attention(queries: Queries) -> Produced:
            fitted = self._fitted(layer, hidden, kwargs)
            capture, flops = attention_ahead(self._adapter, layer, hidden, fitted)
            rows = torch.arange(len(self._now), device=hidden.device)
            produced = self._attention_rows(capture, rows, queries)
            return Produced(produced.value, produced.flops + flops)

        def normed(places: Tensor) -> Produced:
            states = hidden[0].index_select(0, places)
            return Produced(self._adapter.decoder.norm(states), 4 * states.numel())

        return {
            "hidden": lambda: Produced(hidden[0].index_select(0, self._now.visual)),
            "attention_rows_ahead": attention,
            "normed_hidden": lambda: normed(self._now.visual),
            "normed_text": lambda: normed(self._now.queries_after_visual()),
            "visual_places": lambda: Produced(self._now.visual),
            "text_places": lambda: Produced(self._now.queries_after_visual()),
        }

    def _attention_rows(self, capture: Capture, rows: Tensor, queries: Queries) -> Produced:
        """Rows of the text in `capture`, whose row numbers of the current tokens are `rows`."""
        places = self._now.queries_after_visual()
        if queries == "last":
            places = places[-1:]
        if places.shape[0] == 0:
            raise SignalError(
                "no text follows the visual tokens, so no attention row looks at them",
                allowed="a prompt whose question stands behind the picture",
            )
        index = rows.index_select(0, places)
        attention = capture.rows(index)[:, :, rows[self._now.visual]]
        return Produced(attention, capture.row_flops(int(index.shape[0])))

    def _projection(self, output: Tensor, layer: int) -> Produced:
        """The output projection of `layer` applied to the visual rows once more."""
        linear: Any = self._adapter.decoder_attention(layer).o_proj
        flops = 2 * output.shape[0] * linear.in_features * linear.out_features
        return Produced(linear(output), flops)

    def _text_embeddings(self) -> Produced:
        places = self._entry.sequence.queries_after_visual()
        return Produced(self._adapter.text_embeddings(self._entry.input_ids[0, places]))
