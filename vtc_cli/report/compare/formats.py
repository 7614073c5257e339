"""A comparison as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

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
    rows = [_flat(arm) for arm in found.arms]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(arm: Arm) -> dict[str, str]:
    cells: dict[str, str] = {}
    _flatten("", arm.model_dump(mode="json"), cells)
    return cells


def _flatten(prefix: str, value: Any, cells: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _flatten(f"{prefix}.{name}" if prefix else name, inner, cells)
    else:
        cells[prefix] = _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def as_markdown(found: Comparison) -> str:
    """The tables, their notes and the verdicts."""
    blocks = [
        *(f"**{warning}**" for warning in found.warnings),
        *head_lines(found),
        _table(answer_columns(found), found.arms),
        *answer_note(found),
        _table(cost_columns(), found.arms),
        TIMES,
    ]
    columns = category_columns(found)
    if columns:
        blocks += ["Accuracy by category:", _table(columns, found.arms)]
    verdicts = [
        f"- **{_text(arm.name)}** {_text(arm.verdict)}." for arm in found.arms if arm.verdict
    ]
    return "\n\n".join([*blocks, "\n".join(verdicts)]).rstrip() + "\n"


def _table(columns: Sequence[Column], arms: Sequence[Arm]) -> str:
    ways = ["---" if column.left else "---:" for column in columns]
    lines = [[column.title for column in columns], ways]
    lines += [[_text(column.cell(arm).strip()) for column in columns] for arm in arms]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str | None) -> str:
    """A text that ends no cell and sets no emphasis."""
    return " ".join(
        (text or "").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").split()
    )
