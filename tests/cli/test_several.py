"""Several pictures, budgets for each, and further questions, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vtc_cli.app import run_command_line

SAMPLES = Path(__file__).parents[2] / "samples"
PLAIN, DARK = str(SAMPLES / "plain.png"), str(SAMPLES / "dark.png")
RUN = ["run", PLAIN, "what color is the circle?", "--with", DARK, "-r", "tokencarve"]


def test_each_picture_has_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([*RUN, "-b", "64,128", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = [span["layer_average"] for span in result["tokens"]["by_span"]]
    assert found == pytest.approx([64, 128], abs=0.5)
    assert [span["requested"] for span in result["tokens"]["by_span"]] == [64, 128]
    assert result["tokens"]["original"] == 1152 and result["tokens"]["requested"] == 192
    assert [each["path"] for each in result["more_inputs"]] == [DARK]


def test_one_budget_is_shared_by_the_numbers_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([*RUN, "-b", "128"]) == 0
    told = capsys.readouterr()
    assert told.err.count("of 64.0 asked") == 2 and "dark.png" in told.err


def test_a_further_question_is_answered_behind_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    further = ["--then", "how many shapes are there?", "--then", "what digit is there?"]
    arguments = ["run", PLAIN, "what color is the circle?", *further]
    assert run_command_line([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    turns = result["turns"]
    assert [turn["question"] for turn in turns] == further[1::2]
    assert all(turn["answer"] and turn["ttft_ms"] > 0 for turn in turns)
    assert all(turn["prompt_tokens"] < 20 for turn in turns)  # the picture is not read again
    assert run_command_line(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [result["answer"], *(turn["answer"] for turn in turns)]


def test_videos_of_other_lengths_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = []
    for count in (2, 3):
        frames = [Image.new("RGB", (40, 40), (80 * number, 0, 0)) for number in range(count)]
        clips.append(str(tmp_path / f"{count}.gif"))
        frames[0].save(clips[-1], save_all=True, append_images=frames[1:], duration=200)
    arguments = ["run", clips[0], "what?", "--with", clips[1], "--frames", "all", "--json"]
    assert run_command_line([*arguments, "--max-new-tokens", "1", "-r", "uniform", "-b", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["id"] == "tiny-video"
    assert [span["original"] for span in found["tokens"]["by_span"]] == [2 * 144, 3 * 144]
    assert [span["layer_average"] for span in found["tokens"]["by_span"]] == [20, 30]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*RUN, "-b", "64,128,20"], "3 numbers for 2 pictures"),
        ([*RUN, "-b", "64,x"], "--budget '64,x'"),
        ([*RUN, "--then", " "], "the question is empty"),
        ([*RUN, "--with", "nothing.png"], "nothing.png"),
        (["run", PLAIN, "what?", "--with", DARK, "-m", "narrow:llava_next_video"], "a picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(arguments) == 2
    out, err = capsys.readouterr()
    assert told in err and not out and "Traceback" not in err
