"""VTC-CLS: keep the patches that [CLS] attends to over several late layers (arXiv 2412.05819)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_entering, entering_allowed
from vtc_cli.stages.ops.select import require_finite
from vtc_cli.stages.ops.views import attention_source, even_top, patch_attention, views

PAPER = "VTC-CLS, arXiv 2412.05819"
CODE = "official code, LLaVA-1.5-7B"


@dataclass(frozen=True, kw_only=True)
class SummedAttention(EncoderStage):
    """Keeps the tokens with the highest [CLS] attention, summed over a range of late layers.

    The heads of a layer are averaged and the layers added with equal weights. The last layer of the
    tower is left out, for the features are taken before it. Kept tokens stand in raster order.
    Tokens leave behind the projector, which treats each row alone: leaving before it is the same.

    Deviation: every picture and every frame gives the same number of tokens; the official code
    knows one picture only.
    Deviation: a tower without [CLS] ranks by the attention that a token receives from all others;
    the paper has [CLS] only.
    Deviation: ties go to the lowest index; the official top-k leaves them open.
    Deviation: protected tokens stay whatever their attention; VTC-CLS alone has none.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention"})
    meets_budget: ClassVar[bool] = True
    first_layer: int = parameter(
        16, "first tower layer that is added up", source=CODE, layer_of="vision"
    )
    last_layer: int = parameter(
        22, "last tower layer that is added up", source=CODE, layer_of="vision"
    )
    tokens: int = parameter(
        64,
        "tokens left without a budget",
        source="paper; 256, 128 and 64 in its table",
        minimum=1,
        steers=Steering(1, None),
    )

    def __post_init__(self) -> None:
        """Refuse an empty range of layers.

        Raises:
            ValueError: the first layer stands behind the last one.
        """
        if (self.first_layer < 0) == (self.last_layer < 0) and self.first_layer > self.last_layer:
            raise ValueError(
                f"no layer is left between first_layer {self.first_layer} "
                f"and last_layer {self.last_layer}"
            )

    @property
    def watched_layers(self) -> tuple[int, ...]:
        """Every layer of the range, both ends included."""
        return tuple(range(self.first_layer, self.last_layer + 1))

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best n; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        layers = [patch_attention(signals, layer) for layer in self.watched_layers]
        scores = require_finite(torch.stack(layers).sum(dim=0), "attention")
        keep = even_top(scores, views(tokens), tokens.protected, wanted)
        flops = len(layers) * len(tokens)
        note = attention_source(signals)
        return Decision.prune(keep, len(tokens), scores=scores, note=note, flops=flops)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self.tokens)
