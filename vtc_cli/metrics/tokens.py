"""Counts of visual tokens: three numbers that are always reported together."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from vtc_cli.core.words import counted

if TYPE_CHECKING:
    from vtc_cli.core.trace import StageRecord, Trace


@dataclass(frozen=True)
class StageCount:
    """Visual tokens before and after one stage; cache policies count visual entries a head."""

    stage: str
    phase: str
    layer: int
    before: int
    after: int
    note: str
    protected: int


@dataclass(frozen=True)
class SpanCount:
    """Visual tokens of one picture or video of a prompt; see `TokenCounts`."""

    original: int
    entering: int
    layer_average: float
    final: int
    requested: float | None


@dataclass(frozen=True)
class TokenCounts:
    """What became of the visual tokens.

    Attributes:
        original: N0, tokens of the uncompressed model.
        entering: visual tokens that decoder layer 0 processed.
        layer_average: mean over decoder layers of the visual tokens processed there.
        leaving_average: mean over decoder layers of the visual tokens that leave each layer, after
            pruning at its output: how the official MustDrop code counts its average.
        final: visual tokens that the last decoder layer processed.
        text: text tokens of the prompt.
        requested: layer average asked for, None without a budget or if it counts cache entries.
        per_layer: visual tokens that each decoder layer processed.
        by_stage: one entry a decision, in order.
        by_span: one entry a picture or video, empty where the prompt shows only one.
        warnings: stages that did nothing, with the reason if there is one.
    """

    original: int
    entering: int
    layer_average: float
    leaving_average: float
    final: int
    text: int
    requested: float | None
    per_layer: tuple[int, ...]
    by_stage: tuple[StageCount, ...]
    by_span: tuple[SpanCount, ...]
    warnings: tuple[str, ...]

    @property
    def gap_tokens(self) -> float | None:
        """Achieved minus requested layer average, None without a budget."""
        return None if self.requested is None else self.layer_average - self.requested


def token_counts(trace: Trace) -> TokenCounts:
    """Count the visual tokens of `trace`.

    `layer_average = (1/D) * sum over layers of the visual tokens processed there`, the "equivalent
    tokens" of FastV-like papers.
    """
    per_layer = tuple(trace.visual_tokens)
    counts_tokens = trace.plan.budget_counts == "visual_tokens"
    return TokenCounts(
        original=trace.uncompressed.layout.tokens,
        entering=per_layer[0] if per_layer else 0,
        layer_average=fmean(per_layer) if per_layer else 0.0,
        leaving_average=fmean((*per_layer[1:], per_layer[-1])) if per_layer else 0.0,
        final=per_layer[-1] if per_layer else 0,
        text=trace.text_tokens,
        requested=trace.plan.requested if counts_tokens else None,
        per_layer=per_layer,
        by_stage=stage_counts(trace),
        by_span=_span_counts(trace),
        warnings=tuple(idle_warnings(trace)),
    )


def _span_counts(trace: Trace) -> tuple[SpanCount, ...]:
    """Counts of each picture and video, if there are several."""
    layout = trace.uncompressed.layout
    if layout.spans == 1 or not trace.visual_by_span:
        return ()
    counts = []
    for span, per_layer in enumerate(trace.visual_by_span):
        budget = trace.plan.budget_of(span, layout)
        counts.append(
            SpanCount(
                original=layout.tokens_of(span),
                entering=per_layer[0],
                layer_average=fmean(per_layer),
                final=per_layer[-1],
                requested=None if budget is None else budget.layer_average,
            )
        )
    return tuple(counts)


def stage_counts(trace: Trace) -> tuple[StageCount, ...]:
    """Counts before and after each decision, in order."""
    return tuple(_stage_count(record) for record in trace.records)


def idle_warnings(trace: Trace) -> list[str]:
    """One warning for each stage that changed nothing at any of its layers."""
    protected = trace.given.protected_tokens if trace.given else 0
    busy: set[str] = set()
    idle: dict[str, list[StageRecord]] = {}
    for record in trace.records:
        if _did_nothing(record, protected):
            idle.setdefault(record.stage, []).append(record)
        else:
            busy.add(record.stage)
        if record.phase != "decode":
            protected = record.protected_tokens
    return [_idle_text(name, records) for name, records in idle.items() if name not in busy]


def _did_nothing(record: StageRecord, protected_before: int) -> bool:
    if record.phase == "input":
        return record.decision.details.get("pixels_kept") == 1.0
    unchanged = record.decision.is_identity and record.before == record.after
    newly_protected = record.phase != "decode" and record.protected_tokens > protected_before
    return unchanged and not newly_protected


def _idle_text(name: str, records: list[StageRecord]) -> str:
    places = sorted({record.layer for record in records if record.layer >= 0})
    where = f" ({_layers(places)})" if places else ""
    note = next((record.decision.note for record in records if record.decision.note), "")
    reason = f": {note}" if note else f": all {records[0].before} tokens were kept"
    return f"the stage {name} did nothing{where}{reason}"


def _layers(places: list[int]) -> str:
    """`layer 3`, `layers 3, 7` or, without gaps, `layers 1-11`."""
    if len(places) == 1:
        return f"layer {places[0]}"
    dense = len(places) > 2 and places[-1] - places[0] + 1 == len(places)
    listed = f"{places[0]}-{places[-1]}" if dense else ", ".join(map(str, places))
    return f"layers {listed}"


def _stage_count(record: StageRecord) -> StageCount:
    note = record.decision.note
    if record.steps:
        note = f"after {counted(record.steps, 'token')}" + (f": {note}" if note else "")
    return StageCount(
        stage=record.stage,
        phase=record.phase,
        layer=record.layer,
        before=record.before,
        after=record.after,
        note=note,
        protected=record.protected_tokens,
    )
