"""The families from the shell: random weights are labelled, refusals are clear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line

PLAIN = str(Path(__file__).parents[2] / "samples" / "plain.png")
SHORT = ["--max-new-tokens", "2"]


@pytest.mark.parametrize(("family", "layers"), [("gemma3", 34), ("internvl", 28)])
def test_a_narrow_family_meets_a_budget_and_says_that_it_is_random(
    family: str, layers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["-m", f"narrow:{family}", "-r", "tokencarve", "-b", "64"]
    assert run_command_line(["run", PLAIN, "what?", *recipe, "--json", *SHORT]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"]["family"], result["model"]["weights"]) == (family, "random")
    assert result["tokens"]["original"] == 256
    assert abs(result["tokens"]["layer_average"] - 64) <= 0.5
    assert len(result["tokens"]["per_layer"]) == layers


def test_the_table_says_random_weights(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", PLAIN, "what?", "-m", "narrow:internvl", "-r", "uniform", "-b", "64", *SHORT]
    assert run_command_line(command) == 0
    assert "random weights" in capsys.readouterr().err


def test_stages_inside_a_tower_that_joins_patches_are_refused_at_plan_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command_line(["run", PLAIN, "what?", "-m", "narrow:internvl", "-r", "mustdrop"]) == 2
    told = capsys.readouterr().err
    assert "acts inside the vision tower" in told
    assert "joins 4 rows" in told


def test_a_picture_for_a_family_of_videos_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", PLAIN, "what?", "-m", "narrow:llava_next_video"]) == 2
    told = capsys.readouterr().err
    assert "a picture" in told
    assert "videos for the family" in told
