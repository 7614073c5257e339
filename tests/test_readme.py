"""The README shows what the program does: its commands run, its pictures and files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ vtc ").partition(" | ")[0]
    for line in README.splitlines()
    if line.startswith("$ vtc ") and "/path/to/" not in line
]


def test_commands_were_found() -> None:
    assert len(COMMANDS) >= 4


def redirected(command: str, folder: Path) -> list[str]:
    """The command with its files in `folder`, so that those of the README stay as they are."""
    arguments = shlex.split(command)
    for flag in ("--overlay", "--plot", "--html", "-o", "--tokens"):
        if flag in arguments:
            place = arguments.index(flag) + 1
            arguments[place] = str(folder / Path(arguments[place]).name)
    if "--data" in arguments:  # a few of the items show that the command runs
        arguments += ["--limit", "2"]
    return arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    if "--tokens" in command:  # goes on from what the compress command of the README wrote
        before = next(other for other in COMMANDS if other.startswith("compress"))
        assert run_command_line(redirected(before, tmp_path)) == 0
    assert run_command_line(redirected(command, tmp_path)) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_both_set_up_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"$ make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_recipe_shown_is_the_recipe_shipped() -> None:
    block = README.split("```yaml\n")[1].split("```")[0]
    assert block.strip() == (ROOT / "recipes" / "mustdrop.yaml").read_text().strip()
