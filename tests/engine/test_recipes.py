"""Every shipped recipe on the narrow model of true depth: runs, meets its budget, repeats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.support import noise_media, session_of
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.base import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import Budget, resolve

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))
COMPRESSING = [name for name in RECIPES if name != "full"]


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    adapter = LlavaAdapter.narrow(0)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(2, 40, 60), "what colour is the shape on the left?")


def answer(
    adapter: LlavaAdapter, prompt: Prompt, name: str, budget: Budget, **options: str
) -> Trace:
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=576,
        budget=budget,
        **options,  # type: ignore[arg-type]
    )
    return session_of(adapter).run(prompt, plan, Generation(max_new_tokens=3))


def test_recipes_were_found() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("name", COMPRESSING)
def test_each_budget_is_met_and_the_run_repeats(
    adapter: LlavaAdapter, prompt: Prompt, name: str
) -> None:
    for budget in (192.0, 128.0, 64.0):
        trace = answer(adapter, prompt, name, budget)
        assert abs(sum(trace.visual_tokens) / 32 - budget) <= 0.5
        assert len(trace.answer_ids) == 3
    again = answer(adapter, prompt, name, 64.0)
    assert torch.equal(trace.first_logits, again.first_logits)  # type: ignore[arg-type]
    assert trace.visual_tokens == again.visual_tokens


def test_tokencarve_rules_the_cache_of_every_layer(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace = answer(adapter, prompt, "tokencarve", 128.0, fidelity="official")
    assert trace.visual_tokens == [576] * 2 + [128] * 30
    assert trace.kv_entries == [trace.text_tokens + 128] * 32
    assert trace.plan.positions == "original"


def test_a_chain_of_two_papers_runs_all_its_stages(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace = answer(adapter, prompt, "mustdrop_tokencarve", 100.0)
    names = [record.stage for record in trace.records if record.phase != "decode"]
    assert names == ["mustdrop.spatial_merge", "tokencarve.carve", "tokencarve.carve"]
    holder = trace.records[2].holder
    assert holder is not None
    assert int(holder.max()) + 1 == trace.visual_tokens[-1]
