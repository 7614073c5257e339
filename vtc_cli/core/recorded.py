"""Decisions of the past as a stage, so that tokens from a file go on as they went before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable


@dataclass(frozen=True, kw_only=True)
class Recorded(PrefillStage):
    """Gives back one recorded decision at each of its layers.

    A file of compressed tokens holds what the prefill decided about them. Asking the stages again
    would need their signals, and rounding could tip another token over; with the decisions given
    back, the tokens take exactly the way that they took. The stage needs no signals for that.

    Attributes:
        layers: decoder layers at whose inputs decisions were taken, increasing.
        decisions: one for each of `layers`.
    """

    meets_budget: ClassVar[bool] = True  # the stages that decided did
    decisions: tuple[Decision, ...]

    def __post_init__(self) -> None:
        """See that each layer has its decision.

        Raises:
            StageError: it has not.
        """
        if len(self.layers) != len(self.decisions):
            raise StageError(f"{len(self.decisions)} decisions for {len(self.layers)} layers")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """The decision that was taken at this layer."""
        return self.decisions[self.layers.index(signals.layer)]
