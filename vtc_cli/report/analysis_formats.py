"""An analysis as rows for CSV and Markdown."""

from __future__ import annotations

from typing import Any

from vtc_cli.report.analysis import Analysis, LayerRun

Row = dict[str, Any]


def rows(analysis: Analysis) -> list[Row]:
    """One row a layer and recipe, a head, or a token count and selection."""
    if analysis.sweeps is not None:
        return [
            {"select": sweep.select, "layer": sweep.layer, **point.model_dump()}
            for sweep in analysis.sweeps
            for point in sweep.points
        ]
    runs = analysis.runs or []
    one = _head_rows if analysis.curve == "heads" else _layer_rows
    return [{"recipe": run.recipe.name, **row} for run in runs for row in one(run)]


def _layer_rows(run: LayerRun) -> list[Row]:
    """The decoder's door counts as layer -1."""
    return [layer.model_dump() for layer in [run.door, *run.layers]]


def _head_rows(run: LayerRun) -> list[Row]:
    return [
        {"layer": block.layer, "head": head, "mass": mass, "entropy": block.entropy[head]}
        for block in run.heads or []
        for head, mass in enumerate(block.mass)
    ]
