"""Medians, spreads and outliers of repeated passes, and what they mean beside the operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vtc_cli.core.trace import Timings, Trace

ENOUGH_FOR_QUARTILES = 4
OUTLIER_RANGES = 1.5  # Tukey's fences


@dataclass(frozen=True)
class Timed:
    """Median of a time over passes and its spread (see `spread_kind` of the summary)."""

    median_ms: float
    spread_ms: float | None


@dataclass(frozen=True)
class Latency:
    """Times of one configuration.

    Attributes:
        vision: tower and projector, encoder stages inside; None if no tower ran.
        compression: signals and decisions of all phases.
        prefill: the decoder over the prompt, prefill stages inside.
        ttft: from the encoder's start to the first token.
        decode_per_token: one step after the first token, None if there was none.
        policies_per_token: the part of it that cache policies took, None if none follows decoding.
        total: the whole pass, None for a job that was decoded together with others.
        repeats: measured passes.
        spread_kind: `half_iqr`, from 4 passes on; `half_range` with 2 or 3; None with one.
        outlier_passes: passes (from 0) whose total lies 1.5 inter-quartile ranges outside.
    """

    vision: Timed | None
    compression: Timed
    prefill: Timed
    ttft: Timed
    decode_per_token: Timed | None
    policies_per_token: Timed | None
    total: Timed | None
    repeats: int
    spread_kind: Literal["half_iqr", "half_range"] | None
    outlier_passes: tuple[int, ...]


def latency(timings: Sequence[Timings]) -> Latency | None:
    """Summarise measured passes; None if there was none."""
    if not timings:
        return None
    totals = [timing.total_ms for timing in timings if timing.total_ms is not None]
    return Latency(
        vision=_vision(timings),
        compression=timed([timing.compression_ms for timing in timings]),
        prefill=timed([timing.prefill_ms for timing in timings]),
        ttft=timed([timing.ttft_ms for timing in timings]),
        decode_per_token=_per_token([timing.decode_ms for timing in timings]),
        policies_per_token=_per_token([timing.policies_ms for timing in timings]),
        total=timed(totals) if totals else None,
        repeats=len(timings),
        spread_kind=_spread_kind(len(timings)),
        outlier_passes=outliers(totals),
    )


def timed(values_ms: Sequence[float]) -> Timed:
    """Median and spread of at least one value."""
    kind = _spread_kind(len(values_ms))
    if kind is None:
        return Timed(values_ms[0], None)
    if kind == "half_range":
        return Timed(median(values_ms), (max(values_ms) - min(values_ms)) / 2)
    first, _, third = quantiles(values_ms, n=4, method="inclusive")
    return Timed(median(values_ms), (third - first) / 2)


def outliers(values_ms: Sequence[float]) -> tuple[int, ...]:
    """Places of values more than 1.5 inter-quartile ranges outside the quartiles."""
    if len(values_ms) < ENOUGH_FOR_QUARTILES:
        return ()
    first, _, third = quantiles(values_ms, n=4, method="inclusive")
    reach = OUTLIER_RANGES * (third - first)
    inside = (first - reach, third + reach)
    return tuple(i for i, value in enumerate(values_ms) if not inside[0] <= value <= inside[1])


@dataclass(frozen=True)
class FirstToken:
    """Shares of the time to the first token.

    Attributes:
        vision: the vision tower and projector without encoder stages.
        compression: signals and decisions of encoder and prefill stages.
        prefill: the decoder without prefill stages.
    """

    vision: float
    compression: float
    prefill: float

    def largest(self) -> tuple[str, float]:
        """Name and share of the part that takes longest."""
        parts = {
            "the vision tower": self.vision,
            "the compression itself": self.compression,
            "the prefill": self.prefill,
        }
        name = max(parts, key=lambda part: parts[part])
        return name, parts[name]


def first_token_parts(trace: Trace) -> FirstToken | None:
    """Where the time to the first token goes, None if it was not measured from the tower on.

    The compression of each phase is known for the reported pass only; its shares are applied to
    the median over all passes.
    """
    times = latency(trace.timings)
    if times is None or times.vision is None or times.ttft.median_ms <= 0:
        return None
    spent = {phase: _phase_ms(trace, phase) for phase in ("encoder", "prefill", "decode")}
    scale = times.compression.median_ms / (sum(spent.values()) or 1.0)
    encoder, prefill = spent["encoder"] * scale, spent["prefill"] * scale
    parts = (
        max(times.vision.median_ms - encoder, 0.0),
        encoder + prefill,
        max(times.prefill.median_ms - prefill, 0.0),
    )
    whole = sum(parts) or 1.0
    return FirstToken(*(part / whole for part in parts))


def verdict(
    parts: FirstToken | None, *, ideal: float, achieved: float | None, compressed: bool = True
) -> str:
    """One line in plain words: what was gained, and what bounds it.

    Args:
        parts: shares of the first token's time.
        ideal: prefill operations of the full model over those of this pass.
        achieved: prefill time of the full model over that of this pass, None if not measured.
        compressed: whether any stage ran at all.
    """
    if not compressed:
        return "the full model" + _bottleneck(parts)
    return f"{_gain(ideal, achieved)}{_bottleneck(parts)}"


def cache_verdict(parts: FirstToken | None, *, kv_ratio: float, achieved: float | None) -> str:
    """One line for a run whose cache policies alone act.

    Args:
        parts: shares of the first token's time.
        kv_ratio: bytes of the cache over those of the full model.
        achieved: time a token of the full model over that of this pass, None if not measured.
    """
    if achieved is None:
        speed = "time a token not compared"
    elif achieved >= 1.05:
        speed = f"a token {achieved:.1f}x faster"
    elif achieved > 0.95:
        speed = "a token as fast"
    else:
        speed = f"a token {1 / achieved:.1f}x slower"
    held = f"the cache holds {kv_ratio:.2f} of the full model's bytes"
    return f"{held}, {speed}, the prefill is not shortened{_bottleneck(parts)}"


def _gain(ideal: float, achieved: float | None) -> str:
    if achieved is None:
        return f"prefill needs {1 / ideal:.2f} of the full model's operations, time not compared"
    share = f"{100 * achieved / ideal:.0f} % of ideal"
    if achieved >= 1.05:
        return f"prefill {achieved:.1f}x faster ({share})"
    if achieved > 0.95:
        return f"prefill as fast as the full model's (operations would allow {ideal:.1f}x)"
    return f"prefill {1 / achieved:.1f}x slower (operations would allow {ideal:.1f}x)"


def _bottleneck(parts: FirstToken | None) -> str:
    if parts is None:
        return "."
    name, share = parts.largest()
    return f"; {name} is the largest part of the first token ({100 * share:.0f} %)."


def _vision(timings: Sequence[Timings]) -> Timed | None:
    measured = [timing.vision_ms for timing in timings if timing.vision_ms is not None]
    return timed(measured) if measured else None


def _per_token(passes_ms: Sequence[list[float]]) -> Timed | None:
    """Median over all steps of all passes; spread between the medians of the passes."""
    steps = [step for steps_ms in passes_ms for step in steps_ms]
    if not steps:
        return None
    passes = [median(steps_ms) for steps_ms in passes_ms if steps_ms]
    return Timed(median(steps), timed(passes).spread_ms)


def _spread_kind(passes: int) -> Literal["half_iqr", "half_range"] | None:
    if passes >= ENOUGH_FOR_QUARTILES:
        return "half_iqr"
    return "half_range" if passes > 1 else None


def _phase_ms(trace: Trace, phase: str) -> float:
    return sum(r.decision_ms + r.signal_ms for r in trace.records if r.phase == phase)
