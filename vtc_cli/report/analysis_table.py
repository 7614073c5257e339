"""What a person sees of an analysis: a head, plots, and the figures behind them."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtc_cli.report.analysis import Analysis, AssociationBlock, LayerRun, Sweep
from vtc_cli.report.curve_panels import Panel, Rank, heats, panels
from vtc_cli.report.result import InformationLayer
from vtc_cli.report.terminal_plot import draw_heat, draw_panel
from vtc_cli.report.units import significant

RANDOM = "random weights: ranks and attention are those of noise"
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
        lines.append(f"{data.path} · {data.items} inputs, {data.answered} with an answer")
    if analysis.input is not None:
        media = analysis.input
        lines.append(f'{media.path} {media.width}x{media.height} · "{media.question}"')
    if analysis.curve != "heads":
        matrix = analysis.matrix.replace("_", " ")
        lines.append(f"ranks of the {matrix}, visual rows; numerical rank at tau {analysis.tau:g}")
    return lines


def _plots(analysis: Analysis, rank: Rank, console: Console) -> list[str]:
    if analysis.curve == "heads":
        return [draw_heat(heat) for heat in heats(analysis)]
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
            console.print(_layer_table(run))
        console.print()
    for sweep in analysis.sweeps or []:
        console.print(_sweep_table(sweep))
        for line in _association_lines(sweep.associations or []):
            console.print(Text(line))
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


def _layer_table(run: LayerRun) -> Table:
    """All figures of one run, the decoder's door first."""
    table = _table(run.recipe.name, ["layer", *(name for name, _ in LAYER_COLUMNS)])
    for layer in [run.door, *run.layers]:
        place = "door" if layer.layer < 0 else str(layer.layer)
        table.add_row(place, *(_cell(read(layer)) for _, read in LAYER_COLUMNS))
    return table


def _sweep_table(sweep: Sweep) -> Table:
    accuracy = any(point.correct is not None for point in sweep.points)
    names = ["kept", "first", "last", "energy", "ICS", "KL", "NLL", "same"]
    title = f"{sweep.select} at the input of layer {sweep.layer}"
    table = _table(title, names + (["accuracy"] if accuracy else []))
    for point in sweep.points:
        cells = [
            _cell(point.kept),
            _cell(point.effective_rank_first),
            _cell(point.effective_rank_last),
            f"{point.energy_kept:.3f}",
            f"{point.ics_kept:.3f}",
            f"{point.kl_first_token:.3g}",
            f"{point.answer_nll_delta:+.3g}",
            f"{100 * point.exact_match:.0f} %",
        ]
        if point.correct is not None and point.correct_low is not None:
            high = point.correct_high or 1.0
            interval = f"[{100 * point.correct_low:.1f}, {100 * high:.1f}]"
            cells.append(f"{100 * point.correct:.1f} % {interval}")
        table.add_row(*cells)
    return table


def _association_lines(found: list[AssociationBlock]) -> list[str]:
    """Spearman's rho of each figure with accuracy, in words."""
    lines = []
    for block in found:
        parts = []
        if block.across is not None:
            text = f"{block.across.rho:+.2f} over {block.across.count} token counts"
            parts.append(f"{text} (p {block.across.p_value:.2g})")
        if block.within is not None:
            text = f"{block.within.rho:+.2f} over {block.within.count} inputs at one count"
            parts.append(f"{text} (p {block.within.p_value:.2g})")
        name = block.figure.replace("_", " ")
        lines.append(f"  Spearman of {name} and accuracy: {', '.join(parts) or 'constant'}")
    return lines


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
