"""Plots of an analysis in the terminal."""

from __future__ import annotations

from vtc_cli.report.curve_panels import Heat, Panel

HEIGHT = 14
WIDEST = 100
MARKERS = ("braille", "sd", "dot", "x", "+", "o")  # lines differ without colour too
COLOURS = ("cyan", "orange", "green", "magenta", "yellow", "white")
SHADES = " ░▒▓█"


def draw_panel(panel: Panel, width: int, *, colour: bool) -> str:
    """One diagram as text.

    Args:
        panel: what to draw.
        width: columns of the terminal.
        colour: whether escape codes may be used.
    """
    import plotext as plot

    plot.clear_figure()
    plot.theme("clear")
    plot.plotsize(min(width, WIDEST), HEIGHT)
    plot.title(panel.title)
    plot.xlabel(panel.x_label)
    for number, series in enumerate(panel.series):
        label = series.label if len(panel.series) > 1 else None
        marker = MARKERS[number % len(MARKERS)]
        shade = COLOURS[number % len(COLOURS)] if colour else None
        plot.plot(series.x, series.y, label=label, marker=marker, color=shade)
    if panel.share:
        plot.ylim(0, 1)
    text: str = plot.build()
    return text if colour else plot.uncolorize(text)


def draw_heat(heat: Heat) -> str:
    """Layers as rows, heads as columns, five shades from no attention to the largest share."""
    largest = max((value for row in heat.rows for value in row), default=0.0)
    heads = len(heat.rows[0]) if heat.rows else 0
    lines = [f"{heat.title}: attention on visual tokens, {SHADES[-1]} = {largest:.2f}"]
    lines.append(" layer  " + "".join(f"{head:<3d}" for head in range(heads)) + "head")
    for layer, row in enumerate(heat.rows):
        cells = "".join(_shade(value, largest) * 2 + " " for value in row)
        lines.append(f"{layer:6d}  {cells}")
    return "\n".join(lines)


def _shade(value: float, largest: float) -> str:
    if largest <= 0:
        return SHADES[0]
    return SHADES[min(round(value / largest * (len(SHADES) - 1)), len(SHADES) - 1)]
