"""FastV: after layer K - 1 keep what the last prompt token looks at (arXiv 2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, official_share, tokens_allowed
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "FastV, arXiv 2403.06764"


@dataclass(frozen=True, kw_only=True)
class LastRow(PrefillStage):
    """Keeps the tokens with the highest attention of the last prompt token, mean over heads.

    The row is that of the layer before: K in the paper is the first layer on the short sequence.

    A share is rounded as in the authors' transformers port, halves to the even count: 5 tokens at
    0.5 leave 2, 7 leave 4. The choice is made once, while the prompt is read, as in that port.

    Deviation: the paper's text averages over all queries; its code, followed here, takes one row.
    Deviation: ties go to the lowest index; the official sort leaves them open.
    Deviation: protected tokens stay whatever their attention; FastV alone has none.
    Deviation: a share above zero leaves at least one token; the official rounding may leave none
    (`fidelity: official` keeps that, and works with 1 - R, which for R = 0.7 is a little more than
    0.3: 15 tokens leave 5, where the share of 0.3 leaves 4).
    Deviation: layer 0 is refused, for no layer before it has attention; the official code draws at
    random there, which is what the recipe `random` is for.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (2,), "K, first layer on the short sequence", source="paper", layer_of="llm"
    )
    keep_ratio: float = parameter(
        0.5,
        "share of the tokens left without a budget, 1 - R of the paper",
        source="paper; R is 0.25, 0.5 and 0.75 in its tables",
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0, unless="tokens"),
    )
    tokens: int | None = parameter(
        None,
        "attention rank: tokens left without a budget, whatever the share",
        source="official evaluation scripts",
        minimum=0,
        steers=Steering(1, None),
    )
    fidelity: Literal["sound", "official"] = parameter(
        "sound", "whether none may be left, and how a share is rounded"
    )

    def __post_init__(self) -> None:
        """Refuse a layer that no attention stands before.

        Raises:
            ValueError: layer 0.
        """
        if 0 in self.layers:
            raise ValueError("layer 0 has no layer before it whose attention could rank")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best n; with n >= N nothing changes."""
        wanted = tokens_allowed(tokens, signals, self._own_count(len(tokens)))
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        attention = require_finite(signals.attention_rows("last").mean(dim=0)[0], "attention")
        score = attention + tokens.protected * (attention.max() + 1)
        keep = top_indices(score, wanted).sort().values
        return Decision.prune(keep, len(tokens), scores=attention)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_allowed(counts, self._own_count(counts.tokens))

    def _own_count(self, count: int) -> int:
        """Tokens left of `count` without a budget."""
        if self.tokens is not None:
            return self.tokens
        if self.fidelity == "official":
            return round(count * official_share(self.keep_ratio))
        return max(round(count * self.keep_ratio), int(self.keep_ratio > 0))
