"""Recipes on the narrow models of true depth and token geometry: they run and meet a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.families import NARROW, family_session, narrow_prompt
from vtc_cli.core.errors import RecipeError, SignalError
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import family_class
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve


@pytest.fixture(scope="module", params=NARROW)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    adapter = family_class(request.param).narrow(0)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.fixture(scope="module")
def prompt(adapter: Adapter) -> Prompt:
    return narrow_prompt(adapter)


@pytest.mark.parametrize("name", ["fastv", "tokencarve", "random", "uniform"])
def test_a_recipe_runs_and_meets_its_budget(adapter: Adapter, prompt: Prompt, name: str) -> None:
    budget = NARROW[adapter.family].budget
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=budget,
    )
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=2))
    layers = adapter.shape.decoder.layers
    assert trace.original_tokens == NARROW[adapter.family].tokens
    assert len(trace.visual_tokens) == layers == NARROW[adapter.family].layers
    assert abs(sum(trace.visual_tokens) / layers - budget) <= 0.5
    assert trace.tower[0].rows == [NARROW[adapter.family].rows] * adapter.shape.vision.layers
    assert len(trace.answer_ids) == 2


def test_a_stage_inside_the_tower_is_refused_with_the_reason(
    adapter: Adapter, tmp_path: Path
) -> None:
    path = tmp_path / "tower.yaml"
    path.write_text(
        "name: tower\npaper: none\nreference: {llm_layers: 32, vision_layers: 24}\n"
        "encoder:\n  - mustdrop.spatial_merge: {vision_layer: 1}\n"
    )
    for recipe, kind, words in (
        (str(path), RecipeError, "acts inside the vision tower"),
        ("mustdrop", (RecipeError, SignalError), "tower|vision_cls_attention"),
    ):
        with pytest.raises(kind, match=words):
            resolve(
                load_recipe(recipe),
                adapter.shape,
                family_signals=adapter.provides,
                original_tokens=256,
            )
