"""Average pooling of the token grid: the simplest merge that every method has to beat."""

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
from vtc_cli.stages.ops.spread import cells_over_views

SOURCE = "a baseline has none"


@dataclass(frozen=True, kw_only=True)
class Cells(EncoderStage):
    """Replaces the tokens of each of n cells of the grid by their mean, behind the projector.

    The cells are those whose middles the recipe `uniform` keeps. Where n divides the grid they are
    its g x g blocks, and this is the average pooling of video models: 64 of 24 x 24 are blocks of
    3 x 3. Any other n is met too: round(sqrt(n x rows / columns)) bands of equal token counts are
    each cut along their columns into cells of equal token counts, as many as are their share; bands
    may differ by a cell or two. Frames of a video stand one below the other; where n
    is no multiple of the frames, cells lie across the border of two frames. Of a picture that is
    seen coarsely and in crops each view has its share of the cells.

    A pooled token takes the place of the token nearest to the middle of its cell and weighs its
    members by the original tokens that they stand for. Protected tokens stand alone and count.
    """

    paper: ClassVar[str] = "none"
    meets_budget: ClassVar[bool] = True
    tokens: int = parameter(
        64,
        "n, tokens left without a budget",
        source=SOURCE,
        minimum=1,
        steers=Steering(1, None),
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Pool down to n tokens; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self.tokens)
        device = tokens.features.device
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), device, note=note)
        held = tokens.protected.nonzero()[:, 0]
        free = (~tokens.protected).nonzero()[:, 0]
        count = wanted - held.shape[0]
        if count == 0:
            return Decision.prune(held, len(tokens), note="protected tokens alone fill the budget")
        cell, middle = cells_over_views(tokens, free, count)
        free, cell, middle = free[cell >= 0], cell[cell >= 0], free[middle]
        keep, order = torch.cat([held, middle]).sort()
        place = torch.empty_like(order)
        place[order] = torch.arange(wanted, device=device)
        members = torch.cat([held, free])
        homes = torch.cat([place[: held.shape[0]], place[held.shape[0] + cell]])
        weights = tokens.size[members]
        flops = 2 * tokens.features.numel()
        pairs = torch.stack([homes, members])
        return Decision.merge(keep, pairs, weights, len(tokens), flops=flops)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self.tokens)
