"""What a person sees of an analysis: a head, plots, and the figures behind them."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from vtc_cli.core.console import Console, Text
from vtc_cli.core.words import counted, fixed
from vtc_cli.report.analysis import (
    Analysis,
    AssociationBlock,
    Correlation,
    LayerRun,
    PointBlock,
    Sweep,
)
from vtc_cli.report.curve_panels import Panel, Rank, heats, panels
from vtc_cli.report.result import InformationLayer
from vtc_cli.report.terminal_plot import draw_heat, draw_panel
from vtc_cli.report.units import significant

RANDOM = "random weights: ranks and attention are those of noise"
NARROW = 72
WIDE = 96
SPARED = {"stable", "nuclear", "entropy", "first", "NLL"}  # first to go in a narrow terminal
SWEEP_PANELS = ("effective rank, last layer", "energy kept", "accuracy")


def render_analysis(analysis: Analysis, console: Console, rank: Rank) -> None:
    """Print the analysis.

    Args:
        analysis: what to show.
        console: where.
        rank: the rank that the layer plot draws; the table has all of them.
    """
    if analysis.model.weights == "random":
        console.print(Text(RANDOM, style="bold"))
    for line in _head(analysis):
        console.print(Text(line))
    console.print()
    for text in _plots(analysis, rank, console):
        console.print(Text.from_ansi(text), no_wrap=True, overflow="crop")
        console.print()
    _print_tables(analysis, console)


def _head(analysis: Analysis) -> list[str]:
    model = analysis.model
    lines = [
        f"{model.id} · {model.family} {model.layers} layers · "
        f"{model.device} {model.dtype} {model.attention} · {model.weights}"
    ]
    if analysis.data is not None:
        data = analysis.data
        lines.append(
            f"{data.path} · {counted(data.items, 'input')}, {data.answered} with an answer"
        )
    if analysis.input is not None:
        media = analysis.input
        lines.append(f'{media.path} {media.width}x{media.height} · "{media.question}"')
    if analysis.curve != "heads":
        matrix = analysis.matrix.replace("_", " ")
        lines.append(f"ranks of the {matrix}, visual rows; numerical rank at tau {analysis.tau:g}")
    return lines


def _plots(analysis: Analysis, rank: Rank, console: Console) -> list[str]:
    if analysis.curve == "heads":
        return [draw_heat(heat, console.width) for heat in heats(analysis)]
    shown = panels(analysis, rank)
    if analysis.curve == "tokens":
        shown = [panel for panel in shown if panel.title in SWEEP_PANELS]
    colour = console.is_terminal and not console.no_color
    return [draw_panel(panel, console.width, colour=colour) for panel in shown if _drawn(panel)]


def _drawn(panel: Panel) -> bool:
    """A single point makes no curve."""
    return any(len(series.x) > 1 for series in panel.series)


def _print_tables(analysis: Analysis, console: Console) -> None:
    for run in analysis.runs or []:
        if analysis.curve == "layers":
            console.print(_layer_table(run, console.width))
        console.print()
    for sweep in analysis.sweeps or []:
        console.print(_sweep_table(sweep, console.width))
        if sweep.associations:
            console.print(_association_table(sweep.associations))
        console.print()


LAYER_COLUMNS: tuple[tuple[str, Callable[[InformationLayer], float | None]], ...] = (
    ("tokens", lambda layer: layer.tokens),
    ("rank", lambda layer: layer.rank),
    ("effective", lambda layer: layer.effective_rank),
    ("stable", lambda layer: layer.stable_rank),
    ("99 %", lambda layer: layer.energy_rank),
    ("nuclear", lambda layer: layer.nuclear_norm),
    ("attention", lambda layer: layer.attention_mass),
    ("entropy", lambda layer: layer.attention_entropy),
)


def _layer_table(run: LayerRun, width: int) -> Table:
    """All figures of one run, the decoder's door first."""
    shown = [column for column in LAYER_COLUMNS if width >= NARROW or column[0] not in SPARED]
    table = _table(run.recipe.name, ["layer", *(name for name, _ in shown)])
    for layer in [run.door, *run.layers]:
        place = "door" if layer.layer < 0 else str(layer.layer)
        table.add_row(place, *(_cell(read(layer)) for _, read in shown))
    return table


SWEEP_COLUMNS: tuple[tuple[str, Callable[[PointBlock], str]], ...] = (
    ("kept", lambda point: _cell(point.kept)),
    ("first", lambda point: _cell(point.effective_rank_first)),
    ("last", lambda point: _cell(point.effective_rank_last)),
    ("energy", lambda point: f"{point.energy_kept:.3f}"),
    ("ICS", lambda point: f"{point.ics_kept:.3f}"),
    ("KL", lambda point: f"{point.kl_first_token:.3g}"),
    ("NLL", lambda point: fixed(point.answer_nll_delta, 3, signed=True)),
    ("same", lambda point: f"{100 * point.exact_match:.0f} %"),
)


def _sweep_table(sweep: Sweep, width: int) -> Table:
    """The points of one selection; ranks are effective ranks of the first and the last layer."""
    shown = [column for column in SWEEP_COLUMNS if width >= NARROW or column[0] not in SPARED]
    judged = any(point.correct is not None for point in sweep.points)
    names = [name for name, _ in shown] + (["accuracy"] if judged else [])
    table = _table(f"{sweep.select} at the input of layer {sweep.layer}", names)
    for point in sweep.points:
        cells = [read(point) for _, read in shown]
        table.add_row(*cells, *([_accuracy(point, width)] if judged else []))
    return table


def _accuracy(point: PointBlock, width: int) -> str:
    """Accuracy with its 95 % interval where there is room."""
    if point.correct is None or point.correct_low is None or point.correct_high is None:
        return "-"
    interval = f" [{100 * point.correct_low:.1f}, {100 * point.correct_high:.1f}]"
    return f"{100 * point.correct:.1f} %" + (interval if width >= WIDE else "")


def _association_table(found: list[AssociationBlock]) -> Table:
    """Spearman's rho of each figure with accuracy, over counts and within them."""
    table = _table("Spearman's rho with accuracy", ["", "over counts", "p", "within a count", "p"])
    for block in found:
        cells = [cell for part in (block.across, block.within) for cell in _rho(part)]
        table.add_row(block.figure.replace("_", " "), *cells)
    return table


def _rho(found: Correlation | None) -> tuple[str, str]:
    return (
        ("-", "-") if found is None else (fixed(found.rho, 2, signed=True), f"{found.p_value:.2g}")
    )


def _table(title: str, columns: list[str]) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(round(value)) if float(value).is_integer() else significant(value)
