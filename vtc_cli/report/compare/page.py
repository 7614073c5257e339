"""The page of a comparison: plot, tables and every item, all in one file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from vtc_cli.core.files import write_whole
from vtc_cli.core.words import counted
from vtc_cli.report.compare.columns import (
    FRONT,
    Column,
    answer_columns,
    category_columns,
    cost_columns,
)
from vtc_cli.report.compare.items import items_data
from vtc_cli.report.compare.plot import legend, pareto_plot
from vtc_cli.report.compare.rows import Rows
from vtc_cli.report.compare.summary import Arm, Comparison
from vtc_cli.report.compare.table import TIMES, answer_note, head_lines
from vtc_cli.report.page.markup import Html, joined, script_data, tag

NUMBER = re.compile(r"([+\u2212-]?\d[\d ]*(?:\.\d+)?(?:e-?\d+)?)(?:.*? ([kMGT])B$)?")
PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SWIPE = "Every column is there: the table moves sideways."
SCRIPTS = ("plot.js", "sorting.js", "items.js")


def write_page(path: Path, rows: Rows, found: Comparison) -> None:
    """Write the page to `path`, as a whole or not at all.

    Args:
        path: an HTML file.
        rows: the passes behind every item; pictures are read from where they lay.
        found: their summary.

    Raises:
        VtcError: the file cannot be written.
    """
    write_whole(path, page_text(rows, found))


def page_text(rows: Rows, found: Comparison) -> str:
    """The page as `write_page` writes it."""
    style = _shared("page.css") + _asset("compare.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    categories = category_columns(found)
    return Template(_asset("compare.html")).substitute(
        title=joined(f"vtc compare: {_recipes(found)}"),
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        head=_head(found),
        plot=pareto_plot(found),
        legend=legend(found),
        verdicts=_verdicts(found),
        answers=_table(answer_columns(found), found.arms, "answers"),
        answer_notes=_notes(answer_note(found)),
        costs=_table(cost_columns(), found.arms, "costs"),
        cost_notes=_notes([TIMES]),
        categories=_categories(categories, found.arms),
        foot=_foot(found),
        data=script_data("page-data", items_data(rows, found), shown=True),
        result=script_data("result", json.loads(found.model_dump_json())),
    )


def _recipes(found: Comparison) -> str:
    return ", ".join(recipe.name for recipe in found.recipes if not recipe.baseline)


def _head(found: Comparison) -> Html:
    """What was compared, and what the reader must know of it."""
    title = tag("h1", _recipes(found))
    lines = [tag("p", line, class_="about") for line in head_lines(found)]
    warnings = [tag("p", warning) for warning in _told(found)]
    box = tag("div", *warnings, class_="warnings") if warnings else Html()
    eyebrow = tag("p", "vtc compare", class_="eyebrow")
    return tag("header", eyebrow, title, *lines, box)


def _told(found: Comparison) -> list[str]:
    """Warnings, and failures as one of them."""
    failed = counted(len(found.failures), "failed pass is missing", "failed passes are missing")
    return [*found.warnings, *([failed] if found.failures else [])]


def _verdicts(found: Comparison) -> Html:
    entries = [
        joined(tag("dt", arm.name), tag("dd", _unbroken(f"{arm.verdict}.")))
        for arm in found.arms
        if arm.verdict
    ]
    return tag("dl", *entries, class_="verdicts")


def _unbroken(text: str) -> str:
    """The text with its p-values and percentages each in one line."""
    return re.sub(
        r"(?<=p) ([=<]) |(?<=\d) (?=%)", lambda m: f"\xa0{m[1]}\xa0" if m[1] else "\xa0", text
    )


def _notes(lines: Sequence[str]) -> Html:
    return joined(*(tag("p", line, class_="note") for line in lines))


def _categories(columns: Sequence[Column], arms: Sequence[Arm]) -> Html:
    if not columns:
        return Html()
    title = tag("h2", "Accuracy by category", id="categories-title")
    table = _table(columns, arms, "categories")
    return tag("section", title, table, aria_labelledby="categories-title")


def _table(columns: Sequence[Column], arms: Sequence[Arm], name: str) -> Html:
    """A table whose head sorts it; the order of the arms is that of no sorting."""
    named = [column for column in columns if column.title]  # the front's mark has none
    heads = [tag("th", _sorter(column), scope="col", class_=_kind(column)) for column in named]
    rows = [_row(arm, named) for arm in arms]
    table = tag(
        "table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_=f"arms {name}"
    )
    wide = tag("div", table, class_="wide", tabindex="0", role="region", aria_label=name)
    return joined(tag("p", SWIPE, class_="note swipe"), wide)


def _sorter(column: Column) -> Html:
    return tag("button", column.title, type="button")


def _row(arm: Arm, columns: Sequence[Column]) -> Html:
    """The mark of the front stands beside the name."""
    first, *others = columns
    star = tag("span", FRONT, class_="star", title="on the Pareto front") if arm.on_front else ""
    head = tag("th", first.cell(arm), " ", star, scope="row", data_value=first.cell(arm))
    cells = [
        tag("td", text.strip(), class_=_kind(column), data_value=_value(text))
        for column in others
        for text in [column.cell(arm)]
    ]
    return tag("tr", head, *cells, class_=arm.kind, data_arm=arm.name)


def _kind(column: Column) -> str | None:
    return None if column.left else "number"


def _value(text: str) -> str | None:
    """What a cell is sorted by: its first number, in bytes where it is a size."""
    found = NUMBER.match(text.strip().removeprefix("<"))
    if found is None:
        return None
    number, prefix = found.groups()
    value = float(number.replace("\u2212", "-").replace(" ", ""))
    return f"{value * PREFIXES.get(prefix or '', 1.0):.12g}"


def _foot(found: Comparison) -> Html:
    """What made the page, for whoever wants to make it again."""
    known = {key: value for key, value in found.environment.items() if value}
    versions = " · ".join(f"{key} {value}" for key, value in known.items())
    command = tag("p", tag("code", shlex.join(["vtc", *found.argv])))
    return joined(command, tag("p", versions))


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _shared(name: str) -> str:
    """A style that this page shares with that of a run."""
    folder = files("vtc_cli.report.page") / "assets"
    return (folder / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """The name under which a content security policy allows an inline style or script."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
