"""VisionZip: keep what [CLS] attends to, merge the rest into a few tokens (arXiv 2412.04467)."""

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
from vtc_cli.stages.ops.information import best_match
from vtc_cli.stages.ops.select import require_finite
from vtc_cli.stages.ops.views import attention_source, even_top, patch_attention, views

PAPER = "VisionZip, arXiv 2412.04467"


@dataclass(frozen=True, kw_only=True)
class DominantContextual(EncoderStage):
    """Keeps dominant tokens by [CLS] attention and merges the rest into contextual ones.

    Of n tokens, round(contextual_ratio x n) are contextual: targets that lie evenly over what is
    not dominant. Each other token joins the target whose key, averaged over heads, is nearest by
    cosine, and a target becomes the mean of its members.

    Deviation: tokens are merged behind the projector, the official code merges before it; there
    the merged states are no longer rows of the tower. Choosing and joining are the same.
    Deviation: [CLS] itself is no visual token here; the official code hands it on as one of the
    dominant tokens, in whose place one more patch stays.
    Deviation: the official code adds the mean of the others to the target, which doubles its
    length. `fidelity: official` takes half the target and half that mean, the same direction, for
    survivors are means; sound is the mean of the paper, in which every member weighs by the
    original tokens that it stands for.
    Deviation: targets lie evenly over the rest; the official step of n_R // K leaves its tail
    without targets (`fidelity: official` keeps that).
    Deviation: tokens stand in raster order; official puts contextual tokens behind dominant ones.
    Deviation: a tower without [CLS] ranks by the attention that a token receives, as the paper has
    it; every picture and frame gives as many dominant tokens.
    Deviation: ties go to the lowest index; protected tokens are dominant.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention", "vision_keys"})
    meets_budget: ClassVar[bool] = True
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
    fidelity: Literal["sound", "official"] = parameter("sound", "targets, weights and order")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep and merge down to n tokens; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        scores = require_finite(patch_attention(signals, self.attention_layer), "attention")
        protected = int(tokens.protected.sum())
        merged = min(round(wanted * self.contextual_ratio), wanted - protected)
        dominant = even_top(scores, views(tokens), tokens.protected, wanted - merged)
        free = torch.ones(len(tokens), dtype=torch.bool, device=dominant.device)
        free[dominant] = False
        rest = free.nonzero()[:, 0]
        targets = rest[self._targets(rest.shape[0], merged).to(rest.device)]
        return self._merged(dominant, rest, targets, tokens, signals, scores)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self.tokens)

    def _targets(self, rest: int, count: int) -> Tensor:
        """(count,) places of the targets among the `rest` tokens that are not dominant."""
        index = torch.arange(count)
        if self.fidelity == "official":
            return index * max(1, rest // max(count, 1))
        return index * rest // max(count, 1)

    def _merged(
        self,
        dominant: Tensor,
        rest: Tensor,
        targets: Tensor,
        tokens: TokenTable,
        signals: Signals,
        scores: Tensor,
    ) -> Decision:
        """The decision that keeps `dominant` and merges `rest` into `targets`."""
        extra: dict[str, object] = {"scores": scores, "note": attention_source(signals)}
        if targets.shape[0] == 0:
            return Decision.prune(dominant, len(tokens), **extra)
        keys = require_finite(signals.vision_keys(self.attention_layer), "keys").float()
        metric = keys.mean(dim=1)
        others = rest[~torch.isin(rest, targets)]
        _, match = best_match(metric[others], metric[targets])
        keep = torch.cat([dominant, targets])
        if self.fidelity == "sound":
            keep = keep.sort().values
        place = torch.empty(len(tokens), dtype=torch.int64, device=keep.device)
        place[keep] = torch.arange(keep.shape[0], device=keep.device)
        members = torch.cat([keep, others])
        homes = torch.cat([place[keep], place[targets[match]]])
        extra["flops"] = keys.numel() + 2 * others.shape[0] * targets.shape[0] * metric.shape[1]
        extra["details"] = {"dominant": dominant.shape[0], "contextual": targets.shape[0]}
        weights = self._weights(keep.shape[0], homes, tokens.size[members])
        return Decision.merge(keep, torch.stack([homes, members]), weights, len(tokens), **extra)

    def _weights(self, kept: int, homes: Tensor, sizes: Tensor) -> Tensor:
        """(P,) weight of each member; the first `kept` are the survivors' own rows."""
        if self.fidelity == "sound":
            return sizes
        joined = torch.bincount(homes[kept:], minlength=kept)
        return torch.cat([torch.ones(kept, device=homes.device), 1 / joined[homes[kept:]]])
