"""Down-sampling: give the model a smaller picture, the baseline that methods forget to beat."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import Steering
from vtc_cli.core.stage import InputStage, parameter

SOURCE = "a baseline has none"


@dataclass(frozen=True, kw_only=True)
class Shrink(InputStage):
    """Shrinks the picture until it holds no more pixels than n of the model's tokens show.

    Each side becomes sqrt(n / N0) of what the model would see of it: with 64 of 576 tokens of 14
    pixels, the 336 x 336 pixels that the model sees become 112 x 112. A model that takes pictures
    at their own size makes fewer tokens of them by itself. A model of fixed size enlarges the
    picture again and makes as many tokens as before, of fewer pixels: the recipe pools them behind
    the projector, so that the decoder gets n tokens either way.

    Only the share of the model's own size counts, so that a picture larger than the model's input
    loses as much as a small one.
    """

    paper: ClassVar[str] = "none"
    tokens: int = parameter(
        64,
        "n, tokens whose pixels are left without a budget",
        source=SOURCE,
        minimum=1,
        steers=Steering(1, None),
    )

    def scale(self, original_tokens: int, budget: LayerBudget | None) -> float:
        """sqrt(n / N0), at most 1."""
        wanted = self.tokens if budget is None else budget.layer_average
        return min(sqrt(wanted / max(original_tokens, 1)), 1.0)
