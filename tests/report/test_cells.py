"""CSV that no spreadsheet runs, and Markdown that a reader of Markdown takes for the same cells."""

from __future__ import annotations

import csv
import io

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from vtc_cli.report.cells import csv_text, flat, markdown, markdown_table

HOSTILE = (
    "=1+1", "a|b", "*x* _y_ `z`", "<img src=x>", "[a](http://b)", "&lt;", "$x$", "~~s~~", "a\\|b",
    "\\", "# h", "two\nlines", "\x1b[31mred", "\u202eabc", "", "日本",
)  # fmt: skip


def table_cells(text: str) -> list[list[Token]]:
    """Rows of the first table as a Markdown parser reads them."""
    rows: list[list[Token]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            rows[-1].append(token)
    return rows


def test_markdown_cells_are_read_back_as_text() -> None:
    """Each cell is one piece of plain text, the very one; no markup, no further cells."""
    rows = table_cells(markdown_table(["name", "*n*"], [[text, "1"] for text in HOSTILE], {1}))
    assert len(rows) == len(HOSTILE) + 1 and {len(row) for row in rows} == {2}
    for row, wanted in zip(rows[1:], HOSTILE, strict=True):
        children = row[0].children or []
        assert {child.type for child in children} <= {"text", "text_special"}
        plain = " ".join(wanted.split()).replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
        assert "".join(child.content for child in children) == plain


def test_markdown_alignment() -> None:
    assert markdown_table(["a", "b"], [["x", "1"]], {1}).splitlines()[1] == "| --- | ---: |"
    assert markdown("a  b\n c") == "a b c"


@pytest.mark.parametrize("text", ["=1", "+cmd", "-cmd", "@SUM(A1)", "\tx", "\rx", "-", "=", "-1+1"])
def test_csv_guards_formulas(text: str) -> None:
    """In cells and in heads; what is read back is the text behind an apostrophe."""
    head, row = csv.reader(io.StringIO(csv_text(["a", text], [{"a": text, text: 1}]), newline=""))
    assert head == ["a", f"'{text}"] and row == [f"'{text}", "1"]


def test_csv_leaves_numbers_and_plain_texts_alone() -> None:
    row = {"a": -0.5, "b": "-0.5", "c": "+1e3", "d": 3, "e": None, "f": True, "g": "a=b", "h": "x"}
    read = next(csv.DictReader(io.StringIO(csv_text([*row, "none"], [row]))))
    assert read == {
        "a": "-0.5", "b": "-0.5", "c": "+1e3", "d": "3", "e": "", "f": "true", "g": "a=b",
        "h": "x", "none": "",
    }  # fmt: skip


def test_flat() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [1, {"f": 2}]}) == {
        "a.b.c": 1, "a.d": {}, "e": [1, {"f": 2}],
    }  # fmt: skip
