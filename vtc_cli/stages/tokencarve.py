"""TokenCarve: keep what carries information and attention, merge the like (arXiv 2503.10501).

At the input of a decoder layer every visual token has an attention score, what the last prompt
token gives it, and an information score from the singular directions of the visual rows. Carving I
keeps the best 1.5 n tokens, carving II merges the least needed half n of them into their likes. The
carved set then rules the whole cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtc_cli.core.counts import CacheCounts, Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.spectrum import information_contribution
from vtc_cli.core.stage import CacheEntries, DecodeStage, PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, tokens_allowed
from vtc_cli.stages.ops.information import (
    best_match,
    information_flops,
    min_max,
    rank_points,
)
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "TokenCarve, arXiv 2503.10501"
CODE = "official code, LLaVA-1.5-7B"


@dataclass(frozen=True, kw_only=True)
class Carve(PrefillStage):
    """Prunes to 1.5 n tokens by joined rank points and merges them down to n.

    Deviation: ties go to the lowest index; the official sort leaves them open.
    Deviation: a merged token weighs its members by the original tokens they stand for, so that
    chained recipes stay means of the picture; `fidelity: official` takes the plain mean. Both agree
    while nothing was merged before.
    Deviation: scores and points are float64 and the directions those of the Gram matrix; the
    official code decomposes the rows and adds the points in float32, where scores that nearly tie
    may change places (`fidelity: official` does the same).
    Deviation: 1.5 n is held to N, protected tokens come first, and n = 1 keeps one token unmerged;
    the official code fails on these.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows", "attention_output"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (2,), "layers at whose input tokens are carved", source=CODE, layer_of="llm"
    )
    tokens: int = parameter(
        64,
        "n, tokens left without a budget",
        source=CODE,
        minimum=1,
        steers=Steering(1, None),
    )
    attention_weight: float = parameter(
        0.5, "w, share of attention in the score", source=CODE, minimum=0.0, maximum=1.0
    )
    combine: Literal["rank_points", "minmax"] = parameter(
        "rank_points", "how the two scores join", source="official code; the figure adds raw scores"
    )
    info_source: Literal["layer_output", "attention_output", "o_proj"] = parameter(
        "layer_output", "matrix behind the information score", source=CODE
    )
    fidelity: Literal["sound", "official"] = parameter(
        "sound", "weights of merged tokens, precision of scores and points"
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Carve down to n tokens; with n >= N nothing changes."""
        wanted = tokens_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        matrix = require_finite(self._matrix(tokens, signals), self.info_source)
        score = self._score(matrix, signals, tokens.protected)
        stay = min(wanted * 3 // 2, len(tokens))
        order = top_indices(score, stay)
        return self._merged(order, stay - wanted, tokens, score, information_flops(*matrix.shape))

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves; open where protected tokens may be merged into each other."""
        left = counted_allowed(counts, self.tokens)
        targets = left.tokens * 3 // 2 // 2
        return None if left.tokens < counts.tokens and counts.protected > targets else left

    def _matrix(self, tokens: TokenTable, signals: Signals) -> Tensor:
        """(N, d) rows behind the information score."""
        if self.info_source == "layer_output":
            return tokens.features
        if self.info_source == "attention_output":
            return signals.attention_output()
        return signals.attention_projection()

    def _score(self, matrix: Tensor, signals: Signals, protected: Tensor) -> Tensor:
        """(N,) joined score, protected tokens above all others."""
        attention = require_finite(signals.attention_rows("last").mean(dim=0)[0], "attention")
        scale = rank_points if self.combine == "rank_points" else min_max
        official, weight = self.fidelity == "official", self.attention_weight
        information = _by_svd(matrix) if official else information_contribution(matrix)
        points = scale(attention), scale(information)
        first, second = (each.float() for each in points) if official else points
        joined = weight * first + (1 - weight) * second
        return joined + protected * (joined.max() + 1)

    def _merged(
        self, order: Tensor, merges: int, tokens: TokenTable, score: Tensor, flops: int
    ) -> Decision:
        """Carving II over the survivors `order` (k,), best first; `merges` of them go."""
        half = order.shape[0] // 2
        targets, others = order[:half], order[half:]
        goes = torch.zeros(others.shape[0], dtype=torch.bool, device=order.device)
        partner = torch.zeros_like(others)
        if half and merges:
            likeness, match = best_match(tokens.features[others], tokens.features[targets])
            goes[top_indices(likeness, merges)] = True
            partner = targets[match]
            flops += 2 * half * others.shape[0] * tokens.features.shape[1]
        keep = torch.cat([targets, others[~goes]]).sort().values
        place = torch.empty(len(tokens), dtype=torch.int64, device=order.device)
        place[keep] = torch.arange(keep.shape[0], device=order.device)
        members = torch.cat([keep, others[goes]])
        homes = torch.cat([place[keep], place[partner[goes]]])
        weights = None if self.fidelity == "official" else tokens.size[members]
        return Decision.merge(
            keep,
            torch.stack([homes, members]),
            weights,
            len(tokens),
            scores=score.float(),
            note=f"{int(goes.sum())} merged",
            flops=flops,
        )


def _by_svd(rows: Tensor) -> Tensor:
    """(N,) float32 information scores of rows (N, d) by their singular value decomposition."""
    left, sigma, _ = torch.linalg.svd(rows.float(), full_matrices=False)
    scores: Tensor = (left.abs() * sigma).sum(dim=1)
    return scores


@dataclass(frozen=True, kw_only=True)
class CarvedCache(DecodeStage):
    """Cuts the cache of every layer, those before the carving too, to the carved set."""

    paper: ClassVar[str] = PAPER

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision:
        """Keep text and what is alive at the last layer; keys and values are never merged."""
        keep = (~entries.visual | entries.alive).nonzero()[:, 0]
        return Decision.prune(keep, len(entries))

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counts.only_alive()
