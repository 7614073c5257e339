"""VisionZip: keep what [CLS] attends to, merge the rest into a few tokens (arXiv 2412.04467)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vtc_cli.stages.ops.information import best_match
from vtc_cli.stages.ops.select import require_finite
from vtc_cli.stages.ops.views import attention_source, even_top, patch_attention, views

PAPER = "VisionZip, arXiv 2412.04467"


@dataclass(frozen=True, kw_only=True)
class DominantContextual(EncoderStage):
    """Keeps dominant tokens by [CLS] attention and merges the rest into contextual ones.

    Of n tokens, round(contextual_ratio x n) are contextual: targets that lie evenly over what is
    not dominant. Each other token joins the target whose key, averaged over heads, is nearest by
    cosine, and a target becomes the mean of its members. Tokens are merged as the tower gives them,
    before the projector.

    Deviation: [CLS] itself is no visual token here; in its place one more patch stays. The official
    code hands it on as the first of the n tokens, and so does `fidelity: official`: [CLS] of each
    picture or frame, written down as made of the patches by its attention.
    Deviation: the official code adds the mean of the others to the target, which doubles its
    length (`fidelity: official` does); sound is the mean of the paper, in which every member weighs
    by the original tokens that it stands for.
    Deviation: targets lie evenly over the rest; the official step of n_R // K leaves its tail
    without targets (`fidelity: official` keeps that).
    Deviation: tokens stand in raster order; official puts contextual tokens behind dominant ones.
    Deviation: a tower without [CLS] ranks by the attention that a token receives, as the paper has
    it; every picture and frame gives as many dominant tokens.
    Deviation: the n tokens are those of a picture with all its crops, or of all frames of a video;
    the official code takes n of each crop.
    Deviation: ties go to the lowest index; protected tokens are dominant. A key of zeros is like no
    target; the official division gives NaN.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention", "vision_keys"})
    meets_budget: ClassVar[bool] = True
    before_projector: ClassVar[bool] = True
    attention_layer: int = parameter(
        -2, "tower layer of attention and keys", source="official code", layer_of="vision"
    )
    tokens: int = parameter(
        64,
        "n, dominant and contextual tokens without a budget",
        source="paper",
        minimum=1,
        steers=Steering(1, None),
    )
    contextual_ratio: float = parameter(
        0.15625,
        "share of the n tokens that are contextual",
        source="paper: 162 + 30, 108 + 20 and 54 + 10",
        minimum=0.0,
        maximum=1.0,
    )
    fidelity: Literal["sound", "official"] = parameter("sound", "[CLS], targets, sums and order")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep and merge down to n tokens; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        scores = require_finite(patch_attention(signals, self.attention_layer), "attention")
        room = wanted - int(tokens.protected.sum())
        view = views(tokens)
        seen = self._class_views(tokens, view, signals)[:room]
        merged = min(round(wanted * self.contextual_ratio), room - seen.shape[0])
        patches = wanted - merged - seen.shape[0]
        dominant = even_top(scores, view, tokens.protected, patches)
        free = torch.ones(len(tokens), dtype=torch.bool, device=dominant.device)
        free[dominant] = False
        rest = free.nonzero()[:, 0]
        targets = rest[self._targets(rest.shape[0], merged).to(rest.device)]
        others = rest[~torch.isin(rest, targets)]
        clusters, flops = self._clusters(dominant, targets, others, signals)
        extra: dict[str, object] = {
            "scores": scores,
            "note": attention_source(signals),
            "flops": flops,
            "details": {"dominant": wanted - merged, "contextual": merged},
        }
        if self.fidelity == "sound":
            return clusters.means(tokens, extra)
        states = signals.vision_class_state()[seen] if seen.shape[0] else None
        sources = [(view == view[row]) & ~tokens.protected for row in seen]
        places = _places_in(view, seen, others)
        return clusters.sums(
            tokens, states, places, [_shares(scores, source) for source in sources], extra
        )

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self.tokens)

    def _class_views(self, tokens: TokenTable, view: Tensor, signals: Signals) -> Tensor:
        """(V,) a token of each picture or frame whose [CLS] becomes a token."""
        if self.fidelity == "sound" or "vision_class_state" not in signals.available():
            return view[:0]
        seen = (~tokens.protected).nonzero()[:, 0]
        first = torch.full((int(view.max()) + 1,), len(tokens), device=view.device)
        first = first.scatter_reduce(0, view[seen], seen, "amin")
        return first[first < len(tokens)]

    def _targets(self, rest: int, count: int) -> Tensor:
        """(count,) places of the targets among the `rest` tokens that are not dominant."""
        index = torch.arange(count)
        if self.fidelity == "official":
            return index * max(1, rest // max(count, 1))
        return index * rest // max(count, 1)

    def _clusters(
        self, dominant: Tensor, targets: Tensor, others: Tensor, signals: Signals
    ) -> tuple[_Clusters, int]:
        """Each of `others` (m,) with its target, and the operations; none without targets."""
        if targets.shape[0] == 0:
            return _Clusters(dominant, targets, others, others[:0], others[:0]), 0
        keys = require_finite(signals.vision_keys(self.attention_layer), "keys").float()
        metric = keys.mean(dim=1)
        _, match = best_match(metric[others], metric[targets])
        flops = 2 * others.shape[0] * targets.shape[0] * metric.shape[1]
        return _Clusters(dominant, targets, others, others, match), keys.numel() + flops


@dataclass(frozen=True, eq=False)
class _Clusters:
    """Which tokens stay and which join them.

    Attributes:
        dominant: (D,) tokens that stay as they are, ascending.
        targets: (C,) tokens that others join, ascending.
        others: (m,) the rest, ascending.
        joined: those of `others` that join a target, all or none.
        match: which of the targets each of `joined` joins.
    """

    dominant: Tensor
    targets: Tensor
    others: Tensor
    joined: Tensor
    match: Tensor

    def means(self, tokens: TokenTable, extra: Mapping[str, object]) -> Decision:
        """Targets become means by size; all survivors stand in raster order."""
        keep = torch.cat([self.dominant, self.targets]).sort().values
        members = torch.cat([keep, self.joined])
        homes = torch.searchsorted(keep, torch.cat([keep, self.targets[self.match]]))
        pairs = torch.stack([homes, members])
        return Decision.merge(keep, pairs, tokens.size[members], len(tokens), **extra)

    def sums(
        self,
        tokens: TokenTable,
        states: Tensor | None,
        places: Tensor,
        sources: Sequence[Tensor],
        extra: Mapping[str, object],
    ) -> Decision:
        """The official features: [CLS], dominant tokens, targets with the mean of what joins them.

        Args:
            tokens: N rows that enter the projector.
            states: (V, d) of each [CLS] that becomes a token, None without one.
            places: (V,) of `others`, tokens in whose place each [CLS] stands.
            sources: for each the (N,) shares of the tokens that it is written down as made of.
            extra: the optional fields of the decision.
        """
        leads, rows = len(sources), tokens.features.float()
        keep = torch.cat([places, self.dominant, self.targets])
        held = torch.bincount(self.match, minlength=self.targets.shape[0]).clamp_min(1)
        sums = torch.zeros(self.targets.shape[0], rows.shape[1], device=rows.device)
        sums = sums.index_add(0, self.match, rows[self.joined]) / held[:, None]
        parts = [rows[self.dominant], rows[self.targets] + sums]
        features = torch.cat(parts if states is None else [states.float(), *parts])
        own = torch.arange(leads, keep.shape[0], device=keep.device)
        made = [source.nonzero()[:, 0] for source in sources]
        homes = [torch.full_like(index, lead) for lead, index in enumerate(made)]
        first = leads + self.dominant.shape[0]
        pairs = [torch.cat([*homes, own, first + self.match])]
        pairs.append(torch.cat([*made, keep[leads:], self.joined]))
        shares = [source[index] for source, index in zip(sources, made, strict=True)]
        weights = torch.cat([*shares, torch.ones_like(own).float(), 1 / held[self.match]])
        return Decision.merge(
            keep, torch.stack(pairs), weights, len(tokens), features=features, **extra
        )


def _places_in(view: Tensor, seen: Tensor, others: Tensor) -> Tensor:
    """(V,) of `others` (m,), m >= V: for each of the tokens `seen` (V,) the first of its own view.

    A view of which nothing is left takes one that no view needs.
    """
    mine = view[others][None] == view[seen][:, None]
    first, has_own = mine.long().argmax(dim=1), mine.any(dim=1)
    free = torch.ones_like(others, dtype=torch.bool)
    free[first[has_own]] = False
    first[~has_own] = free.nonzero()[: int((~has_own).sum()), 0]
    return others[first]


def _shares(scores: Tensor, source: Tensor) -> Tensor:
    """(N,) scores of the tokens in `source`, equal shares where all are 0."""
    shares = scores * source
    return shares if bool(shares.any()) else source.float()
