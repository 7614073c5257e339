"""Where no model is named, pictures go to `tiny` and videos to `tiny-video`: in every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.commands.loading import AUTO, model_for, model_for_items
from vtc_cli.core.errors import UsageError
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.video import read_media

SAMPLES = Path(__file__).parents[2] / "samples"
PICTURE, VIDEO = str(SAMPLES / "plain.png"), str(SAMPLES / "crossing.mp4")
ALL = FrameOptions()


def test_the_rule() -> None:
    picture, video = read_media(PICTURE), read_media(VIDEO)
    one_frame = read_media(VIDEO, FrameOptions(frames=1))
    assert model_for(AUTO, ()) == model_for(AUTO, (picture,)) == "tiny"
    assert model_for(AUTO, (video,)) == "tiny-video"
    assert model_for(AUTO, (one_frame,)) == "tiny"
    assert model_for("tiny", (video,)) == "tiny"
    assert model_for("narrow:llava", (video,)) == "narrow:llava"


def test_the_rule_for_many_inputs_by_their_headers(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.png")
    assert model_for_items(AUTO, [], ALL) == "tiny"
    assert model_for_items(AUTO, [PICTURE, absent], ALL) == "tiny"
    assert model_for_items(AUTO, [VIDEO, absent, "-"], ALL) == "tiny-video"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"neither a picture nor a video")
    assert model_for_items(AUTO, [PICTURE, str(broken)], ALL) == "tiny"
    assert model_for_items(AUTO, [VIDEO, PICTURE], FrameOptions(frames=1)) == "tiny"
    assert model_for_items("narrow:qwen2_vl", [VIDEO, PICTURE], ALL) == "narrow:qwen2_vl"
    with pytest.raises(UsageError, match="pictures and videos"):
        model_for_items(AUTO, [PICTURE, VIDEO], ALL)


def test_analyze_takes_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["analyze", VIDEO, "what moves?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["id"] == "tiny-video"


def test_compress_takes_a_video_and_its_tokens_find_their_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["compress", VIDEO, "-o", str(tmp_path / "x"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["id"] == "tiny-video"
    tokens = str(tmp_path / "x.safetensors")
    assert run_command_line(["run", "what moves?", "--tokens", tokens, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["id"] == "tiny-video"


@pytest.mark.parametrize("together", ["1", "2"])
def test_a_batch_gives_each_job_its_model(tmp_path: Path, together: str) -> None:
    shown = enumerate((PICTURE, VIDEO, PICTURE))
    jobs = [{"media": media, "question": f"what is {number}?"} for number, media in shown]
    path, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    words = ["run", "--batch", str(path), "-o", str(out), "--batch-size", together]
    assert run_command_line([*words, "--max-new-tokens", "2"]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    models = {line["job"]["line"]: line["model"]["id"] for line in lines}
    assert models == {1: "tiny", 2: "tiny-video", 3: "tiny"}


def test_a_recipe_for_videos_alone_is_not_refused_before_the_videos_come(tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    path.write_text(json.dumps({"media": VIDEO, "question": "what?"}) + "\n", encoding="utf-8")
    words = ["run", "--batch", str(path), "-o", str(out), "--recipe", "metok"]
    assert run_command_line([*words, "--max-new-tokens", "2"]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["model"]["id"] == "tiny-video"


def test_one_model_cannot_do_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"media": media, "question": "what?", "answer": "a"} for media in (PICTURE, VIDEO)]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    assert run_command_line(["compare", "--data", str(path), "--recipe", "fastv"]) == 2
    error = capsys.readouterr().err
    assert "pictures and videos, without --model" in error
