"""The table of stages: tokens before, after each one, and bars where there is room."""

from __future__ import annotations

from rich.table import Table

from vtc_cli.core.console import Text
from vtc_cli.report.result import StageBlock, TokensFileBlock

NARROW = 80
ROOMY = 100
ROOM_FOR_NOTES = 52
FIXED_COLUMNS = 75  # what stands beside the bar, notes included
LONGEST_BAR = 32
BAR = "█"
STAGE_COLUMNS = ("phase", "stage", "layer", "tokens", "kept", "note")
StageRow = tuple[str, str, str, str, str, str]


def stage_table(
    original: int,
    stages: list[StageBlock],
    width: int,
    kind: str,
    file: TokensFileBlock | None = None,
) -> Table:
    """One row a decision; cache policies that act alike in many layers share a row.

    Args:
        original: tokens of the picture.
        stages: what each decision left.
        width: columns of the terminal.
        kind: `image` or `video`.
        file: where the tokens came from if no tower ran.
    """
    wide = width >= NARROW
    gap = 2 if width >= ROOMY else 1
    bar_columns = min(max(width - FIXED_COLUMNS - 6 * (gap - 1), 1), LONGEST_BAR) if wide else 0
    table = _columns(wide, gap, notes=width >= ROOM_FOR_NOTES)
    for phase, name, layer, tokens, kept, note in stage_rows(original, stages, kind, file):
        named = [Text(phase or name), Text(name if phase else "")] if wide else [Text(name)]
        bar = _bar(int(tokens), original, bar_columns)
        cells = [*named, Text(layer), Text(tokens), *bar, Text(kept), Text(note)]
        table.add_row(*cells[: len(table.columns)])
    return table


def stage_rows(
    original: int,
    stages: list[StageBlock],
    kind: str,
    file: TokensFileBlock | None = None,
) -> list[StageRow]:
    """The cells of that table without bars: phase, name, layer, tokens, share kept, note."""
    source = "(video)" if kind == "video" else "(picture)"
    rows: list[StageRow] = [("", source, "", str(original), "", "")]
    protected = 0
    if file is not None:
        protected = file.protected
        note = f"{protected} protected" if protected else ""
        kept = _kept(file.entering, original)
        rows.append(("", "(file)", "", str(file.entering), kept, note))
    for stage, layers in joined_stages(stages):
        kept, note = _kept(stage.after, original), stage_note(stage, protected)
        place = _layer(stage, layers)
        rows.append((stage.phase, short(stage.stage), place, str(stage.after), kept, note))
        protected = stage.protected if stage.phase != "decode" else protected
    return rows


def short(name: str) -> str:
    """`mustdrop.spatial_merge` without the recipe's own name."""
    return name.rsplit(".", 1)[-1]


def _columns(wide: bool, gap: int, *, notes: bool) -> Table:
    """Without room the bars and the phase go, then the notes; names stay whole."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=wide, overflow="fold")
    if wide:
        table.add_column("", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    if wide:
        table.add_column("", no_wrap=True, style="cyan")
    table.add_column("kept", justify="right", no_wrap=True)
    if notes:
        table.add_column("", overflow="fold")
    return table


def _bar(count: int, original: int, columns: int) -> list[Text]:
    if columns == 0:
        return []
    filled = round(columns * count / original) if original else 0
    return [Text(BAR * max(filled, 1 if count else 0))]


def _kept(count: int, original: int) -> str:
    return f"{100 * count / original:.0f} %" if original else ""


def _layer(stage: StageBlock, layers: list[int]) -> str:
    if stage.layer < 0:
        return "picture" if stage.phase == "input" else "projected"
    kind = "vision " if stage.phase == "encoder" else ""
    places = str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
    return kind + places


def stage_note(stage: StageBlock, protected_before: int) -> str:
    """The stage's own words, and tokens that it protected unless the words say so."""
    marked = stage.protected - protected_before
    if stage.phase == "decode" or marked <= 0 or "protected" in stage.note:
        return stage.note
    return ", ".join(part for part in (stage.note, f"{marked} protected") if part)


def joined_stages(stages: list[StageBlock]) -> list[tuple[StageBlock, list[int]]]:
    """Neighbouring decode records of one policy with equal counts become one row."""
    rows: list[tuple[StageBlock, list[int]]] = []
    for stage in stages:
        if rows and stage.phase == "decode" and _alike(rows[-1], stage):
            rows[-1][1].append(stage.layer)
        else:
            rows.append((stage, [stage.layer]))
    return rows


def _alike(row: tuple[StageBlock, list[int]], stage: StageBlock) -> bool:
    first, layers = row
    same = (first.stage, first.phase, first.after) == (stage.stage, stage.phase, stage.after)
    return same and stage.layer == layers[-1] + 1
