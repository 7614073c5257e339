"""Encode: the vision tower and projector with encoder stages inside them and behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import SignalError, StageError
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.shape import TowerPass
from vtc_cli.core.signals import Produced, Producer, Signals
from vtc_cli.core.stage import EncoderStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.hooks import HookSet
from vtc_cli.engine.relevance import given_relevance, own_relevance
from vtc_cli.engine.spans import join_records
from vtc_cli.engine.step import RowMap, Scene, decide
from vtc_cli.engine.tap import AttentionTap, Capture
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import EncoderOutput, Prompt

TOWER_ATTENTION_SIGNALS = {"vision_cls_attention", "vision_received_attention", "vision_keys"}
QUERY_BLOCK = 256  # rows of attention computed at once when all queries are averaged


@dataclass(frozen=True, eq=False)
class Encoded:
    """Visual tokens at the decoder's door and the library's object that carries them."""

    table: TokenTable
    output: EncoderOutput


def encode(adapter: Adapter, prompt: Prompt, plan: Plan, scene: Scene) -> Encoded:
    """Run tower and projector under the encoder stages of `plan`.

    Stages inside the tower leave each picture its own number of rows, so that several pictures then
    go through it one by one.
    """
    inside = any(planned.stage.tower_layer is not None for planned in plan.encoder)
    if len(prompt.seen) == 1 or not inside:
        return _Encoder(adapter, prompt, plan, scene).run()
    apart = []
    for span in range(len(prompt.seen)):
        part, alone = adapter.part(prompt, span), scene.of_span(span)
        apart.append((_Encoder(adapter, part, plan, alone).run(), alone.trace))
    return _together(prompt, apart, scene.trace)


def _together(prompt: Prompt, apart: Sequence[tuple[Encoded, Trace]], trace: Trace) -> Encoded:
    """Spans that were encoded one by one as if they had been encoded at once."""
    parts = [encoded for encoded, _ in apart]
    table = TokenTable.joined([part.table for part in parts], prompt.layout)
    trace.tower.extend(tower for _, alone in apart for tower in alone.tower)
    trace.records.extend(join_records([alone.records for _, alone in apart], prompt.layout))
    carriers = {kind: c for part in parts for kind, c in part.output.carriers.items()}
    return Encoded(table, EncoderOutput(table.features, carriers, prompt.kinds, table.added))


class _Encoder:
    """State of one encoding pass."""

    def __init__(self, adapter: Adapter, prompt: Prompt, plan: Plan, scene: Scene) -> None:
        self._adapter, self._prompt, self._plan, self._scene = adapter, prompt, plan, scene
        self._table: TokenTable | None = None
        self._rows = RowMap()
        self._class_tokens = adapter.shape.class_tokens
        self._entering_projector: list[Tensor] = []
        self._before_projector: Tensor | None = None
        self._class_states: list[Tensor] = []
        self._tower_rows: list[list[int]] = [[] for _ in adapter.tower_layers]
        self._watched = self._signal_layers()
        wanted = [(adapter.tower_attention(layer), layer) for layer in self._watched]
        self._tap = AttentionTap(wanted, adapter.model.config.vision_config._attn_implementation)

    def run(self) -> Encoded:
        """Encode, then decide over the projected features."""
        with HookSet() as hooks, self._tap:
            for layer, block in enumerate(self._adapter.tower_layers):
                hooks.before(block, self._block_hook(layer))
            hooks.before(self._adapter.projector, self._projector_hook)
            if self._class_tokens and self._before_projector_acts():
                last = self._adapter.tower_layers[self._adapter.shape.feature_layers - 1]
                hooks.after(last, self._class_hook)
            output = self._adapter.encode(self._prompt)
            self._note_tower()
            table = self._projected(output)
        return Encoded(table, output)

    def _note_tower(self) -> None:
        """What the tower processed: measured where each picture is a row of its batch.

        Towers over one long row of patches have no stages inside them, so sizes tell.
        """
        shape = self._adapter.shape
        for seen in self._prompt.tower:
            whole = shape.patches_of(seen) + shape.class_tokens
            rows = [counts[0] if counts else whole for counts in self._tower_rows]
            self._scene.trace.tower.append(TowerPass(seen, rows))

    def _signal_layers(self) -> set[int]:
        """Tower layers whose attention some stage reads."""
        return {
            layer
            for planned in self._plan.encoder
            if planned.stage.needs & TOWER_ATTENTION_SIGNALS
            for layer in planned.stage.watched_layers
        }

    def _block_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, rest = _hidden(args, kwargs)
            for planned in self._plan.encoder:
                if planned.stage.tower_layer == layer:
                    hidden = self._inside(planned, layer, hidden)
            if hidden.ndim == 3:
                self._tower_rows[layer].append(int(hidden.shape[1]))
            if layer in self._watched:
                tokens = self._prompt.layout.tokens if self._table is None else len(self._table)
                self._rows.start(layer, tokens, hidden.device)
            return (hidden, *rest), {k: v for k, v in kwargs.items() if k != "hidden_states"}

        return hook

    def _inside(self, planned: Planned[EncoderStage], layer: int, hidden: Tensor) -> Tensor:
        """Apply a stage to the input of tower block `layer`; hidden (1, cls + N, d)."""
        if self._adapter.shape.between:
            raise StageError(
                self._adapter.shape.between,
                where=f"{planned.name} at encoder layer {layer}",
                allowed="stages behind the projector",
            )
        lead, rows = hidden[:, : self._class_tokens], hidden[0, self._class_tokens :]
        table = self._current(rows)
        signals = self._signals(layer)
        decision, self._table = decide(planned, table, signals, self._scene)
        self._rows.select(decision.keep)
        return torch.cat([lead, self._table.features[None]], dim=1)

    def _signals(self, layer: int) -> Signals:
        return self._scene.signals(self._producers(), layer, None, spans=self._scene.span_counts())

    def _projector_hook(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._entering_projector.append(args[0])

    def _class_hook(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self._class_states.append(hidden[:, 0])

    def _before_projector_acts(self) -> bool:
        return any(planned.stage.before_projector for planned in self._plan.encoder)

    def _projected(self, output: EncoderOutput) -> TokenTable:
        """Decide with the stages that act behind the tower, on either side of the projector."""
        self._table = replace(self._current(output.features), added=output.added)
        needed = [planned.stage.needs for planned in self._plan.encoder]
        if self._before_projector_acts() or any("vision_features" in each for each in needed):
            states = self._entering_projector
            self._before_projector = self._adapter.projector_rows(states, self._prompt)
        for planned in self._plan.encoder:
            if planned.stage.tower_layer is None:
                self._table = self._behind(planned, self._table)
        return self._table

    def _behind(self, planned: Planned[EncoderStage], table: TokenTable) -> TokenTable:
        """Apply a stage behind the tower."""
        before, signals = self._before_projector, self._signals(-1)
        if not planned.stage.before_projector:
            decision, after = decide(planned, table, signals, self._scene)
            self._before_projector = None if before is None else decision.apply(before)
        else:
            assert before is not None
            seen = table.with_features(before)
            decision, after = decide(planned, seen, signals, self._scene)
            self._before_projector = after.features
            after = replace(after, features=self._projected_anew(decision, before, table.features))
        self._rows.select(decision.keep)
        return after

    def _projected_anew(self, decision: Decision, before: Tensor, projected: Tensor) -> Tensor:
        """(K, d) features of the survivors; those are projected that differ from their old rows.

        Args:
            decision: over rows that enter the projector.
            before: (N, d_vision) these rows.
            projected: (N, d) what the model made of them, by the projector and what follows it.
        """
        features = projected.index_select(0, decision.keep)
        rows = decision.featured(before)
        changed = (rows != before.index_select(0, decision.keep)).any(dim=1).nonzero()[:, 0]
        if changed.shape[0]:
            features[changed] = self._adapter.project(rows[changed]).to(features.dtype)
            weights = sum(inputs * outputs for inputs, outputs in self._adapter.shape.projector)
            record = self._scene.trace.records[-1]
            spent = record.signal_flops + 2 * weights * changed.shape[0]
            self._scene.trace.records[-1] = replace(record, signal_flops=spent)
        return features

    def _current(self, features: Tensor) -> TokenTable:
        """The table with the features of this place."""
        if self._table is None:
            return TokenTable.from_layout(features, self._prompt.layout)
        return self._table.with_features(features)

    def _producers(self) -> Mapping[str, Producer]:
        """Signals that exist at this point of the encoder."""
        producers: dict[str, Producer] = {"text_embeddings": self._text_embeddings}
        if self._tap.batches:
            producers["vision_received_attention"] = self._received_attention
            producers["vision_keys"] = self._keys
            if self._class_tokens:
                producers["vision_cls_attention"] = self._cls_attention
        if self._before_projector is not None:
            before = self._before_projector
            producers["vision_features"] = lambda: Produced(before)
            states = torch.cat(self._class_states) if self._class_states else before[:0, :0]
            if states.shape[1] == before.shape[1]:
                producers["vision_class_state"] = lambda: Produced(self._of_views(states))
        if self._entering_projector:
            producers["projected_features"] = lambda: Produced(self._table_features())
            producers["frame_relevance"] = self._frame_relevance
        return producers

    def _of_views(self, states: Tensor) -> Tensor:
        """One state a picture, frame or crop (V, d) as that of each current token (N, d)."""
        assert self._table is not None
        patches = states.repeat_interleave(self._adapter.shape.patches, dim=0)
        return self._adapter.pooled(patches, self._prompt)[self._table.anchor]

    def _table_features(self) -> Tensor:
        assert self._table is not None
        return self._table.features

    def _capture(self, layer: int) -> tuple[list[Capture], Tensor]:
        """What tower layer `layer` kept of each frame; which tokens there the current ones are."""
        layer = layer % len(self._adapter.tower_layers)
        if layer not in self._tap.batches:
            raise SignalError(
                f"attention of tower layer {layer} is not known here",
                allowed=f"layers {sorted(self._tap.batches)}",
                hint="a stage sees only tower layers that ran before it",
            )
        return self._tap.batches[layer], self._rows.rows(layer)

    def _of_tokens(self, patches: list[Tensor], rows: Tensor) -> Tensor:
        """Values of the patches of each frame (P, ...) as values of the current tokens."""
        joined = self._adapter.pooled(torch.cat(patches), self._prompt)
        return joined.index_select(0, rows)

    def _cls_attention(self, layer: int) -> Produced:
        captures, rows = self._capture(layer)
        first = torch.zeros(1, dtype=torch.int64, device=rows.device)
        lead = self._class_tokens
        patches = [capture.rows(first)[:, 0, lead:].mean(dim=0) for capture in captures]
        return Produced(self._of_tokens(patches, rows), sum(c.row_flops(1) for c in captures))

    def _received_attention(self, layer: int) -> Produced:
        captures, rows = self._capture(layer)
        patches = [_received(capture)[self._class_tokens :] for capture in captures]
        flops = sum(capture.row_flops(int(capture.query.shape[1])) for capture in captures)
        return Produced(self._of_tokens(patches, rows), flops)

    def _keys(self, layer: int) -> Produced:
        captures, rows = self._capture(layer)
        lead = self._class_tokens
        patches = [capture.key[:, lead:].transpose(0, 1) for capture in captures]
        return Produced(self._of_tokens(patches, rows))

    def _text_embeddings(self) -> Produced:
        return Produced(self._text())

    def _text(self) -> Tensor:
        after = int(self._prompt.visual_index.max()) + 1
        return self._adapter.text_embeddings(self._prompt.input_ids[0, after:])

    def _frame_relevance(self) -> Produced:
        assert self._table is not None
        table, layout = self._table, self._prompt.layout
        if self._prompt.frame_scorers:
            scorers, device = self._prompt.frame_scorers, table.features.device
            return given_relevance(
                scorers, list(map(layout.frames_of, range(layout.spans))), device
            )
        first = torch.tensor([0, *map(layout.frames_of, range(layout.spans))]).cumsum(0)
        frame = table.frame + first.to(table.span.device)[table.span]
        return own_relevance(table.features, frame, layout.frames, self._text())


def _received(capture: Capture) -> Tensor:
    """(K,) attention that each row receives, mean over heads and queries."""
    total = int(capture.query.shape[1])
    received = torch.zeros(total, device=capture.query.device)
    for start in range(0, total, QUERY_BLOCK):
        block = torch.arange(start, min(start + QUERY_BLOCK, total), device=received.device)
        received += capture.rows(block).sum(dim=(0, 1))
    return received / (capture.query.shape[0] * total)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
    """The hidden states and the other positional arguments of a block call."""
    if args:
        return args[0], args[1:]
    return kwargs["hidden_states"], ()
