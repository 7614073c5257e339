"""Listings that must stand faulty files, and notes that come only when asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line


@pytest.mark.parametrize(
    "content",
    [b"a" * 300_000, b"", b"\xff", b"name: &x a\n"],
    ids=["big", "empty", "binary", "anchor"],
)
def test_a_faulty_recipe_is_listed_as_such(
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "odd.yaml").write_bytes(content)
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    assert run_command_line(["recipes", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "not valid" in rows["odd"]["paper"]
    assert "not valid" not in rows["full"]["paper"]


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_tells_more_on_stderr_only(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["recipes", "validate", "mustdrop"]
    for flags, recipe, stage in (
        ([], 0, 0),
        (["-v"], 1, 0),
        (["-vv"], 1, 1),
        (["-vv", "-q"], 0, 0),
    ):
        arguments = [*flags, *command] if place == "before" else [*command, *flags]
        assert run_command_line(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out == "mustdrop: ok (4 stages)\n"
        assert ("recipe from" in captured.err) == bool(recipe)
        assert ("stage mustdrop from" in captured.err) == bool(stage)


def test_one_stage_is_one_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["recipes", "validate", "fastv", "full"]) == 0
    assert capsys.readouterr().out == "fastv: ok (1 stage)\nfull: ok (0 stages)\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_hostile_recipe_is_shown_as_it_is_spelled(
    terminal: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paper, source, name, file name and fault: `show`, `list`, `validate` and the error block."""
    evil, shown = "[red]\x1b[2J\u202e", "[red]\\x1b[2J\\u202e"
    folder = tmp_path / "recipes"
    folder.mkdir()
    good, bad = folder / "x\x1b[1m.yaml", folder / "bad\u202e.yaml"
    text = json.dumps({"name": "x", "paper": evil, "source": {evil: evil}, "description": evil})
    good.write_text(text)
    bad.write_text(json.dumps({"name": "y", evil: 1}))
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")  # so that every escape sequence is a stranger's
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert run_command_line(["recipes", "show", str(good)]) == 0
    assert run_command_line(["recipes", "list"]) == 0
    assert run_command_line(["recipes", "list", "-f", "md"]) == 0
    assert run_command_line(["recipes", "list", "--json"]) == 0
    assert run_command_line(["recipes", "validate", str(good), str(bad)]) == 2
    assert run_command_line(["run", str(tmp_path / "no\x1b[2J.png"), "q", "-r", str(bad)]) == 2
    captured = capsys.readouterr()
    assert not {"\x1b", "\u202e", "\x07"} & set(captured.out + captured.err)
    assert captured.out.count(shown) >= 5 and "no\\x1b[2J.png" in captured.err
    assert "x\\x1b[1m.yaml: ok (0 stages)" in captured.out


def test_a_fault_in_an_override_of_two_uses_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(
        "name: twice\n"
        "prefill:\n"
        "  - mustdrop.dual_attention: {layers: 2}\n"
        "  - mustdrop.dual_attention: {layers: 6}\n"
        "budgets: {64: {dual_attention: {layers: 40}}}\n"
    )
    assert run_command_line(["recipes", "validate", str(path)]) == 2
    text = capsys.readouterr().out
    assert "1 fault in" in text
    assert text.count("layer 40 does not exist") == 1
