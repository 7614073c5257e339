"""Looking at what a decoder layer made of the visual tokens while a pass runs.

A whole model's states would not fit in memory at the lengths of video, so each layer is reduced to
figures as soon as it has run. The engine hands over tensors and knows no measure; a measure gets
tensors and knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Matrix = Literal["hidden", "attention_output"]


@dataclass(frozen=True, eq=False)
class LayerView:
    """The visual tokens of one decoder layer, in table order; what was not asked for is None.

    Attributes:
        layer: decoder layer, from 0.
        anchor: (N,) int64, the original token whose place each row takes.
        hidden: (N, d) output of the layer.
        attention_output: (N, heads x head_dim) joined heads before the output projection.
        attention: (heads, Q, N) float32, attention of the text behind the picture to the visual
            tokens; the softmax runs over all keys. None also if no text follows the picture.
    """

    layer: int
    anchor: Tensor
    hidden: Tensor | None = None
    attention_output: Tensor | None = None
    attention: Tensor | None = None


@dataclass(frozen=True)
class Observer:
    """Which tensors of each layer are wanted and what is kept of them.

    Attributes:
        reduce: called once a decoder layer; what it returns is what the trace holds.
        matrix: the matrix that `reduce` reads, or None.
        attention: whether `reduce` reads attention.
    """

    reduce: Callable[[LayerView], Any]
    matrix: Matrix | None = None
    attention: bool = False

    @property
    def taps_attention(self) -> bool:
        """Whether the attention calls must be tapped."""
        return self.attention or self.matrix == "attention_output"
