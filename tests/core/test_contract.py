"""A method author's mistakes, made one by one in a sound file outside the repository.

Each must be refused by `vtc recipes validate` with the file and, where the mistake has one, the
line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vtc_cli.app import run_command_line
from vtc_cli.core.contract import class_faults
from vtc_cli.core.discover import all_stages

SOUND = '''"""Keeps every second token."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from vtc_cli.core.decision import Decision
from vtc_cli.core.stage import DecodeStage, EncoderStage, PrefillStage, Stage, parameter


@dataclass(frozen=True, kw_only=True)
class Evens(PrefillStage):
    """Keeps every second token."""

    paper = "none"
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    layers: tuple[int, ...] = parameter((2,), "where", layer_of="llm")
    share: float = parameter(0.5, "kept", minimum=0.0, maximum=1.0)

    def decide(self, tokens, signals):
        return Decision.prune(torch.arange(0, len(tokens), 2), len(tokens))
'''
DECORATOR = "@dataclass(frozen=True, kw_only=True)\n"
NEEDS = 'frozenset({"attention_rows"})'
DECIDE = "def decide(self, tokens, signals):"

# name: what is replaced, by what, the words of the fault, the line it names (None: no line)
FAULTS: dict[str, tuple[str, str, str, int | None]] = {
    "misspelt signal": (NEEDS, 'frozenset({"atention_rows"})', "attention_rows", 17),
    "tuple of signals": (NEEDS, '("attention_rows",)', "frozenset({'attention_rows'})", 17),
    "list of signals": (NEEDS, '["attention_rows"]', "frozenset({'attention_rows'})", 17),
    "one signal as text": (NEEDS, '"attention_rows"', "frozenset({'attention_rows'})", 17),
    "text in brackets": (NEEDS, '("attention_rows")', "frozenset({'attention_rows'})", 17),
    "letters": (NEEDS, 'frozenset("keys")', "Evens.needs names 'e', which is no signal", 17),
    "numbers as signals": (NEEDS, "frozenset({3})", "Evens.needs names 3", 17),
    "nothing needed": (NEEDS, "None", "Evens.needs is None", 17),
    "needs as a field": (
        "needs: ClassVar[frozenset[str]]",
        "needs: frozenset[str]",
        "Evens.needs is a field",
        17,
    ),
    "misspelt needs": ("needs: ClassVar[frozenset[str]]", "need", "Evens.need means nothing", 17),
    "misspelt promise": ('paper = "none"', "meet_budget = True", "meets_budget", 16),
    "promise of no truth value": ('paper = "none"', 'meets_budget = "yes"', "'yes'", 16),
    "paper of no text": ('paper = "none"', "paper = 2401", "Evens.paper is 2401", 16),
    "another phase": ('paper = "none"', 'phase = "encoder"', "Evens.phase is 'encoder'", 16),
    "misspelt decide": (DECIDE, "def decied(self, tokens, signals):", "rename decied", 21),
    "no decide": (DECIDE, "def choose(self, tokens, signals):", "has no method 'decide'", None),
    "too few arguments": (DECIDE, "def decide(self, tokens):", "(self, tokens, signals)", 21),
    "too many arguments": (DECIDE, "def decide(self, a, b, c):", "(self, a, b, c)", 21),
    "no self": (DECIDE, "def decide(tokens, signals):", "(tokens, signals)", 21),
    "static": (DECIDE, f"@staticmethod\n    {DECIDE}", "a staticmethod", 22),
    "async": (DECIDE, "async def decide(self, tokens, signals):", "a coroutine", None),
    "a value": (DECIDE, "decide = 3\n\n    def other(self, tokens, signals):", "decide is 3", 21),
    "count without counts": (
        DECIDE,
        f"def count(self):\n        return None\n\n    {DECIDE}",
        "the arguments of Evens.count are (self)",
        21,
    ),
    "no dataclass": (DECORATOR, "", "no dataclass of its own", 12),
    "not frozen": (DECORATOR, "@dataclass(kw_only=True)\n", "cannot inherit non-frozen", None),
    "no base": ("(PrefillStage)", "", "defines no concrete stage", None),
    "base without a phase": ("(PrefillStage)", "(Stage)", "derives from Stage alone", 13),
    "default of another type": ("0.5,", '"half",', "the default 'half'", None),
    "layers that are no tuple": ("(2,),", "2,", "the default 2", None),
    "default out of range": ("0.5,", "1.5,", "the default 1.5", None),
    "type that no recipe holds": ("share: float", "share: torch.Tensor", "has the type", None),
    "annotation that does not exist": ("share: float", "share: flot", "flot", 19),
    "stack that does not exist": ('layer_of="llm"', 'layer_of="lm"', "layer_of is 'lm'", 18),
    "range upside down": ("minimum=0.0", "minimum=2.0", "2.0..1.0", 19),
    "misspelt import": ("import Decision", "import Desicion", "Desicion", 8),
    "syntax": (DECIDE, "def decide(self, tokens, signals)", "SyntaxError", 21),
    "the end of the process": ("import torch\n", "raise SystemExit(0)\n", "SystemExit", 6),
    "base of another phase": (
        "class Evens(PrefillStage)",
        "class Evens(DecodeStage)",
        "move it to decode:",
        None,
    ),
    "promise as a method": (
        'paper = "none"',
        "def evicts_text(self):\n        return False",
        "@property above it",
        16,
    ),
    "misspelt place": (
        'layers: tuple[int, ...] = parameter((2,), "where"',
        "layer: int = parameter(2, ''",
        "layers",
        18,
    ),
    "an error of its own": (
        DECIDE,
        f"def __post_init__(self):\n        self.share = 1.0\n\n    {DECIDE}",
        "FrozenInstanceError",
        None,
    ),
}


def validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> tuple[int, str]:
    """Exit code and text of `vtc recipes validate` for a stage file of one's own."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "stages" / "evens.py").write_text(text)
    (tmp_path / "recipes" / "evens.yaml").write_text("prefill: [{evens: {}}]\n")
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    code = run_command_line(["recipes", "validate", "evens"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, " ".join(captured.out.split())


def test_the_sound_file_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validated(tmp_path, monkeypatch, capsys, SOUND)[0] == 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_stage_file_is_refused_before_any_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    old, new, words, line = FAULTS[name]
    assert old in SOUND
    text = SOUND.replace(old, new, 1)
    if name == "promise as a method":
        text = text.replace("(PrefillStage)", "(DecodeStage)")
    code, told = validated(tmp_path, monkeypatch, capsys, text)
    assert code == 2, told
    assert words in told
    if line is not None:
        assert f"{tmp_path}/stages/evens.py:{line}" in told


def test_all_faults_of_a_class_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SOUND.replace(NEEDS, '("atention_rows",)').replace(
        "decide(self, tokens,", "decide(self,"
    )
    _, told = validated(tmp_path, monkeypatch, capsys, text)
    assert "3 faults" in told


def test_the_shipped_stages_keep_their_contract() -> None:
    assert all(class_faults(cls) == () for cls in all_stages().values())
