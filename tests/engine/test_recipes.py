"""Every shipped recipe on the narrow model of true depth: runs, meets its budget, repeats."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.support import noise_media, session_of
from vtc_cli.core.errors import BudgetError
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.core.spectrum import information_contribution
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.metrics.information import information_by_stage, information_kept
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import Budget, resolve

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))
CACHES = ["h2o", "snapkv", "streamingllm"]  # their budget counts cache entries
COMPRESSING = [name for name in RECIPES if name not in ("full", *CACHES)]
LATE = {"pyramiddrop"}  # a quarter of the layers sees all tokens: no average under 144.75


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    adapter = LlavaAdapter.narrow(0)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(2, 40, 60), "what colour is the shape on the left?")


def plan_of_recipe(
    adapter: LlavaAdapter, name: str, budget: Budget, fidelity: Fidelity | None = None
) -> Plan:
    return resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=576,
        budget=budget,
        fidelity=fidelity,
    )


def answer(
    adapter: LlavaAdapter,
    prompt: Prompt,
    name: str,
    budget: Budget,
    fidelity: Fidelity | None = None,
) -> Trace:
    plan = plan_of_recipe(adapter, name, budget, fidelity)
    return session_of(adapter).run(prompt, plan, Generation(max_new_tokens=3))


def reachable(adapter: LlavaAdapter, prompt: Prompt, name: str, budget: float) -> float:
    """`budget`, or the smallest that the refusal names where the recipe's layers cannot meet it."""
    try:
        answer(adapter, prompt, name, budget)
    except BudgetError as error:
        assert name in LATE, name
        return float((error.hint or "").removeprefix("--budget "))
    return budget


def test_recipes_were_found() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("name", COMPRESSING)
def test_each_budget_is_met_and_the_run_repeats(
    adapter: LlavaAdapter, prompt: Prompt, name: str
) -> None:
    for budget in (192.0, 128.0, 64.0):
        budget = reachable(adapter, prompt, name, budget)
        trace = answer(adapter, prompt, name, budget)
        assert abs(sum(trace.visual_tokens) / 32 - budget) <= 0.5
        assert len(trace.answer_ids) == 3
    again = answer(adapter, prompt, name, budget)
    assert torch.equal(trace.first_logits, again.first_logits)  # type: ignore[arg-type]
    assert trace.visual_tokens == again.visual_tokens


@pytest.mark.parametrize("name", CACHES)
def test_a_budget_of_cache_entries_is_met_and_the_run_repeats(
    adapter: LlavaAdapter, prompt: Prompt, name: str
) -> None:
    full = answer(adapter, prompt, "full", None)
    for budget in (192.0, 64.0):
        trace = answer(adapter, prompt, name, budget)
        assert trace.kv_entries == [budget] * 32
        assert trace.visual_tokens == [576] * 32
        assert torch.equal(trace.first_logits, full.first_logits)  # type: ignore[arg-type]
    again = answer(adapter, prompt, name, 64.0)
    assert again.answer_ids == trace.answer_ids
    kept = [record.decision.keep.tolist() for record in trace.records]
    assert kept == [record.decision.keep.tolist() for record in again.records]


def test_published_cache_sizes_hold_a_whole_prompt_of_one_picture(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    """The papers speak of long texts: what they publish leaves nothing to evict here."""
    for name, size in (("h2o", 2048.0), ("snapkv", 1024.0), ("streamingllm", 2004.0)):
        trace = answer(adapter, prompt, name, size, fidelity="official")
        assert trace.kv_entries == [trace.prompt_tokens] * 32
        assert token_counts(trace).warnings
    snap = plan_of_recipe(adapter, "snapkv", 4096.0, fidelity="official").decode[0].resolved
    assert (snap["capacity_tokens"], snap["kernel"], snap["pool"]) == (4096, 7, "max")


def test_h2o_without_a_budget_holds_a_fifth_of_the_prompt(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    trace = answer(adapter, prompt, "h2o", "default")
    assert trace.kv_entries == [2 * int(0.1 * trace.prompt_tokens)] * 32


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


def test_information_kept_is_one_for_the_full_model_and_less_under_a_recipe(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    full = plan_of_recipe(adapter, "full", None)
    session, generation = session_of(adapter), Generation(max_new_tokens=1)
    baseline = session.run(prompt, full, generation, capture=True)
    same = information_kept(baseline, baseline)
    assert same is not None
    assert (same.energy_kept, same.ics_kept) == (1.0, 1.0)
    shares = []
    for budget in (192.0, 64.0):
        plan = plan_of_recipe(adapter, "tokencarve", budget)
        trace = session.run(prompt, plan, generation, capture=True)
        kept = information_kept(trace, baseline)
        assert kept is not None
        last = trace.records[0]
        scores = information_contribution(baseline.captured["features"])
        assert last.holder is not None
        share = float(scores[last.holder >= 0].sum() / scores.sum())
        assert kept.ics_kept == pytest.approx(share)
        shares.append((kept.energy_kept, kept.ics_kept))
    assert 1.0 > shares[0][1] > shares[1][1] > 0.0
    assert 1.0 >= shares[0][0] >= shares[1][0] > 0.0


@pytest.mark.parametrize("name", COMPRESSING)
def test_information_never_grows_along_the_stages(
    adapter: LlavaAdapter, prompt: Prompt, name: str
) -> None:
    session, generation = session_of(adapter), Generation(max_new_tokens=1)
    full = session.run(prompt, Plan("full"), generation, capture=True)
    plan = plan_of_recipe(adapter, name, reachable(adapter, prompt, name, 64.0))
    trace = session.run(prompt, plan, generation, capture=True)
    stages = information_by_stage(trace, full)
    if plan.input:  # tokens of a smaller picture are not made of those of the whole one
        assert stages is None
        return
    assert stages
    holders = [record.holder for record in trace.records if record.holder is not None]
    dropped = bool((holders[-1] < 0).any())  # a recipe that only merges drops none
    energy = [1.0, *(stage.energy_kept for stage in stages if stage.energy_kept is not None)]
    scores = [1.0, *(stage.ics_kept for stage in stages)]
    for shares in (energy, scores):
        assert all(after <= before + 1e-12 for before, after in pairwise(shares))
    assert energy[-1] < 1.0 and (scores[-1] < 1.0) == dropped
    assert information_by_stage(full, full) == []


def test_merged_rows_count_as_the_means_that_they_are(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    session, generation = session_of(adapter), Generation(max_new_tokens=1)
    full = session.run(prompt, Plan("full"), generation, capture=True)
    plan = plan_of_recipe(adapter, "tokencarve", 45.0, "sound")
    trace = session.run(prompt, plan, generation, capture=True)
    features = full.captured["features"].double().numpy()
    mix = trace.records[0].decision.mix.to_dense().double().numpy()
    assert (mix > 0).sum() > mix.shape[0]  # something merged
    rows = mix @ features
    solved = np.linalg.lstsq(rows.T, features.T, rcond=1e-7)[0]
    inside = ((rows.T @ solved) ** 2).sum() / (features**2).sum()
    kept = information_kept(trace, full)
    assert kept is not None and kept.energy_kept == pytest.approx(inside, abs=1e-6)
    alone = features[trace.records[0].decision.keep.numpy()]
    solved = np.linalg.lstsq(alone.T, features.T, rcond=1e-7)[0]
    other = ((alone.T @ solved) ** 2).sum() / (features**2).sum()
    assert abs(inside - other) > 2e-5  # or the comparison proves nothing


def test_an_ordinary_run_measures_no_information(adapter: LlavaAdapter, prompt: Prompt) -> None:
    trace = answer(adapter, prompt, "tokencarve", 64.0)
    assert trace.captured == {}
    assert information_kept(trace, trace) is None
