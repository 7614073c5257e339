"""Layer numbers of a recipe, moved from the depth they were published for to another depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Layers = int | tuple[int, ...] | None


@dataclass(frozen=True)
class Scaled:
    """Layers of this model, and whether they stand elsewhere than rounding alone would put them."""

    value: Layers
    moved: bool = False


def declared_fault(value: Layers, reference: int) -> str | None:
    """What is wrong with layers on their own depth `reference`, None if nothing is."""
    numbers = _numbers(value)
    if missing := [layer for layer in numbers if not -reference <= layer < reference]:
        return f"layer {missing[0]} does not exist in {reference} layers"
    absolute = [_absolute(layer, reference) for layer in numbers]
    if any(after <= before for before, after in pairwise(absolute)):
        return f"the layers {', '.join(map(str, numbers))} do not increase"
    return "no layer is named" if value == () else None


def scale_layers(value: Layers, reference: int, depth: int) -> Scaled:
    """Scale layers from `reference` to `depth` layers.

    Negative numbers count from the end and are only made absolute. Others are rounded to nearest;
    0 stays 0 and no other becomes 0. Layers of a tuple that fall together are pushed apart.

    Raises:
        ValueError: a tuple that cannot stand strictly increasing in `depth` layers.
    """
    if value is None:
        return Scaled(None)
    rounded = [_scale(layer, reference, depth) for layer in _numbers(value)]
    if isinstance(value, int):
        placed = min(max(rounded[0], 0), depth - 1)
        return Scaled(placed, moved=placed != rounded[0])
    lowest = 0 if value[0] == 0 else 1
    spread = _spread(rounded, lowest, depth)
    return Scaled(tuple(spread), moved=spread != rounded)


def literal_layers(value: Layers, depth: int) -> Scaled:
    """Take layers as they are written, negative ones counted from the end.

    Raises:
        ValueError: a layer that does not exist in `depth` layers.
    """
    if fault := declared_fault(value, depth):
        raise ValueError(fault)
    absolute = tuple(_absolute(layer, depth) for layer in _numbers(value))
    return Scaled(absolute if isinstance(value, tuple) else next(iter(absolute), None))


def _numbers(value: Layers) -> Sequence[int]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else value


def _absolute(layer: int, depth: int) -> int:
    return layer + depth if layer < 0 else layer


def _scale(layer: int, reference: int, depth: int) -> int:
    if layer < 0:
        return layer + depth
    return max(round(layer * depth / reference), min(layer, 1))


def _spread(rounded: list[int], lowest: int, depth: int) -> list[int]:
    """Push equal layers up, then down from the last layer, so that all differ."""
    spread: list[int] = []
    for layer in rounded:
        spread.append(max(layer, spread[-1] + 1 if spread else lowest))
    for back, layer in enumerate(reversed(spread)):
        spread[-1 - back] = min(layer, depth - 1 - back)
    if spread[0] < lowest:
        raise ValueError(
            f"{len(spread)} layers cannot stand in layers {lowest}..{depth - 1} of this model"
        )
    return spread
