"""`vtc run` as a user meets it: answers, reports, files, exit codes, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtc_cli.app import run_command_line
from vtc_cli.report.table import NO_ACCURACY

ROOT = Path(__file__).parents[2]
NARROW = ["--model", "narrow:llava", "--max-new-tokens", "3"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_json_has_the_contract(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command_line(
        ["run", str(picture), "what is it?", "-r", "mustdrop", "-b", "128", "--json", *NARROW]
    )
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert code == 0
    assert result["schema_version"] == 1
    assert result["model"]["weights"] == "random"
    assert result["tokens"]["original"] == 576
    assert result["tokens"]["requested"] == 128
    assert abs(result["tokens"]["layer_average"] - 128) <= 0.5
    assert len(result["tokens"]["per_layer"]) == 32
    assert result["kv"]["bytes"] < result["kv"]["full_bytes"]
    assert 0 < result["flops"]["prefill_ratio"] < 1
    assert result["input"]["question"] == "what is it?"
    assert result["baseline"] is None


def test_the_full_recipe_compresses_nothing(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", str(picture), "what is it?", "--json", "-q", *NARROW]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"warning: {NO_ACCURACY}\n"  # --quiet hides it not
    result = json.loads(captured.out)
    assert result["recipe"]["name"] == "full"
    assert result["tokens"]["per_layer"] == [576] * 32
    assert result["kv"]["bytes"] == result["kv"]["full_bytes"]
    assert result["flops"]["prefill_ratio"] == 1.0


def test_baseline_of_the_full_model_is_itself(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(picture), "what is it?", "--baseline", "--json", *NARROW]
    assert run_command_line(arguments) == 0
    fidelity = json.loads(capsys.readouterr().out)["baseline"]["fidelity"]
    assert fidelity["kl_first_token"] == 0.0
    assert fidelity["top1_agree"] is True
    assert fidelity["exact_match"] is True
    assert fidelity["answer_nll_delta"] == 0.0


def test_files_are_written(picture: Path, tmp_path: Path) -> None:
    overlay, output = tmp_path / "overlay.png", tmp_path / "result.json"
    files = ["--overlay", str(overlay), "-o", str(output)]
    assert run_command_line(["run", str(picture), "what?", "-r", "mustdrop", *files, *NARROW]) == 0
    with Image.open(overlay) as drawn:
        assert drawn.width > 300
    assert json.loads(output.read_text())["command"] == "run"


def test_a_pipe_carries_a_picture_in_and_the_answer_alone_out(
    picture: Path, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    finished = subprocess.run(
        [sys.executable, "-m", "vtc_cli", "run", "-", "what?", "-o", str(output), *NARROW],
        input=picture.read_bytes(),
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert finished.stdout.count(b"\n") == 1
    assert b"random weights" in finished.stderr
    assert json.loads(output.read_text())["input"]["path"] == "-"


BAD = {
    "missing picture": (["no/such.png", "what?"], 2, "no/such.png"),
    "empty question": (["{picture}", "  "], 2, "question is empty"),
    "unknown recipe": (["{picture}", "what?", "-r", "mustdorp"], 2, "mustdrop"),
    "unknown model": (["{picture}", "what?", "-m", "./nothing"], 4, "no such folder"),
    "unknown family": (["{picture}", "what?", "-m", "narrow:lava"], 4, "narrow:llava"),
    "budget above N": (["{picture}", "what?", "-r", "mustdrop", "-b", "900", *NARROW], 2, "1..576"),
    "budget too small": (
        ["{picture}", "what?", "-r", "mustdrop", "-b", "5", *NARROW],
        2,
        "at least",
    ),
    "budget of full": (["{picture}", "what?", "-b", "64", *NARROW], 2, "compresses nothing"),
    "budget no number": (["{picture}", "what?", "-b", "many"], 2, "--budget 64"),
    "unpublished": (
        ["{picture}", "what?", "-r", "mustdrop", "-b", "70", "--fidelity", "official", *NARROW],
        2,
        "64, 128, 192",
    ),
    "fidelity": (["{picture}", "what?", "--fidelity", "exact"], 2, "sound, official"),
    "output folder": (["{picture}", "what?", "-o", "no/such/x.json"], 2, "does not exist"),
    "overlay format": (["{picture}", "what?", "--overlay", "{folder}/x.gif"], 2, ".png"),
    "device": (["{picture}", "what?", "--device", "cuda:9"], 4, "cpu"),
    "top p": (["{picture}", "what?", "--top-p", "0"], 2, "above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_block(
    picture: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, code, words = BAD[name]
    filled = [a.format(picture=picture, folder=picture.parent) for a in arguments]
    assert run_command_line(["run", *filled]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_broken_checkpoints_say_so(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert run_command_line(["run", str(picture), "what?", "-m", str(folder)]) == 4
    assert "architecture bert" in capsys.readouterr().err
    (folder / "config.json").write_text('{"model_type": "llava"}')
    assert run_command_line(["run", str(picture), "what?", "-m", str(folder)]) == 4
    assert str(folder) in capsys.readouterr().err


def test_a_cut_weights_file_is_one_block(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = tmp_path / "tiny"
    shutil.copytree(ROOT / "vtc_cli" / "assets" / "tiny", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run_command_line(["run", str(picture), "what?", "-m", str(folder)]) == 4
    assert capsys.readouterr().err.startswith("error: ")


def test_strict_refuses_a_stage_that_did_nothing(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "idle.yaml"
    recipe.write_text(
        "name: idle\npaper: none\nprefill:\n  - mustdrop.dual_attention: {global_threshold: 0.0}\n"
    )
    arguments = ["run", str(picture), "what?", "-r", str(recipe), *NARROW]
    assert run_command_line(arguments) == 0
    assert "dual_attention" in capsys.readouterr().err
    assert run_command_line([*arguments, "--strict"]) == 3


def test_a_toy_method_needs_one_file_and_one_recipe(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "stages" / "evens.py").write_text(TOY_STAGE)
    (tmp_path / "recipes" / "evens.yaml").write_text(TOY_RECIPE)
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    assert run_command_line(["recipes", "list"]) == 0
    assert "evens" in capsys.readouterr().out
    assert run_command_line(["recipes", "validate", "evens"]) == 0
    capsys.readouterr()
    assert run_command_line(["run", str(picture), "what?", "-r", "evens", "--json", *NARROW]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert tokens["per_layer"] == [576] * 2 + [288] * 30


TOY_STAGE = '''"""Keeps every second token."""

from dataclasses import dataclass

import torch

from vtc_cli.core.decision import Decision
from vtc_cli.core.stage import PrefillStage, parameter


@dataclass(frozen=True, kw_only=True)
class Evens(PrefillStage):
    """Keeps every second token."""

    paper = "none"
    layers: tuple[int, ...] = parameter((2,), "where", layer_of="llm")

    def decide(self, tokens, signals):
        return Decision.prune(torch.arange(0, len(tokens), 2), len(tokens))
'''

TOY_RECIPE = """name: evens
paper: none
reference: {llm_layers: 32, vision_layers: 24}
prefill:
  - evens: {layers: [2]}
"""
