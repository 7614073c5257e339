"""`vtc compress FOLDER`: every picture once, bad files outlived, interruptions survived."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtc_cli.app import run_command_line
from vtc_cli.store.read import read_tokens

ROOT = Path(__file__).parents[2]
OPTIONS = ["-r", "tokencarve", "-b", "128", "--question", "what is it?"]
ENDINGS = (".json", ".png", ".safetensors")
PICTURES = ("a.png", "b.jpg", "c.JPEG", "pic")


def draw(path: Path, seed: int, kind: str = "PNG") -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, one of them known by its content only, and other things."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for seed, (name, kind) in enumerate(zip(PICTURES, ("PNG", "JPEG", "JPEG", "PNG"), strict=True)):
        draw(folder / name, seed, kind)
    draw(folder / "sub" / "deep.png", 9)
    (folder / "README.md").write_text("about these pictures")
    (folder / "questions.jsonl").write_text("{}\n")
    os.mkfifo(folder / "pipe.png")
    return folder


def compress(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, code: int = 0
) -> tuple[dict[str, Any], str]:
    """The summary and what was said on stderr."""
    capsys.readouterr()
    target = folder.parent / "out"
    words = ["compress", str(folder), "-o", str(target), "--json", *OPTIONS, *arguments]
    assert run_command_line(words) == code
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def times(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder.parent / "out").iterdir()}


def test_every_picture_is_compressed_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, errors = compress(capsys, folder)
    assert summary["done"] == list(PICTURES)
    assert (summary["skipped"], summary["failed"], summary["passed_over"]) == ([], {}, 2)
    assert errors == ""
    names = {f"{name}{ending}" for name in PICTURES for ending in ENDINGS}
    before = times(folder)
    assert set(before) == names
    again, _ = compress(capsys, folder)
    assert again["skipped"] == list(PICTURES) and again["done"] == []
    assert times(folder) == before


def test_a_picture_of_a_folder_is_that_of_its_own_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(capsys, folder)
    alone = tmp_path / "alone"
    assert run_command_line(["compress", str(folder / "b.jpg"), "-o", str(alone), *OPTIONS]) == 0
    batch, single = (
        read_tokens(path)
        for path in (tmp_path / "out" / "b.jpg.safetensors", Path(f"{alone}.safetensors"))
    )
    assert batch.head.identity == single.head.identity
    assert batch.final.features.equal(single.final.features)
    assert batch.final.anchor.equal(single.final.anchor)


CHANGES = {
    "budget": ["-b", "192"],
    "question": ["--question", "what else?"],
    "recipe": ["-r", "mustdrop_tokencarve"],
    "seed": ["--seed", "1"],
    "stage": ["--stage", "carve"],
    "fidelity": ["--fidelity", "official"],
    "exact layers": ["--exact-layers"],
    "dtype": ["--dtype", "bfloat16"],
    "model": ["-m", "narrow:llava"],
}


def test_what_was_done_otherwise_is_done_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each change differs from the options of the first call in one thing."""
    for name in ("b.jpg", "c.JPEG", "pic"):
        (folder / name).unlink()
    kept = folder.parent / "kept"
    assert compress(capsys, folder)[0]["done"] == ["a.png"]
    shutil.copytree(folder.parent / "out", kept)
    for what, change in CHANGES.items():
        shutil.rmtree(folder.parent / "out")
        shutil.copytree(kept, folder.parent / "out")
        assert compress(capsys, folder, *change)[0]["done"] == ["a.png"], what
    assert compress(capsys, folder, *change)[0]["skipped"] == ["a.png"]


def test_a_changed_picture_and_a_broken_result_are_done_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(capsys, folder)
    target = folder.parent / "out"
    draw(folder / "a.png", 77)
    tokens = target / "b.jpg.safetensors"
    tokens.write_bytes(tokens.read_bytes()[:-40])
    (target / "c.JPEG.json").unlink()
    summary, _ = compress(capsys, folder)
    assert summary["done"] == ["a.png", "b.jpg", "c.JPEG"] and summary["skipped"] == ["pic"]


def test_bad_pictures_are_told_of_and_the_others_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "aa.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "ab.png").write_text("no picture")
    (folder / "ac.webp").write_bytes(b"")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    summary, errors = compress(capsys, folder, code=1)
    assert list(summary["failed"]) == ["aa.png", "ab.png", "ac.webp", "gone.png"]
    assert summary["done"] == list(PICTURES)
    assert errors.count("error: unusable input") == 4 and "Traceback" not in errors
    assert errors.count("where") == 4 and str(folder / "ab.png") in errors
    assert "no such file" in summary["failed"]["gone.png"]
    assert not list((folder.parent / "out").glob("ab.png*"))
    again, _ = compress(capsys, folder, code=1)
    assert again["skipped"] == list(PICTURES) and len(again["failed"]) == 4


def test_the_same_fault_of_many_pictures_is_told_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, errors = compress(capsys, folder, "-b", "900", code=1)
    assert list(summary["failed"]) == list(PICTURES)
    assert errors.count("1..576") == 1
    assert errors.count("the same") == 3


FAULTS = {
    "no question": (["-r", "tokencarve"], "it is read by tokencarve"),
    "unknown stage": (["--stage", "nothing"], "has no stage"),
    "recipe": (["-r", "nothing"], "no recipe is called"),
    "the folder itself": (["-o", "{folder}"], "holds the pictures"),
    "a file": (["-o", "{folder}/a.png"], "is a file"),
    "below a file": (["-o", "{folder}/a.png/x"], "a.png/x"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_command_line_ends_it_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, words = FAULTS[case]
    filled = [word.format(folder=folder) for word in arguments]
    command = ["compress", str(folder), "-o", str(tmp_path / "out"), "-r", "mustdrop", *filled]
    assert run_command_line(command) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("error: ") == 1
    assert words in captured.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_without_pictures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    command = ["compress", str(folder), "-o", str(tmp_path / "out")]
    assert run_command_line(command) == 2
    assert "an empty folder" in capsys.readouterr().err
    (folder / "notes.txt").write_text("nothing to see")
    assert run_command_line(command) == 2
    assert "no picture among 1 file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_summary_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.gif").write_bytes(b"GIF89a")
    command = ["compress", str(folder), "-o", str(folder.parent / "out"), *OPTIONS]
    assert run_command_line(command) == 1
    assert capsys.readouterr().out == "4 done, 0 done before, 1 failed, 2 no pictures\n"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        shutil.copy(ROOT / "samples" / "grain.png", folder / f"{number:02}.png")
    return folder


# A shell that starts the suite in the background has told it to ignore interrupts.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vtc_cli.__main__ import main
main()
"""


def lines_of(terminal: int) -> Iterator[str]:
    """What a process writes to its terminal, until it ends."""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return
        if not data:
            return
        yield data.decode(errors="replace")


def test_an_interrupted_folder_goes_on_where_it_stopped(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process on a terminal of its own, interrupted as by Ctrl-C."""
    target = tmp_path / "out"
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "compress", str(many), "-o", str(target), *OPTIONS],
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(terminal)
    deadline = time.monotonic() + 60
    while len(list(target.glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = "".join(lines_of(main))
    process.communicate()
    os.close(main)
    assert process.returncode == 130
    assert "compressing" in said and "/30" in said and "left" in said
    assert "interrupted" in said and "Traceback" not in said
    finished = sorted(target.glob("*.safetensors"))
    assert 2 <= len(finished) < 30
    assert all(read_tokens(path).final.features.shape[0] > 0 for path in finished)
    assert not list(target.glob(".*"))
    for path in sorted(many.iterdir())[len(finished) + 2 :]:
        path.unlink()
    summary, _ = compress(capsys, many)
    assert len(summary["skipped"]) == len(finished) and len(summary["done"]) == 2
