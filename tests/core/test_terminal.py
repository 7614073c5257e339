"""Characters that steer a terminal are spelled out, and nothing reaches it another way."""

from __future__ import annotations

import ast
import io
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.table import Table

from vtc_cli.core.console import Console, Text
from vtc_cli.core.terminal import emit, escaped, say, show

PACKAGE = Path(__file__).parents[2] / "vtc_cli"
CLEAR = "\x1b[2J\x1b]0;owned\x07"
OWN = {"core/terminal.py", "core/console.py"}


def hidden(text: str) -> list[str]:
    """Characters of control, format and separator categories, read off the Unicode tables."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [c for c in text if unicodedata.category(c) in kinds and c != "\n"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb\x07\x7f\x9bm", "a\\rb\\x07\\u007f\\u009bm"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069 \u2028 \u2029", "\\u2066x\\u2069 \\u2028 \\u2029"),
        ("pay\u200bpal \ufeff", "pay\\u200bpal \\ufeff"),
        ("pass\u200dword", "pass\\u200dword"),
        ("one\ntwo\t3", "one\\ntwo\\t3"),
        ("\udcff.png", "\\udcff.png"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("naïve 日本 \U0001f600 [red]x[/]", "naïve 日本 \U0001f600 [red]x[/]"),
        ("\u06cc\u200c\u062e 👩\u200d🔬", "\u06cc\u200c\u062e 👩\u200d🔬"),
    ],
)
def test_what_is_spelled_out(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped(escaped(text)) == shown


def test_no_hidden_character_of_unicode_gets_through() -> None:
    """Every character of those categories but the few that are drawn, such as number signs."""
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    drawn |= set(range(0x13430, 0x13440))  # numbers over several letters, joined hieroglyphs
    assert {ord(c) for c in hidden(escaped(every))} <= drawn


def test_json_stays_the_same_json() -> None:
    value = {"a\u2028": "\x1b[0m \x9b \u202e \U000e0041 \ud83d\udc41 \n\t ü"}
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(escaped(text, lines=True)) == json.loads(json.dumps(value))
    assert not hidden(escaped(text, lines=True))


def test_streams(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are spelled out in a pipe too, data only on a terminal."""
    show(f"a{CLEAR}\nb")
    say(f"w{CLEAR}")
    emit(f"d{CLEAR}\n")
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2J\\x1b]0;owned\\x07\nb\n" + f"d{CLEAR}\n"
    assert err == "w\\x1b[2J\\x1b]0;owned\\x07\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    emit(f"d{CLEAR}\n")
    assert capsys.readouterr().out == "d\\x1b[2J\\x1b]0;owned\\x07\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_spell_out_and_take_no_markup(terminal: bool) -> None:
    """Titles, heads and cells, as strings and as texts; columns stay in line."""
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, color_system=None)
    table = Table(title=f"[red]t{CLEAR}", box=None)
    table.add_column(f"[bold]h{CLEAR}")
    table.add_column("last")
    table.add_row(f"[red]c\u202e{CLEAR}", "end")
    table.add_row(Text(f":smile: {CLEAR}").append(CLEAR), "end")
    table.add_row(Text.assemble(("[/]" + CLEAR, "bold")), "end")
    console.print(table)
    text = file.getvalue()
    assert not hidden(text.replace("\x1b[0m", ""))
    for part in ("[red]t\\x1b", "[bold]h\\x1b", "[red]c\\u202e\\x1b", ":smile:", "[/]\\x1b"):
        assert part in text
    assert len({line.index("end") for line in text.splitlines() if "end" in line}) == 1
    padded = any(line.endswith(" ") for line in text.splitlines())
    assert padded == terminal


def test_an_answer_keeps_its_lines() -> None:
    assert Text("one\n\ttwo", lines=True).plain == "one\n\ttwo"
    assert Text("one\ntwo").plain == "one\\ntwo"


def printers(source: str) -> set[str]:
    """Ways to a stream of a reader in a source text: print, echo, writes, rich's own classes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "typer.echo", "traceback.print_exception", "rich.print"):
                found.add(name)
            if name in ("sys.stdout.write", "sys.stderr.write"):
                found.add(name)
        if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich.text"):
            found |= {a.name for a in node.names if a.name in ("Console", "Text")}
    return found


def test_nothing_reaches_a_stream_another_way() -> None:
    users = {
        str(path.relative_to(PACKAGE)): found
        for path in PACKAGE.rglob("*.py")
        if (found := printers(path.read_text(encoding="utf-8")))
    }
    assert set(users) <= OWN, users
    assert printers("from rich.text import Text\nprint(1)") == {"Text", "print"}
