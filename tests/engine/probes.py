"""Stages that only look: they keep everything and put a signal into `scores`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable


@dataclass(frozen=True, kw_only=True)
class ProbeClassAttention(EncoderStage):
    """Shows the [CLS] attention of a tower layer."""

    needs: ClassVar[frozenset[str]] = frozenset({"vision_cls_attention"})
    attention_layer: int = parameter(3, "", layer_of="vision")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        scores = signals.vision_cls_attention(self.attention_layer)
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)


@dataclass(frozen=True, kw_only=True)
class ProbeRows(PrefillStage):
    """Shows the text rows of the layer before, head mean and row mean."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    layers: tuple[int, ...] = (1, 2, 3, 4, 5)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        scores = signals.attention_rows("after_visual").mean(dim=(0, 1))
        return Decision.identity(len(tokens), tokens.features.device, scores=scores)
