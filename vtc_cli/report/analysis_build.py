"""Turn observed traces and sweep points into the result of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vtc_cli.core.trace import Trace
from vtc_cli.metrics.information import redundancy
from vtc_cli.metrics.layers import LayerFigures
from vtc_cli.metrics.rank import ranks
from vtc_cli.metrics.statistics import wilson
from vtc_cli.metrics.sweep import Point, mean_point, spearman, spearman_within
from vtc_cli.report.analysis import (
    AssociationBlock,
    Correlation,
    HeadsBlock,
    LayerRun,
    PointBlock,
    Sweep,
)
from vtc_cli.report.build import information_layers, layer_block, recipe_block

FIGURES = ("energy_kept", "ics_kept", "effective_rank_last", "rank_last")  # set beside accuracy
DOOR = -1


def layer_run(trace: Trace, tau: float) -> LayerRun:
    """The layers of an observed pass that captured its features too."""
    rows = trace.captured["features"]
    count = int(rows.shape[0])
    found = ranks(rows, tau, "the decoder's door") if count else None
    return LayerRun.model_validate(
        {
            "recipe": recipe_block(trace.plan),
            "door": layer_block(LayerFigures(DOOR, count, found, ())),
            "redundancy": redundancy(rows).mean if count > 1 else None,
            "layers": information_layers(trace),
            "heads": _heads(trace.observed),
        }
    )


def _heads(observed: Sequence[LayerFigures]) -> list[HeadsBlock] | None:
    if not all(figures.heads for figures in observed):
        return None
    return [
        HeadsBlock(
            layer=figures.layer,
            mass=[head.mass for head in figures.heads],
            entropy=[head.entropy for head in figures.heads],
        )
        for figures in observed
    ]


def sweep(name: str, layer: int, points: Sequence[Sequence[Point]]) -> Sweep:
    """The means of one selection.

    Args:
        name: of the selection.
        layer: where it acts.
        points: for each token count one point an input, inputs in the same order.
    """
    means = [mean_point(group) for group in points]
    blocks = [_point(mean, group) for mean, group in zip(means, points, strict=True)]
    return Sweep(select=name, layer=layer, points=blocks, associations=_associations(means, points))


def _point(mean: Point, group: Sequence[Point]) -> PointBlock:
    values: dict[str, Any] = asdict(mean) | {"tokens": round(mean.tokens)}
    known = [point.correct for point in group if point.correct is not None]
    low, high = wilson(round(sum(known)), len(known)) if known else (None, None)
    return PointBlock(**values, correct_low=low, correct_high=high)


def _associations(
    means: Sequence[Point], points: Sequence[Sequence[Point]]
) -> list[AssociationBlock] | None:
    """How each figure goes with accuracy; None without answers."""
    if any(mean.correct is None for mean in means):
        return None
    answered = [[point for point in group if point.correct is not None] for group in points]
    return [_association(figure, means, answered) for figure in FIGURES]


def _association(
    figure: str, means: Sequence[Point], answered: Sequence[Sequence[Point]]
) -> AssociationBlock:
    across = spearman(_column(means, figure), _column(means, "correct"))
    within = spearman_within(
        [_column(group, figure) for group in answered],
        [_column(group, "correct") for group in answered],
    )
    return AssociationBlock(
        figure=figure,
        across=None if across is None else Correlation(**asdict(across)),
        within=None if within is None else Correlation(**asdict(within)),
    )


def _column(points: Sequence[Point], figure: str) -> list[float]:
    return [float(getattr(point, figure)) for point in points]


def gather(inputs: Sequence[Mapping[str, Sequence[Point]]], name: str) -> list[list[Point]]:
    """Points of selection `name` regrouped: for each token count one point an input."""
    return [list(group) for group in zip(*(points[name] for points in inputs), strict=True)]
