"""Figures of one decoder layer: ranks of its visual rows and the attention that they receive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtc_cli.core.errors import MeasurementError
from vtc_cli.core.observe import LayerView, Matrix, Observer
from vtc_cli.metrics.information import attention_entropy
from vtc_cli.metrics.rank import TAU, Ranks, ranks


@dataclass(frozen=True)
class HeadFigures:
    """Attention of one head from the text behind the picture to the visual tokens.

    Attributes:
        mass: share of the attention that lands on visual tokens, mean over the text rows.
        entropy: of the distribution over the visual tokens, nats, mean over the text rows.
    """

    mass: float
    entropy: float


@dataclass(frozen=True)
class LayerFigures:
    """What one decoder layer showed.

    Attributes:
        layer: decoder layer, from 0.
        tokens: visual tokens that it processed.
        ranks: of its visual rows; None if no rank was asked for or no token is left.
        heads: one a query head; empty if attention was not asked for or no text follows the
            picture.
    """

    layer: int
    tokens: int
    ranks: Ranks | None
    heads: tuple[HeadFigures, ...]

    @property
    def attention_mass(self) -> float | None:
        """Mean over the heads of the attention mass on visual tokens."""
        return _mean([head.mass for head in self.heads])

    @property
    def attention_entropy(self) -> float | None:
        """Mean over the heads of the entropy over visual tokens, nats; None if none is left."""
        return _mean([head.entropy for head in self.heads]) if self.tokens else None


def layer_observer(matrix: Matrix | None, tau: float = TAU, *, attention: bool = True) -> Observer:
    """An observer that leaves one `LayerFigures` a layer in the trace.

    Args:
        matrix: whose ranks to take: the layer output, the joined heads before the output
            projection, or no matrix at all.
        tau: threshold of the numerical rank.
        attention: whether to look at attention.
    """

    def reduce(view: LayerView) -> LayerFigures:
        return layer_figures(view, tau)

    return Observer(reduce, matrix, attention)


def layer_figures(view: LayerView, tau: float = TAU) -> LayerFigures:
    """Reduce one layer to its figures.

    Raises:
        MeasurementError: NaN or infinity in the states; names the layer.
    """
    rows = view.hidden if view.hidden is not None else view.attention_output
    tokens = int(view.anchor.shape[0])
    where = f"decoder layer {view.layer}"
    return LayerFigures(
        layer=view.layer,
        tokens=tokens,
        ranks=None if rows is None or not tokens else ranks(rows, tau, where),
        heads=() if view.attention is None else head_figures(view.attention, where),
    )


def head_figures(attention: Tensor, where: str = "") -> tuple[HeadFigures, ...]:
    """Mass and entropy of each head.

    Args:
        attention: (heads, Q, N) softmax rows over all keys, visual columns only, Q >= 1.
        where: the layer, for the error.

    Raises:
        MeasurementError: NaN or infinity in the rows.
    """
    if not bool(torch.isfinite(attention).all()):
        raise MeasurementError("attention with NaN or infinity", where=where)
    mass = attention.double().sum(dim=-1).mean(dim=-1)
    entropy = attention_entropy(attention).mean(dim=-1)
    pairs = zip(mass.tolist(), entropy.tolist(), strict=True)
    return tuple(HeadFigures(*pair) for pair in pairs)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
