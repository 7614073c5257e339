"""Turn traces into a result; the only place where metrics meet the JSON contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from statistics import median
from typing import Any

from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import ModelFacts, Trace, Turn
from vtc_cli.metrics import fidelity
from vtc_cli.metrics.flops import compression_flops, full_pass_flops, trace_flops
from vtc_cli.metrics.information import information_by_stage, information_kept
from vtc_cli.metrics.kv import cache_budget, cuts_cache_alone, full_kv_bytes
from vtc_cli.metrics.latency import Latency, cache_verdict, first_token_parts, latency, verdict
from vtc_cli.metrics.layers import LayerFigures
from vtc_cli.metrics.rank import Ranks
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.report.result import (
    SCHEMA_VERSION,
    BaselineBlock,
    FidelityBlock,
    Result,
    TokensFileBlock,
)

NO_TOWER = (
    "the tokens came from a file and the vision tower did not run: its time is not known, its "
    "operations are 0, and the time to the first token begins when the tokens enter the decoder"
)
TIMES = (
    "vision",
    "compression",
    "prefill",
    "ttft",
    "decode_per_token",
    "policies_per_token",
    "total",
)


def build_result(
    trace: Trace,
    media: Media,
    question: str,
    *,
    command: str,
    argv: Sequence[str],
    seed: int,
    created: str,
    baseline_trace: Trace | None = None,
    nll: tuple[float, float] | None = None,
    tokens_file: TokensFileBlock | None = None,
    more: Sequence[Media] = (),
) -> Result:
    """Measure a trace.

    Args:
        trace: the run to report.
        media: its picture or video.
        question: its question.
        command: name of the command, for instance `run`.
        argv: the command line.
        seed: of sampling and of random stages.
        created: time of the run, ISO 8601.
        baseline_trace: the full model on the same input, if it ran.
        nll: mean NLL of the full model's answer (compressed, full), nats a token, if measured.
        tokens_file: the file that the visual tokens came from, if they did.
        more: further pictures and videos of the prompt.
    """
    baseline = None if baseline_trace is None else _baseline(trace, baseline_trace, nll)
    return Result.model_validate(
        {
            "command": command,
            "schema_version": SCHEMA_VERSION,
            "created": created,
            "argv": list(argv),
            "seed": seed,
            "model": model_block(trace.model),
            "recipe": recipe_block(trace.plan),
            **_asked(trace, media, question, more),
            "tokens_file": tokens_file,
            **_measured(trace),
            "information": _information(trace, baseline_trace),
            "baseline": baseline,
            "verdict": _verdict(trace, baseline_trace),
            "warnings": _warnings(trace, (media, *more)),
            "error": None,
            "environment": dict(trace.environment),
        }
    )


def _asked(trace: Trace, media: Media, question: str, more: Sequence[Media]) -> dict[str, Any]:
    """What was asked about what, and what further."""
    return {
        "input": input_facts(media) | {"question": question},
        "more_inputs": [input_facts(each) for each in more],
        "turns": [_turn(turn) for turn in trace.turns],
    }


def _information(trace: Trace, baseline: Trace | None) -> dict[str, Any] | None:
    """What the kept tokens hold of the full model's, and the layers; null if neither is known."""
    kept = None if baseline is None else information_kept(trace, baseline)
    stages = None if baseline is None else information_by_stage(trace, baseline)
    if kept is None and not trace.observed:
        return None
    return {
        "energy_kept": kept and kept.energy_kept,
        "ics_kept": kept and kept.ics_kept,
        "by_stage": None if stages is None else [asdict(stage) for stage in stages],
        "layers": information_layers(trace),
    }


def information_layers(trace: Trace) -> list[dict[str, Any]] | None:
    """The figures of each decoder layer as the result file has them; None if none were taken."""
    if not trace.observed:
        return None
    return [layer_block(figures) for figures in trace.observed]


def layer_block(figures: LayerFigures) -> dict[str, Any]:
    """One layer as the result file has it; what was not measured is null."""
    empty = dict.fromkeys(item.name for item in fields(Ranks))
    return {
        "layer": figures.layer,
        "tokens": figures.tokens,
        **(empty if figures.ranks is None else asdict(figures.ranks)),
        "attention_mass": figures.attention_mass,
        "attention_entropy": figures.attention_entropy,
    }


def _measured(trace: Trace) -> dict[str, Any]:
    """The blocks that a run and its baseline share."""
    return {
        "answer": trace.answer,
        "answer_tokens": len(trace.answer_ids),
        "tokens": _tokens(trace),
        "kv": _kv(trace),
        "flops": _flops(trace),
        "time_ms": _times(trace),
        "memory": {"peak_bytes": trace.peak_bytes, "kind": trace.memory_kind},
        "information": None,
    }


def model_block(facts: ModelFacts) -> dict[str, Any]:
    """Which model ran and how."""
    names = ("id", "family", "weights", "dtype", "device", "attention")
    depth = {"layers": facts.shape.decoder.layers, "vision_layers": facts.shape.vision.layers}
    return {name: getattr(facts, name) for name in names} | depth


def recipe_block(plan: Plan) -> dict[str, Any]:
    """Which recipe ran."""
    names = ("name", "path", "sha256", "fidelity", "positions")
    return {name: getattr(plan, name) for name in names} | {
        "stages": [planned.plain() for planned in plan.stages]
    }


def input_facts(media: Media) -> dict[str, Any]:
    """The picture or video."""
    names = ("path", "kind", "sha256", "width", "height")
    facts = {name: getattr(media, name) for name in names}
    times = list(media.timestamps) if media.kind == "video" else None
    return facts | {"frames": int(media.frames.shape[0]), "timestamps": times}


def _tokens(trace: Trace) -> dict[str, Any]:
    counts = token_counts(trace)
    return asdict(counts) | {"gap": counts.gap_tokens}


def _kv(trace: Trace) -> dict[str, Any]:
    budget = cache_budget(trace)
    return {
        "bytes": trace.kv_bytes,
        "full_bytes": _full_kv_bytes(trace),
        "entries_per_layer": trace.kv_entries,
        "text_entries_per_layer": trace.kv_text_entries or None,
        "counts": budget and budget.counts,
        "requested": budget and budget.requested,
        "gap": budget and budget.gap_entries,
    }


def _full_kv_bytes(trace: Trace) -> int:
    facts = trace.model
    return full_kv_bytes(facts.shape.decoder, trace.uncompressed.prompt_tokens, facts.dtype)


def _flops(trace: Trace) -> dict[str, Any]:
    full = full_pass_flops(trace)
    compressed = trace_flops(trace)
    return {
        "full": asdict(full),
        "compressed": asdict(compressed) | {"compression": compression_flops(trace)},
        "prefill_ratio": compressed.prefill / full.prefill,
    }


def _times(trace: Trace) -> dict[str, Any] | None:
    times = latency(trace.timings)
    if times is None:
        return None
    medians = {name: _part(times, name, "median_ms") for name in TIMES}
    spreads = {name: _part(times, name, "spread_ms") for name in TIMES}
    parts = first_token_parts(trace)
    kind = times.spread_kind
    return medians | {
        "repeats": times.repeats,
        "spread": None if kind is None else {"kind": kind, **spreads},
        "outlier_passes": list(times.outlier_passes),
        "first_token_shares": None if parts is None else asdict(parts),
    }


def _part(times: Latency, name: str, field: str) -> float | None:
    value: float | None = getattr(getattr(times, name), field, None)
    return value


def _baseline(trace: Trace, full: Trace, nll: tuple[float, float] | None) -> BaselineBlock:
    return BaselineBlock.model_validate(
        {
            **_measured(full),
            "information": _information(full, None),
            "fidelity": _fidelity(trace, full, nll),
        }
    )


def _fidelity(trace: Trace, full: Trace, nll: tuple[float, float] | None) -> FidelityBlock:
    kl, agree = None, None
    if trace.first_logits is not None and full.first_logits is not None:
        kl = fidelity.kl_nats(full.first_logits, trace.first_logits)
        agree = fidelity.top1_agrees(full.first_logits, trace.first_logits)
    return FidelityBlock(
        kl_first_token=kl,
        top1_agree=agree,
        answer_nll_delta=None if nll is None else fidelity.answer_nll_delta(*nll),
        exact_match=fidelity.exact_match(full.answer_ids, trace.answer_ids),
    )


def _verdict(trace: Trace, full: Trace | None) -> str:
    expected = full_pass_flops(trace)
    mine, theirs = latency(trace.timings), latency(full.timings) if full else None
    if cuts_cache_alone(trace):
        return _cache_verdict(trace, mine, theirs)
    achieved = None
    if mine and theirs and mine.prefill.median_ms > 0:
        achieved = theirs.prefill.median_ms / mine.prefill.median_ms
    ideal = expected.prefill / trace_flops(trace).prefill
    parts = first_token_parts(trace)
    compressed = bool(trace.records) or trace.visual_tokens[:1] != [trace.original_tokens]
    return verdict(parts, ideal=ideal, achieved=achieved, compressed=compressed)


def _turn(turn: Turn) -> dict[str, Any]:
    names = ("question", "prompt_tokens", "answer", "ttft_ms")
    return {name: getattr(turn, name) for name in names} | {
        "answer_tokens": len(turn.answer_ids),
        "decode_per_token_ms": median(turn.decode_ms) if turn.decode_ms else None,
    }


def _cache_verdict(trace: Trace, mine: Latency | None, theirs: Latency | None) -> str:
    steps = [times.decode_per_token if times else None for times in (mine, theirs)]
    achieved = steps[1].median_ms / steps[0].median_ms if steps[0] and steps[1] else None
    ratio = trace.kv_bytes / _full_kv_bytes(trace)
    return cache_verdict(first_token_parts(trace), kv_ratio=ratio, achieved=achieved)


def _warnings(trace: Trace, shown: Sequence[Media]) -> list[str]:
    """What the reader must know, each thing once."""
    found = [NO_TOWER] if trace.given else []
    found += [text for media in shown for text in media.warnings]
    found += [*trace.warnings, *token_counts(trace).warnings]
    times = latency(trace.timings)
    if times and times.outlier_passes:
        passes = ", ".join(str(place + 1) for place in times.outlier_passes)
        found.append(f"outlier in time: pass {passes} of {times.repeats}")
    return list(dict.fromkeys(found))
