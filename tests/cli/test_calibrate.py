"""`vtc recipes solve --calibrate`: means over items, beside runs of what was solved."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.media.video import read_media
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

SAMPLES = Path(__file__).parents[2] / "samples"
ITEMS = (
    ("plain.png", "what color is the circle?"),
    ("dark.png", "how many shapes are there?"),
    ("stripes.png", "is there a red shape?"),
)


@cache
def tiny() -> Session:
    return Session(*load_model("tiny", LoadOptions()))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    rows = [{"media": str(SAMPLES / name), "question": asked} for name, asked in ITEMS]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def solve(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run_command_line(["recipes", "solve", *arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert bool(captured.out) == (code == 0)
    return (json.loads(captured.out), captured.err) if code == 0 else captured.err


def measure(solution: Any, name: str) -> Any:
    return next(block for block in solution["measures"] if block["measure"] == name)


def layer_averages(recipe: Path, count: int) -> list[float]:
    """Of real runs of a recipe over the first items."""
    own, found = tiny(), []
    for name, question in ITEMS[:count]:
        prompt = own.adapter.prepare(read_media(str(SAMPLES / name)), question)
        plan = resolve(
            load_recipe(recipe),
            own.adapter.shape,
            family_signals=own.adapter.provides,
            original_tokens=prompt.layout.tokens,
            budget="default",
        )
        found.append(fmean(own.run(prompt, plan, Generation(1), memory=False).visual_tokens))
    return found


def test_thresholds_are_found_and_hold(
    items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "solved.yaml"
    asked = ["mustdrop", "--layer-average", "120", "--calibrate", str(items)]
    solution, notes = solve(capsys, *asked, "-o", str(written))
    assert solution["method"] == "calibration" and notes == ""
    runs = layer_averages(written, 3)
    block = measure(solution, "layer_average")
    assert block["achieved"] == pytest.approx(fmean(runs), rel=1e-12)
    assert (block["smallest"], block["largest"]) == (min(runs), max(runs))
    assert block["smallest"] < block["largest"]  # the counts do depend on the data
    assert abs(block["gap"]) <= 0.5
    assert block["low"] < 120 < block["high"]
    calibration = solution["calibration"]
    assert (calibration["items"], calibration["monotone"]) == (3, True)
    assert calibration["passes"] == 3 * calibration["probes"]
    assert solution["tokens"] is None and solution["budget"] is None
    varied = {each["parameter"]: each["solved"] for each in solution["varied"]}
    assert set(varied) == {"global_threshold", "individual_threshold"}
    again, _ = solve(capsys, *asked)
    assert [again[key] for key in ("varied", "measures", "calibration")] == [
        solution[key] for key in ("varied", "measures", "calibration")
    ]


def test_arithmetic_and_calibration_agree(items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Layer 1 of 12: (576 + 11 k) / 12; every item leaves as much."""
    asked = ["fastv", "--layer-average", "200"]
    told, _ = solve(capsys, *asked)
    found, _ = solve(capsys, *asked, "--calibrate", str(items), "--limit", "2")
    block = measure(found, "layer_average")
    assert found["calibration"]["items"] == 2
    assert block["smallest"] == block["achieved"] == block["largest"]
    assert abs(block["achieved"] - measure(told, "layer_average")["achieved"]) < 1
    assert measure(found, "kv")["low"] == measure(told, "kv")["low"]


def test_one_threshold_alone_cannot(items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token goes only if it is under both."""
    asked = ["mustdrop", "--layer-average", "100", "--calibrate", str(items), "--limit", "1"]
    text = solve(capsys, *asked, "--vary", "dual_attention.global_threshold", code=2)
    assert "whatever mustdrop.dual_attention.global_threshold is set to" in text


def test_what_no_setting_reaches_is_refused_with_its_range(
    items: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["mustdrop", "--layer-average", "2", "--calibrate", str(items), "--limit", "1"]
    text = solve(capsys, *asked, code=2)
    assert "budget cannot be met" in text
    assert "..576.0 by mustdrop.spatial_merge.threshold, mustdrop.dual_attention" in text


SWING = '''
"""A threshold that leaves most in the middle of its range."""
from dataclasses import dataclass
from typing import ClassVar
import torch
from vtc_cli.core.counts import Steering
from vtc_cli.core.decision import Decision
from vtc_cli.core.stage import PrefillStage, parameter

@dataclass(frozen=True, kw_only=True)
class Back(PrefillStage):
    layers: tuple[int, ...] = parameter((0,), "layers", layer_of="llm")
    share: float = parameter(0.5, "share", minimum=0.0, maximum=1.0, steers=Steering(0.0, 1.0))

    def decide(self, tokens, signals):
        share = self.share if self.share < 0.6 else 0.8 - self.share / 2
        keep = torch.arange(max(round(len(tokens) * share), 1))
        return Decision.prune(keep, len(tokens))
'''


def test_what_is_not_monotone_is_said(
    items: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.3 of 576 are left at the upper end, more below it; 172 are found on the way up."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "swing.py").write_text(SWING, encoding="utf-8")
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    recipe = tmp_path / "swing.yaml"
    recipe.write_text("name: swing\nprefill:\n  - swing.back: {}\n", encoding="utf-8")
    asked = [str(recipe), "--layer-average", "150"]
    text = solve(capsys, *asked, code=2)
    assert "depends on the data: swing.back (share)" in text  # a stage that tells no counts
    found, notes = solve(capsys, *asked, "--calibrate", str(items), "--limit", "1")
    assert not found["calibration"]["monotone"] and "not monotone" in notes
    assert abs(measure(found, "layer_average")["gap"]) <= 0.5


def test_events_of_a_video(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "videos.jsonl"
    row = {"media": str(SAMPLES / "crossing.mp4"), "question": "what moves?"}
    path.write_text(json.dumps(row), encoding="utf-8")
    asked = ["metok", "--layer-average", "60", "-m", "tiny-video", "--frames", "4"]
    found, _ = solve(capsys, *asked, "--calibrate", str(path))
    assert [each["parameter"] for each in found["varied"]] == ["keep_ratio"]
    assert found["input"]["frames"] == 4
    block = measure(found, "layer_average")
    assert block["low"] <= block["achieved"] <= block["high"]
    assert abs(block["gap"]) <= 2  # events have whole tokens; a larger gap than half is told


def test_faults_of_the_items_are_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"media": "none.png", "question": "why?"}\n', encoding="utf-8")
    text = solve(capsys, "fastv", "--kv", "0.4", "--calibrate", str(path), code=2)
    assert "none.png" in text and "line 1" in text
