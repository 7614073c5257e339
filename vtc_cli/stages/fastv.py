"""FastV: after layer K - 1 keep what the last prompt token looks at (arXiv 2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import tokens_allowed
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "FastV, arXiv 2403.06764"


@dataclass(frozen=True, kw_only=True)
class LastRow(PrefillStage):
    """Keeps the tokens with the highest attention of the last prompt token, mean over heads.

    The row is that of the layer before: K in the paper is the first layer on the short sequence.

    Deviation: the paper's text averages over all queries; its code, followed here, takes one row.
    Deviation: ties go to the lowest index; the official sort leaves them open.
    Deviation: protected tokens stay whatever their attention; FastV alone has none.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (2,), "K, first layer on the short sequence", source="paper", layer_of="llm"
    )
    tokens: int = parameter(
        288, "attention rank, tokens left without a budget", source="official code", minimum=1
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best n; with n >= N nothing changes."""
        wanted = tokens_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        attention = require_finite(signals.attention_rows("last").mean(dim=0)[0], "attention")
        score = attention + tokens.protected * (attention.max() + 1)
        keep = top_indices(score, wanted).sort().values
        return Decision.prune(keep, len(tokens), scores=attention)
