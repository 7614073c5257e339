"""The tables of the page: what each stage did and cost, and the run beside the full model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.report.comparison import comparison_rows, spread_title
from vtc_cli.report.marks import FORMS, PALETTE
from vtc_cli.report.page.data import name_of_whole, place
from vtc_cli.report.page.markup import Html, joined, tag
from vtc_cli.report.result import Result, StageBlock
from vtc_cli.report.stages import joined_stages, short, stage_note
from vtc_cli.report.units import flops, milliseconds

STAGE_COLUMNS = ("stage", "where", "tokens", "kept", "what it did", "time", "operations")
NO_STAGES = "This recipe has no stages: every patch is a visual token in every layer."
TO = "\u2060\u2013\u2060"  # a dash at which no line ends
NUMBERS = {"tokens", "kept", "time", "operations", "full model", "this run", "ratio"}


def stage_table(trace: Trace) -> Html:
    """One row a stage; cache policies that act alike in neighbouring layers share a row.

    Time and operations are those of signals and decisions, in the pass that decided.
    """
    if not trace.records:
        return tag("p", NO_STAGES, class_="note")
    blocks = [StageBlock.model_validate(asdict(one)) for one in token_counts(trace).by_stage]
    rows = [_first_row(name_of_whole(trace.layout), trace.original_tokens)]
    full = trace.uncompressed.layout.tokens
    done, protected, mark = 0, 0, 0
    for block, layers in joined_stages(blocks):
        records = trace.records[done : done + len(layers)]
        done += len(layers)
        number = None if block.phase == "decode" else mark
        mark += block.phase != "decode"
        note = stage_note(block, protected)
        rows.append(_stage_row(block, records, number, note, full))
        protected = block.protected if block.phase != "decode" else protected
    return _table(STAGE_COLUMNS, rows, "stages")


def figure_table(result: Result) -> Html:
    """Operations, cache, times, memory and information as in the terminal's report."""
    columns = ("figure", "full model", "this run", "ratio", spread_title(result.time_ms) or "note")
    return _table(columns, comparison_rows(result), "figures")


def _first_row(whole: str, patches: int) -> list[str]:
    return [whole, "", str(patches), "", "", "", ""]


def _stage_row(
    block: StageBlock, records: Sequence[StageRecord], number: int | None, note: str, full: int
) -> list[str]:
    first, last = records[0].layer, records[-1].layer
    where = place(block.phase, first)
    if first != last:
        where = Html(f"decoder layers {first}{TO}{last}")
    before = {record.before for record in records}
    came = f"{min(before)}{TO}{max(before)}" if len(before) > 1 else str(block.before)
    tokens = Html(f"{came} → {block.after}")
    spent_ms = sum(record.decision_ms + record.signal_ms for record in records)
    spent = sum(record.decision.flops + record.signal_flops for record in records)
    share = f"{100 * block.after / full:.0f} %" if full else ""
    return [
        _named(short(block.stage), block.phase, number),
        where,
        tokens,
        share,
        note,
        milliseconds(spent_ms),
        flops(spent) if spent else "0",
    ]


def _named(name: str, phase: str, number: int | None) -> Html:
    """The stage with its mark; cache policies have none."""
    glyph = Html() if number is None else mark_glyph(number)
    words = tag("span", _breakable(name), " ", tag("small", phase))
    return tag("span", glyph, words, class_="named")


def _breakable(name: str) -> Html:
    """A name that may break behind its underscores."""
    parts = [joined(part) for part in name.split("_")]
    return Html("_<wbr>".join(parts))


def mark_glyph(number: int) -> Html:
    """The mark of stage `number` on a dark ground, as on dropped patches."""
    colour = "#{:02x}{:02x}{:02x}".format(*PALETTE[number % len(PALETTE)])
    shapes = {
        "disc": tag("circle", cx="8", cy="8", r="4.4", fill=colour),
        "square": tag("rect", x="4.2", y="4.2", width="7.6", height="7.6", fill=colour),
        "triangle": tag("path", d="M8 3.6 12.4 12.4H3.6Z", fill=colour),
        "diamond": tag("path", d="M8 2.7 13.3 8 8 13.3 2.7 8Z", fill=colour),
        "cross": tag(
            "path", d="M4 4 12 12M12 4 4 12", stroke=colour, stroke_width="2.6", fill="none"
        ),
    }
    ground = tag("rect", width="16", height="16", rx="3", fill="#3e3e40")
    form = shapes[FORMS[number % len(FORMS)]]
    return tag("svg", ground, form, class_="glyph", viewBox="0 0 16 16", aria_hidden="true")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> Html:
    """A table whose cells know their column, for narrow screens where rows become blocks."""
    heads = [tag("th", text, scope="col", class_=_kind(text)) for text in columns]
    body = []
    for first, *others in rows:
        cells = [
            tag("td", cell, class_=_kind(column), data_label=column)
            for column, cell in zip(columns[1:], others, strict=True)
        ]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), class_=name)


def _kind(column: str) -> str | None:
    return "number" if column in NUMBERS else None
