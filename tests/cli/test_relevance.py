"""`--relevance`: a pair of encoders decides which frames METok keeps finely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.media.clips import count_up
from tests.models import pairs
from vtc_cli.app import run_command_line
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.video import read_media
from vtc_cli.models.llava_next_video import random_llava_next_video
from vtc_cli.models.support.relevance import load_pair
from vtc_cli.store.read import read_tokens

ANSWER = ["--max-new-tokens", "1"]
QUESTION = "what moves ? a red circle"
FRAMES = ["--frames", "6"]
METOK = ["-r", "metok"]
PICTURE = str(Path(__file__).parents[2] / "samples" / "plain.png")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return count_up(tmp_path_factory.mktemp("clip") / "x.mp4", 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small video model as a checkpoint: 64 tokens a frame, eight layers."""
    adapter = random_llava_next_video(
        0, width=32, vision_layers=2, decoder_layers=8, image_size=224
    )
    folder = tmp_path_factory.mktemp("model")
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    return ["-m", str(folder)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pairs.save(tmp_path_factory.mktemp("pair") / "siglip", "siglip")


def noted(report: dict[str, Any]) -> str:
    return " ".join(stage["note"] for stage in report["tokens"]["by_stage"])


def test_the_report_names_the_pair_and_its_operations(
    clip: str, pair: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for given in ([], ["--relevance", pair]):
        arguments = ["run", clip, QUESTION, *METOK, *model, *FRAMES, *ANSWER, *given, "--json"]
        assert run_command_line(arguments) == 0
        reports.append(json.loads(capsys.readouterr().out))
    own, scored = reports
    assert "relevance from the model's own projected features" in noted(own)
    assert f"relevance from the siglip pair {pair}" in noted(scored)
    with torch.no_grad():
        media = read_media(clip, FrameOptions(frames=6))
        produced = load_pair(pair, torch.device("cpu"), torch.float32).scorer(media, QUESTION)()
    cost = [report["flops"]["compressed"]["compression"] for report in reports]
    assert cost[1] - cost[0] == pytest.approx(produced.flops, rel=0.05)


def test_compress_keeps_the_key_frames_of_the_pair(
    clip: str, pair: str, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of key events are those that the pair likes: their scores are in the decisions."""
    out = ["-o", str(tmp_path / "x"), "--question", QUESTION, "--relevance", pair]
    assert run_command_line(["compress", clip, *METOK, *model, *FRAMES, *out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert f"relevance from the siglip pair {pair}" in noted(report)
    file = read_tokens(tmp_path / "x.safetensors")
    assert file.head.asked.relevance == pair
    media = read_media(clip, FrameOptions(frames=6))
    with torch.no_grad():
        produced = load_pair(pair, torch.device("cpu"), torch.float32).scorer(media, QUESTION)()
    counts = torch.bincount(file.entering.frame, minlength=6)
    # Two cuts of four at least leave the events of one or two frames apart: the best event is key.
    assert counts[produced.value.argmax()] == counts.max() > counts.min()


def test_analyze_takes_a_pair(
    clip: str, pair: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["analyze", clip, QUESTION, *METOK, *model, *FRAMES, "--json"]
    layers = []
    for given in ([], ["--relevance", pair]):
        assert run_command_line([*arguments, *given]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["input"]["kind"] == "video" and len(report["input"]["timestamps"]) == 6
        layers.append(report["runs"][1]["layers"][0])
    assert layers[0] != layers[1]


def test_a_long_question_is_told(
    clip: str, pair: str, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    question = "a red circle moves " * 20
    arguments = ["run", clip, question, *METOK, *model, *FRAMES, *ANSWER, "--relevance", pair]
    assert run_command_line([*arguments, "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("whose text encoder takes 32" in warning for warning in warnings)


def test_a_picture_has_no_frames_to_score(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", PICTURE, QUESTION, *METOK, *ANSWER, "--relevance", pair, "--json"]
    assert run_command_line(arguments) == 0
    assert "one frame is one key event and is not pooled" in noted(
        json.loads(capsys.readouterr().out)
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-r", "fastv", "--relevance", "{pair}"], 2, "does not read it"),
        (["--relevance", "{pair}"], 2, "recipe full, which does not read it"),
        ([*METOK, "--relevance", "{folder}"], 4, "a folder without config.json"),
        ([*METOK, "--relevance", "{folder}/gone"], 4, "no such folder"),
        ([*METOK, "--relevance", "{llava}"], 4, "a checkpoint of architecture llava"),
        ([*METOK, "--relevance", "nobody/no-such-pair"], 4, "a hub id in reach"),
    ],
)
def test_what_is_no_pair_or_of_no_use_is_one_block(
    clip: str,
    pair: str,
    model: list[str],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from vtc_cli.core.discover import assets_folder

    places = {"pair": pair, "folder": str(tmp_path), "llava": str(assets_folder() / "tiny")}
    given = [argument.format(**places) for argument in arguments]
    assert run_command_line(["run", clip, "what?", *model, *FRAMES, *given]) == code
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""
    assert captured.err.count("error:") == 1 and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["run", "--tokens", "x.safetensors", "what?"], "--relevance beside --tokens"),
        (["analyze", PICTURE, "what?", "--curve", "tokens"], "--relevance with --curve tokens"),
    ],
)
def test_places_where_no_frame_is_scored_refuse_a_pair(
    pair: str, command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line([*command, "--relevance", pair]) == 2
    assert words in capsys.readouterr().err
