"""Selections that look at nothing: what every method has to beat."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, tokens_allowed
from vtc_cli.stages.ops.spread import spread_over_views

SOURCE = "a baseline has none"


@dataclass(frozen=True, kw_only=True)
class _Blind(PrefillStage):
    """Keeps protected tokens and fills up by a rule that knows only places.

    Survivors stand in the order in which they came, which is raster order unless an earlier stage
    changed it. At layer 0 they leave before the decoder runs.
    """

    paper: ClassVar[str] = "none"
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (0,), "layers at whose input tokens leave", source=SOURCE, layer_of="llm"
    )
    tokens: int = parameter(
        64,
        "tokens left without a budget",
        source=SOURCE,
        minimum=1,
        steers=Steering(1, None),
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep as many as are allowed; with no fewer allowed than there are, all."""
        wanted = tokens_allowed(tokens, signals, self.tokens)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        held = tokens.protected.nonzero()[:, 0]
        free = (~tokens.protected).nonzero()[:, 0]
        chosen = self._choose(tokens, signals, free, wanted - held.shape[0])
        return Decision.prune(torch.cat([held, chosen]).sort().values, len(tokens))

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_allowed(counts, self.tokens)

    @abstractmethod
    def _choose(self, tokens: TokenTable, signals: Signals, free: Tensor, count: int) -> Tensor:
        """(count,) of the rows `free`."""


@dataclass(frozen=True, kw_only=True)
class Random(_Blind):
    """Keeps a random subset, drawn anew at each of its layers from the seed of the run."""

    def _choose(self, tokens: TokenTable, signals: Signals, free: Tensor, count: int) -> Tensor:
        order = torch.randperm(free.shape[0], generator=signals.generator)
        return free[order[:count].to(free.device)]


@dataclass(frozen=True, kw_only=True)
class Uniform(_Blind):
    """Keeps tokens that lie evenly over the picture (the rule stands in `spread.py`).

    After the uniform sampling of FEATHER (arXiv 2412.13180), every s-th row and column.
    Deviation: any count is met, also over the holes that earlier stages left, and the tokens lie in
    the middle of their cells instead of at the corner; a count that fits gives a strided grid.
    """

    def _choose(self, tokens: TokenTable, signals: Signals, free: Tensor, count: int) -> Tensor:
        if count == 0:
            return free[:0]
        return spread_over_views(tokens, free, count)
