"""Tokens, cache, times and fidelity in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from tests.report.traces import MERGED, SHAPE, Builder, compressed, full, prune
from vtc_cli.core.errors import MeasurementError
from vtc_cli.metrics import fidelity
from vtc_cli.metrics.definitions import DEFINITIONS, find
from vtc_cli.metrics.kv import full_kv_bytes
from vtc_cli.metrics.latency import first_token_parts, latency, outliers, timed, verdict
from vtc_cli.metrics.tokens import idle_warnings, token_counts


def test_three_counts() -> None:
    """Entering, layer average and final of the hand-made run."""
    counts = token_counts(compressed())
    average = (2 * MERGED + 4 * 140 + 6 * 31) / 12
    assert (counts.original, counts.entering, counts.final) == (576, MERGED, 31)
    assert counts.layer_average == pytest.approx(average)
    assert counts.gap_tokens == pytest.approx(average - 140)
    assert [(s.before, s.after) for s in counts.by_stage][2:] == [(MERGED, 140), (140, 31)]


def test_leaving_average_is_the_formula_of_the_official_mustdrop_code() -> None:
    """Layers 2, 6, 10, 14 record the count after pruning: (2M + 4n1 + 4n2 + 4n3 + 18n4) / 32."""
    trace = compressed()
    entering, first, second, third, last = 400, 300, 200, 100, 50
    trace.visual_tokens = [entering] * 3 + [first] * 4 + [second] * 4 + [third] * 4 + [last] * 17
    counts = token_counts(trace)
    recorded = 2 * entering + 4 * first + 4 * second + 4 * third + 18 * last
    processed = 3 * entering + 4 * first + 4 * second + 4 * third + 17 * last
    assert counts.leaving_average == recorded / 32
    assert counts.layer_average == processed / 32


def test_marking_is_not_idle() -> None:
    """A stage that keeps all tokens but protects some has done something."""
    assert idle_warnings(compressed()) == []


def test_idle_stage_is_a_warning() -> None:
    """A stage that kept everything is named with its layer."""
    trace = compressed()
    builder = Builder()
    builder.apply("a.idle", "prefill", 3, prune(576, 576))
    trace.records = builder.records
    assert idle_warnings(trace) == [
        "the stage a.idle did nothing (layer 3): all 576 tokens were kept"
    ]


def test_cache_of_the_full_prompt() -> None:
    """Keys and values of 596 entries in 12 layers; equal to the full run's tensors."""
    assert full_kv_bytes(SHAPE.decoder, 596, "float32") == full().kv_bytes
    assert full_kv_bytes(SHAPE.decoder, 596, "torch.bfloat16") == full().kv_bytes // 2
    with pytest.raises(MeasurementError):
        full_kv_bytes(SHAPE.decoder, 596, "int3")


def test_median_and_spread() -> None:
    """Half the inter-quartile range from four values on, half the range below."""
    assert timed([5.0]).spread_ms is None
    assert timed([1.0, 3.0, 9.0]).spread_ms == 4.0
    assert (timed([1.0, 2.0, 3.0, 4.0, 5.0]).median_ms, timed([1, 2, 3, 4, 5]).spread_ms) == (3, 1)


def test_outliers_by_the_fences() -> None:
    """Quartiles 10 and 12 admit 7 to 15."""
    assert outliers([10, 11, 12, 10, 12, 30]) == (5,)
    assert outliers([10, 11, 12]) == ()


def test_latency_of_passes() -> None:
    """Medians over five passes; no decode step gives null, no pass gives nothing."""
    summary = latency(compressed().timings)
    assert summary is not None and summary.decode_per_token is not None
    assert summary.prefill.median_ms == pytest.approx(8.2)
    assert summary.decode_per_token.median_ms == pytest.approx(3.3)
    assert (summary.repeats, summary.spread_kind, summary.outlier_passes) == (5, "half_iqr", ())
    assert latency([]) is None


def test_parts_of_the_first_token() -> None:
    """Vision 9.2 and prefill 8.2 hold 1.5 ms of compression each; shares sum to 1."""
    parts = first_token_parts(compressed())
    assert parts is not None
    assert parts.vision == pytest.approx(7.7 / 17.4)
    assert parts.compression == pytest.approx(3.0 / 17.4)
    assert parts.largest()[0] == "the vision tower"


def test_verdict_says_faster_slower_or_not_compared() -> None:
    """Plain words for each case."""
    assert "3.0x faster (75 % of ideal)" in verdict(None, ideal=4.0, achieved=3.0)
    assert "2.0x slower" in verdict(None, ideal=4.0, achieved=0.5)
    assert "0.25 of the full model's operations" in verdict(None, ideal=4.0, achieved=None)


def test_kl_by_hand() -> None:
    """p = (1/2, 1/2) against q = (3/4, 1/4)."""
    full_logits = torch.tensor([0.0, 0.0])
    logits = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert fidelity.kl_nats(full_logits, logits) == pytest.approx(expected)
    assert fidelity.kl_nats(logits, logits) == 0.0
    with pytest.raises(MeasurementError):
        fidelity.kl_nats(full_logits, torch.zeros(3))


def test_agreement() -> None:
    """Top-1, exact match and the sign of the likelihood difference."""
    assert not fidelity.top1_agrees(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    assert fidelity.exact_match([1, 2], [1, 2]) and not fidelity.exact_match([1], [1, 2])
    assert fidelity.answer_nll_delta(0.5, 0.2) == pytest.approx(0.3)


def test_names_of_definitions_are_unique() -> None:
    """No alias hides another figure."""
    names = [n for item in DEFINITIONS.values() for n in (item.name, *item.aliases)]
    assert len(names) == len(set(names))
    assert all(find(name) is not None for name in names)
    found = find("tokens.layer_average")
    assert found is not None and found.name == "layer_average"
