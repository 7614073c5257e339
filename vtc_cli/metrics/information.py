"""What a set of kept tokens still says: energy, information share, redundancy, attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vtc_cli.core.errors import MeasurementError
from vtc_cli.core.spectrum import information_contribution

if TYPE_CHECKING:
    from vtc_cli.core.trace import StageRecord, Trace

BLOCK = 1024  # rows of a pairwise matrix that exist at once
RANK_CUT = 1e-10  # directions of the kept rows below this share of the largest are rounding
EPSILON = 1e-12
BINS = 4000  # of the histogram behind the quantiles; a bin is 0.0005 wide


@dataclass(frozen=True)
class Redundancy:
    """Cosine similarity over all pairs of different rows.

    Attributes:
        mean: over the ordered pairs.
        median: of the pairs, within a bin of 0.0005.
        upper_decile: nine of ten pairs are less alike, same resolution.
    """

    mean: float
    median: float
    upper_decile: float


@dataclass(frozen=True)
class InformationKept:
    """What the tokens alive at the last layer still hold of the full model's.

    Attributes:
        energy_kept: share of the energy of the full projected features in the span of those rows.
        ics_kept: share of the information contribution score of the original tokens that live on,
            alone or inside a mean.
    """

    energy_kept: float
    ics_kept: float


@dataclass(frozen=True)
class StageInformation:
    """Information kept after one encoder or prefill stage.

    Attributes:
        stage: recipe name.
        phase: encoder or prefill.
        layer: where it acted, -1 behind the projector.
        energy_kept: None for a stage inside the tower, whose rows are no features of the decoder.
        ics_kept: as in `InformationKept`.
    """

    stage: str
    phase: str
    layer: int
    energy_kept: float | None
    ics_kept: float


def information_kept(trace: Trace, full: Trace) -> InformationKept | None:
    """Compare a run with the full model; None unless both captured their features.

    The rows are those of the decoder's door under the recipe, carried through the decisions of the
    prefill: dropped rows leave, merged rows become their mean. A recipe that keeps every token as
    it is has 1.0 for both.
    """
    stages = information_by_stage(trace, full)
    if stages is None:
        return None
    if not stages:
        original, rows = full.captured["features"], trace.captured["features"]
        return InformationKept(energy_kept(original, rows), 1.0)
    last = stages[-1]
    if last.energy_kept is not None:
        return InformationKept(last.energy_kept, last.ics_kept)
    door = energy_kept(full.captured["features"], trace.captured["features"])
    return InformationKept(door, last.ics_kept)


def information_by_stage(trace: Trace, full: Trace) -> list[StageInformation] | None:
    """Information kept after each encoder and prefill stage; None unless both were captured.

    None too where the picture itself was changed or a video was not pooled by its family: such
    tokens are not made of those of the full model.

    Neither figure grows from one stage to the next once the decoder's door is passed: means of rows
    lie in the span of the rows.
    """
    if "features" not in trace.captured or "features" not in full.captured:
        return None
    if trace.plan.input or trace.layout != full.layout:
        return None
    original, rows = full.captured["features"], trace.captured["features"]
    scores = information_contribution(original)
    found = []
    records = [record for record in trace.records if record.phase != "decode"]
    for place, record in enumerate(records):
        if record.phase == "prefill":
            rows = _carried(rows, record)
        at_door = record.phase == "prefill" or _is_last_encoder(records, place)
        used = torch.ones(original.shape[0], dtype=torch.bool)
        used = used if record.holder is None else record.holder >= 0
        found.append(
            StageInformation(
                stage=record.stage,
                phase=record.phase,
                layer=record.layer,
                energy_kept=energy_kept(original, rows) if at_door else None,
                ics_kept=share_kept(scores, used),
            )
        )
    return found


def _is_last_encoder(records: list[StageRecord], place: int) -> bool:
    """Whether no encoder stage acts behind this one, so that its tokens enter the decoder."""
    return all(record.phase != "encoder" for record in records[place + 1 :])


def _carried(rows: Tensor, record: StageRecord) -> Tensor:
    """Rows (N, d) of the decoder's door after one decision of the prefill; (K, d)."""
    decision = record.decision
    if decision.is_pruning:
        return rows.index_select(0, decision.keep.cpu())
    carried: Tensor = torch.sparse.mm(decision.mix.cpu(), rows)
    return carried


def energy_kept(full: Tensor, kept: Tensor) -> float:
    """Share of the energy of `full` inside the span of the rows of `kept`.

    |X P|_F^2 / |X|_F^2 with P the projection on the row space of `kept`; 1 if `kept` spans the
    rows of `full`, 1 for a zero matrix, 0 for no kept row.

    Args:
        full: (N, d) rows of the uncompressed model.
        kept: (K, d) rows that are left, merged or not.

    Raises:
        MeasurementError: widths differ, or values are not finite.
    """
    rows, left = _checked(full), _checked(kept)
    if rows.shape[1] != left.shape[1]:
        raise MeasurementError(f"rows of width {rows.shape[1]} beside {left.shape[1]}")
    total = rows.square().sum()
    if float(total) == 0:
        return 1.0
    if left.shape == rows.shape and torch.equal(left, rows):
        return 1.0  # the identity recipe, free of rounding
    inside = (rows @ _row_space(left)).square().sum()
    return min(float(inside / total), 1.0)


def share_kept(scores: Tensor, used: Tensor) -> float:
    """Share of the scores (N,) that the rows `used` (N,) bool hold; 1 if all scores are 0."""
    total = float(scores.double().sum())
    return float(scores.double()[used].sum()) / total if total else 1.0


def redundancy(rows: Tensor) -> Redundancy:
    """Pairwise cosine similarity of rows (N, d), N >= 2, in blocks of rows.

    A zero row is similar to none.

    Raises:
        MeasurementError: fewer than two rows, or values that are not finite.
    """
    unit = torch.nn.functional.normalize(_checked(rows), dim=1, eps=EPSILON)
    count = unit.shape[0]
    if count < 2:
        raise MeasurementError(f"{count} rows have no pairs", allowed="at least two rows")
    histogram = torch.zeros(BINS, dtype=torch.float64, device=unit.device)
    total = 0.0
    for start in range(0, count, BLOCK):
        block = unit[start : start + BLOCK] @ unit.T
        local = torch.arange(block.shape[0], device=unit.device)
        pairs = torch.ones_like(block, dtype=torch.bool)
        pairs[local, local + start] = False
        values = block[pairs].clamp(-1, 1)
        total += float(values.sum())
        histogram += torch.histc(values, bins=BINS, min=-1, max=1)
    return Redundancy(
        mean=total / (count * (count - 1)),
        median=_quantile(histogram, 0.5),
        upper_decile=_quantile(histogram, 0.9),
    )


def attention_entropy(rows: Tensor) -> Tensor:
    """Entropy in nats of attention over tokens, each row made to sum to 1.

    Args:
        rows: (..., N) non-negative.

    Returns:
        (...) float64, between 0 and ln N; 0 where a row has no mass.
    """
    weights = rows.double()
    share = weights / weights.sum(dim=-1, keepdim=True).clamp_min(EPSILON)
    entropy: Tensor = -(share * share.clamp_min(EPSILON).log()).sum(dim=-1)
    return entropy


def _checked(rows: Tensor) -> Tensor:
    values = rows.double()
    if not bool(values.isfinite().all()):
        raise MeasurementError("rows with NaN or infinity", hint="try --dtype float32")
    return values


def _row_space(rows: Tensor) -> Tensor:
    """(d, r) orthonormal basis of the row space of (K, d)."""
    if rows.shape[0] == 0:
        return rows.new_zeros(rows.shape[1], 0)
    wide = rows.shape[0] <= rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    used = values > RANK_CUT * values.max()
    basis: Tensor = vectors[:, used]
    return rows.T @ (basis / values[used].sqrt()) if wide else basis


def _quantile(histogram: Tensor, share: float) -> float:
    """Middle of the bin in which the quantile of a histogram over [-1, 1] lies."""
    reached = histogram.cumsum(0) >= share * histogram.sum()
    first = int(reached.to(torch.int64).argmax())
    return -1 + (first + 0.5) * 2 / BINS
