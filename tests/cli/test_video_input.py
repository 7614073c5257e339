"""Videos through every command: frames, times, recipes that do not fit, files that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.clips import count_up, numbered
from vtc_cli.app import run_command_line
from vtc_cli.models.llava_next_video import random_llava_next_video
from vtc_cli.store.read import read_tokens

PICTURE = str(Path(__file__).parents[2] / "samples" / "plain.png")
ANSWER = ["--max-new-tokens", "1"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return count_up(tmp_path_factory.mktemp("a clip") / "ünï 動.mp4", 60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    adapter = random_llava_next_video(0, width=32, vision_layers=2, decoder_layers=8, image_size=56)
    folder = tmp_path_factory.mktemp("model")
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    return ["-m", str(folder)]


def block(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The one error block on stderr, its lines by their labels; nothing is on stdout."""
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    title, *rows = captured.err.splitlines()
    assert title.startswith("error: ") and captured.err.count("error: ") == 1
    return {row[2:11].strip(): row[11:] for row in rows} | {"title": title}


def test_frame_times_are_in_the_report(
    clip: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    span = ["--frames", "3", "--end", "2.4"]
    assert run_command_line(["run", clip, "what?", *model, *span, *ANSWER, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["input"]
    assert facts["timestamps"] == [0.4, 1.2, 2.0]
    assert (facts["path"], facts["frames"], facts["kind"]) == (clip, 3, "video")
    assert run_command_line(["run", PICTURE, "what color is the circle?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["timestamps"] is None


def test_compress_and_run_of_its_tokens_are_the_direct_run(
    clip: str, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = ["--fps", "2", "--start", "0.4", "--reader", "pyav"]
    common = [*model, "-r", "metok"]
    out = ["-o", str(tmp_path / "x"), "--question", "what moves?"]
    assert run_command_line(["compress", clip, *common, *frames, *out]) == 0
    report = json.loads((tmp_path / "x.json").read_text())
    head = read_tokens(tmp_path / "x.safetensors").head
    assert list(head.input.timestamps) == report["input"]["timestamps"] == [0.64, 1.12, 1.64, 2.12]
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.width > 4 * 240
    assert " (video) " in capsys.readouterr().out
    assert run_command_line(["run", clip, "what moves?", *common, *frames, *ANSWER, "--json"]) == 0
    direct = json.loads(capsys.readouterr().out)
    tokens = ["--tokens", str(tmp_path / "x.safetensors")]
    assert run_command_line(["run", *tokens, *model, *ANSWER, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["tokens"]["per_layer"] == direct["tokens"]["per_layer"]
    assert again["answer_tokens"] == direct["answer_tokens"]


def test_a_folder_is_pictures_to_compress_or_one_video(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(numbered(index)).save(folder / f"{index}.png")
    each = ["compress", str(folder), "-o", str(tmp_path / "each")]
    assert run_command_line(each) == 0
    assert "4 done" in capsys.readouterr().out
    one = ["compress", str(folder), "-o", str(tmp_path / "one"), *model, "--frames", "all"]
    assert run_command_line([*one, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["input"]
    assert (facts["kind"], facts["timestamps"]) == ("video", [0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("curve", ["layers", "tokens"])
def test_analyze_reads_the_wanted_frames(
    clip: str, model: list[str], curve: str, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ["--points", "12,4"] if curve == "tokens" else []
    arguments = ["analyze", clip, "what?", *model, "--frames", "3", "--curve", curve, *some]
    assert run_command_line([*arguments, *ANSWER, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["input"]["timestamps"] == [0.4, 1.2, 2.0]
    door = result["runs"][0]["door"]["tokens"] if curve == "layers" else None
    assert door in (None, 12)


def test_data_of_analyze_may_be_videos(
    clip: str, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clip, tmp_path / "x.mp4")
    (tmp_path / "items.jsonl").write_text('{"media": "x.mp4", "question": "what?"}\n')
    data = ["--data", str(tmp_path / "items.jsonl"), "--curve", "tokens", "--points", "8"]
    assert run_command_line(["analyze", *data, *model, "--frames", "2", *ANSWER, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sweeps"][0]["points"][0]["tokens"] == 8


def bad_files(folder: Path) -> dict[str, str]:
    """Names of faults and files that have them."""
    paths = {name: folder / f"{name}.mp4" for name in ("words", "half", "empty", "one byte")}
    paths["words"].write_text("these are words " * 50)
    paths["one byte"].write_text("x")
    paths["empty"].touch()
    count_up(paths["half"], 30)
    paths["half"].write_bytes(paths["half"].read_bytes()[:1500])
    (folder / "pictures").mkdir()
    (folder / "mixed").mkdir()
    for index, size in enumerate(((8, 8), (8, 9))):
        Image.new("RGB", size).save(folder / "mixed" / f"{index}.png")
    return {name: str(path) for name, path in paths.items()} | {
        "no pictures": str(folder / "pictures"),
        "mixed": str(folder / "mixed" / "1.png"),
        "gone": str(folder / "gone.mp4"),
    }


FOUND = {
    "words": "no video and no picture",
    "half": "an MP4 whose index cannot be read",
    "empty": "no bytes at all",
    "one byte": "no video and no picture",
    "no pictures": "a folder with 0 files and no picture",
    "mixed": "8 x 9 pixels",
    "gone": "no such file",
}


@pytest.mark.parametrize("name", FOUND)
def test_a_file_that_is_no_video_is_one_block_that_names_it(
    name: str, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = bad_files(tmp_path)[name]
    path = str(tmp_path / "mixed") if name == "mixed" else where
    assert run_command_line(["run", path, "what?", *model]) == 2
    rows = block(capsys)
    assert rows["title"] == "error: unusable input"
    assert rows["where"] == where
    assert rows["found"].startswith(FOUND[name])
    assert rows["allowed"]


@pytest.mark.parametrize("command", ["run", "compress", "analyze"])
def test_every_command_refuses_a_start_behind_the_end(
    command: str,
    clip: str,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rest = {"run": ["what?"], "compress": ["-o", str(tmp_path / "x")], "analyze": ["what?"]}
    assert run_command_line([command, clip, *rest[command], *model, "--start", "9"]) == 2
    rows = block(capsys)
    assert rows["where"] == clip
    assert rows["found"] == "start at 9 s, but the video ends at 2.40 s"
    assert rows["allowed"] and rows["try"].startswith("--start 1.20")


@pytest.mark.parametrize("command", ["run", "compress", "analyze"])
def test_every_command_refuses_two_ways_to_choose(
    command: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = {"run": ["what?"], "compress": ["-o", str(tmp_path / "x")], "analyze": ["what?"]}
    two = ["--frames", "4", "--keyframes", "2"]
    assert run_command_line([command, clip, *rest[command], *two]) == 2
    assert "--frames and --keyframes together" in block(capsys)["found"]


def test_a_reading_that_takes_too_long_is_given_up(
    clip: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", clip, "what?", *model, "--time-limit", "0.001"]) == 2
    rows = block(capsys)
    assert (rows["where"], rows["found"]) == (clip, "not decoded after 0.001 s")
    assert "--time-limit" in rows["try"]
    assert run_command_line(["run", clip, "what?", *model, "--time-limit", "0"]) == 2
    assert block(capsys)["where"] == "--time-limit"


def test_more_frames_than_there_are_is_told(
    clip: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--frames", "9", "--end", "0.2"]
    assert run_command_line(["run", clip, "what?", *model, *few, *ANSWER, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["input"]["frames"] == 5
    expected = "asked for 9 frames, took 5: no others are on screen then"
    assert expected in result["warnings"]


def test_one_pixel_and_one_frame_go_all_the_way(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(
        tmp_path / "x.gif",
        save_all=True,
        append_images=[Image.fromarray(np.full((1, 1, 3), 200, np.uint8))],
        duration=100,
    )
    options = ["-r", "metok", *model, *ANSWER, "--json"]
    assert run_command_line(["run", str(tmp_path / "x.gif"), "what?", *options]) == 0
    facts = json.loads(capsys.readouterr().out)["input"]
    assert (facts["width"], facts["height"], facts["frames"]) == (1, 1, 2)
    path = count_up(tmp_path / "one.mp4", 1)
    assert run_command_line(["run", path, "what?", *options]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["frames"] == 1


def test_a_recipe_that_needs_what_a_video_model_lacks_is_refused(
    clip: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", clip, "what?", *model, "-r", "mustdrop", "-b", "8"]) == 2
    captured = capsys.readouterr().err
    assert "mustdrop.spatial_merge acts inside the vision tower" in captured
    assert captured.count("error: ") == 1


def test_recipes_for_pictures_act_on_the_tokens_of_all_frames(
    clip: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-r", "fastv", "-b", "8", *model, "--frames", "3", *ANSWER, "--json"]
    assert run_command_line(["run", clip, "what?", *options]) == 0
    counts = json.loads(capsys.readouterr().out)["tokens"]
    assert counts["original"] == 12 and 0 < counts["final"] < 12


def test_a_recipe_for_videos_on_a_picture_says_what_it_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    question = "what color is the circle?"
    assert run_command_line(["run", PICTURE, question, "-r", "metok", *ANSWER, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["tokens"]["by_stage"]
    assert stages[0]["note"] == "one frame is one key event and is not pooled"


def test_a_family_without_the_signal_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", PICTURE, "what?", "-m", "narrow:gemma3", "-r", "mustdrop"]) == 2
    rows = block(capsys)
    assert rows["title"] == "error: signal not available"
    assert rows["found"] == "mustdrop.key_tokens needs vision_cls_attention"
    assert rows["allowed"] and rows["try"]


def test_choices_of_frames_on_a_picture_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    question = "what color is the circle?"
    assert run_command_line(["run", PICTURE, question, "--start", "2", *ANSWER, "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert "a still picture: the choice of frames is not used" in warnings
