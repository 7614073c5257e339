"""Rows of a listing as a table, JSON, JSON lines, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

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
        print(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif shape == "jsonl":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif shape == "csv":
        print(_csv(rows, columns), end="")
    elif shape == "md":
        print(_markdown(rows, columns))
    else:
        _print_table(rows, columns)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return buffer.getvalue()


def _markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    cells = [[_cell(row[name]).replace("|", "\\|") for name in columns] for row in rows]
    lines = [list(columns), ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):  # the first column names the row and stays whole
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    Console().print(table)
