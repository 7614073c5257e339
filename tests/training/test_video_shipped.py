"""The shipped `tiny-video` is an ordinary checkpoint and answers the sample clips."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaNextVideoForConditionalGeneration

from training.export import SHIPPED as TINY
from training.video.data import frame_pixels
from training.video.export import SHIPPED
from training.video.model import build_video_tokenizer
from training.video.samples import SAMPLES, sample_frames, sample_questions
from vtc_cli.app import run_command_line
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.video import read_media

ROOT = Path(__file__).parents[2]
LINES = [
    json.loads(line) for line in (ROOT / "samples/video_questions.jsonl").read_text().splitlines()
]


def ask(line: dict[str, str], capsys: pytest.CaptureFixture[str], *more: str) -> str:
    arguments = ["run", str(ROOT / "samples" / line["media"]), line["question"], "--quiet", *more]
    assert run_command_line(arguments) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", LINES[::3], ids=lambda line: line["category"])
def test_vtc_run_answers_the_sample_clips(
    line: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(line, capsys, "--model", "tiny-video", "--frames", "8") == line["answer"]


def test_a_video_of_several_frames_is_for_tiny_video_where_no_model_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = json.loads(ask(LINES[0], capsys, "--json"))
    assert (result["model"]["id"], result["model"]["weights"]) == ("tiny-video", "trained")
    assert result["answer"] == LINES[0]["answer"]
    one = json.loads(ask(LINES[0], capsys, "--json", "--frames", "1"))
    assert one["model"]["id"] == "tiny"


def test_the_stock_class_loads_in_silence_and_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of `vtc` but the files: the library's model, tokenizer of the folder, pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = LlavaNextVideoForConditionalGeneration.from_pretrained(SHIPPED).eval()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    tokenizer, line = build_video_tokenizer(), LINES[0]
    offset = dict(SAMPLES)[Path(line["media"]).stem]
    marker = "<video>" * 8 * 144
    text = f"<bos>user: {marker}\n{line['question']} assistant:"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    pixels = frame_pixels(sample_frames(offset))[None]
    output = model.generate(input_ids=ids, pixel_values_videos=pixels, do_sample=False)
    answer = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert answer == line["answer"]


def test_it_is_small_finite_and_sees_with_the_tower_of_tiny() -> None:
    path = SHIPPED / "model.safetensors"
    weights, tiny = load_file(path), load_file(TINY / "model.safetensors")
    assert path.stat().st_size < 8e6
    assert all(bool(value.isfinite().all()) for value in weights.values())
    towers = [name for name in weights if "vision_tower" in name]
    assert len(towers) > 90
    assert all(torch.equal(weights[name], tiny[name]) for name in towers)


@pytest.mark.parametrize(("name", "offset"), SAMPLES)
def test_samples_are_what_the_generator_draws(name: str, offset: int) -> None:
    path = ROOT / f"samples/{name}.mp4"
    media = read_media(str(path), FrameOptions(frames=8))
    drawn = np.stack([np.asarray(frame) for frame in sample_frames(offset)])
    assert media.frames.shape == drawn.shape
    # H.264 and halved colour cost a little at edges; another frame would differ by far more.
    assert np.abs(media.frames.astype(int) - drawn).mean() < 3
    assert path.stat().st_size < 200_000
    lines = [line for line in LINES if line["media"] == f"{name}.mp4"]
    made = [(question.text, question.answer) for question in sample_questions(offset)]
    assert [(line["question"], line["answer"]) for line in lines] == made
