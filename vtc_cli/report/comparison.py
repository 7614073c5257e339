"""Full model beside compressed model; a figure that is not known is left blank."""

from __future__ import annotations

from statistics import fmean

from rich.table import Table

from vtc_cli.core.console import Text
from vtc_cli.report.result import Result, TimeBlock
from vtc_cli.report.units import flops, milliseconds, size

Row = tuple[str, str, str, str, str]
COLUMNS = ("", "full", "compressed", "ratio")
ROOM_FOR_NOTES = 72
ROOM_FOR_NAMES = 52


def comparison_table(result: Result, width: int) -> Table:
    """Operations, cache, times and memory, numbers right-aligned with their units."""
    tight = width < ROOM_FOR_NAMES  # names break then, figures never
    gap = 1 if tight else 2
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("", no_wrap=not tight, overflow="fold")
    for title in COLUMNS[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    if width >= ROOM_FOR_NOTES:
        table.add_column(spread_title(result.time_ms), overflow="fold")
    for row in comparison_rows(result):
        table.add_row(*(Text(cell) for cell in row[: len(table.columns)]))
    return table


def comparison_rows(result: Result) -> list[Row]:
    """Name, full model, compressed, ratio and a note of every figure that was measured."""
    measured = [*_operations(result), *_cache(result), *_times(result), *_memory(result)]
    return [*measured, *_information(result)]


def _information(result: Result) -> list[Row]:
    kept = result.information
    policies = any(stage.phase == "decode" for stage in result.tokens.by_stage)
    where = "; before cache policies" if policies else ""
    named = (
        ("energy kept", kept and kept.energy_kept, f"in the span of the kept tokens{where}"),
        ("ICS kept", kept and kept.ics_kept, f"of the tokens that live on{where}"),
    )
    return [
        (name, "1.00", f"{share:.2f}", "", note) for name, share, note in named if share is not None
    ]


def _operations(result: Result) -> list[Row]:
    full, mine = result.flops.full, result.flops.compressed
    spent = mine.compression / full.prefill
    return [
        _counted("vision tower", full.vision, mine.vision),
        _counted("LLM prefill", full.prefill, mine.prefill),
        ("compression", "-", flops(mine.compression), _share(spent), "of the full prefill"),
        _counted("decode step", full.decode_step, mine.decode_step),
    ]


def _counted(name: str, full: int, mine: int) -> Row:
    return (name, flops(full), flops(mine), f"{mine / full:.2f}", "")


def _cache(result: Result) -> list[Row]:
    kv = result.kv
    ratio = kv.bytes / kv.full_bytes if kv.full_bytes else 0.0
    note = ""
    if any(stage.phase == "decode" for stage in result.tokens.by_stage):
        note = f"{fmean(kv.entries_per_layer):.1f} entries a layer and head"
    return [("KV cache", size(kv.full_bytes), size(kv.bytes), f"{ratio:.2f}", note)]


def _times(result: Result) -> list[Row]:
    if result.time_ms is None:
        return []
    ideal = f"ideal {1 / result.flops.prefill_ratio:.1f}x"
    spent = result.time_ms.policies_per_token
    policies = "" if spent is None else f"cache policies {milliseconds(spent)} of it"
    names = [
        ("vision", "vision time", ""),
        ("prefill", "prefill time", ideal),
        ("ttft", "first token", ""),
        ("decode_per_token", "per token", policies),
    ]
    if result.tokens_file is not None:  # no tower ran, so that there is no time to leave blank
        del names[0]
    return [_time(result, field, title, note) for field, title, note in names]


def _time(result: Result, field: str, title: str, note: str) -> Row:
    mine = getattr(result.time_ms, field)
    baseline = result.baseline.time_ms if result.baseline else None
    full = getattr(baseline, field, None)
    speedup = _speedup(full / mine) if full and mine else ""
    spread = getattr(result.time_ms.spread if result.time_ms else None, field, None)
    notes = [] if spread is None else [f"± {milliseconds(spread)}"]
    notes += [note] if note and (speedup or field == "decode_per_token") else []
    return (title, _milliseconds(full), _milliseconds(mine), speedup, "   ".join(notes))


def _speedup(factor: float) -> str:
    return f"{factor:.1f}x" if factor >= 0.95 else f"{factor:.2f}x"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else milliseconds(value)


def _memory(result: Result) -> list[Row]:
    mine = result.memory.peak_bytes
    full = result.baseline.memory.peak_bytes if result.baseline else None
    if mine is None:
        return []
    ratio = f"{mine / full:.2f}" if full else ""
    kind = "device memory" if result.memory.kind == "cuda" else "growth of the resident set"
    return [("peak memory", "" if full is None else size(full), size(mine), ratio, kind)]


def _share(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def spread_title(times: TimeBlock | None) -> str:
    """What the spreads are and over how many passes; empty for one pass."""
    if times is None or times.spread is None:
        return ""
    kind = "half IQR" if times.spread.kind == "half_iqr" else "half range"
    return f"± {kind}, {times.repeats} passes"
