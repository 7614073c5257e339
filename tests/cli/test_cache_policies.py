"""Cache policies in the report: what is counted is said, and nothing claims a shorter prefill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.app import run_command_line

PLAIN = str(Path(__file__).parents[2] / "samples" / "plain.png")
QUESTION = "what color is the circle?"
POLICIES = ["h2o", "snapkv", "streamingllm"]


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[Any, str]:
    """The result of a run and what stood on stderr."""
    code = run_command_line(["run", PLAIN, QUESTION, *more])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return (json.loads(captured.out) if "--json" in more else captured.out), captured.err


def test_where_text_stays_visual_entries_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tmp_path / "visual.yaml"
    policy = "snapkv.observation_window: {window_tokens: 8, visual_only: true}"
    recipe.write_text(f"name: visual\ndecode:\n  - {policy}\n", encoding="utf-8")
    result, _ = run(capsys, "-r", str(recipe), "-b", "40", "--json")
    kv, text = result["kv"], result["tokens"]["text"]
    assert (kv["counts"], kv["requested"], kv["gap"]) == ("visual_entries", 40, 0)
    assert kv["entries_per_layer"] == [text + 40] * 12
    assert kv["text_entries_per_layer"] == [text] * 12


@pytest.mark.parametrize("name", POLICIES)
def test_json_says_what_the_budget_counted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = run(capsys, "-r", name, "-b", "64", "--baseline", "--json")
    kv, tokens = result["kv"], result["tokens"]
    assert (kv["counts"], kv["requested"], kv["gap"]) == ("cache_entries", 64, 0)
    assert kv["entries_per_layer"] == [64] * 12
    assert all(0 < text <= tokens["text"] for text in kv["text_entries_per_layer"])
    assert kv["bytes"] * (576 + tokens["text"]) == kv["full_bytes"] * 64
    assert tokens["requested"] is None and tokens["gap"] is None
    assert tokens["per_layer"] == [576] * 12
    assert result["flops"]["prefill_ratio"] == 1.0
    full = result["flops"]["full"]["decode_step"]
    assert result["flops"]["compressed"]["decode_step"] < full
    assert len(tokens["by_stage"]) == 12 * (1 if name == "snapkv" else 2)
    spent = result["time_ms"]["policies_per_token"]
    assert spent is None if name == "snapkv" else 0 < spent < result["time_ms"]["decode_per_token"]
    assert result["baseline"]["kv"]["requested"] is None
    assert result["baseline"]["fidelity"]["kl_first_token"] == 0


def test_the_report_speaks_of_the_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    _, told = run(capsys, "-r", "h2o", "-b", "64", "--baseline")
    told = " ".join(told.split())
    assert "budget 64 cache entries a layer and head -> achieved 64.0 (met), 576.0 visual" in told
    assert "64.0 entries a layer and head" in told and "before cache policies" in told
    assert "verdict: the cache holds 0.11 of the full model's bytes" in told
    assert "the prefill is not shortened" in told and "ideal" not in told.split("verdict")[1]
    assert "the first token comes before the cache is cut" in told and "top-1" not in told
    assert "of it" in told  # the share of the policies in the time a token


def test_a_budget_within_the_window_is_refused_in_one_block(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_command_line(["run", PLAIN, QUESTION, "-r", "snapkv", "-b", "20"])
    told = capsys.readouterr().err
    assert code == 2 and "at least 33" in told and "--budget 33" in told
    assert "Traceback" not in told


def test_a_published_size_that_holds_the_whole_prompt_is_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, _ = run(capsys, "-r", "snapkv", "-b", "2048", "--fidelity", "official", "--json")
    assert result["kv"]["requested"] == 2048
    assert result["kv"]["bytes"] == result["kv"]["full_bytes"]
    assert any("did nothing" in warning for warning in result["warnings"])


def test_tokens_from_a_file_meet_the_same_policy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A chain of a prune and a policy: the prune is replayed, the cache is cut as in one run."""
    recipe = tmp_path / "chain.yaml"
    recipe.write_text(
        "name: chain\nprefill:\n  - fastv.last_row: {layers: [2]}\n"
        "decode:\n  - snapkv.observation_window: {capacity_tokens: 40, window_tokens: 8}\n",
        encoding="utf-8",
    )
    chain = ["-r", str(recipe), "-b", "128"]
    direct, _ = run(capsys, *chain, "--json")
    out = tmp_path / "tokens"
    made = ["compress", PLAIN, "--question", QUESTION, *chain, "-o", str(out)]
    assert run_command_line(made) == 0
    capsys.readouterr()
    assert run_command_line(["run", "--tokens", f"{out}.safetensors", "--json"]) == 0
    fed = json.loads(capsys.readouterr().out)
    assert direct["kv"]["entries_per_layer"] == fed["kv"]["entries_per_layer"] == [40] * 12
    assert fed["tokens"]["requested"] == direct["tokens"]["requested"] == 128
    assert fed["kv"]["requested"] is None and fed["answer"] == direct["answer"]
