"""Listings that must stand faulty files, and notes that come only when asked for."""

from __future__ import annotations

import json
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
