"""What a person sees of a comparison: answers, costs, kinds of questions, verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.table import Table

from vtc_cli.core.console import Console, Text
from vtc_cli.core.words import counted
from vtc_cli.report.compare.columns import (
    FRONT,
    Column,
    answer_columns,
    category_columns,
    cost_columns,
    fitted,
)
from vtc_cli.report.compare.summary import Arm, Comparison, Refused
from vtc_cli.report.compare.verdict import NAMES
from vtc_cli.report.table import NO_ACCURACY

ACCENT = "cyan"
WIDEST = 130
GAP = 2
PAIRED = "differences in points; * p < 0.05 of McNemar's exact test, corrected (Holm) over {}"
RANKED = "KL in nats; * p < 0.05 of the signed-rank test, corrected (Holm) over {}"
TIMES = "shares of the full model's; times are medians over items of single passes, ± half IQR"


def render(found: Comparison, console: Console) -> None:
    """Print the comparison, never wider than the console."""
    width = min(console.width, WIDEST) - 2
    if found.model.weights == "random":
        console.print(Padding(Text(NO_ACCURACY, style="bold"), (0, 1)))
    for line in head_lines(found):
        console.print(Padding(Text(line), (0, 1)), width=width + 2)
    _section(console, width, "Answers", answer_columns(found), found, answer_note(found))
    _section(console, width, "Cost", cost_columns(), found, [TIMES])
    columns = category_columns(found)
    if columns:
        _section(console, width, "Accuracy by category", columns, found, [])
    _verdicts(console, width, found)


def head_lines(found: Comparison) -> list[str]:
    """Model, items and rule."""
    model, data = found.model, found.data
    answered = f", {found.answered} with an answer, matched {found.match}" if found.judged else ""
    return [
        f"{model.id} · {model.family} {model.layers} layers · "
        f"{model.device} {model.dtype} {model.attention} · {model.weights}",
        f"{data.path} · {counted(found.items, 'item')}{answered}",
    ]


def answer_note(found: Comparison) -> list[str]:
    """How to read the table of answers."""
    axis = "cost and accuracy" if found.judged else "cost and KL"
    notes = [f"{FRONT} on the Pareto front of {axis}"]
    if found.tests:
        count = counted(found.tests, "test")
        notes.append((PAIRED if found.judged else RANKED).format(count))
    if found.hard_by:
        name = NAMES.get(found.hard_by, found.hard_by)
        counts = sorted({arm.hard.count for arm in found.arms if arm.hard}) or [0]
        shown = "\u2013".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        notes.append(f"hard: {shown} items that the full model answers and {name} does not")
    return [*notes, *_cache_notes(found), *(_refusal(one) for one in found.refused)]


def _cache_notes(found: Comparison) -> list[str]:
    """What a budget counts where it does not count tokens."""
    arms = [arm for arm in found.arms if arm.tokens.cache_equivalent is not None]
    names = ", ".join(dict.fromkeys(arm.recipe for arm in arms))
    told = "budgets count cache entries a layer and head; the baselines have a cache of that size"
    return [f"{names}: {told}"] if names else []


def _refusal(one: Refused) -> str:
    items = counted(one.items, "item")
    return f"{one.recipe} {one.budget} cannot be had on {items}: {one.reason}"


def _section(
    console: Console,
    width: int,
    title: str,
    columns: Sequence[Column],
    found: Comparison,
    notes: Sequence[str],
) -> None:
    """A titled table with what explains it below."""
    console.print()
    console.print(Padding(Text(title, style="bold"), (0, 1)))
    shown = fitted(columns, found.arms, width, GAP)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column in shown:
        table.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    budget: str | None = None
    for arm in found.arms:
        if budget is not None and arm.kind == "recipe" and arm.budget != budget:
            table.add_row()
        budget = arm.budget
        table.add_row(*(Text(column.cell(arm), style=_style(column, arm)) for column in shown))
    console.print(Padding(table, (0, 1)), width=width + 2)
    gone = [column.title for column in columns if column not in shown]
    left_out = [f"not shown at this width: {', '.join(gone)}"] if gone else []
    for note in (*notes, *left_out):
        console.print(Padding(Text(note, style="dim"), (0, 1)), width=width + 2)


def _style(column: Column, arm: Arm) -> str:
    if not column.title:
        return ACCENT
    if column.title == "recipe" and arm.kind == "recipe":
        return "bold"
    return "dim" if arm.kind == "baseline" else ""


def _verdicts(console: Console, width: int, found: Comparison) -> None:
    told = [arm for arm in found.arms if arm.verdict]
    if not told:
        return
    console.print()
    console.print(Padding(Text("Verdicts", style="bold"), (0, 1)))
    for arm in told:
        line = Text.assemble((arm.name, f"bold {ACCENT}"), f"  {arm.verdict}.")
        console.print(Padding(line, (0, 1)), width=width + 2)
    for failure in found.failures[:3]:
        text = f"failed: item {failure.item} {failure.recipe} {failure.budget}: "
        console.print(Padding(Text(text + failure.error.message, style="yellow"), (0, 1)))
