"""Rows as CSV and as Markdown: every file and every listing is written here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from vtc_cli.core.terminal import escaped

# A spreadsheet takes a cell that begins so for a formula ("CSV Injection", OWASP).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARKS = re.compile(r"[\\`*_{}\[\]<>|~$]")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a head; a field that a row lacks is an empty cell.

    Numbers stay numbers. A text that a spreadsheet would run as a formula gets an apostrophe in
    front, which the spreadsheet takes as the sign of text; a number written as text stays bare.
    """
    lines = [_line([_guarded(name) for name in columns])]
    lines += [_line([_csv_cell(row.get(name)) for name in columns]) for row in rows]
    return "".join(lines)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names; an empty mapping is a cell, as lists are."""
    cells: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            cells |= flat(inner, f"{prefix}{name}.")
        else:
            cells[f"{prefix}{name}"] = inner
    return cells


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()
) -> str:
    """A table of GitHub's Markdown; cells are escaped, columns `right` are aligned there."""
    lines = [[markdown(head) for head in heads]]
    lines.append(["---:" if at in right else "---" for at in range(len(heads))])
    lines += [[markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(text: str) -> str:
    """A text that ends no cell, sets no emphasis and holds no markup: what is seen is the text."""
    plain = escaped(" ".join(text.split()))
    return _MARKS.sub(lambda match: f"\\{match[0]}", plain).replace("&", "&amp;")


def _line(cells: Sequence[str]) -> str:
    """One line of CSV; the writer quotes only the ends of line that are its own, so both are."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _guarded(value)
    return json.dumps(value, ensure_ascii=False)


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
