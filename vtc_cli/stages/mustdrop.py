"""MustDrop: drop tokens in the tower, in the prefill and in the cache (arXiv 2411.10803).

Four stages: `SpatialMerge` averages alike 3 x 3 windows inside the vision tower, `KeyTokens` marks
what [CLS] looks at, `DualAttention` filters by the attention of the text, `OutputAwareCache` cuts
the cache to what survived. Numbers of layers are inputs: the official code changes the *output* of
tower layer 0 and of decoder layers 2, 6, 10, 14, which is the input of the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import CacheCounts, Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError, MisfitError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, EncoderStage, PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, tokens_allowed
from vtc_cli.stages.ops.grid import require_whole_grid
from vtc_cli.stages.ops.select import require_finite, top_indices
from vtc_cli.stages.ops.windows import (
    mean_pair_cosine,
    pair_cosine_flops,
    window_count,
    window_members,
)

PAPER = "MustDrop, arXiv 2411.10803"
CODE = "official code, LLaVA-1.5-7B"


@dataclass(frozen=True, kw_only=True)
class SpatialMerge(EncoderStage):
    """Averages each window of patches whose mean pairwise cosine reaches the threshold.

    Deviation: the merged token stands at the first place of its window, so that rotary positions
    stay spatial; `fidelity: official` puts merged windows first, by descending score.
    Deviation: under a token budget at least the windows over the threshold merge, but never so
    many that fewer tokens are left than the budget, and more of them, by score, where the budget
    could not be met otherwise; the paper has thresholds only.
    """

    paper: ClassVar[str] = PAPER
    meets_budget: ClassVar[bool] = True
    vision_layer: int = parameter(
        1, "tower layer at whose input windows merge", source=CODE, layer_of="vision"
    )
    window: int = parameter(
        3, "side of a window in patches", source="official code; 2 in figure", minimum=2
    )
    threshold: float = parameter(
        0.8,
        "least mean cosine of a window that merges",
        source=CODE,
        minimum=-1.0,
        maximum=1.0,
        steers=Steering(-1.0, 1.0, unless="tokens"),
    )
    tokens: int | None = parameter(
        None,
        "merge down to this many tokens whatever the threshold",
        source="LightCompress",
        minimum=1,
        steers=Steering(1, None),
    )
    fidelity: Literal["sound", "official"] = parameter("sound", "order of the merged tokens")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Merge windows of the untouched grid.

        Raises:
            MisfitError: an earlier stage changed the grid, or official fidelity on an odd grid.
            BudgetError: merging every window would still leave too many tokens.
        """
        self._check_grid(tokens)
        members = window_members(tokens.layout, self.window, tokens.features.device)
        scores = require_finite(mean_pair_cosine(tokens.features, members), "window scores")
        count = self._merge_count(scores, len(tokens), signals.budget)
        chosen = top_indices(scores, count)
        flops = pair_cosine_flops(members.numel(), tokens.features.shape[1])
        return self._merged(members, chosen, len(tokens), flops)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves if `tokens` says it; how alike windows are depends on the data."""
        if self.tokens is None:
            return None
        windows = window_count(counts.layout, self.window)
        saved = self.window**2 - 1
        return counts.left(counts.tokens - saved * self._asked(counts.tokens, windows, saved))

    def _check_grid(self, tokens: TokenTable) -> None:
        require_whole_grid(tokens, "spatial_merge")
        odd = [
            grid
            for grid in tokens.layout.grids
            if grid.rows % self.window or grid.patch_columns % self.window
        ]
        if self.fidelity == "official" and odd:
            raise MisfitError(
                f"a grid of {odd[0].rows} x {odd[0].columns} does not divide into windows",
                allowed=f"sides that are multiples of {self.window} under official fidelity",
                hint="--fidelity sound leaves the rest of the grid unmerged",
            )

    def _merge_count(self, scores: Tensor, tokens: int, budget: LayerBudget | None) -> int:
        """Windows that merge."""
        windows, saved = int(scores.shape[0]), self.window**2 - 1
        if self.tokens is not None:
            return self._asked(tokens, windows, saved)
        similar = int((scores >= self.threshold).sum())
        if budget is None:
            return similar
        most = max(tokens - ceil(budget.layer_average), 0) // saved
        least = ceil((tokens - budget.largest_entering(tokens)) / saved)
        if least > windows:
            _refuse(budget, tokens - windows * saved)
        return min(max(min(similar, most), least), windows)

    def _asked(self, tokens: int, windows: int, saved: int) -> int:
        """Of `windows` those that merge so that `self.tokens` are left of `tokens`."""
        return min(max((tokens + 1 - (self.tokens or 0)) // saved, 0), windows)

    def _merged(self, members: Tensor, chosen: Tensor, tokens: int, flops: int) -> Decision:
        """The decision that averages the `chosen` windows (r,) of `members` (W, w * w)."""
        index = torch.arange(tokens, device=members.device)
        home = index.clone()
        home[members[chosen]] = members[chosen, :1]
        alone = index[home == index]
        if self.fidelity == "official":
            first = members[chosen, 0]
            rest = alone[~torch.isin(alone, first)]
            alone = torch.cat([first, rest])
        place = torch.empty_like(index)
        place[alone] = torch.arange(alone.shape[0], device=index.device)
        pairs = torch.stack([place[home], index])
        note = f"{chosen.shape[0]} windows merged"
        return Decision.merge(alone, pairs, None, tokens, note=note, flops=flops)


@dataclass(frozen=True, kw_only=True)
class KeyTokens(EncoderStage):
    """Protects the tokens that [CLS] attends to most; drops nothing.

    Deviation: crops of one picture are ranked together; the official code takes the share of each.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"vision_cls_attention"})
    attention_layer: int = parameter(
        -1, "tower layer whose [CLS] attention ranks", source=CODE, layer_of="vision"
    )
    protect_ratio: float = parameter(
        0.08,
        "share of the tokens that become the key set",
        source="official code; about 0.05 in figure",
        minimum=0.0,
        maximum=1.0,
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Mark the top ceil(protect_ratio x M) tokens."""
        scores = require_finite(signals.vision_cls_attention(self.attention_layer), "attention")
        count = ceil(self.protect_ratio * len(tokens))
        protect = torch.zeros(len(tokens), dtype=torch.bool, device=scores.device)
        protect[top_indices(scores, count)] = True
        return Decision.identity(
            len(tokens), scores.device, protect=protect, scores=scores, note=f"{count} protected"
        )

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """All stay; how many are protected is open if some were before, for both may coincide."""
        marked = ceil(self.protect_ratio * counts.tokens)
        return replace(counts, protected=marked) if counts.protected == 0 else None


@dataclass(frozen=True, kw_only=True)
class DualAttention(PrefillStage):
    """Drops tokens to which the text as a whole and each text token alone attend little.

    With A (T, N) the head mean of the text rows: global g = sum_t A, individual e = max_t A; a
    token goes if g < global_threshold x sum(g) and e < individual_threshold, key tokens never.

    Deviation: under a token budget the count of each layer follows `LayerBudget.schedule` and the
    tokens are ranked by g with the key set first, since published thresholds fit one model.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (3, 7, 11, 15), "layers at whose input tokens go", source=CODE, layer_of="llm"
    )
    global_threshold: float = parameter(
        0.001,
        "share of all attention below which a token may go",
        source=CODE,
        minimum=0.0,
        steers=Steering(1.0, 0.0),
    )
    individual_threshold: float = parameter(
        0.001,
        "attention of one text token below which it may go",
        source=CODE,
        minimum=0.0,
        steers=Steering(1.0, 0.0),
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Filter by thresholds, or down to the count of the budget's schedule."""
        rows = signals.attention_rows("after_visual").mean(dim=0)
        rows = require_finite(rows, "attention")
        total, largest = rows.sum(dim=0), rows.amax(dim=0)
        candidate = (total < self.global_threshold * total.sum()) & (
            largest < self.individual_threshold
        )
        keep = ~candidate | tokens.protected
        idle = "no token was below both thresholds"
        if signals.budget is not None:
            keep = self._ranked(total, tokens, tokens_allowed(tokens, signals, 0))
            idle = "the budget leaves room for all"
        return Decision.prune(
            keep.nonzero()[:, 0],
            len(tokens),
            scores=total,
            note="" if bool((~keep).any()) else idle,
            flops=3 * rows.numel(),
            details={"candidates": int(candidate.sum()), "text_rows": int(rows.shape[0])},
        )

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves under a budget; without one the thresholds meet the data."""
        return None if counts.budget is None else counted_allowed(counts, 0)

    def _ranked(self, total: Tensor, tokens: TokenTable, count: int) -> Tensor:
        """(N,) bool: the `count` tokens that the budget lets through this layer."""
        # Attention rows sum to at most 1 a text token, so this lifts the key set over the rest.
        lifted = total + tokens.protected * (total.max() + 1)
        keep = torch.zeros(len(tokens), dtype=torch.bool, device=total.device)
        keep[top_indices(lifted, count)] = True
        return keep


@dataclass(frozen=True, kw_only=True)
class OutputAwareCache(DecodeStage):
    """Cuts the cache of the middle layers to the tokens that reached the last layer."""

    paper: ClassVar[str] = PAPER
    first_layer: int = parameter(
        2, "first decoder layer whose cache is cut", source=CODE, layer_of="llm"
    )

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision:
        """Keep text and what is alive."""
        keep = (~entries.visual | entries.alive).nonzero()[:, 0]
        return Decision.prune(keep, len(entries))

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counts.only_alive()


def _refuse(budget: LayerBudget, entering: int) -> None:
    least = budget.smallest_average(entering, budget.protected(entering))
    raise BudgetError(
        f"a layer average of {budget.layer_average:g} tokens was asked for",
        allowed=f"at least {least:.1f} with every window merged",
        hint=f"--budget {ceil(least)}",
    )
