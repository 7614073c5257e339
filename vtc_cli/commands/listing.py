"""Rows of a listing as a table, JSON, JSON lines, CSV or Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from vtc_cli.core.terminal import emit, show
from vtc_cli.report.cells import csv_text, markdown_table

Format = Literal["table", "json", "jsonl", "csv", "md"]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Shape of the result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Row = Mapping[str, Any]


def print_rows(rows: Sequence[Row], columns: Sequence[str], shape: Format) -> None:
    """Print rows on stdout; JSON carries every field, the others `columns` only.

    Args:
        rows: fields by name.
        columns: fields to show, in order.
        shape: how.
    """
    if shape == "json":
        show(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif shape == "jsonl":
        for row in rows:
            show(json.dumps(row, ensure_ascii=False))
    elif shape == "csv":
        emit(csv_text(columns, [{name: _joined(row[name]) for name in columns} for row in rows]))
    elif shape == "md":
        show(markdown_table(columns, [[_cell(row[name]) for name in columns] for row in rows]))
    else:
        _print_table(rows, columns)


def _joined(value: Any) -> Any:
    """Lists as words with spaces between; the rest as it is."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _cell(value: Any) -> str:
    return "" if value is None else str(_joined(value))


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    from rich.table import Table

    from vtc_cli.core.console import Console, Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):  # the first column names the row and stays whole
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    Console().print(table)
