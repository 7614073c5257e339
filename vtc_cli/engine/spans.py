"""Stages see one picture or video at a time; here their answers become one decision.

A prompt may show several. Published methods decide over one, and their budgets are those of one, so
each span is decided over alone: with its own part of every signal, its own counts and its own share
of a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtc_cli.core.decision import MARKS, Decision, not_a_decision
from vtc_cli.core.errors import StageError, VtcError
from vtc_cli.core.layout import Layout
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import StageRecord


@dataclass(frozen=True, eq=False)
class Answer:
    """What was decided over some rows of a table: a decision over them alone."""

    rows: Tensor
    decision: Decision


def decide_by_span(
    stage: EncoderStage | PrefillStage, tokens: TokenTable, signals: Signals
) -> Decision:
    """What `stage` decides over each span, as one decision over all rows.

    Raises:
        VtcError: of the stage; names the span if there are several.
    """
    spans = tokens.layout.spans
    if spans == 1:
        return _asked(stage, tokens, signals)
    answers = []
    for span in range(spans):
        rows = (tokens.span == span).nonzero()[:, 0]
        if not rows.shape[0]:
            continue
        try:
            decision = _asked(stage, tokens.part(span), signals.part(span, rows))
        except VtcError as error:
            error.found = f"span {span + 1} of {spans}: {error.found}"
            raise
        answers.append(Answer(rows, decision))
    return joined(answers, len(tokens), tokens)


def _asked(stage: EncoderStage | PrefillStage, tokens: TokenTable, signals: Signals) -> Decision:
    """The decision of `stage`, seen to be one over these rows.

    Raises:
        StageError: it is not.
    """
    decision: object = stage.decide(tokens, signals)
    if not isinstance(decision, Decision):
        raise not_a_decision(decision)
    if decision.incoming_tokens != len(tokens):
        raise StageError(f"decision over {decision.incoming_tokens} of {len(tokens)} rows")
    return decision


def joined(answers: Sequence[Answer], count: int, tokens: TokenTable | None = None) -> Decision:
    """One decision over all rows from those over parts of them, in that order.

    Args:
        answers: the parts.
        count: N, rows of all parts together.
        tokens: the table decided over; without it parts either all mark their survivors or none.
    """
    keep = torch.cat([answer.rows[answer.decision.keep] for answer in answers])
    indices, values, kept = [], [], 0
    for answer in answers:
        mix = answer.decision.mix
        survivor, row = mix.indices()
        indices.append(torch.stack([survivor + kept, answer.rows[row]]))
        values.append(mix.values())
        kept += answer.decision.kept_tokens
    mix = torch.sparse_coo_tensor(
        torch.cat(indices, dim=1), torch.cat(values), (kept, count), check_invariants=True
    ).coalesce()
    decisions = [answer.decision for answer in answers]
    details: dict[str, float] = {}
    for decision in decisions:
        for name, figure in decision.details.items():
            details[name] = details.get(name, 0) + figure
    return Decision(
        keep=keep,
        mix=mix,
        **{name: _marks(name, answers, tokens) for name in MARKS},
        features=_features(answers, tokens),
        scores=_scores(answers, count),
        note="; ".join(dict.fromkeys(d.note for d in decisions if d.note)),
        flops=sum(decision.flops for decision in decisions),
        details=details,
    )


def _marks(name: str, answers: Sequence[Answer], tokens: TokenTable | None) -> Tensor | None:
    """Marks of all survivors: where a part gave none, those that they had."""
    given = [getattr(answer.decision, name) for answer in answers]
    if all(marks is None for marks in given):
        return None
    if tokens is None:
        return torch.cat(given)
    column = tokens.protected if name == "protect" else getattr(tokens, name)
    return torch.cat(
        [
            column[answer.rows[answer.decision.keep]] if marks is None else marks
            for answer, marks in zip(answers, given, strict=True)
        ]
    )


def _features(answers: Sequence[Answer], tokens: TokenTable | None) -> Tensor | None:
    """Features of all survivors if a part gave some of its own; records need none."""
    if tokens is None or all(answer.decision.features is None for answer in answers):
        return None
    return torch.cat([each.decision.featured(tokens.features[each.rows]) for each in answers])


def _scores(answers: Sequence[Answer], count: int) -> Tensor | None:
    """(N,) scores if every part was ranked."""
    scores = torch.zeros(count, device=answers[0].rows.device)
    for answer in answers:
        if answer.decision.scores is None:
            return None
        scores[answer.rows] = answer.decision.scores.float()
    return scores


def join_records(by_span: Sequence[Sequence[StageRecord]], layout: Layout) -> list[StageRecord]:
    """Records of passes over single spans as those of one pass over all of them.

    Args:
        by_span: for each span its records, every stage in the same order.
        layout: of all spans.
    """
    return [_join(together, layout) for together in zip(*by_span, strict=True)]


def _join(records: Sequence[StageRecord], layout: Layout) -> StageRecord:
    """One record of what one stage did to each span."""
    starts = [sum(layout.tokens_of(s) for s in range(span)) for span in range(layout.spans)]
    holders, rows, kept, first = [], [], 0, 0
    for record in records:
        assert record.holder is not None
        holders.append(torch.where(record.holder < 0, -1, record.holder + kept))
        device = record.decision.keep.device
        rows.append(torch.arange(first, first + record.before, device=device))
        kept, first = kept + record.after, first + record.before
    answers = [Answer(index, r.decision) for index, r in zip(rows, records, strict=True)]
    return replace(
        records[0],
        before=first,
        after=kept,
        decision=joined(answers, first),
        holder=torch.cat(holders),
        anchor=torch.cat([r.anchor + start for r, start in zip(records, starts, strict=True)]),
        protected_tokens=sum(record.protected_tokens for record in records),
        decision_ms=sum(record.decision_ms for record in records),
        signal_ms=sum(record.signal_ms for record in records),
        signal_flops=sum(record.signal_flops for record in records),
    )
