"""Plots of an analysis in the terminal."""

from __future__ import annotations

from vtc_cli.report.curve_panels import Heat, Panel

HEIGHT = 13
WIDEST = 100
MARKERS = ("braille", "•", "x", "+", "o", "#")  # lines differ without colour too
BRAILLE_SAMPLE = "⠒⠒"
MOST_TICKS = 8
COLOURS = ("cyan", "orange", "green", "magenta", "yellow", "white")
SHADES = " ░▒▓█"
LAYER_COLUMNS = 9
NUMBERED = 5  # columns of a heat cell with its number


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
    plot.xlabel(panel.x_label)
    for number, series in enumerate(panel.series):
        shade = COLOURS[number % len(COLOURS)] if colour else None
        plot.plot(series.x, series.y, marker=MARKERS[number % len(MARKERS)], color=shade)
    plot.xscale("log" if panel.log else "linear")
    plot.xticks(_ticks([x for series in panel.series for x in series.x], panel.log))
    if panel.share:
        plot.ylim(0, 1)
    drawn: str = plot.build()
    title = panel.title + _legend(panel, colour=colour)
    return f"{title}\n{drawn if colour else plot.uncolorize(drawn)}"


def _ticks(values: list[float], log: bool) -> list[int]:
    """Whole numbers for the x axis: powers of two, or at most eight evenly spaced."""
    low, high = int(min(values)), int(max(values))
    if log:
        return [2**power for power in range(high.bit_length()) if low <= 2**power <= high]
    step = max(-(-(high - low) // (MOST_TICKS - 1)), 1)
    return list(range(low, high + 1, step))


def _legend(panel: Panel, *, colour: bool) -> str:
    """The names of the lines, each with its mark, behind the title."""
    import plotext as plot

    if len(panel.series) < 2:
        return ""
    parts = []
    for number, series in enumerate(panel.series):
        marker = MARKERS[number % len(MARKERS)]
        mark = BRAILLE_SAMPLE if marker == "braille" else marker * 2
        if colour:
            mark = plot.colorize(mark, COLOURS[number % len(COLOURS)])
        parts.append(f"{mark} {series.label}")
    return ":  " + "   ".join(parts)


def draw_heat(heat: Heat, width: int) -> str:
    """Layers as rows, heads as columns: shades, with the share in per cent where there is room.

    Args:
        heat: what to draw.
        width: columns of the terminal.
    """
    heads = len(heat.rows[0]) if heat.rows else 0
    room = (width - LAYER_COLUMNS) // max(heads, 1)
    cell = NUMBERED if room >= NUMBERED else max(min(room, 2), 1)
    largest = max((value for row in heat.rows for value in row), default=0.0)
    lines = [f"{heat.title}: attention on visual tokens, per cent by layer and head"]
    lines.append("  layer  " + "".join(_head_label(head, cell) for head in range(heads)).rstrip())
    for layer, row in enumerate(heat.rows):
        lines.append(f"{layer:7d}  " + "".join(_heat_cell(value, largest, cell) for value in row))
    return "\n".join(line.rstrip() for line in lines)


def _head_label(head: int, cell: int) -> str:
    """The number of a head, or only every tenth where a cell is narrow."""
    if cell == NUMBERED:
        return f"{head:>4d} "
    return (f"{head:<{10 * cell}d}" if head % 10 == 0 else "")[: 10 * cell]


def _heat_cell(value: float, largest: float, cell: int) -> str:
    shade = _shade(value, largest)
    return f"{shade}{100 * value:3.0f} " if cell == NUMBERED else shade * cell


def _shade(value: float, largest: float) -> str:
    if largest <= 0:
        return SHADES[0]
    return SHADES[min(round(value / largest * (len(SHADES) - 1)), len(SHADES) - 1)]
