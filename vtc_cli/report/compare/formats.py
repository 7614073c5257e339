"""A comparison as CSV and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vtc_cli.report.cells import csv_text, flat, markdown, markdown_table
from vtc_cli.report.compare.columns import (
    Column,
    answer_columns,
    category_columns,
    cost_columns,
)
from vtc_cli.report.compare.summary import Arm, Comparison
from vtc_cli.report.compare.table import TIMES, answer_note, head_lines


def as_csv(found: Comparison) -> str:
    """One row an arm with every figure under its dotted name; empty where there is none."""
    rows = [flat(arm.model_dump(mode="json")) for arm in found.arms]
    names = list(dict.fromkeys(name for row in rows for name in row if row[name] != {}))
    return csv_text(names, rows)


def as_markdown(found: Comparison) -> str:
    """The tables, their notes and the verdicts."""
    blocks = [
        *(f"**{markdown(warning)}**" for warning in found.warnings),
        *map(markdown, head_lines(found)),
        _table(answer_columns(found), found.arms),
        *map(markdown, answer_note(found)),
        _table(cost_columns(), found.arms),
        markdown(TIMES),
    ]
    columns = category_columns(found)
    if columns:
        blocks += ["Accuracy by category:", _table(columns, found.arms)]
    verdicts = [
        f"- **{markdown(arm.name)}** {markdown(arm.verdict)}." for arm in found.arms if arm.verdict
    ]
    return "\n\n".join([*blocks, "\n".join(verdicts)]).rstrip() + "\n"


def _table(columns: Sequence[Column], arms: Sequence[Arm]) -> str:
    rows = [[column.cell(arm) for column in columns] for arm in arms]
    right = [at for at, column in enumerate(columns) if not column.left]
    return markdown_table([column.title for column in columns], rows, right)
