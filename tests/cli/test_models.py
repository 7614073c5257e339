"""`vtc models`: families with their signals, and whether a recipe fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.commands.models import HAS
from vtc_cli.core.discover import sources
from vtc_cli.core.signals import DERIVED_SIGNALS
from vtc_cli.models.llava import LlavaAdapter

BARE = '''
from vtc_cli.models.support.base import Adapter


class BareAdapter(Adapter):
    """Tells next to nothing."""

    family = "bare"
    model_types = ("bare_vl",)
    provides = frozenset({"hidden", "attention_rows"})
'''


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bare.py").write_text(BARE)
    monkeypatch.setenv("VTC_PATH", str(tmp_path))


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert run_command_line(["models", *arguments, "--json"]) == 0
    return {row["family"]: row for row in json.loads(capsys.readouterr().out)}


def test_every_family_is_listed_with_its_signals(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert set(found) == set(sources("models"))
    assert found["llava"]["signals"] == sorted({*LlavaAdapter.provides, *DERIVED_SIGNALS})
    assert found["llava"]["architectures"] == ["llava"]
    assert found["llava"]["shapes"] == ["llava-1.5-13b", "llava-1.5-7b"]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("width", [80, 40])
def test_the_table_marks_what_json_lists(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a signal, a column a family; in a narrow terminal block by block, none left out."""
    monkeypatch.setenv("COLUMNS", str(width))
    found = listed(capsys)
    assert run_command_line(["models"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    table, _, legend = text.partition("\n\n")[0], *text.rpartition("\n\n")[1:]
    names = dict(line.split()[:2] for line in legend.splitlines()[1:] if line[0] != " ")
    assert set(names.values()) == set(found)
    marked: dict[str, set[str]] = {name: set() for name in names.values()}
    for line in table.splitlines():
        signal, *marks = line.split()
        if signal == "signal":
            letters = marks
        else:
            columns = zip(letters, marks, strict=True)
            [marked[names[letter]].add(signal) for letter, mark in columns if mark == HAS]
    assert marked == {name: set(row["signals"]) for name, row in found.items()}  # type: ignore[call-overload]


@pytest.mark.usefixtures("bare")
def test_a_recipe_fits_where_its_signals_are(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "--recipe", "mustdrop")
    assert found["llava"]["fits"] == "yes" and found["llava"]["lacking"] == {}
    assert found["bare"]["lacking"] == {"mustdrop.key_tokens": ["vision_cls_attention"]}
    assert found["bare"]["fits"] == "no: mustdrop.key_tokens needs vision_cls_attention"
    assert listed(capsys, "--recipe", "fastv")["bare"]["fits"] == "yes"


def test_an_unknown_recipe_is_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["models", "-r", "mustdorp"]) == 2
    assert "mustdrop" in capsys.readouterr().err
