"""A solved recipe on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.padding import Padding
from rich.table import Table

from vtc_cli.core.console import Console, Text
from vtc_cli.core.terminal import emit
from vtc_cli.core.words import counted
from vtc_cli.report.solution import MeasureBlock, Solution

NAMES = {"layer_average": "layer average", "flops": "prefill FLOPs", "kv": "KV bytes"}
UNITS = {"layer_average": "tokens", "flops": "of full", "kv": "of full"}
COLUMNS = ("measure", "requested", "achieved", "gap", "low", "high", "smallest", "largest")


def measure_rows(solution: Solution) -> list[dict[str, Any]]:
    """One row a measure, for CSV and Markdown."""
    return [block.model_dump() for block in solution.measures]


def render_solution(solution: Solution, console: Console) -> None:
    """Print what was solved, how well it is met, and the recipe itself."""
    console.print(Text(_head(solution)))
    console.print(Text(_prompt(solution)))
    console.print()
    console.print(_measures(solution))
    console.print()
    for line in _lines(solution):
        console.print(Text(line))
    if solution.output is None:
        console.print()
        emit(solution.solved_recipe)  # whole lines, for whoever copies it
    else:
        console.print(Text(f"written to {solution.output}"))


def _head(solution: Solution) -> str:
    model = solution.model
    way = "by arithmetic" if solution.calibration is None else "by calibration"
    return f"{solution.recipe.name} on {model.id} ({model.family}, {model.layers} layers) · {way}"


def _prompt(solution: Solution) -> str:
    given, calibration = solution.input, solution.calibration
    if calibration is not None:
        passes = counted(calibration.passes, "pass", "passes")
        return f"{counted(calibration.items, 'item')} of {calibration.path}, {passes}"
    what = given.path or "a blank picture"
    frames = f", {given.frames} frames" if given.frames > 1 else ""
    return (
        f"{what} of {given.width} x {given.height} pixels{frames}: {given.visual_tokens} visual "
        f"tokens, {given.text_tokens} of text"
    )


def _measures(solution: Solution) -> Padding:
    """Requested beside achieved, with the reach of the hyper-parameters."""
    spread = solution.calibration is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = ("", "requested", "achieved", *(("items",) if spread else ()), "reachable", "")
    for place, title in enumerate(titles):
        last = place in (0, len(titles) - 1)
        table.add_column(title, justify="left" if last else "right", no_wrap=not last)
    for block in solution.measures:
        cells = [
            NAMES[block.measure],
            _number(block, block.requested),
            _number(block, block.achieved),
        ]
        cells += [_range(block, block.smallest, block.largest)] if spread else []
        table.add_row(*cells, _range(block, block.low, block.high), UNITS[block.measure])
    return Padding(table, 0)


def _lines(solution: Solution) -> Iterator[str]:
    for varied in solution.varied:
        before = "not set" if varied.declared is None else _plain(varied.declared)
        yield f"{varied.stage}: {varied.parameter}: {_plain(varied.solved)}   (recipe: {before})"
    if solution.tokens is not None:
        yield f"tokens by layer: {_by_layer(solution.tokens.per_layer)}"
        yield f"cache entries by layer: {_by_layer(solution.tokens.kv_entries_per_layer)}"
    budget = solution.budget
    if budget is not None:
        same = (
            "the same in every layer"
            if budget.same_tokens
            else (
                f"nearest, not the same: layer average {budget.layer_average:.1f}, "
                f"FLOPs {budget.flops:.4f}, KV {budget.kv:.4f}"
            )
        )
        yield f"with the recipe as it is: --budget {budget.budget:g}   ({same})"


def _number(block: MeasureBlock, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if block.measure == "layer_average" else f"{value:.4f}"


def _range(block: MeasureBlock, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_number(block, low)}..{_number(block, high)}"


def _plain(value: float | list[float]) -> str:
    values = value if isinstance(value, list) else [value]
    text = ", ".join(f"{number:.12g}" for number in values)
    return f"[{text}]" if isinstance(value, list) else text


def _by_layer(counts: list[int]) -> str:
    """`576 in 0-1, 166 in 2-31`."""
    parts, start = [], 0
    for count, run in groupby(counts):
        end = start + len(list(run)) - 1
        parts.append(f"{count} in {start}" + (f"-{end}" if end > start else ""))
        start = end + 1
    return ", ".join(parts)
