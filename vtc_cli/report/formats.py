"""Results as JSON, JSON lines, CSV and Markdown, and the rule which stream gets what."""

from __future__ import annotations

from typing import Literal

from vtc_cli.core.console import Console
from vtc_cli.core.terminal import emit, show
from vtc_cli.report.cells import csv_text, flat, markdown, markdown_table
from vtc_cli.report.comparison import COLUMNS, comparison_rows, spread_title
from vtc_cli.report.result import Result
from vtc_cli.report.stages import STAGE_COLUMNS, stage_rows
from vtc_cli.report.table import NO_ACCURACY, closing, facts, render

Format = Literal["table", "json", "jsonl", "csv", "md"]


def print_result(
    result: Result, format: Format, out_console: Console, err_console: Console, quiet: bool = False
) -> None:
    """Print a result.

    A table on a terminal goes to stdout as a whole; piped, stdout gets the answer alone, byte for
    byte, and the report goes to stderr unless `quiet`. The other formats go to stdout and nothing
    else does.
    """
    if format == "csv":
        emit(as_text(result, format), out_console.file)
    elif format != "table":
        show(as_text(result, format), end="", file=out_console.file)
    elif out_console.is_terminal:
        render(result, out_console)
    else:
        answers = [result.answer, *(turn.answer for turn in result.turns)]
        emit("\n".join(answers) + "\n", out_console.file)
        if not quiet:
            render(result, err_console, answer=False)


def as_text(result: Result, format: Literal["json", "jsonl", "csv", "md"]) -> str:
    """The result as text that ends with a line break."""
    if format == "json":
        return result.model_dump_json(indent=2) + "\n"
    if format == "jsonl":
        return result.model_dump_json() + "\n"
    if format == "md":
        return _markdown(result)
    row = flat(result.model_dump(mode="json"))
    return csv_text(list(row), [row])


def _markdown(result: Result) -> str:
    """The report that a person reads: answer, stages, figures and verdict."""
    tokens = result.tokens
    random = [f"**{NO_ACCURACY}**"] if result.model.weights == "random" else []
    rows = stage_rows(tokens.original, tokens.by_stage, result.input.kind, result.tokens_file)
    figures = (*COLUMNS, spread_title(result.time_ms))
    blocks = [
        *random,
        f"**{markdown(result.answer)}**" if result.answer.strip() else "(empty)",
        *map(markdown, facts(result)),
        markdown_table(STAGE_COLUMNS, rows, right=(2, 3, 4)),
        markdown_table(figures, comparison_rows(result), right=(1, 2, 3)),
        *(markdown(line.plain) for line in closing(result) if line),
    ]
    return "\n\n".join(blocks) + "\n"
