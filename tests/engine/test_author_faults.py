"""What a method author's mistakes come to while a model runs: one error that names the stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.engine.support import noise_media, plan_of, planned, session_of, small_adapter
from vtc_cli.app import run_command_line
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import MemoryExhaustedError, StageError
from vtc_cli.core.plan import Plan
from vtc_cli.core.stage import DecodeStage, InputStage, PrefillStage
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import shrink
from vtc_cli.engine.session import Session

QUESTION = "what is on the left?"
ATTENTION = frozenset({"attention_rows"})


@dataclass(frozen=True, kw_only=True)
class Faulty(PrefillStage):
    """Calls `mistake(tokens, signals)` in place of a decision."""

    needs: ClassVar[frozenset[str]] = ATTENTION
    layers: tuple[int, ...] = (2,)
    mistake: Any

    def decide(self, tokens: Any, signals: Any) -> Any:
        return self.mistake(tokens, signals)


@dataclass(frozen=True, kw_only=True)
class FaultyCache(DecodeStage):
    """The same as a cache policy."""

    mistake: Any

    def decide(self, entries: Any, signals: Any) -> Any:
        return self.mistake(entries, signals)


@dataclass(frozen=True, kw_only=True)
class FaultyInput(InputStage):
    """A scale that is none."""

    answer: Any

    def scale(self, original_tokens: int, budget: Any) -> Any:
        return self.answer


def keep(tokens: Any, signals: Any, index: Any = None) -> Decision:
    return Decision.prune(torch.arange(len(tokens)) if index is None else index, len(tokens))


MISTAKES: dict[str, tuple[Any, str]] = {
    "nothing": (lambda t, s: None, "decide returned None"),
    "a tensor": (lambda t, s: torch.arange(3), "decide returned a Tensor"),
    "a decision over fewer": (lambda t, s: Decision.prune(torch.arange(3), 9), "over 9 of 36"),
    "a list to keep": (lambda t, s: keep(t, s, [0, 1]), "AttributeError"),
    "a row twice": (lambda t, s: keep(t, s, torch.tensor([1, 1])), "names a row twice"),
    "a row from elsewhere": (lambda t, s: keep(t, s, torch.tensor([99])), "size is inconsistent"),
    "a weight that is no number": (
        lambda t, s: Decision.merge(
            torch.tensor([0]),
            torch.tensor([[0, 0], [0, 1]]),
            torch.tensor([1.0, float("nan")]),
            len(t),
        ),
        "does not sum to 1",
    ),
    "an error of its own": (lambda t, s: 1 // 0, "ZeroDivisionError"),
    "a misspelt signal": (lambda t, s: s.atention_rows("last"), "try: attention_rows"),
    "a misspelt argument": (lambda t, s: s.attention_rows("lst"), "try: last"),
    "no argument": (lambda t, s: s.attention_rows(), "'queries'"),
    "a layer of no number": (lambda t, s: s.vision_keys("last"), "a whole number"),
    "too few rows": (lambda t, s: s.window_attention(0), "from 1 on"),
}


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of(small_adapter())


def fault(session: Session, stage: Any) -> str:
    prompt = session.adapter.prepare(noise_media(), QUESTION)
    with pytest.raises(StageError) as caught:
        session.run(prompt, plan_of(stage), Generation(max_new_tokens=1))
    return str(caught.value)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_the_stage_and_its_layer(session: Session, name: str) -> None:
    mistake, words = MISTAKES[name]
    told = fault(session, Faulty(mistake=mistake))
    assert told.startswith("where: faulty at prefill layer 2")
    assert words in told


def test_an_error_of_a_stage_names_the_line_of_its_file(session: Session) -> None:
    told = fault(session, Faulty(mistake=MISTAKES["an error of its own"][0]))
    line = next(
        number
        for number, text in enumerate(Path(__file__).read_text().splitlines(), start=1)
        if "1 // 0" in text
    )
    assert f"({__file__}:{line})" in told


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda e, s: None, "decide returned None"),
        (lambda e, s: [torch.arange(3)] * len(e.heads), "decide returned a Tensor"),
        (lambda e, s: [keep(e, s)], "1 decisions for 2 heads"),
        (lambda e, s: {}["x"], "KeyError"),
    ],
)
def test_a_mistake_of_a_cache_policy_names_its_layer(
    session: Session, mistake: Any, words: str
) -> None:
    told = fault(session, FaultyCache(mistake=mistake))
    assert told.startswith("where: faulty_cache at decoder layer 0")
    assert words in told


@pytest.mark.parametrize("answer", [0, 1.5, float("nan"), None, "0.5"])
def test_a_scale_must_be_a_share(session: Session, answer: Any) -> None:
    media = noise_media()
    prompt = session.adapter.prepare(media, QUESTION)
    plan = Plan("toy", input=(planned(FaultyInput(answer=answer), "faulty_input"),))
    with pytest.raises(StageError, match="scale returned"):
        try:
            shrink(session.adapter, media, prompt, plan)
        except StageError as error:
            assert error.where == "faulty_input at the picture"
            raise StageError(error.found) from error


def test_a_lack_of_memory_is_no_fault_of_the_stage(session: Session) -> None:
    def hungry(tokens: Any, signals: Any) -> Any:
        raise MemoryError("no room")

    prompt = session.adapter.prepare(noise_media(), QUESTION)
    with pytest.raises(MemoryExhaustedError):
        session.run(prompt, plan_of(Faulty(mistake=hungry)), Generation(max_new_tokens=1))


def test_a_fault_at_run_time_ends_the_command_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from vtc_cli.core.stage import EncoderStage\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(EncoderStage):\n"
        "    def decide(self, tokens, signals):\n"
        "        return tokens.featurs\n"
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("encoder: [{mine: {}}]\n")
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    sample = str(Path(__file__).parents[2] / "samples" / "plain.png")
    assert run_command_line(["run", sample, "what?", "-r", str(recipe)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: stage broke its contract")
    assert "mine.mine at encoder layer -1" in captured.err
    assert f"{tmp_path}/stages/mine.py:8" in captured.err
