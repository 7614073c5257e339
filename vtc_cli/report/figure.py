"""Plots of an analysis for print: PNG, SVG or PDF, told apart without colour, labelled in place."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtc_cli.core.files import write_whole
from vtc_cli.core.terminal import escaped
from vtc_cli.core.words import counted
from vtc_cli.report.analysis import Analysis
from vtc_cli.report.curve_panels import Heat, Panel, Series, heats, panels
from vtc_cli.report.marks import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
PANEL_INCHES = (3.5, 2.5)
DPI = 200
# Dark enough on white paper: the yellow of the palette stays with the overlay.
COLOURS = tuple(
    f"#{red:02x}{green:02x}{blue:02x}"
    for red, green, blue in (PALETTE[i] for i in (6, 4, 2, 0, 5, 1))
)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
LABEL_POINTS = 8
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e0",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "text.parse_math": False,  # a dollar in a question is a dollar
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
}


def save_figure(path: Path, analysis: Analysis) -> None:
    """Draw the analysis; the ending of the name chooses the format."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where it keeps fonts
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        stream = io.BytesIO()
        draw_figure(analysis).savefig(stream, format=path.suffix[1:].lower(), dpi=DPI)
    write_whole(path, stream.getvalue())


def draw_figure(analysis: Analysis) -> Figure:
    """A figure with a title and one diagram a measure, or a run for heads."""
    from matplotlib.figure import Figure

    shown: list[Any] = list(heats(analysis) if analysis.curve == "heads" else panels(analysis))
    columns = len(shown) if len(shown) < 4 else 3 if len(shown) in (5, 6, 9) else 4
    rows = math.ceil(len(shown) / columns)
    size = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.45
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, item in zip(axes, shown, strict=False):
        _heat(figure, place, item) if isinstance(item, Heat) else _lines(place, item)
    for place in axes[len(shown) :]:
        place.set_axis_off()
    figure.suptitle(title_of(analysis), x=0.01, ha="left", fontsize=9, color="#444444")
    return figure


def title_of(analysis: Analysis) -> str:
    """What was analysed, in one line; random weights are named first."""
    model = analysis.model
    random = "random weights · " if model.weights == "random" else ""
    subject = ""
    if analysis.data is not None:
        subject = f"{Path(analysis.data.path).name}, {counted(analysis.data.items, 'input')}"
    elif analysis.input is not None:
        subject = f'{Path(analysis.input.path).name} · "{analysis.input.question}"'
    matrix = "" if analysis.curve == "heads" else f" · {analysis.matrix.replace('_', ' ')}"
    return escaped(f"{random}{model.id}{matrix} · {subject}")


def _lines(axes: Any, panel: Panel) -> None:
    for number, series in enumerate(panel.series):
        _line(axes, series, number)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_label)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high, 1.02) if panel.share else high)
    _x_axis(axes, panel)
    _label_ends(axes, panel)


def _x_axis(axes: Any, panel: Panel) -> None:
    """Whole numbers: layers as they come, token counts on a logarithmic axis."""
    if not panel.log:
        axes.xaxis.get_major_locator().set_params(integer=True)
        return
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()  # lines that begin together at all tokens part towards their names
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _line(axes: Any, series: Series, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(
        series.x,
        series.y,
        color=colour,
        linestyle=DASHES[number % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)],
    )
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.12, linewidth=0)


def _label_ends(axes: Any, panel: Panel) -> None:
    """Names at the right ends of the lines, pushed apart where ends lie close together."""
    rightmost = min if panel.log else max
    if len(panel.series) < 2:
        return
    ends = []
    for number, series in enumerate(panel.series):
        if series.x:
            last = rightmost(range(len(series.x)), key=series.x.__getitem__)
            ends.append((series.y[last], series.x[last], number))
    heights = _spread([y for y, _, _ in sorted(ends)], _label_height(axes))
    for height, (y, x, number) in zip(heights, sorted(ends), strict=True):
        axes.annotate(
            panel.series[number].label,
            xy=(x, y),
            xytext=(1.02, height),
            textcoords=axes.get_yaxis_transform(),
            color=COLOURS[number % len(COLOURS)],
            va="center",
            fontsize=LABEL_POINTS,
            annotation_clip=False,
        )


def _label_height(axes: Any) -> float:
    """Height of a line of text in units of the y axis."""
    low, high = axes.get_ylim()
    inches = axes.get_position().height * PANEL_INCHES[1] or 1.0
    return float((high - low) * LABEL_POINTS * 1.25 / 72 / max(inches, PANEL_INCHES[1] * 0.6))


def _spread(heights: list[float], least: float) -> list[float]:
    """Ascending heights moved apart to at least `least`, each crowd around its own middle."""
    crowds: list[list[float]] = []
    for height in heights:
        crowds.append([height])
        while len(crowds) > 1 and _top(crowds[-2], least) + least > _bottom(crowds[-1], least):
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    return [
        _bottom(crowd, least) + place * least for crowd in crowds for place in range(len(crowd))
    ]


def _bottom(crowd: list[float], least: float) -> float:
    return sum(crowd) / len(crowd) - least * (len(crowd) - 1) / 2


def _top(crowd: list[float], least: float) -> float:
    return _bottom(crowd, least) + least * (len(crowd) - 1)


def _heat(figure: Any, axes: Any, heat: Heat) -> None:
    image = axes.imshow(heat.rows, aspect="auto", origin="upper", cmap="cividis", vmin=0.0)
    axes.grid(visible=False)
    axes.set_title(f"{heat.title}: attention on visual tokens", loc="left")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes, shrink=0.9)
