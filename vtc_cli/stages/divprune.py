"""DivPrune: keep tokens that differ from each other as much as possible (arXiv 2503.02175)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_entering, entering_allowed
from vtc_cli.stages.ops.diversity import (
    PAIR_ROWS,
    farthest_points,
    most_isolated,
    pair_cosines,
    unit_rows,
)
from vtc_cli.stages.ops.select import require_finite

PAPER = "DivPrune, arXiv 2503.02175"


@dataclass(frozen=True, kw_only=True)
class MaxMin(EncoderStage):
    """Keeps the set that the greedy solution of the max-min diversity problem finds.

    Distance is 1 - cosine of the features at the decoder's door. The first token is the most
    isolated one, every further one the furthest from those chosen; kept tokens stand in raster
    order. All frames of a video are one set. No attention and no text is looked at.

    A share is rounded as in the official code, halves to the even count.

    Deviation: distances are worked out in float32, the official code takes the model's dtype.
    Deviation: a chosen token cannot be chosen again; in the official code duplicates of a chosen
    token may be kept twice.
    Deviation: a zero vector lies 1 away from all others; the official division gives NaN.
    Deviation: with more than 4,096 tokens the most isolated one is sought among every k-th of them,
    so that time stays linear in N; `fidelity: official` looks at all pairs, block by block.
    Deviation: protected tokens are chosen before all others; DivPrune alone has none.
    Deviation: at least one token stays; the official rounding may leave none (`fidelity: official`
    keeps that).
    """

    paper: ClassVar[str] = PAPER
    meets_budget: ClassVar[bool] = True
    keep_ratio: float = parameter(
        0.098,
        "share of the tokens left without a budget",
        source="official scripts; 0.098 leaves 56 of 576",
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0, unless="tokens"),
    )
    tokens: int | None = parameter(
        None,
        "tokens left without a budget, whatever the share",
        source="none",
        minimum=1,
        steers=Steering(1, None),
    )
    fidelity: Literal["sound", "official"] = parameter(
        "sound", "how the first token is found, and whether none may be left"
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the n most diverse tokens; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self._own_count(len(tokens)), self._least)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        unit = unit_rows(require_finite(tokens.features, "features"))
        pairs = pair_cosines(unit)
        first, compared = self._first(unit, tokens.protected, pairs)
        order = farthest_points(unit, first, max(wanted, 1), pairs)
        keep = order[:wanted].sort().values
        compared += len(tokens) * (wanted if pairs is None else len(tokens))
        return Decision.prune(keep, len(tokens), flops=2 * unit.shape[1] * compared)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self._own_count(counts.tokens), self._least)

    @property
    def _least(self) -> int:
        return int(self.fidelity == "sound")

    def _own_count(self, count: int) -> int:
        """Tokens left of `count` without a budget."""
        return round(count * self.keep_ratio) if self.tokens is None else self.tokens

    def _first(self, unit: Tensor, protected: Tensor, pairs: Tensor | None) -> tuple[Tensor, int]:
        """Rows to begin with, and how many pairs of rows were compared to find them."""
        held = protected.nonzero()[:, 0]
        if held.shape[0]:
            return held, 0
        total = unit.shape[0]
        sample_rows = total if self.fidelity == "official" else PAIR_ROWS
        first = torch.tensor([most_isolated(unit, sample_rows, pairs)], device=unit.device)
        return first, total * min(total, sample_rows) if pairs is None else 0
