"""What `compress` says beside the tokens: every decision about every original token, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape
from vtc_cli.core.sparse import compose
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.metrics.flops import record_flops
from vtc_cli.metrics.tokens import idle_warnings, stage_counts
from vtc_cli.report.build import input_facts, model_block, recipe_block
from vtc_cli.report.result import (
    SCHEMA_VERSION,
    Block,
    Head,
    InputFacts,
    ModelBlock,
    RecipeBlock,
    StageBlock,
)


class CompressedInput(InputFacts):
    """What was compressed, and for which question if there was one."""

    question: str | None


class CompressedTokens(Block):
    """Visual tokens of the picture, at the door of the decoder, and behind the last stage.

    `text` counts the prompt around them, null if no question was asked.
    """

    original: int
    entering: int
    final: int
    text: int | None
    requested: float | None
    by_stage: list[StageBlock]


class MergedBlock(Block):
    """A token that stands for several original ones: its place, and their weights in its mean."""

    anchor: int
    tokens: list[int]
    weights: list[float]


class CostBlock(Block):
    """What a decision took; `flops` holds its signals and weighted means too."""

    decision_ms: float
    signal_ms: float
    flops: int
    signal_flops: int
    signals: list[str]


class DecisionBlock(StageBlock):
    """One decision; tokens are numbered as in the picture, row by row from 0.

    `incoming` and `kept` name the tokens before and after by the original token whose place each
    one takes, in their order; `scores`, if there were any, belong to `incoming`. `merged` lists the
    tokens that stand for several original ones behind this decision, `dropped` the original tokens
    that it ended.
    """

    incoming: list[int]
    kept: list[int]
    merged: list[MergedBlock]
    dropped: list[int]
    scores: list[float | None] | None
    details: dict[str, float | None]
    cost: CostBlock


class FilesBlock(Block):
    """Names of the files, all in one folder."""

    tokens: str
    decisions: str
    overlay: str


class CompressedReport(Head):
    """One compressed picture."""

    model: ModelBlock
    fingerprint: str = Field(description="of the weights")
    recipe: RecipeBlock
    input: CompressedInput
    stopped_after: str | None
    tokens: CompressedTokens
    decisions: list[DecisionBlock]
    files: FilesBlock
    warnings: list[str]
    environment: dict[str, Any]


def build_compressed(
    trace: Trace,
    media: Media,
    *,
    question: str | None,
    argv: Sequence[str],
    seed: int,
    created: str,
    fingerprint: str,
    stopped_after: str | None,
    files: FilesBlock,
) -> CompressedReport:
    """Tell what a pass that stopped before decoding did.

    Args:
        trace: its decisions.
        media: its picture or video.
        question: its question, None if none was asked.
        argv: the command line.
        seed: of random stages.
        created: time, ISO 8601.
        fingerprint: of the weights.
        stopped_after: stage behind which the recipe was left, None for all of it.
        files: what was written.
    """
    return CompressedReport(
        command="compress",
        schema_version=SCHEMA_VERSION,
        created=created,
        argv=list(argv),
        seed=seed,
        model=ModelBlock.model_validate(model_block(trace.model)),
        fingerprint=fingerprint,
        recipe=RecipeBlock.model_validate(recipe_block(trace.plan)),
        input=CompressedInput(**input_facts(media), question=question),
        stopped_after=stopped_after,
        tokens=_tokens(trace, asked=question is not None),
        decisions=_decisions(trace),
        files=files,
        warnings=list(dict.fromkeys((*media.warnings, *trace.warnings, *idle_warnings(trace)))),
        environment=dict(trace.environment),
    )


def _tokens(trace: Trace, *, asked: bool) -> CompressedTokens:
    encoder = [record.after for record in trace.records if record.phase == "encoder"]
    every = [record.after for record in trace.records]
    return CompressedTokens(
        original=trace.uncompressed.layout.tokens,
        entering=[trace.original_tokens, *encoder][-1],
        final=[trace.original_tokens, *every][-1],
        text=trace.text_tokens if asked else None,
        requested=trace.plan.requested,
        by_stage=[StageBlock(**vars(count)) for count in stage_counts(trace)],
    )


def _decisions(trace: Trace) -> list[DecisionBlock]:
    """Follow every original token through the records."""
    count = trace.original_tokens
    anchor = torch.arange(count)
    origin = torch.sparse_coo_tensor(
        torch.stack([anchor, anchor]), torch.ones(count), (count, count), check_invariants=True
    ).coalesce()
    blocks = []
    for record, counts in zip(trace.records, stage_counts(trace), strict=True):
        before = _represented(origin)
        origin = compose(record.decision.mix.cpu(), origin)
        block = DecisionBlock(
            **vars(counts),
            incoming=anchor.tolist(),
            kept=record.anchor.tolist(),
            merged=_merged(origin, record.anchor),
            dropped=(before & ~_represented(origin)).nonzero()[:, 0].tolist(),
            scores=_scores(record.decision),
            details={name: _finite(value) for name, value in record.decision.details.items()},
            cost=_cost(record, trace.model.shape),
        )
        blocks.append(block)
        anchor = record.anchor
    return blocks


def _represented(origin: Tensor) -> Tensor:
    """(N0,) bool: the original tokens that some row of `origin` (N, N0) is made of."""
    flags = torch.zeros(origin.shape[1], dtype=torch.bool)
    flags[origin.indices()[1]] = True
    return flags


def _merged(origin: Tensor, anchor: Tensor) -> list[MergedBlock]:
    """Rows of `origin` (N, N0) with more than one original token."""
    rows, tokens = origin.indices()
    members = torch.bincount(rows, minlength=origin.shape[0])
    start = torch.cumsum(members, 0) - members
    found = []
    for row in (members > 1).nonzero()[:, 0].tolist():
        inside = slice(int(start[row]), int(start[row] + members[row]))
        weights = origin.values()[inside].tolist()
        block = MergedBlock(
            anchor=int(anchor[row]), tokens=tokens[inside].tolist(), weights=weights
        )
        found.append(block)
    return found


def _scores(decision: Decision) -> list[float | None] | None:
    if decision.scores is None:
        return None
    return [_finite(value) for value in decision.scores.tolist()]


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if isfinite(value) else None


def _cost(record: StageRecord, shape: ModelShape) -> CostBlock:
    return CostBlock(
        decision_ms=record.decision_ms,
        signal_ms=record.signal_ms,
        flops=record_flops(record, shape),
        signal_flops=record.signal_flops,
        signals=list(record.signals),
    )
