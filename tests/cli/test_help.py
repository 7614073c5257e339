"""The help of every command: exit code 0, each option once, eighty columns."""

from __future__ import annotations

import re

import pytest
import typer
from typer.main import get_command

from vtc_cli.app import COMMANDS, GROUPS, app, run_command_line

OPTION = re.compile(r"^│\s+(?:\*\s+)?(-[^\s<│]+(?:\s+-\w\b)?)", re.MULTILINE)


def command_paths() -> list[list[str]]:
    """Every command and group, found in the app itself."""
    root = get_command(app)
    paths: list[list[str]] = [[]]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        paths.append([name])
        paths += [[name, below] for below in getattr(command, "commands", {})]
    return paths


PATHS = command_paths()


def declared(path: list[str]) -> set[str]:
    """The long names of all options that the command declares."""
    command = get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    context = typer.Context(command)
    names = {name for item in command.get_params(context) for name in item.opts}
    return {name for name in names if name.startswith("--")}


def shown(text: str) -> list[str]:
    """The long names that begin a line of the help, with repetitions."""
    return [word for found in OPTION.findall(text) for word in found.split() if word[:2] == "--"]


def test_every_registered_command_was_found() -> None:
    assert {path[0] for path in PATHS if path} == set(COMMANDS) | set(GROUPS)
    assert {"list", "show", "validate", "schema"} <= {path[-1] for path in PATHS if path}


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(["vtc", *path]))
def test_the_help_names_every_option_once_in_eighty_columns(
    path: list[str],
    flag: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command_line([*path, flag]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"Usage: {' '.join(['vtc', *path])} " in captured.out
    assert max(len(line) for line in captured.out.splitlines()) <= 80
    assert "Raises:" not in captured.out and "Args:" not in captured.out
    names = shown(captured.out)
    assert sorted(names) == sorted(set(names))
    assert set(names) == declared(path)
    assert {"--quiet", "--verbose", "--no-progress", "--debug", "--help"} <= set(names) or (
        path == ["recipes"]  # a group has no options of its own
    )


def test_every_option_has_a_help_text() -> None:
    for path in PATHS:
        command = get_command(app)
        for name in path:
            command = command.commands[name]  # type: ignore[attr-defined]
        silent = [item.name for item in command.params if not getattr(item, "help", None)]
        assert silent == [], path


def test_the_reader_of_help_texts_sees_a_repeated_option() -> None:
    text = (
        "│ --json     <bool>  Short.  │\n│ --json -j  <bool>  Again.  │\n│ *  --one  -o  <int>  │\n"
    )
    assert shown(text) == ["--json", "--json", "--one"]
