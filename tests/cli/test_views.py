"""What the overlay and the page make of prompts with several views."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vtc_cli.app import run_command_line

SAMPLES = Path(__file__).parents[2] / "samples"
PLAIN, WIDE = str(SAMPLES / "plain.png"), str(SAMPLES / "wide.png")


@pytest.mark.parametrize(
    "arguments",
    [["--with", WIDE], ["-m", "narrow:llava_next"]],
    ids=["two pictures", "crops"],
)
def test_a_page_of_several_views_is_refused_before_the_model_runs(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    command = ["run", PLAIN, "what is it?", *arguments, "--html", str(page)]
    assert run_command_line(command) == 2
    told = capsys.readouterr().err
    assert "--html with" in told and "--overlay" in told and not page.exists()


def test_the_overlay_shows_the_whole_and_the_crops(tmp_path: Path) -> None:
    drawn = tmp_path / "crops.png"
    command = ["run", WIDE, "what is it?", "-m", "narrow:llava_next", "-r", "uniform", "-b", "200"]
    assert run_command_line([*command, "--overlay", str(drawn), "--max-new-tokens", "1"]) == 0
    with Image.open(drawn) as sheet:
        assert sheet.width > 2 * 240 and sheet.height > 2 * 150
