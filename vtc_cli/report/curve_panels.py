"""What the plots of an analysis show: panels of labelled series, drawn alike on every surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vtc_cli.core.terminal import escaped
from vtc_cli.report.analysis import Analysis, LayerRun, PointBlock, Sweep
from vtc_cli.report.result import InformationLayer

Rank = Literal["effective", "numerical", "stable", "energy", "nuclear"]
Read = Callable[[InformationLayer], float | None]

RANKS: dict[Rank, tuple[str, Read]] = {
    "effective": ("effective rank", lambda layer: layer.effective_rank),
    "numerical": ("numerical rank", lambda layer: layer.rank),
    "stable": ("stable rank", lambda layer: layer.stable_rank),
    "energy": ("99 % energy rank", lambda layer: layer.energy_rank),
    "nuclear": ("nuclear norm", lambda layer: layer.nuclear_norm),
}


@dataclass(frozen=True)
class Series:
    """One line: its name, its points, and a band around it if it has one."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One diagram of lines."""

    title: str
    x_label: str
    series: list[Series]
    share: bool = False  # the y axis is a share between 0 and 1
    log: bool = False  # the x axis is logarithmic


@dataclass(frozen=True)
class Heat:
    """One diagram of shares by layer (rows) and head (columns)."""

    title: str
    rows: list[list[float]]


def panels(analysis: Analysis, rank: Rank | None = None) -> list[Panel]:
    """The line diagrams of an analysis; with `rank` only that one of the rank family."""
    if analysis.sweeps is not None:
        return _sweep_panels(analysis.sweeps)
    return _layer_panels(analysis.runs or [], rank, analysis.tau)


def heats(analysis: Analysis) -> list[Heat]:
    """A diagram of attention by head for each run."""
    return [
        Heat(escaped(run.recipe.name), [block.mass for block in run.heads])
        for run in analysis.runs or []
        if run.heads
    ]


def _layer_panels(runs: list[LayerRun], rank: Rank | None, tau: float) -> list[Panel]:
    chosen = [rank] if rank else list(RANKS)
    found = []
    for name in chosen:
        title, read = RANKS[name]
        note = f" (tau {tau:g})" if name == "numerical" else ""
        found.append(Panel(title + note, "layer", [_line(run, read) for run in runs]))
    mass = [_line(run, lambda layer: layer.attention_mass) for run in runs]
    found.append(Panel("attention on visual tokens", "layer", mass, share=True))
    if len(runs) > 1:
        tokens = [_line(run, lambda layer: layer.tokens) for run in runs]
        found.append(Panel("visual tokens", "layer", tokens))
    return [panel for panel in found if any(series.x for series in panel.series)]


def _line(run: LayerRun, read: Read) -> Series:
    pairs = [(layer.layer, read(layer)) for layer in run.layers]
    known = [(float(x), float(y)) for x, y in pairs if y is not None]
    return Series(escaped(run.recipe.name), [x for x, _ in known], [y for _, y in known])


def _sweep_panels(sweeps: list[Sweep]) -> list[Panel]:
    figures: list[tuple[str, Callable[[PointBlock], float], bool]] = [
        ("effective rank, first layer", lambda point: point.effective_rank_first, False),
        ("effective rank, last layer", lambda point: point.effective_rank_last, False),
        ("energy kept", lambda point: point.energy_kept, True),
        ("information score kept", lambda point: point.ics_kept, True),
        ("KL of the first token, nats", lambda point: point.kl_first_token, False),
        ("same answer as the full model", lambda point: point.exact_match, True),
    ]
    found = [
        Panel(
            title, "visual tokens kept", [_curve(sweep, read) for sweep in sweeps], share, log=True
        )
        for title, read, share in figures
    ]
    if any(point.correct is not None for sweep in sweeps for point in sweep.points):
        accuracy = [_accuracy(sweep) for sweep in sweeps]
        found.append(Panel("accuracy", "visual tokens kept", accuracy, share=True, log=True))
    return found


def _curve(sweep: Sweep, read: Callable[[PointBlock], float]) -> Series:
    return Series(
        escaped(sweep.select), [p.kept for p in sweep.points], [read(p) for p in sweep.points]
    )


def _accuracy(sweep: Sweep) -> Series:
    points = [point for point in sweep.points if point.correct is not None]
    return Series(
        escaped(sweep.select),
        [point.kept for point in points],
        [point.correct or 0.0 for point in points],
        [point.correct_low or 0.0 for point in points],
        [point.correct_high or 0.0 for point in points],
    )
