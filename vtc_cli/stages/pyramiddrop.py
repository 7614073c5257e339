"""PyramidDrop: halve the tokens at the borders of decoder stages (arXiv 2410.17247)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, tokens_allowed
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "PyramidDrop, arXiv 2410.17247"
CODE = "official scripts, LLaVA-1.5 and LLaVA-NeXT"


@dataclass(frozen=True, kw_only=True)
class LastInstruction(PrefillStage):
    """Keeps the tokens that the last prompt token is about to attend to most, mean over heads.

    The row is worked out with the norm and the projections of the layer that follows the border,
    not read from the layer before. Shares are of the tokens that entered the decoder and rounded
    down: 10 tokens at 0.5, 0.25 and 0.125 leave 5, 2 and 1.

    Deviation: under a budget the counts follow `LayerBudget.schedule`, the same share at every
    border as the published halves have. What the layers cannot meet is refused: at 8, 16 and 24 of
    32 layers a quarter of the layers always sees all tokens.
    Deviation: ties go to the lowest index; the official top-k leaves them open.
    Deviation: protected tokens stay whatever their attention; PyramidDrop alone has none.
    Deviation: a share above zero leaves at least one token; the official rounding may leave none
    (`fidelity: official` keeps that).
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows_ahead"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (8, 16, 24), "first layer of each stage but the first one", source=CODE, layer_of="llm"
    )
    keep_ratios: tuple[float, ...] = parameter(
        (0.5, 0.25, 0.125),
        "share of the entering tokens that each stage sees without a budget",
        source=CODE,
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0),
    )
    fidelity: Literal["sound", "official"] = parameter("sound", "whether none may be left")

    def __post_init__(self) -> None:
        """Refuse shares that do not belong to the layers.

        Raises:
            ValueError: not as many shares as layers, or a share above the one before.
        """
        if len(self.keep_ratios) != len(self.layers):
            raise ValueError(f"{len(self.keep_ratios)} shares for {len(self.layers)} layers")
        if list(self.keep_ratios) != sorted(self.keep_ratios, reverse=True):
            raise ValueError("a share is larger than the one before it")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best n; with n >= N nothing changes."""
        entering = signals.entering_tokens or len(tokens)
        wanted = tokens_allowed(tokens, signals, self._own_count(entering, signals.layer))
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        rows = signals.attention_rows_ahead("last")
        attention = require_finite(rows.mean(dim=0)[0], "attention")
        score = attention + tokens.protected * (attention.max() + 1)
        keep = top_indices(score, wanted).sort().values
        return Decision.prune(keep, len(tokens), scores=attention, flops=rows.numel())

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        entering = counts.entering or counts.tokens
        return counted_allowed(counts, self._own_count(entering, counts.layer))

    def _own_count(self, entering: int, layer: int) -> int:
        """Tokens left of `entering` at this border without a budget."""
        share = self.keep_ratios[self.layers.index(layer)]
        count = int(entering * share)
        return count if self.fidelity == "official" else max(count, int(share > 0))
