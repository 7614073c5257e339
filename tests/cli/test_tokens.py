"""`vtc run --tokens`: the answer of the direct run, what is refused, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.cli.test_run import TOY_RECIPE, TOY_STAGE
from tests.store.support import content, tampered
from vtc_cli.app import run_command_line

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "wide.png"
QUESTION = "what color is the circle?"
RECIPE = ["-r", "mustdrop", "-b", "64"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stem = tmp_path_factory.mktemp("tokens") / "x"
    arguments = ["compress", str(SAMPLE), "-o", str(stem), "-q", *RECIPE, "--question", QUESTION]
    assert run_command_line(arguments) == 0
    return stem.with_suffix(".safetensors")


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run_command_line(["run", *arguments, "--json"]) == 0, capsys.readouterr().err
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_result_is_that_of_the_direct_run_without_a_tower(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = run_json(capsys, str(SAMPLE), QUESTION, *RECIPE)
    fed = run_json(capsys, "--tokens", str(tokens))
    assert fed["answer"] == direct["answer"] != ""
    for block in ("kv", "recipe", "input", "model", "answer_tokens"):
        assert fed[block] == direct[block], block
    stages = [stage for stage in direct["tokens"]["by_stage"] if stage["phase"] != "encoder"]
    assert fed["tokens"] == direct["tokens"] | {"by_stage": stages}
    mine, theirs = fed["flops"], direct["flops"]
    assert mine["full"] == theirs["full"] and mine["prefill_ratio"] == theirs["prefill_ratio"]
    assert mine["compressed"]["prefill"] == theirs["compressed"]["prefill"] > 0
    zeros = {name: mine["compressed"][name] for name in ("vision", "projector", "compression")}
    assert set(zeros.values()) == {0}
    assert fed["time_ms"]["vision"] is None and fed["time_ms"]["first_token_shares"] is None
    assert fed["time_ms"]["ttft"] >= fed["time_ms"]["prefill"] > 0
    assert fed["tokens_file"]["entering"] == direct["tokens"]["entering"]
    assert fed["tokens_file"]["protected"] == direct["tokens"]["by_stage"][1]["protected"]
    assert direct["tokens_file"] is None
    assert any("vision tower did not run" in warning for warning in fed["warnings"])


def test_the_report_says_that_no_tower_ran(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", "--tokens", str(tokens), "--repeats", "2"]) == 0
    text = " ".join(capsys.readouterr().err.split())
    assert "(file)" in text and "vision tower did not run" in text
    assert "vision time" not in text and "largest part" not in text
    assert "x.safetensors, tokens of" in text


def test_another_question_is_answered_and_told_of(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, "--tokens", str(tokens), "how many shapes are there?")
    assert result["input"]["question"] == "how many shapes are there?"
    assert any("chosen for another question" in warning for warning in result["warnings"])
    same = run_json(capsys, "--tokens", str(tokens), QUESTION)
    assert not any("another question" in warning for warning in same["warnings"])


def test_another_seed_is_told_of(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "--tokens", str(tokens), "--seed", "4")
    assert any("under seed 0, this is 4" in warning for warning in result["warnings"])


def test_tokens_of_some_stages_only_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = tmp_path / "x"
    arguments = ["compress", str(SAMPLE), "-o", str(stem), *RECIPE, "--stage", "spatial_merge"]
    assert run_command_line(arguments) == 0
    result = run_json(capsys, "--tokens", f"{stem}.safetensors", QUESTION)
    assert any("up to mustdrop.spatial_merge only" in text for text in result["warnings"])
    assert result["tokens"]["by_stage"] == []
    assert set(result["tokens"]["per_layer"]) == {result["tokens_file"]["entering"]}
    assert "the full model;" not in result["verdict"] and "operations" in result["verdict"]
    assert not any("another question" in text for text in result["warnings"])
    assert run_command_line(["run", "--tokens", f"{stem}.safetensors"]) == 2
    assert "no question" in capsys.readouterr().err


def test_settings_of_the_surroundings_are_no_wish(
    tokens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe in the environment or in a settings file is no `--recipe` on the command line."""
    monkeypatch.setenv("VTC_RECIPE", "tokencarve")
    assert run_json(capsys, "--tokens", str(tokens))["recipe"]["name"] == "mustdrop"
    assert run_json(capsys, "--tokens", str(tokens), "-r", "mustdrop")["answer"]


def test_an_idle_stage_of_the_past_fails_a_strict_run(tmp_path: Path) -> None:
    recipe = tmp_path / "idle.yaml"
    recipe.write_text(
        "name: idle\nencoder:\n  - mustdrop.key_tokens: {}\n"
        "prefill:\n  - mustdrop.dual_attention: {global_threshold: 0.0}\n"
    )
    stem = tmp_path / "x"
    arguments = ["compress", str(SAMPLE), "-o", str(stem), "-r", str(recipe)]
    assert run_command_line([*arguments, "--question", QUESTION]) == 0
    assert run_command_line(["run", "--tokens", f"{stem}.safetensors", "-q"]) == 0
    assert run_command_line(["run", "--tokens", f"{stem}.safetensors", "-q", "--strict"]) == 3


def test_a_recipe_that_changed_is_refused_and_one_that_went_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    shutil.copy(ROOT / "recipes" / "tokencarve.yaml", recipe)
    stem = tmp_path / "x"
    arguments = ["compress", str(SAMPLE), "-o", str(stem), "-r", str(recipe), "-b", "64"]
    assert run_command_line([*arguments, "--question", QUESTION]) == 0
    tokens = f"{stem}.safetensors"
    warnings = run_json(capsys, "--tokens", tokens)["warnings"]
    assert len([text for text in warnings if "padding" not in text]) == 1
    recipe.write_text(recipe.read_text() + "# a word more\n")
    assert run_command_line(["run", "--tokens", tokens]) == 2
    assert "has changed since" in capsys.readouterr().err
    assert run_command_line(["run", "--tokens", tokens, "-r", "tokencarve"]) == 0
    recipe.unlink()
    assert any("not there any more" in t for t in run_json(capsys, "--tokens", tokens)["warnings"])


def test_tokens_in_half_precision_choose_their_dtype(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = tmp_path / "x"
    arguments = ["compress", str(SAMPLE), "-o", str(stem), *RECIPE, "--question", QUESTION]
    assert run_command_line([*arguments, "--dtype", "bfloat16"]) == 0
    direct = run_json(capsys, str(SAMPLE), QUESTION, *RECIPE, "--dtype", "bfloat16")
    fed = run_json(capsys, "--tokens", f"{stem}.safetensors")
    assert fed["model"]["dtype"] == "bfloat16"
    assert (fed["answer"], fed["kv"]) == (direct["answer"], direct["kv"])


def test_a_prefill_that_reads_no_text_is_kept_for_any_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stage of one's own from VTC_PATH, gone when its tokens are taken up again."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "stages" / "evens.py").write_text(TOY_STAGE)
    (tmp_path / "recipes" / "evens.yaml").write_text(TOY_RECIPE)
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    stem = tmp_path / "x"
    assert run_command_line(["compress", str(SAMPLE), "-o", str(stem), "-r", "evens"]) == 0
    direct = run_json(capsys, str(SAMPLE), QUESTION, "-r", "evens")
    monkeypatch.delenv("VTC_PATH")
    fed = run_json(capsys, "--tokens", f"{stem}.safetensors", QUESTION)
    assert (fed["answer"], fed["kv"]) == (direct["answer"], direct["kv"])
    assert fed["tokens"] == direct["tokens"]
    assert fed["tokens"]["final"] == 288
    assert not any("another question" in text for text in fed["warnings"])


def narrower(path: Path, to: Path) -> Path:
    """The same tokens with features of half the width."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        for name in ("features", "entering.features"):
            tensors[name] = tensors[name][:, ::2]

    return tampered(path, to, change)


def regridded(path: Path, to: Path) -> Path:
    """The same tokens in a grid of one more column."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        grids = json.loads(metadata["grids"])
        metadata["grids"] = json.dumps([grids[0] | {"columns": 25}])

    return tampered(path, to, change)


def deeper(path: Path, to: Path) -> Path:
    """The same decisions, the last one at a layer that the model does not have."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        decisions = json.loads(metadata["decisions"])
        decisions[-1]["layer"] = 12
        metadata["decisions"] = json.dumps(decisions)

    return tampered(path, to, change)


REFUSED = {
    "a picture too": (["{tokens}", "a.png", QUESTION], "a picture a.png beside --tokens"),
    "budget": (["{tokens}", "-b", "64"], "--budget beside --tokens"),
    "the default budget": (["{tokens}", "-b", "default"], "--budget beside --tokens"),
    "fidelity": (["{tokens}", "--fidelity", "sound"], "--fidelity beside --tokens"),
    "exact layers": (["{tokens}", "--exact-layers"], "--exact-layers beside --tokens"),
    "baseline": (["{tokens}", "--baseline"], "--baseline beside --tokens"),
    "overlay": (["{tokens}", "--overlay", "x.png"], "--overlay beside --tokens"),
    "html": (["{tokens}", "--html", "x.html"], "--html beside --tokens"),
    "empty question": (["{tokens}", " "], "the question is empty"),
    "another recipe": (["{tokens}", "-r", "tokencarve"], "tokencarve is not the recipe"),
    "an unknown recipe": (["{tokens}", "-r", "nothing"], "no recipe is called"),
    "another model": (["{tokens}", "-m", "narrow:llava"], "--model tiny"),
    "another dtype": (["{tokens}", "--dtype", "bfloat16"], "--dtype float32"),
    "a folder": (["{folder}"], "a folder"),
    "no such file": (["{folder}/nothing"], "no such file"),
    "a picture": ([str(SAMPLE)], "no whole safetensors file"),
    "cut short": (["{folder}/short"], "no whole safetensors file"),
    "weights": (["{folder}/weights"], "without compressed tokens"),
    "other width": (["{folder}/narrower"], "features of width 64"),
    "other grid": (["{folder}/regridded"], "columns=25"),
    "other depth": (["{folder}/deeper"], "a decision at layer 12"),
}


@pytest.fixture(scope="module")
def bad(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "short").write_bytes(tokens.read_bytes()[:50_000])
    save_file({"w": content(tokens)[0]["features"]}, folder / "weights")
    narrower(tokens, folder / "narrower")
    deeper(tokens, folder / "deeper")
    regridded(tokens, folder / "regridded")
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_block(
    tokens: Path, bad: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, words = REFUSED[case]
    filled = [a.format(tokens=tokens, folder=bad) for a in arguments]
    capsys.readouterr()
    assert run_command_line(["run", "--tokens", *filled]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("error: ") == 1
    assert words in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(("words", "missing"), [([], "MEDIA"), (["a.png"], "QUESTION")])
def test_an_ordinary_run_still_needs_both_words(
    capsys: pytest.CaptureFixture[str], words: list[str], missing: str
) -> None:
    assert run_command_line(["run", *words]) == 2
    captured = capsys.readouterr()
    assert f"Missing argument '{missing}'" in captured.err and "vtc run --help" in captured.err
