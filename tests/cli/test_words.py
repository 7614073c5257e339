"""Words that cannot be: each is refused before a model is loaded, with what was meant instead."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line

ROOT = Path(__file__).parents[2]
RUN = ["run", "plain.png", "what?"]
SOLVE = ["recipes", "solve", "fastv", "--layer-average", "128"]

# the command line, then words of its one error
REFUSED: dict[str, tuple[list[str], str]] = {
    "no question": (["run", "plain.png"], "try      vtc run picture.png"),
    "an option as question": (["run", "plain.png", "--what is it"], "stands behind --"),
    "an option of another command": ([*RUN, "--tau", "3"], "--tau is an option of vtc analyze"),
    "a misspelt option": ([*RUN, "--recipee", "fastv"], "--recipe"),
    "a misspelt command": (["rum", "plain.png"], "Did you mean 'run'"),
    "a misspelt shape": ([*RUN, "--format", "jsn"], "try      json"),
    "a misspelt curve": (["analyze", "plain.png", "--curve", "layrs"], "try      layers"),
    "a misspelt recipe": ([*RUN, "-r", "mustdorp"], "try      mustdrop"),
    "a misspelt topic": (["explain", "flopps"], "try      vtc explain flops"),
    "a misspelt method": (["explain", "mustdrp"], "try      vtc explain mustdrop"),
    "two shapes": ([*RUN, "--json", "--format", "csv"], "--json beside --format csv"),
    "two short shapes": (["analyze", "plain.png", "--json", "--csv"], "--json beside --csv"),
    "no tokens": ([*RUN, "-b", "0"], "--budget '0'"),
    "fewer than none": ([*RUN, "-b", "-1"], "a number of tokens above 0"),
    "no number": ([*RUN, "-b", "nan"], "--budget 'nan'"),
    "no end": ([*RUN, "-b", "64,inf"], "--budget '64,inf'"),
    "a misspelt budget": ([*RUN, "-b", "defualt"], "try      --budget default"),
    "frames by name": ([*RUN, "--frames", "many"], "found    'many'"),
    "the picture as overlay": ([*RUN, "--overlay", "plain.png"], "is read by this command"),
    "it by another name": ([*RUN, "--overlay", "./link.png"], "is read by this command"),
    "a further picture": ([*RUN, "--with", "dark.png", "--overlay", "dark.png"], "is read by"),
    "the recipe as result": ([*RUN, "-r", "./fastv.yaml", "-o", "fastv.yaml"], "is read by"),
    "two results in one": ([*RUN, "-o", "x.png", "--overlay", "x.png"], "name one file, x.png"),
    "a plot over data": (
        ["analyze", "plain.png", "--plot", "plain.png"],
        "--plot plain.png is read by this command",
    ),
    "passes over the picture": (
        ["compare", "plain.png", "what?", "-r", "fastv", "-o", "plain.png"],
        "--output plain.png is read by this command",
    ),
    "a solution over its recipe": (
        ["recipes", "solve", "./fastv.yaml", "--kv", "0.2", "-o", "fastv.yaml"],
        "is the recipe itself",
    ),
    "a folder as overlay": ([*RUN, "--overlay", "folder"], "folder is a folder"),
    "a folder that is not there": ([*RUN, "--overlay", "no/x.png"], "mkdir -p no"),
    "an overlay of no format": ([*RUN, "--overlay", "x.gif"], "ending in .png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_changes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for file in ("samples/plain.png", "samples/dark.png", "recipes/fastv.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / "folder").mkdir()
    os.symlink("plain.png", tmp_path / "link.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vtc_cli.models.support.load.load_model", None)  # no model is loaded
    arguments, words = REFUSED[name]
    assert run_command_line(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: wrong usage")
    assert words in captured.err
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["recipes"]) == 0
    assert "Usage: vtc recipes" in capsys.readouterr().out
