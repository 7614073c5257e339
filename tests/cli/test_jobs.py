"""`vtc jobs`: a folder becomes a jobs file that `vtc run --batch` takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.app import run_command_line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two pictures, one of them known by its content only, and other things."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(ROOT / "samples" / "plain.png", folder / "p10.png")
    shutil.copy(ROOT / "samples" / "grain.png", folder / "p9")
    (folder / "clip.MP4").write_text("broken, and still a video")
    (folder / "notes.txt").write_text("nothing to see")
    (folder / ".hidden.png").touch()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_job_a_file_in_natural_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["jobs", "in", "was ist gr\u00fcn?"]) == 0
    captured = capsys.readouterr()
    found = jobs(captured.out)
    assert [job["id"] for job in found] == ["clip.MP4", "p9", "p10.png"]
    assert found[1] == {"id": "p9", "media": "in/p9", "question": "was ist gr\u00fcn?"}
    assert captured.err == "warning: left out of the folder: 1 file of another kind\n"


def test_paths_are_seen_from_the_folder_of_the_file(here: Path) -> None:
    assert run_command_line(["jobs", "in", "what?", "-o", "out/jobs.jsonl"]) == 0
    found = jobs((here / "out" / "jobs.jsonl").read_text())
    assert [job["media"] for job in found] == ["../in/clip.MP4", "../in/p9", "../in/p10.png"]
    assert run_command_line(["jobs", str(here / "in"), "what?", "-o", "out/jobs.jsonl"]) == 0
    found = jobs((here / "out" / "jobs.jsonl").read_text())
    assert found[0]["media"] == str(here / "in" / "clip.MP4")
    assert run_command_line(["jobs", "in", "what?", "-o", "in/jobs.jsonl"]) == 0
    before = (here / "in" / "jobs.jsonl").read_text()
    assert run_command_line(["jobs", "in", "what?", "-o", "in/jobs.jsonl"]) == 0
    assert (here / "in" / "jobs.jsonl").read_text() == before


def test_one_job_a_recipe(here: Path) -> None:
    shutil.copy(ROOT / "recipes" / "fastv.yaml", here / "mine.yaml")
    recipes = ["-r", "mustdrop", "-r", "mine.yaml", "-b", "64"]
    assert run_command_line(["jobs", "in", "what?", *recipes, "-o", "out/jobs.jsonl"]) == 0
    found = jobs((here / "out" / "jobs.jsonl").read_text())
    assert [job["id"] for job in found[:2]] == ["clip.MP4:mustdrop", "clip.MP4:mine"]
    assert [job["recipe"] for job in found[:2]] == ["mustdrop", "../mine.yaml"]
    assert {job["budget"] for job in found} == {"64"}


def test_the_batch_takes_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["jobs", "in", "what colour is the circle?", "-o", "out/j.jsonl"]) == 0
    batch = ["run", "--batch", "out/j.jsonl", "-o", "out/r.jsonl", "--max-new-tokens", "2"]
    assert run_command_line(batch) == 1  # one of them is no video
    lines = jobs((here / "out" / "r.jsonl").read_text())
    assert [(line["id"], line["error"] is None) for line in lines] == [
        ("clip.MP4", False),
        ("p9", True),
        ("p10.png", True),
    ]
    assert "2 done, 0 done before, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none", "what?"], "No such file"),
        (["in/sub", "what?"], "no picture and no video among 0 files"),
        (["in", " "], "the question is empty"),
        (["in", "what?", "-b", "many"], "--budget 64"),
        (["in", "what?", "-r", "mustdorp"], "mustdrop"),
        (["in"], "Missing argument 'QUESTION'"),
    ],
)
def test_bad_input_is_one_block(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_command_line(["jobs", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and words in captured.err
