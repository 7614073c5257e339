"""`vtc run --html`: the file, what it costs the run, and targets that cannot work."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_run import NARROW, picture
from tests.engine.support import QUESTION, noise_media, session_of, small_adapter
from vtc_cli.app import run_command_line
from vtc_cli.commands.job import Outcome, PlanOptions, do_job
from vtc_cli.core.observe import LayerView, Observer
from vtc_cli.engine.decode import Generation
from vtc_cli.recipe.load import load_recipe

__all__ = ["picture"]  # the fixture


def embedded(page: Path) -> Any:
    found = re.search(r'id="result">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found.group(1))


def test_the_page_holds_the_printed_result(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With layers for the run and for the full model beside it."""
    page = tmp_path / "page.html"
    arguments = ["run", str(picture), "what?", "-r", "mustdrop", "--baseline", "--html", str(page)]
    assert run_command_line([*arguments, "--json", *NARROW]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert embedded(page) == printed
    layers = printed["information"]["layers"]
    assert [layer["tokens"] for layer in layers] == printed["tokens"]["per_layer"]
    full = printed["baseline"]["information"]
    assert [layer["tokens"] for layer in full["layers"]] == [576] * 32
    assert full["energy_kept"] is None and layers[0]["effective_rank"] > 1
    assert page.stat().st_size < 1.5e6
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_without_a_page_nothing_is_observed(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", str(picture), "what?", "--baseline", "--json", *NARROW]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["information"]["layers"] is None
    assert printed["baseline"]["information"] is None


def test_a_page_without_baseline_has_a_report_too(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layers are known, the information kept is not: the table leaves it out."""
    arguments = ["run", str(picture), "what?", "--html", str(tmp_path / "page.htm"), *NARROW]
    assert run_command_line(arguments) == 0
    captured = capsys.readouterr()
    assert "KV cache" in captured.err and "energy kept" not in captured.err


def job(repeats: int, observer: Observer | None) -> Outcome:
    return do_job(
        session_of(small_adapter()),
        noise_media(),
        QUESTION,
        load_recipe("tokencarve"),
        PlanOptions(20.0),
        Generation(3),
        repeats=repeats,
        baseline=True,
        observer=observer,
    )


@pytest.mark.parametrize("repeats", [1, 2])
def test_no_reported_time_comes_from_a_pass_under_observation(
    repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only the observer moves, the run and the full model take no time."""
    looked: list[int] = []
    monkeypatch.setattr(time, "perf_counter", lambda: float(len(looked)))

    def look(view: LayerView) -> int:
        looked.append(view.layer)
        return view.layer

    outcome = job(repeats, Observer(look, "hidden"))
    assert outcome.baseline is not None
    for trace in (outcome.trace, outcome.baseline):
        assert trace.observed == list(range(6))
        assert len(trace.timings) == repeats
        assert [timing.total_ms for timing in trace.timings] == [0.0] * repeats
    assert looked == list(range(6)) * 2


def test_observation_changes_nothing_else() -> None:
    """Answer, logits and decisions are those of the run without it."""
    plain, seen = job(1, None), job(1, Observer(lambda view: view.anchor.tolist(), "hidden"))
    assert plain.trace.observed == [] and plain.trace.answer_ids == seen.trace.answer_ids
    assert torch.equal(plain.trace.first_logits, seen.trace.first_logits)  # type: ignore[arg-type]
    assert len(plain.trace.records) == len(seen.trace.records)
    assert seen.trace.observed[-1] == seen.trace.records[0].anchor.tolist()


BAD = {
    "no/such/page.html": "the folder no/such does not exist",
    "{folder}": "is a folder",
    "{folder}/page.txt": ".html, .htm",
    "/proc/page.html": "/proc",
    "{folder}/" + 260 * "x" + ".html": "File name too long",
}


@pytest.mark.parametrize("target", BAD)
def test_bad_targets_are_refused_before_the_model_loads(
    target: str, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model named here does not exist, and nobody finds out."""
    path = target.format(folder=picture.parent)
    code = run_command_line(["run", str(picture), "what?", "--html", path, "-m", "./none"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("error: ") and BAD[target] in captured.err
    assert "Traceback" not in captured.err
    assert list(picture.parent.iterdir()) == [picture]
