"""`vtc run` about a video: frames are chosen, METok runs, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vtc_cli.app import run_command_line

MODEL = ["-m", "narrow:llava_next_video", "--max-new-tokens", "2"]
PICTURE = str(Path(__file__).parents[2] / "samples" / "plain.png")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds of a red square on grey that moves to the right."""
    path = tmp_path_factory.mktemp("clip") / "moves.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(20):
            pixels = np.full((120, 160, 3), 128, np.uint8)
            pixels[40:80, 6 * number : 6 * number + 40] = (220, 30, 30)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)


def test_metok_runs_over_the_frames_of_a_clip(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay, page = tmp_path / "o.png", tmp_path / "p.html"
    drawn = ["--overlay", str(overlay), "--html", str(page)]
    arguments = ["run", clip, "what moves?", "-r", "metok", "--frames", "4", *MODEL, *drawn]
    assert run_command_line([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["input"]["kind"], result["input"]["frames"]) == ("video", 4)
    assert result["tokens"]["original"] == 4 * 144
    pooled = result["tokens"]["by_stage"][0]  # four events, three of them key
    assert (pooled["before"], pooled["after"]) == (4 * 576, 3 * 144 + 36)
    counts = result["tokens"]["per_layer"]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 0 < counts[0] < 4 * 144
    text = result["tokens"]["text"]
    entries = result["kv"]["entries_per_layer"]
    assert entries[0] == text + counts[0] and entries[-1] == text
    assert any("text embeddings" in stage["note"] for stage in result["tokens"]["by_stage"])
    assert overlay.stat().st_size > 1000 and page.stat().st_size > 10_000


def test_the_span_chooses_the_frames(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model sees the square on the left at first and on the right at last."""
    answers = []
    for span in (["--end", "0.3"], ["--start", "1.7"]):
        question = "where is the rectangle?"
        assert run_command_line(["run", clip, question, "--frames", "1", *span]) == 0
        answers.append(capsys.readouterr().out)
    assert "left" in answers[0] and "right" in answers[1]


def test_a_picture_model_takes_one_frame_and_refuses_more(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", clip, "what color is the rectangle?", "--frames", "1"]) == 0
    assert capsys.readouterr().out == "red\n"
    assert run_command_line(["run", clip, "what?", "-m", "tiny"]) == 2
    assert "--frames 1" in capsys.readouterr().err


def test_the_report_speaks_of_a_video(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", clip, "what?", "--frames", "2", *MODEL]) == 0
    report = capsys.readouterr().err
    assert "(video)" in report and "2 frames" in report and "(picture)" not in report


def test_a_video_model_refuses_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", PICTURE, "what?", *MODEL]) == 2
    assert "a picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--frames", "4", "--fps", "2"], "--frames and --fps together"),
        (["--frames", "0"], "--frames"),
        (["--frames", "some"], "--frames"),
        (["--start", "3", "--end", "2"], "--end"),
        (["--start", "60"], "start"),
        (["--reader", "vlc"], "auto, decord, pyav"),
    ],
)
def test_bad_choices_of_frames_are_one_block(
    clip: str, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", clip, "what?", *MODEL, *options]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and "Traceback" not in captured.err
    assert captured.out == ""


def test_an_animation_is_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue", "green")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert run_command_line(["run", str(path), "what?", *MODEL, "--frames", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["input"]["kind"], result["input"]["frames"]) == ("video", 3)
