"""`vtc compress` of one picture: files, summary, stages, questions, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.store.support import content
from vtc_cli.app import run_command_line
from vtc_cli.store.read import read_tokens

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "plain.png"
QUESTION = ["--question", "what color is the circle?"]
NAMES = ["x.json", "x.png", "x.safetensors"]


def compress(folder: Path, *arguments: str, name: str = "x") -> dict[str, Any]:
    """Compress the sample into `folder`; the JSON of decisions."""
    assert run_command_line(["compress", str(SAMPLE), "-o", str(folder / name), *arguments]) == 0
    stem = name.removesuffix(".safetensors")
    report: dict[str, Any] = json.loads((folder / f"{stem}.json").read_text())
    return report


def test_three_files_tell_what_the_run_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-r", "mustdrop", "-b", "64"]
    report = compress(tmp_path, *options, *QUESTION)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    captured = capsys.readouterr()
    note = report["tokens"]["by_stage"][0]["note"]
    assert "x.safetensors" in captured.out
    assert "windows merged" in note and note in " ".join(captured.out.split())
    assert run_command_line(["run", str(SAMPLE), QUESTION[1], *options, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    stages = [stage for stage in run["tokens"]["by_stage"] if stage["phase"] != "decode"]
    assert report["tokens"]["by_stage"] == stages
    assert report["tokens"]["final"] == run["tokens"]["final"]
    assert report["recipe"] == run["recipe"] and report["model"] == run["model"]
    assert report["input"] == run["input"]
    tensors, _ = content(tmp_path / "x.safetensors")
    assert tensors["anchor"].tolist() == report["decisions"][-1]["kept"]
    assert tensors["entering.anchor"].tolist() == report["decisions"][1]["kept"]
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 640


def test_each_original_token_has_one_end(tmp_path: Path) -> None:
    report = compress(tmp_path, "-r", "mustdrop_tokencarve", "-b", "64", *QUESTION)
    tensors, _ = content(tmp_path / "x.safetensors")
    alive = set(tensors["origin.indices"][1].tolist())
    dropped = [token for decision in report["decisions"] for token in decision["dropped"]]
    assert len(dropped) == len(set(dropped)) > 0
    assert sorted([*dropped, *alive]) == list(range(576))
    last = report["decisions"][-1]
    assert sum(len(block["tokens"]) for block in last["merged"]) > 0
    singles = len(last["kept"]) - len(last["merged"])
    assert singles + sum(len(block["tokens"]) for block in last["merged"]) == len(alive)
    assert len(last["scores"]) == len(last["incoming"]) == last["before"]


def test_the_overlay_is_that_of_run(tmp_path: Path) -> None:
    compress(tmp_path, "-r", "tokencarve", *QUESTION)
    drawn = tmp_path / "run.png"
    arguments = ["run", str(SAMPLE), QUESTION[1], "-r", "tokencarve", "--overlay", str(drawn), "-q"]
    assert run_command_line(arguments) == 0
    assert (tmp_path / "x.png").read_bytes() == drawn.read_bytes()


def test_the_summary_as_json_is_the_report_without_its_decisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compress(tmp_path, "-r", "tokencarve", "--json", *QUESTION, name="x.safetensors")
    summary = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    del report["decisions"]
    assert summary == report


STAGES = {
    "spatial_merge": ["mustdrop.spatial_merge"],
    "mustdrop.key_tokens": ["mustdrop.spatial_merge", "mustdrop.key_tokens"],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_that_read_no_text_need_no_question(tmp_path: Path, name: str) -> None:
    report = compress(tmp_path, "-r", "mustdrop", "-b", "64", "--stage", name)
    assert [stage["stage"] for stage in report["tokens"]["by_stage"]] == STAGES[name]
    assert [stage["stage"] for stage in report["recipe"]["stages"]] == STAGES[name]
    assert report["input"]["question"] is None
    assert report["stopped_after"] == STAGES[name][-1]
    file = read_tokens(tmp_path / "x.safetensors")
    assert file.head.question is None and file.head.stopped_after == STAGES[name][-1]
    assert file.decisions == () and file.entering is file.final


def test_the_question_does_not_touch_stages_that_read_none(tmp_path: Path) -> None:
    options = ["-r", "mustdrop", "--stage", "key_tokens"]
    compress(tmp_path, *options, name="without")
    compress(tmp_path, *options, *QUESTION, name="with")
    with_question, _ = content(tmp_path / "with.safetensors")
    without, _ = content(tmp_path / "without.safetensors")
    assert with_question.keys() == without.keys()
    assert all(with_question[name].equal(without[name]) for name in without)


def test_the_last_stage_leaves_everything_but_the_cache_policy(tmp_path: Path) -> None:
    whole = compress(tmp_path, "-r", "mustdrop", *QUESTION)
    cut = compress(tmp_path, "-r", "mustdrop", "--stage", "dual_attention", *QUESTION, name="y")
    assert [d["kept"] for d in cut["decisions"]] == [d["kept"] for d in whole["decisions"]]
    names = [stage["stage"] for stage in whole["recipe"]["stages"]]
    assert names[-1] == "mustdrop.output_aware_cache"
    assert [stage["stage"] for stage in cut["recipe"]["stages"]] == names[:-1]


def test_the_full_recipe_keeps_every_token(tmp_path: Path) -> None:
    report = compress(tmp_path)
    assert report["decisions"] == [] and report["tokens"]["final"] == 576
    tensors, _ = content(tmp_path / "x.safetensors")
    assert tensors["anchor"].tolist() == list(range(576))


def test_old_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    first = compress(tmp_path, "-r", "mustdrop", *QUESTION)
    second = compress(tmp_path, "-r", "tokencarve", *QUESTION)
    assert first["recipe"]["name"] != second["recipe"]["name"]
    assert read_tokens(tmp_path / "x.safetensors").head.recipe.name == "tokencarve"
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_random_weights_are_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compress(tmp_path, "-m", "narrow:llava")
    assert capsys.readouterr().out.startswith(" random weights")


def test_a_stage_that_did_nothing_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "idle.yaml"
    recipe.write_text("name: idle\nprefill:\n  - tokencarve.carve: {tokens: 576}\n")
    compress(tmp_path, "-r", str(recipe), *QUESTION)
    assert "warning: the stage tokencarve.carve did nothing" in capsys.readouterr().err


BAD = {
    "missing picture": (["no/such.png", "-o", "{folder}/x"], 2, "no/such.png"),
    "no picture": (["{folder}/text.png", "-o", "{folder}/x"], 2, "no picture"),
    "no output": (["{sample}"], 2, "--output"),
    "output folder missing": (["{sample}", "-o", "{folder}/no/x"], 2, "does not exist"),
    "output is a folder": (["{sample}", "-o", "{folder}"], 2, "-o {folder}/plain"),
    "output is the picture": (["{folder}/p.png", "-o", "{folder}/p"], 2, "the input itself"),
    "a file is a folder": (["{sample}", "-o", "{folder}/taken"], 2, "taken.json is a folder"),
    "no question": (["{sample}", "-o", "{folder}/x", "-r", "tokencarve"], 2, "tokencarve.carve"),
    "question of the prefill": (
        ["{sample}", "-o", "{folder}/x", "-r", "mustdrop", "--stage", "dual_attention"],
        2,
        "it is read by mustdrop.dual_attention",
    ),
    "empty question": (["{sample}", "-o", "{folder}/x", "--question", " "], 2, "is empty"),
    "unknown stage": (
        ["{sample}", "-o", "{folder}/x", "-r", "mustdrop", "--stage", "key_token"],
        2,
        "mustdrop.dual_attention, mustdrop.key_tokens, mustdrop.spatial_merge",
    ),
    "decode stage": (
        ["{sample}", "-o", "{folder}/x", "-r", "mustdrop", "--stage", "output_aware_cache"],
        2,
        "acts while decoding",
    ),
    "stage of full": (["{sample}", "-o", "{folder}/x", "--stage", "carve"], 2, "no such stage"),
    "budget": (
        ["{sample}", "-o", "{folder}/x", "-r", "mustdrop", "-b", "900", *QUESTION],
        2,
        "1..576",
    ),
    "budget of full": (["{sample}", "-o", "{folder}/x", "-b", "64"], 2, "compresses nothing"),
    "fidelity": (["{sample}", "-o", "{folder}/x", "--fidelity", "exact"], 2, "sound, official"),
    "recipe": (["{sample}", "-o", "{folder}/x", "-r", "mustdorp"], 2, "mustdrop"),
    "model": (["{sample}", "-o", "{folder}/x", "-m", "./nothing"], 4, "no such folder"),
    "format": (["{sample}", "-o", "{folder}/x", "--format", "csv"], 2, "csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_block_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "p.png").write_bytes(SAMPLE.read_bytes())
    there = sorted(tmp_path.iterdir())
    arguments, code, words = BAD[case]
    filled = [a.format(sample=SAMPLE, folder=tmp_path) for a in arguments]
    assert run_command_line(["compress", *filled]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("error: ") == 1
    assert words.format(folder=tmp_path) in captured.err
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.iterdir()) == there
    assert (tmp_path / "p.png").read_bytes() == SAMPLE.read_bytes()
