"""Results as JSON, JSON lines, CSV and Markdown, and the rule which stream gets what."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

from rich.console import Console

from vtc_cli.report.result import Result
from vtc_cli.report.table import NO_ACCURACY, render

Format = Literal["table", "json", "jsonl", "csv", "md"]


def print_result(
    result: Result, format: Format, out_console: Console, err_console: Console, quiet: bool = False
) -> None:
    """Print a result.

    A table on a terminal goes to stdout as a whole; piped, stdout gets the answer alone and the
    report goes to stderr unless `quiet`. The other formats go to stdout and nothing else does.
    """
    if format != "table":
        _write(out_console, as_text(result, format))
    elif out_console.is_terminal:
        render(result, out_console)
    else:
        answers = [result.answer, *(turn.answer for turn in result.turns)]
        _write(out_console, "\n".join(answers) + "\n")
        if not quiet:
            render(result, err_console, answer=False)


def as_text(result: Result, format: Literal["json", "jsonl", "csv", "md"]) -> str:
    """The result as text that ends with a line break."""
    if format == "json":
        return result.model_dump_json(indent=2) + "\n"
    if format == "jsonl":
        return result.model_dump_json() + "\n"
    row = flat(result)
    return _csv(row) if format == "csv" else _markdown(row, result)


def flat(result: Result) -> dict[str, str]:
    """One row with dotted names; lists as JSON, null as an empty cell."""
    cells: dict[str, str] = {}
    _flatten("", result.model_dump(mode="json"), cells)
    return cells


def _flatten(prefix: str, value: Any, cells: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            _flatten(f"{prefix}.{name}" if prefix else name, inner, cells)
    else:
        cells[prefix] = _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv(row: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return text.getvalue()


def _markdown(row: dict[str, str], result: Result) -> str:
    """A table of two columns; a bar inside a cell would end it."""
    note = [NO_ACCURACY, ""] if result.model.weights == "random" else []
    cells = {name: _one_line(value) for name, value in row.items()}
    lines = [*note, "| field | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in cells.items())]) + "\n"


def _one_line(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())


def _write(console: Console, text: str) -> None:
    """Exactly this text: no wrapping at the width, no markup, no colour."""
    console.file.write(text)
    console.file.flush()
