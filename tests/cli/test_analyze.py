"""`vtc analyze` as a user meets it: curves, shapes of output, plots, bad input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.support import noise_media
from tests.tolerance import close
from vtc_cli.app import run_command_line
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.report.analysis import Analysis
from vtc_cli.report.figure import save_figure

NARROW = ["--model", "narrow:llava", "--max-new-tokens", "2", "-q"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.fromarray(noise_media(0, 64, 80).frames[0]).save(path)
    return path


def analysis(
    arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0
) -> dict[str, object]:
    assert run_command_line(["analyze", *arguments, "--json"]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_layers_of_the_full_model_equal_its_own_hidden_states(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tau = 1e-3
    arguments = [str(picture), "what is it?", "--tau", str(tau), *NARROW]
    found = analysis(arguments, capsys)
    adapter = LlavaAdapter.narrow(0)
    prompt = adapter.prepare(noise_media(0, 64, 80), "what is it?")
    with torch.inference_mode():
        states = adapter.model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            output_hidden_states=True,
        ).hidden_states
    run = found["runs"][0]  # type: ignore[index]
    assert run["recipe"]["name"] == "full"
    places = {"door": (run["door"], states[0])}
    places |= {str(layer): (run["layers"][layer], states[layer + 1]) for layer in range(31)}
    for block, state in places.values():
        rows = state[0, prompt.visual_index].double().numpy()
        values = np.linalg.svd(rows, compute_uv=False)
        share = values / values.sum()
        assert block["rank"] == int((values > tau * values[0]).sum())
        expected = float(np.exp(-(share * np.log(share)).sum()))
        close(np.float32(block["effective_rank"]), expected, model=adapter)
        assert block["tokens"] == 576


def test_recipes_stand_beside_the_full_model(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(picture), "what is it?", "-r", "mustdrop", "-r", "tokencarve", "-b", "64"]
    found = analysis([*arguments, *NARROW], capsys)
    runs = found["runs"]
    assert isinstance(runs, list)
    assert [run["recipe"]["name"] for run in runs] == ["full", "mustdrop", "tokencarve"]
    for run in runs[1:]:
        counts = [layer["tokens"] for layer in run["layers"]]
        assert abs(np.mean(counts) - 64) <= 0.5
        assert all(layer["rank"] <= layer["tokens"] for layer in run["layers"])
        assert all(0 < layer["attention_mass"] < 1 for layer in run["layers"])
    assert found["sweeps"] is None and found["model"]["weights"] == "random"  # type: ignore[index]


def test_heads_have_mass_and_entropy_and_the_layer_is_their_mean(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = analysis([str(picture), "--curve", "heads", *NARROW], capsys)
    run = found["runs"][0]  # type: ignore[index]
    assert [block["layer"] for block in run["heads"]] == list(range(32))
    for block, layer in zip(run["heads"], run["layers"], strict=True):
        assert np.mean(block["mass"]) == pytest.approx(layer["attention_mass"])
        assert all(0 < mass < 1 for mass in block["mass"])
        assert layer["rank"] is None  # not asked for


def test_csv_has_a_row_a_layer_and_the_door(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["analyze", str(picture), "--csv", *NARROW]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["layer"]) for row in rows] == [-1, *range(32)]
    assert rows[0]["attention_mass"] == "" and float(rows[1]["effective_rank"]) > 1


def test_plots_are_of_their_kind(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "curves.png"
    arguments = [str(picture), "-r", "tokencarve", "-b", "64", "--plot", str(path), *NARROW]
    assert run_command_line(["analyze", *arguments, "--json"]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    with Image.open(path) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    analysis = Analysis.model_validate_json(capsys.readouterr().out)
    for suffix, head in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        save_figure(tmp_path / f"curves{suffix}", analysis)
        assert (tmp_path / f"curves{suffix}").read_bytes().startswith(head)
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "tokencarve" in text and "effective rank" in text and "random weights" in text


@pytest.mark.parametrize("columns", ["60", "100"])
def test_the_table_fits_the_terminal_and_says_random(
    picture: Path,
    columns: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run_command_line(["analyze", str(picture), "-r", "mustdrop", *NARROW]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= int(columns)
    assert text.startswith("random weights")
    assert "…" not in text and "\x1b" not in text


def test_a_constant_picture_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (50, 50), (128, 128, 128)).save(path)
    found = analysis([str(path), "-r", "tokencarve", "-b", "64", *NARROW], capsys)
    for run in found["runs"]:  # type: ignore[attr-defined]
        assert all(layer["effective_rank"] >= 1 for layer in run["layers"])


BAD = {
    "nothing": ([], "no visual tokens"),
    "question only": (["what is it?"], "no such file"),
    "tau": (["IMG", "--tau", "0"], "--tau 0"),
    "suffix": (["IMG", "--plot", "TMP/x.bmp"], ".png, .svg, .pdf"),
    "folder": (["IMG", "--plot", "TMP/none/x.png"], "does not exist"),
    "points of layers": (["IMG", "--points", "3"], "--points with --curve tokens"),
    "recipe of tokens": (
        ["IMG", "--curve", "tokens", "-r", "full"],
        "--recipe with --curve layers",
    ),
    "points": (["IMG", "--curve", "tokens", "--points", "64,x"], "whole numbers"),
    "unknown recipe": (["IMG", "-r", "mustdorp"], "mustdrop"),
    "limit": (["IMG", "--limit", "3"], "--limit without --data"),
    "both": (["IMG", "--curve", "tokens", "--data", "IMG"], "one input, or --data"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_block(
    name: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[name]
    filled = [a.replace("IMG", str(picture)).replace("TMP", str(tmp_path)) for a in arguments]
    assert run_command_line(["analyze", *filled, *NARROW]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and "Traceback" not in captured.err
    assert captured.out == ""


def test_a_sweep_begins_with_the_full_model_exactly(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selects = ["--select", "tokencarve", "--select", "uniform", "--select", "random"]
    arguments = [str(picture), "what is it?", "--curve", "tokens", "--points", "64,576,1", *selects]
    found = analysis([*arguments, *NARROW], capsys)
    sweeps = found["sweeps"]
    assert isinstance(sweeps, list) and found["runs"] is None
    assert [sweep["select"] for sweep in sweeps] == ["tokencarve", "uniform", "random"]
    assert {sweep["layer"] for sweep in sweeps} == {2}
    for sweep in sweeps:
        points = sweep["points"]
        assert [point["kept"] for point in points] == [576, 64, 1]
        first = points[0]
        assert (first["energy_kept"], first["ics_kept"], first["exact_match"]) == (1.0, 1.0, 1.0)
        assert first["kl_first_token"] == 0.0 and first["answer_nll_delta"] == 0.0
        assert points[1]["kl_first_token"] > 0
        assert points[2]["rank_first"] == points[2]["rank_last"] == 1
        assert points[0]["correct"] is None and sweep["associations"] is None
    assert sweeps[0]["points"][0] == sweeps[2]["points"][0]


def test_a_sweep_point_is_the_run_of_that_selection(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An own recipe with the same stage, measured by `run --baseline`, gives the same figures."""
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "name: own\npaper: none\nreference: {llm_layers: 32, vision_layers: 24}\n"
        "prefill:\n  - fastv.last_row: {layers: [2], tokens: 40}\n"
    )
    arguments = [str(picture), "what is it?", "-r", str(recipe), "-b", "none", "--baseline"]
    assert run_command_line(["run", *arguments, "--json", *NARROW]) == 0
    direct = json.loads(capsys.readouterr().out)
    arguments = [str(picture), "what is it?", "--curve", "tokens", "--select", "attention"]
    found = analysis([*arguments, "--points", "40", *NARROW], capsys)
    point = found["sweeps"][0]["points"][0]  # type: ignore[index]
    fidelity = direct["baseline"]["fidelity"]
    assert point["energy_kept"] == pytest.approx(direct["information"]["energy_kept"])
    assert point["ics_kept"] == pytest.approx(direct["information"]["ics_kept"])
    assert point["kl_first_token"] == pytest.approx(fidelity["kl_first_token"], rel=1e-3)
    assert point["answer_nll_delta"] == pytest.approx(fidelity["answer_nll_delta"], abs=1e-5)
    assert bool(point["exact_match"]) == fidelity["exact_match"]


def test_data_sets_information_against_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    items = Path(__file__).parents[2] / "samples" / "eval" / "items.jsonl"
    arguments = ["--data", str(items), "--limit", "8", "--curve", "tokens", "--points", "576,8"]
    found = analysis([*arguments, "-q"], capsys)
    assert found["data"]["items"] == found["data"]["answered"] == 8  # type: ignore[index]
    full, few = found["sweeps"][0]["points"]  # type: ignore[index]
    assert full["correct"] > few["correct"]
    assert full["correct_low"] < full["correct"] <= full["correct_high"] == 1.0
    figures = [block["figure"] for block in found["sweeps"][0]["associations"]]  # type: ignore[index]
    assert "energy_kept" in figures


SWEEP = ["--curve", "tokens"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["IMG", *SWEEP, "--points", "577"], "1..576"),
        (["IMG", *SWEEP, "--select", "atention"], "attention"),
        ([*SWEEP, "--data", "TMP/none.jsonl"], "No such file"),
        ([*SWEEP, "--data", "TMP/bad.jsonl"], "bad.jsonl, line 2"),
    ],
)
def test_bad_sweeps_are_one_block(
    arguments: list[str],
    expected: str,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.jsonl").write_text(
        json.dumps({"media": str(picture), "question": "what?"}) + "\n{oops\n"
    )
    filled = [a.replace("IMG", str(picture)).replace("TMP", str(tmp_path)) for a in arguments]
    assert run_command_line(["analyze", *filled, *NARROW]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and "Traceback" not in captured.err


def test_a_rule_that_could_call_nothing_right_is_refused(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    item = {"media": str(picture), "question": "what is it?"}
    lines = [item | {"answer": "red"}, item | {"answer": "3"}, item | {"answer": "b", "id": 9}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    arguments = ["analyze", "--curve", "tokens", "--data", str(path), "--match", "numeric", *NARROW]
    assert run_command_line(arguments) == 2
    told = capsys.readouterr().err
    assert "2 of 3 expected answers" in told and "no number in 'red' (item 1)" in told
    own = [lines[0] | {"match": "normalised"}, lines[1], lines[2] | {"match": "multiple_choice"}]
    path.write_text("\n".join(map(json.dumps, own)), encoding="utf-8")
    assert run_command_line([*arguments, "--points", "576"]) == 0
