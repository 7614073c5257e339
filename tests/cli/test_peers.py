"""Each peer recipe on the shipped model from the shell: what was asked for is what was reached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.recipe.load import load_recipe

PLAIN = str(Path(__file__).parents[2] / "samples" / "plain.png")
QUESTION = "what color is the circle?"
DOOR = ["average_pool", "divprune", "downsample", "fastervlm", "visionzip", "vtc_cls"]


def run(capsys: pytest.CaptureFixture[str], recipe: str, *options: str) -> dict[str, Any]:
    command = ["run", PLAIN, QUESTION, "-r", recipe, "--json", "--max-new-tokens", "4", *options]
    assert run_command_line(command) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("recipe", DOOR)
def test_exactly_the_budget_enters(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    tokens = run(capsys, recipe, "--budget", "64")["tokens"]
    assert tokens["per_layer"] == [64] * 12
    assert (tokens["requested"], tokens["layer_average"], tokens["gap"]) == (64, 64, 0)
    assert tokens["by_stage"][-1]["after"] == 64


@pytest.mark.parametrize(("recipe", "budget"), [("dart", 64), ("pyramiddrop", 192)])
def test_an_average_is_met(capsys: pytest.CaptureFixture[str], recipe: str, budget: int) -> None:
    result = run(capsys, recipe, "--budget", str(budget))
    assert result["tokens"]["entering"] == 576
    assert abs(result["tokens"]["layer_average"] - budget) <= 0.5
    assert result["flops"]["compressed"]["compression"] > 0


def test_pyramiddrop_names_the_smallest_average_that_its_layers_can_meet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command_line(["run", PLAIN, QUESTION, "-r", "pyramiddrop", "-b", "64"]) == 2
    assert "--budget 145" in capsys.readouterr().err
    tokens = run(capsys, "pyramiddrop", "-b", "145")["tokens"]
    assert abs(tokens["layer_average"] - 145) <= 0.5


@pytest.mark.parametrize(
    ("recipe", "budget", "counts"),
    [
        ("pyramiddrop", 270, [576] * 3 + [288] * 3 + [144] * 3 + [72] * 3),
        ("divprune", 56, [56] * 12),
    ],
)
def test_official_settings_give_the_published_counts(
    capsys: pytest.CaptureFixture[str], recipe: str, budget: int, counts: list[int]
) -> None:
    result = run(capsys, recipe, "--budget", str(budget), "--fidelity", "official")
    assert result["tokens"]["per_layer"] == counts


def test_downsampling_is_the_first_stage_of_the_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page, overlay = tmp_path / "page.html", tmp_path / "overlay.png"
    files = ["--html", str(page), "--overlay", str(overlay)]
    result = run(capsys, "downsample", "-b", "64", "--baseline", *files)
    first, second = result["tokens"]["by_stage"]
    assert (first["phase"], first["stage"]) == ("input", "downsample.shrink")
    assert (first["before"], first["after"]) == (576, 576)
    assert first["note"] == "320 x 320 to 32 x 32 pixels"  # 8 x 8 patches of 4 x 4 pixels
    assert (second["phase"], second["after"]) == ("encoder", 64)
    assert result["warnings"] == []
    assert result["information"]["energy_kept"] is None  # other pixels, other tokens
    assert "the picture itself" in page.read_text(encoding="utf-8")
    plain = run(capsys, "average_pool", "-b", "64", "--baseline")
    kl = [one["baseline"]["fidelity"]["kl_first_token"] for one in (result, plain)]
    assert kl[0] > 0 and kl[0] != kl[1]  # pooling alone sees the sharp picture
    assert result["baseline"]["answer"] == plain["baseline"]["answer"]


def test_a_file_of_downsampled_tokens_goes_on_as_the_direct_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stem = str(tmp_path / "small")
    command = ["compress", PLAIN, "-r", "downsample", "-b", "64", "-o", stem, "--json"]
    assert run_command_line(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["stage"] for one in report["tokens"]["by_stage"]] == [
        "downsample.shrink",
        "average_pool.cells",
    ]
    direct = run(capsys, "downsample", "-b", "64")
    command = ["run", "--tokens", f"{stem}.safetensors", QUESTION, "--json"]
    assert run_command_line([*command, "--max-new-tokens", "4"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["answer_tokens"] == direct["answer_tokens"]
    command = ["compress", PLAIN, "-r", "downsample", "--stage", "shrink", "-o", stem + "2"]
    assert run_command_line([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["final"] == 576


def test_layers_under_downsampling_are_those_of_the_smaller_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipes = ["-r", "downsample", "-r", "average_pool"]
    command = ["analyze", PLAIN, QUESTION, "--curve", "layers", *recipes, "-b", "64", "--json"]
    assert run_command_line(command) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    ranks = [[layer["effective_rank"] for layer in one["layers"]] for one in runs]
    assert len(ranks) == 3 and ranks[1] != ranks[2]


def test_the_input_phase_is_listed_and_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command_line(["recipes", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["downsample"]["phases"] == ["input", "encoder"]
    path = tmp_path / "odd.yaml"
    path.write_text("name: odd\nencoder:\n  - downsample.shrink: {}\n")
    assert run_command_line(["recipes", "validate", str(path)]) == 2
    assert "move it to input:" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["dart", "pyramiddrop"])
def test_a_method_that_reads_the_question_is_not_compressed_without_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    command = ["compress", PLAIN, "-r", recipe, "-b", "192", "-o", str(tmp_path / "out")]
    assert run_command_line(command) == 2
    assert f"no question; it is read by {recipe}." in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["fastervlm", "divprune"])
def test_a_method_that_reads_no_question_needs_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    command = ["compress", PLAIN, "-r", recipe, "-b", "64", "-o", str(tmp_path / "out"), "--json"]
    assert run_command_line(command) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["final"] == 64


PUBLISHED = ["dart", "divprune", "fastervlm", "pyramiddrop", "visionzip", "vtc_cls"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_recipe_says_is_the_default_of_its_stage(name: str) -> None:
    """So that a stage in a recipe of one's own acts as published without a word."""
    for use in load_recipe(name).stages:
        own, said = use.cls(), use.cls(**use.values)
        if name == "vtc_cls":  # the last layer but one of 24, which a class cannot know
            assert (own.last_layer, said.last_layer) == (22, -2)  # type: ignore[attr-defined]
            own = replace(own, last_layer=-2)
        assert own == said
