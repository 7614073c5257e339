"""`vtc compare` as a user meets it: figures, resuming, reporting again, refusals, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.metrics.answers import matches
from vtc_cli.report.table import NO_ACCURACY

EVAL = Path(__file__).parents[2] / "samples" / "eval" / "items.jsonl"
ITEMS = 4
ARMS = ["--recipe", "fastv,mustdrop", "--budget", "64"]
TIMES = {"time_ms", "peak_bytes", "created", "argv", "verdict"}


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """The summary as JSON."""
    assert run_command_line(["compare", *arguments, "--json", "-q"]) == code
    return json.loads(capsys.readouterr().out)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(value: Any) -> Any:
    """Everything but times, memory and what is said of them."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def arm(found: Any, recipe: str) -> Any:
    return next(one for one in found["arms"] if one["recipe"] == recipe)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("compare") / "rows.jsonl"
    return ["--data", str(EVAL), "--limit", str(ITEMS), *ARMS, "-o", str(path)]


@pytest.fixture(scope="module")
def done(command: list[str]) -> Path:
    """The file of a whole comparison."""
    assert run_command_line(["compare", *command, "--json", "-q"]) == 0
    return Path(command[-1])


@pytest.mark.parametrize(
    ("number", "recipe"),
    [(0, "fastv"), (3, "mustdrop"), (3, "random"), (1, "downsample")],
    ids=str,
)
def test_figures_are_those_of_run(
    done: Path, number: int, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    item = next(line for line in lines(done) if line.get("number") == number)
    arguments = [item["picture"]["path"], item["question"], "-r", recipe, "-b", "64"]
    capsys.readouterr()
    assert run_command_line(["run", *arguments, "--seed", str(number), "--baseline", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    key = {"kind": "pass", "item": item["id"], "recipe": recipe, "budget": "64"}
    mine = next(line for line in lines(done) if key.items() <= line.items())
    assert mine["answer"] == run["answer"]
    # Item 0 is one that FastV answers otherwise than the full model does.
    assert (mine["answer"] == run["baseline"]["answer"]) == (number != 0)
    assert mine["kv_bytes"] == run["kv"]["bytes"]
    assert mine["kv_full_bytes"] == run["kv"]["full_bytes"]
    for name in ("layer_average", "entering", "final", "requested"):
        assert mine["tokens"][name] == run["tokens"][name]
    assert run["flops"]["compressed"].items() <= mine["flops"].items()
    for name, value in run["baseline"]["fidelity"].items():
        assert mine["fidelity"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_accuracy_is_that_of_the_answers(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["--from", str(done)], capsys)
    expected = {line["id"]: line["answer"] for line in lines(done) if line["kind"] == "item"}
    assert len(expected) == ITEMS
    for one in found["arms"]:
        passes = [
            line
            for line in lines(done)
            if line["kind"] == "pass" and line["recipe"] == one["recipe"]
        ]
        right = sum(matches(line["answer"], expected[line["item"]]) for line in passes)
        assert (one["accuracy"]["right"], one["accuracy"]["count"]) == (right, ITEMS)
    assert arm(found, "full")["accuracy"]["right"] > 0
    baselines = [recipe["name"] for recipe in found["recipes"] if recipe["baseline"]]
    assert {"random", "uniform"} <= set(baselines)
    assert set(arm(found, "fastv")["against"]) == set(baselines)
    for name in baselines:
        assert abs(arm(found, name)["tokens"]["layer_average"] - 64) <= 8


def test_an_aborted_comparison_goes_on_where_it_stopped(
    command: list[str], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = told(["--from", str(done)], capsys)
    content = done.read_bytes()
    path = tmp_path / "part.jsonl"
    path.write_bytes(content[: len(content) * 3 // 5])  # in the middle of a line
    assert not path.read_bytes().endswith(b"\n")
    kept = path.read_bytes().splitlines()[:-1]
    again = told([*command[:-1], str(path)], capsys)
    assert timeless(again) == timeless(whole)
    assert path.read_bytes().splitlines()[: len(kept)] == kept
    names = [tuple(line.get(n) for n in ("kind", "id", "item", "recipe", "budget"))
             for line in lines(path)]  # fmt: skip
    assert len(names) == len(set(names)) == len(lines(done))
    before = path.read_bytes()
    told([*command[:-1], str(path)], capsys)
    assert path.read_bytes() == before  # nothing is left to do


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["--budget", "128"], "budgets differ"),
        (["--no-baselines"], "recipes differ"),
        (["--model", "narrow:llava"], "differ"),
    ],
)
def test_the_file_of_another_comparison_is_refused(
    command: list[str],
    done: Path,
    change: list[str],
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = done.read_bytes()
    assert run_command_line(["compare", *command, *change]) == 2
    assert what in capsys.readouterr().err and done.read_bytes() == before


def test_a_larger_limit_goes_on_with_the_same_file(
    done: Path, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    shutil.copy(done, path)
    arguments = [*command[:-1], str(path)]
    arguments[arguments.index("--limit") + 1] = str(ITEMS + 1)
    assert told(arguments, capsys)["items"] == ITEMS + 1
    arguments[arguments.index("--limit") + 1] = "2"
    assert told(arguments, capsys)["items"] == 2


def test_reporting_again_needs_no_model_and_obeys_another_rule(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = told(["--from", str(done), "--match", "exact"], capsys)
    expected = {line["id"]: line["answer"] for line in lines(done) if line["kind"] == "item"}
    passes = [line for line in lines(done) if line.get("recipe") == "full"]
    right = sum(line["answer"] == expected[line["item"]] for line in passes)
    assert arm(exact, "full")["accuracy"]["right"] == right and exact["match"] == "exact"
    assert run_command_line(["compare", "--from", str(done), "--match", "numeric"]) == 2
    assert "cannot be compared" in capsys.readouterr().err
    assert run_command_line(["compare", "--from", str(done), "--recipe", "fastv"]) == 2
    assert "beside --from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("condition", "code"),
    [("prefill_ratio < 1", 3), ("prefill_ratio > 1", 0), ("price > 1", 2), ("accuracy", 2)],
)
def test_conditions_decide_the_exit_code(
    done: Path, condition: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["compare", "--from", str(done), "--fail-if", condition]) == code
    captured = capsys.readouterr()
    assert ("fastv 64: prefill_ratio is" in captured.err) == (code == 3)
    assert bool(captured.out) == (code != 2)


@pytest.mark.parametrize(
    ("shape", "opening"),
    [
        ("md", "**few answers (4)"),
        ("csv", "recipe,budget"),
        ("html", "<!doctype html>"),
        ("table", " tiny"),
    ],
)
def test_every_shape_is_written(
    done: Path, shape: str, opening: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["compare", "--from", str(done), "-f", shape]) == 0
    text = capsys.readouterr().out
    assert text.startswith(opening)
    for name in ("full", "fastv", "mustdrop", "random"):
        assert name in text.replace("\\_", "_")


def test_the_page_holds_the_pictures_and_its_size_is_modest(done: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert run_command_line(["compare", "--from", str(done), "--html", str(path), "-q"]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.count("data:image/") == ITEMS
    assert path.stat().st_size < 80_000 + ITEMS * 20_000


def test_one_input_is_compared_by_closeness(capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(EVAL.parent / "color-01.webp")
    found = told([picture, "what colour is it?", *ARMS, "--no-baselines"], capsys)
    assert [one["recipe"] for one in found["arms"]] == ["full", "fastv", "mustdrop"]
    assert all(one["accuracy"] is None and one["against"] == {} for one in found["arms"])
    assert arm(found, "mustdrop")["fidelity"]["kl_first_token"] >= 0
    assert "KL" in arm(found, "mustdrop")["verdict"] and found["hard_by"] is None


def test_a_video_is_compared_on_its_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, path = str(EVAL.parents[1] / "crossing.mp4"), tmp_path / "rows.jsonl"
    arguments = [clip, "which color appears first?", "-r", "uniform", "-b", "64", "-o", str(path)]
    arguments += ["--no-baselines", "--max-new-tokens", "2"]
    found = told([*arguments, "--frames", "3"], capsys)
    assert found["model"]["id"] == "tiny-video"
    assert arm(found, "uniform")["tokens"]["original"] == 3 * 144
    assert lines(path)[1]["picture"]["frames"] == 3
    assert run_command_line(["compare", *arguments, "--frames", "4"]) == 2
    assert "its frames differ" in capsys.readouterr().err


def test_a_smaller_picture_saves_beside_the_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(EVAL.parents[1] / "plain.png")  # 121 tokens there, and it shows no fewer than 64
    arguments = [picture, "what colour is it?", "-r", "downsample", "-b", "64", "--no-baselines"]
    arguments += ["--model", "narrow:qwen2_5_vl", "--max-new-tokens", "1"]
    found = told(arguments, capsys)
    mine, full = arm(found, "downsample"), arm(found, "full")
    assert mine["tokens"]["layer_average"] <= 64 < full["tokens"]["original"]
    assert mine["tokens"]["original"] == full["tokens"]["original"]
    assert mine["kv"]["full_bytes"] == full["kv"]["bytes"]
    assert mine["flops"]["prefill_ratio"] == mine["flops"]["prefill"] / full["flops"]["prefill"]


def test_random_weights_give_no_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(EVAL), "--limit", "1", "-r", "random", "-b", "64"]
    arguments += ["--model", "narrow:llava", "--max-new-tokens", "2", "--no-baselines"]
    assert run_command_line(["compare", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip().startswith("random weights")
    assert "accuracy" not in captured.out.replace("no accuracy is given", "")
    assert run_command_line(["compare", *arguments, "--fail-if", "accuracy < 50", "-q"]) == 2
    assert capsys.readouterr().err.count(f"warning: {NO_ACCURACY}\n") == 1  # --quiet hides it not


def test_baselines_follow_what_published_settings_achieve(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--data", str(EVAL), "--limit", "2", "-r", "mustdrop", "-b", "64"]
    found = told([*arguments, "--fidelity", "official"], capsys)
    mine, rivals = arm(found, "mustdrop"), [a for a in found["arms"] if a["recipe"] == "random"]
    assert abs(mine["tokens"]["gap"]) > 1  # thresholds of another model meet no budget here
    assert len(rivals) == 1
    average = rivals[0]["tokens"]["layer_average"]
    assert average == pytest.approx(mine["tokens"]["layer_average"], abs=0.51)
    assert mine["against"]["random"]["count"] == 2


def test_a_broken_picture_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(EVAL.parent / "color-01.webp", tmp_path / "good.webp")
    (tmp_path / "bad.webp").write_bytes(b"RIFF....WEBP")
    path, rows = tmp_path / "items.jsonl", tmp_path / "rows.jsonl"
    questions = [{"media": f"{name}.webp", "question": "what?", "answer": "red", "id": name}
                 for name in ("bad", "good")]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    arguments = ["compare", "--data", str(path), "-r", "random", "-b", "64", "--no-baselines"]
    arguments += ["-o", str(rows), "--json"]
    assert run_command_line(arguments) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["items"] == 1 and [failure["item"] for failure in found["failures"]] == ["bad"]
    assert "item bad" in captured.err
    shutil.copy(tmp_path / "good.webp", tmp_path / "bad.webp")  # mended: it is tried again
    assert run_command_line(arguments) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 2


def test_budgets_that_a_recipe_cannot_meet_leave_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # PyramidDrop keeps all 576 tokens for a quarter of the layers, 144 on average.
    path = tmp_path / "rows.jsonl"
    arguments = ["--data", str(EVAL), "--limit", "2", "-r", "pyramiddrop", "-b", "64,192"]
    found = told([*arguments, "--no-baselines", "-o", str(path)], capsys)
    assert [(one["recipe"], one["budget"], one["items"]) for one in found["refused"]] == [
        ("pyramiddrop", "64", 2)
    ]
    assert [one["budget"] for one in found["arms"]] == ["", "192"] and found["failures"] == []
    before = path.read_bytes()
    assert timeless(told([*arguments, "--no-baselines", "-o", str(path)], capsys)) == timeless(
        found
    )
    assert path.read_bytes() == before  # it is not tried again


def test_a_budget_above_the_picture_is_refused_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--data", str(EVAL), "--limit", "1", "-r", "uniform", "-b", "64,1000"]
    found = told([*arguments, "--no-baselines"], capsys)
    assert [arm["budget"] for arm in found["arms"]] == ["", "64"]
    assert [one["budget"] for one in found["refused"]] == ["1000"]
    assert "1..576" in found["refused"][0]["reason"]


def test_a_cut_cache_stands_beside_baselines_with_a_cache_of_its_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = told(["--data", str(EVAL), "--limit", "1", "-r", "h2o", "-b", "64"], capsys)
    mine, rivals = arm(found, "h2o"), [a for a in found["arms"] if a["kind"] == "baseline"]
    assert mine["tokens"]["requested"] is None and mine["tokens"]["layer_average"] == 576
    assert {a["recipe"] for a in rivals} == set(mine["against"]) and len(rivals) == 4
    assert {a["kv"]["bytes"] for a in rivals} == {mine["kv"]["bytes"]}


def test_what_is_done_is_not_looked_at_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        shutil.copy(EVAL.parent / "color-01.webp", tmp_path / f"{name}.webp")
    path = tmp_path / "items.jsonl"
    items = [{"media": f"{name}.webp", "question": "what?", "id": name} for name in ("a", "b")]
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    arguments = ["--data", str(path), "-r", "random", "-b", "64", "--no-baselines"]
    arguments += ["-o", str(tmp_path / "rows.jsonl"), "--max-new-tokens", "1"]
    found, before = told(arguments, capsys), (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "b.webp").write_bytes(b"RIFF....WEBP")
    assert timeless(told(arguments, capsys)) == timeless(found)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "no recipe"),
        (["-r", "fastv"], "no media"),
        (["a.png", "-r", "fastv"], "no question"),
        (["a.png", "why?", "-r", "fastv", "--data", "x.jsonl"], "beside --data"),
        (["a.png", "why?", "-r", "fastv", "--limit", "1"], "--limit without --data"),
        (["--data", str(EVAL), "-r", "fastv", "-b", "many"], "--budget 'many'"),
        (["--data", str(EVAL), "-r", "fastw"], "no recipe is called 'fastw'"),
        (["--data", str(EVAL), "-r", "fastv", "-b", "1000"], "a budget of 1000"),
        (["--data", str(EVAL), "-r", "fastv", "--match", "numeric"], "of 400 expected answers"),
        (["--data", "nothing.jsonl", "-r", "fastv"], "No such file"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["compare", *arguments]) == 2
    assert what in capsys.readouterr().err
