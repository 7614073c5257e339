"""What the plots of an analysis show, without a model."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from vtc_cli.metrics.sweep import Point
from vtc_cli.report.analysis import Analysis, Sweep
from vtc_cli.report.analysis_build import gather, sweep
from vtc_cli.report.analysis_formats import rows
from vtc_cli.report.curve_panels import Heat, Panel, Series, heats, panels
from vtc_cli.report.figure import _spread, draw_figure
from vtc_cli.report.terminal_plot import draw_heat, draw_panel

COUNTS = (500, 100, 10)


def point(tokens: int, right: float | None) -> Point:
    share = tokens / 500
    return Point(
        tokens=tokens,
        kept=tokens,
        rank_first=tokens,
        effective_rank_first=20 * share,
        rank_last=tokens,
        effective_rank_last=10 * share,
        energy_kept=share,
        ics_kept=share,
        kl_first_token=1 - share,
        top1_agree=1.0,
        answer_nll_delta=0.0,
        exact_match=0.5,
        correct=right,
    )


def swept(answers: list[list[float | None]]) -> Sweep:
    """One selection; `answers` has a row a count and a column an input."""
    groups = [[point(n, a) for a in row] for n, row in zip(COUNTS, answers, strict=True)]
    return sweep("random", 2, groups)


def analysis(**parts: Any) -> Analysis:
    model = dict.fromkeys(("id", "family", "dtype", "device", "attention"), "x")
    empty = dict.fromkeys(("input", "data", "runs", "sweeps", "error"))
    head = {"command": "analyze", "schema_version": 1, "created": "", "argv": [], "seed": 0}
    body = {"curve": "tokens", "matrix": "layer_output", "tau": 1e-5, "warnings": []}
    sizes = {"weights": "trained", "layers": 2, "vision_layers": 2}
    return Analysis.model_validate(
        head | empty | body | {"model": model | sizes, "environment": {}} | parts
    )


def test_accuracy_of_a_sweep_has_its_interval_and_its_associations() -> None:
    found = swept([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]])
    assert [p.correct for p in found.points] == [1.0, 0.75, 0.25]
    low, high = found.points[1].correct_low, found.points[1].correct_high
    assert low is not None and high is not None and low < 0.75 < high
    assert found.associations is not None
    assert found.associations[0].across is not None
    assert found.associations[0].across.rho == pytest.approx(1.0)
    assert found.associations[0].within is None  # the same information for every input here
    assert swept([[None, None]] * 3).associations is None


def test_inputs_are_regrouped_by_count() -> None:
    first = {"a": [point(n, 1.0) for n in COUNTS]}
    second = {"a": [point(n, 0.0) for n in COUNTS]}
    grouped = gather([first, second], "a")
    assert [[p.correct for p in group] for group in grouped] == [[1.0, 0.0]] * 3
    assert [group[0].tokens for group in grouped] == list(COUNTS)


def test_panels_of_a_sweep_have_accuracy_only_if_it_is_known() -> None:
    known = panels(analysis(sweeps=[swept([[1.0], [1.0], [0.0]])]))
    unknown = panels(analysis(sweeps=[swept([[None], [None], [None]])]))
    assert [panel.title for panel in known][-1] == "accuracy"
    assert [panel.title for panel in known][:-1] == [panel.title for panel in unknown]
    accuracy = known[-1].series[0]
    assert (accuracy.x, accuracy.y) == ([500, 100, 10], [1.0, 1.0, 0.0])
    assert accuracy.low is not None and accuracy.low[0] < 1.0


def test_rows_of_a_sweep_name_their_selection() -> None:
    found = rows(analysis(sweeps=[swept([[1.0], [1.0], [0.0]])]))
    assert [(row["select"], row["tokens"]) for row in found] == [("random", n) for n in COUNTS]


def test_labels_are_pushed_apart_and_keep_their_order() -> None:
    placed = _spread([1.0, 1.01, 1.02, 5.0], 0.5)
    assert placed == pytest.approx([0.51, 1.01, 1.51, 5.0])
    assert _spread([1.0, 2.0, 5.0], 0.5) == [1.0, 2.0, 5.0]
    assert all(after - before >= 0.5 - 1e-9 for before, after in itertools.pairwise(placed))
    assert np.mean(placed) == pytest.approx(np.mean([1.0, 1.01, 1.02, 5.0]))
    assert _spread([], 1.0) == []


def test_the_figure_has_a_diagram_a_panel_and_a_label_a_line() -> None:
    pair = [swept([[1.0], [1.0], [0.0]]), swept([[1.0], [0.0], [0.0]])]
    data = analysis(sweeps=pair)
    figure = draw_figure(data)
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title("left") for axes in drawn] == [panel.title for panel in panels(data)]
    for axes in drawn:
        assert len(axes.lines) == 2
        assert [text.get_text() for text in axes.texts] == ["random", "random"]


def test_a_terminal_plot_has_its_width_and_no_escape_codes() -> None:
    panel = Panel("rank", "layer", [Series("full", [0, 1, 2], [1, 2, 3])] * 2)
    text = draw_panel(panel, 70, colour=False)
    assert max(map(len, text.splitlines())) <= 70 and "\x1b" not in text
    assert text.startswith("rank:") and "full" in text.splitlines()[0]
    assert "\x1b" in draw_panel(panel, 70, colour=True)


def test_a_heat_shows_every_share_where_there_is_room() -> None:
    heat = Heat("full", [[0.5, 1.0], [0.0, 0.25]])
    wide = draw_heat(heat, 80).splitlines()
    assert wide[2].split() == ["0", "▒", "50", "█100"]
    assert "25" in wide[3]
    many = Heat("full", [[0.5] * 64])
    assert max(map(len, draw_heat(many, 80).splitlines()[1:])) <= 80
    assert heats(analysis()) == []
