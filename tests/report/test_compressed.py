"""The decisions of a compressed picture: each original token is followed to its end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.report import traces
from vtc_cli.core.decision import Decision
from vtc_cli.core.trace import Trace
from vtc_cli.metrics.flops import compression_flops
from vtc_cli.report.compressed import CompressedReport, FilesBlock, build_compressed
from vtc_cli.report.compressed_table import RANDOM, render

FILES = FilesBlock(tokens="x.safetensors", decisions="x.json", overlay="x.png")


def made(trace: Trace, question: str | None = "what?") -> CompressedReport:
    return build_compressed(
        trace,
        traces.media(),
        question=question,
        argv=["compress", "scene.png"],
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        fingerprint="ab" * 32,
        stopped_after=None,
        files=FILES,
    )


def test_round_trip_and_head() -> None:
    report = made(traces.compressed())
    assert CompressedReport.model_validate_json(report.model_dump_json()) == report
    said = json.loads(report.model_dump_json())
    assert said["command"] == "compress" and said["schema_version"] == 1
    assert said["tokens"]["text"] == traces.TEXT_TOKENS
    assert (said["tokens"]["original"], said["tokens"]["entering"]) == (576, traces.MERGED)
    assert said["tokens"]["final"] == traces.AFTER_SECOND
    assert [len(d["kept"]) for d in said["decisions"]] == [552, 552, 140, 31]
    assert made(traces.compressed(), None).tokens.text is None


def test_each_original_token_is_kept_merged_or_dropped_once() -> None:
    """The sets are rebuilt from the masks of the hand-made trace, with numpy alone."""
    decisions = made(traces.compressed()).decisions
    alive = set(range(576))
    for decision in decisions:
        members = {token for block in decision.merged for token in block.tokens}
        alone = set(decision.kept) - {block.anchor for block in decision.merged}
        assert not members & alone
        assert not set(decision.dropped) & (members | alone)
        assert alive == members | alone | set(decision.dropped)
        alive = members | alone
    assert sum(len(decision.dropped) for decision in decisions) + len(alive) == 576


def test_merged_tokens_have_their_members_and_weights() -> None:
    first = made(traces.compressed()).decisions[0]
    assert first.incoming == list(range(576))
    assert len(first.merged) == len(traces.MERGED_WINDOWS)
    grid = np.arange(576).reshape(24, 24)
    for block, (row, column) in zip(first.merged, traces.MERGED_WINDOWS, strict=True):
        assert block.anchor == grid[row + 1, column + 1]
        assert block.tokens == grid[row : row + 3, column : column + 3].flatten().tolist()
        assert block.weights == pytest.approx([1 / 9] * 9)
    assert first.dropped == []


def test_a_merge_of_merged_tokens_multiplies_weights() -> None:
    builder = traces.Builder()
    pairs = torch.tensor([[0, 0, 1], [0, 1, 2]])
    weights = torch.tensor([3.0, 1.0, 1.0])
    builder.apply("a", "encoder", 0, Decision.merge(torch.tensor([0, 2]), pairs, weights, 576))
    half = Decision.merge(torch.tensor([1]), torch.tensor([[0, 0], [0, 1]]), None, 2)
    builder.apply("b", "prefill", 1, half)
    trace = traces.compressed()
    trace.records = builder.records
    first, second = made(trace).decisions
    assert [(m.anchor, m.tokens, m.weights) for m in first.merged] == [(0, [0, 1], [0.75, 0.25])]
    assert first.dropped == list(range(3, 576))
    (block,) = second.merged
    assert (block.anchor, block.tokens) == (2, [0, 1, 2])
    assert block.weights == pytest.approx([0.375, 0.125, 0.5])
    assert second.incoming == [0, 2] and second.dropped == []


def test_scores_and_costs_are_those_of_the_record() -> None:
    trace = traces.compressed()
    scores = torch.arange(140, dtype=torch.float32)
    scores[3] = float("inf")
    keep = torch.arange(31)
    decision = Decision.prune(keep, 140, scores=scores, flops=7, details={"a": float("nan")})
    builder = traces.Builder()
    builder.table = builder.table.apply(traces.prune(576, 140))
    builder.apply("late", "prefill", 6, decision)
    trace.records[3] = builder.records[0]
    report = made(trace)
    assert report.decisions[3].scores == [0, 1, 2, None, *range(4, 140)]
    assert report.decisions[3].details == {"a": None}
    assert report.decisions[2].scores is None
    cost = report.decisions[3].cost
    assert (cost.decision_ms, cost.signal_ms, cost.signal_flops) == (0.5, 0.25, 1000)
    assert cost.flops == 1007 and cost.signals == ["hidden"]
    assert sum(d.cost.flops for d in report.decisions) == compression_flops(trace)


def files_in(folder: Path) -> list[Path]:
    return [folder / name for name in FILES.model_dump().values()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_summary_fits_and_names_the_files(tmp_path: Path, width: int) -> None:
    for name in FILES.model_dump().values():
        (tmp_path / name).write_bytes(bytes(2000))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render(made(traces.compressed()), files_in(tmp_path), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    for words in ("552", "140", "31", "x.safetensors", "x.json", "x.png", "2.00 kB", "what?"):
        assert words in text
    assert RANDOM not in text


def test_random_weights_are_labelled(tmp_path: Path) -> None:
    for name in FILES.model_dump().values():
        (tmp_path / name).write_bytes(b"")
    console = Console(file=io.StringIO(), width=100, color_system=None)
    trace = traces.random_weights(traces.compressed())
    render(made(trace, None), files_in(tmp_path), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines()[0].strip() == RANDOM
    assert "no question" in text
