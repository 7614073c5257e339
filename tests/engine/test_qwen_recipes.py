"""Recipes on narrow Qwen models of true depth, and tokens that go on from a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.engine.qwen_support import (
    CASE_NAMES,
    CASES,
    SMALL,
    media_of,
    noise_video,
    plain_case,
    run_under,
    session_for,
)
from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    ProjectedPrune,
    RaggedCache,
    noise_media,
    plan_of,
)
from tests.store.support import compressed_file, read_back
from vtc_cli.core.decision import Decision
from vtc_cli.core.recorded import Recorded
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import family_class
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve


@dataclass(frozen=True, kw_only=True)
class MergeInside(PrefillStage):
    """Weighted means of neighbours at the input of its layers."""

    layers: tuple[int, ...] = (1,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        first = torch.arange(0, len(tokens) - 1, 2)
        row = torch.arange(first.shape[0])
        pairs = torch.cat([torch.stack([row, first]), torch.stack([row, first + 1])], dim=1)
        weights = torch.cat([torch.full_like(row, 3.0), torch.ones_like(row)]).float()
        return Decision.merge(first, pairs, weights, len(tokens))


RECIPES = ("fastv", "tokencarve", "random", "uniform")


@cache
def narrow(family: str) -> Adapter:
    adapter = family_class(family).narrow(0)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("family", SMALL)
def test_each_recipe_meets_its_budget_and_repeats(family: str, name: str) -> None:
    adapter = narrow(family)
    prompt = adapter.prepare(noise_media(2, 336, 420), "what colour is the shape on the left?")
    assert prompt.layout.tokens > 128
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=48.0,
    )
    session, generation = session_for(adapter), Generation(max_new_tokens=2)
    trace = session.run(prompt, plan, generation)
    layers = adapter.shape.decoder.layers
    assert abs(sum(trace.visual_tokens) / layers - 48.0) <= 0.5
    again = session.run(prompt, plan, generation)
    assert torch.equal(trace.first_logits, again.first_logits)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("family", SMALL)
def test_each_recipe_meets_its_budget_on_a_video(family: str, name: str) -> None:
    adapter = narrow(family)
    prompt = adapter.prepare(noise_video(4, 280, 336), "what happens?")
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=64.0,
    )
    trace = session_for(adapter).run(prompt, plan, Generation(max_new_tokens=2))
    assert abs(sum(trace.visual_tokens) / adapter.shape.decoder.layers - 64.0) <= 0.5


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_tokens_of_a_file_go_on_as_in_one_run(case: tuple[str, str], tmp_path: Path) -> None:
    """Cut, merged and cut again: what the file holds gives the logits of the direct run."""
    plain = plain_case(*case)
    session = session_for(plain.adapter)
    plan = plan_of(ProjectedPrune(), MergeInside(), AttentionPrune(), RaggedCache())
    _, direct = run_under(plain, plan)
    written = plan_of(ProjectedPrune(), MergeInside(), AttentionPrune())
    file = read_back(
        compressed_file(session, media_of(case[1]), QUESTION, written, tmp_path / "x.safetensors")
    )
    assert len(file.entering.added) == (3 if case[0] == "qwen3_vl" else 0)
    device = torch.device("cpu")
    past = Recorded(layers=(1, 2), decisions=file.decisions_on(device))
    trace, logits = run_under(
        plain,
        plan_of(past, RaggedCache()),
        tokens=file.entering_on(device),
    )
    assert torch.equal(logits, direct)
    assert trace.tower == []


def test_rows_that_layers_add_change_the_answer() -> None:
    """Without them the file of a deepstack model would give another answer in silence."""
    plain = plain_case("qwen3_vl", "image")
    done = session_for(plain.adapter).compress(plain.prompt, plan_of())
    _, whole = run_under(plain, plan_of(), tokens=done.entering)
    assert torch.equal(whole, plain.logits)
    _, without = run_under(plain, plan_of(), tokens=replace(done.entering, added=()))
    assert float((without - whole).abs().max()) > 1e-2
