"""Recipes on models of other depths: layers, budgets, fidelity, signals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.core.errors import BudgetError, RecipeError, SignalError
from vtc_cli.core.plan import Plan
from vtc_cli.core.shape import ModelShape, TransformerShape
from vtc_cli.recipe.layers import literal_layers, scale_layers
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

SIGNALS = frozenset({"vision_cls_attention", "attention_rows", "attention_output"})


def shape(llm_layers: int, vision_layers: int) -> ModelShape:
    decoder = TransformerShape(llm_layers, 32, 4, 2, 8, 64, True, 100)
    vision = replace(decoder, layers=vision_layers)
    return ModelShape(vision, 588, 576, 1, vision_layers - 1, ((32, 32),), decoder)


def plan(name: str = "mustdrop", llm: int = 32, vision: int = 24, **options: Any) -> Plan:
    settings: dict[str, Any] = {"family_signals": SIGNALS, "original_tokens": 576, **options}
    return resolve(load_recipe(name), shape(llm, vision), **settings)


def test_on_its_reference_depth_mustdrop_stands_as_written() -> None:
    stages = plan(budget=None)
    assert stages.prefill[0].stage.layers == (3, 7, 11, 15)
    assert stages.encoder[0].stage.tower_layer == 1
    assert stages.encoder[1].resolved["attention_layer"] == 23
    assert stages.decode[0].stage.first_layer == 2
    assert (stages.budget, stages.requested, stages.fidelity) == (None, None, "sound")


def test_on_twelve_layers_mustdrop_is_scaled() -> None:
    stages = plan(llm=12, vision=6)
    assert stages.prefill[0].stage.layers == (1, 3, 4, 6)
    assert stages.prefill[0].declared["layers"] == (3, 7, 11, 15)
    assert stages.encoder[0].stage.tower_layer == 1
    assert stages.decode[0].stage.first_layer == 1


@pytest.mark.parametrize(
    ("value", "reference", "depth", "scaled"),
    [
        ((3, 7, 11, 15), 32, 32, (3, 7, 11, 15)),
        ((2,), 32, 80, (5,)),
        ((1, 2, 3), 32, 8, (1, 2, 3)),
        ((0, 2), 32, 8, (0, 1)),
        ((30, 31), 32, 4, (2, 3)),
        ((-1,), 32, 12, (11,)),
        (-1, 24, 6, 5),
        (1, 24, 6, 1),
        (0, 24, 6, 0),
    ],
)
def test_layers_are_rounded_and_kept_apart(
    value: Any, reference: int, depth: int, scaled: Any
) -> None:
    assert scale_layers(value, reference, depth).value == scaled


def test_too_many_layers_for_a_shallow_model_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        scale_layers((3, 7, 11, 15), 32, 4)
    with pytest.raises(RecipeError):
        plan(llm=4, vision=6)


def test_exact_layers_are_taken_or_refused() -> None:
    assert plan(llm=20, exact_layers=True).prefill[0].stage.layers == (3, 7, 11, 15)
    with pytest.raises(RecipeError) as caught:
        plan(llm=12, vision=6, exact_layers=True)
    assert "-12..11" in str(caught.value.faults[0])
    assert literal_layers((-2, -1), 6).value == (4, 5)


def test_the_default_budget_is_the_recipe_s_own() -> None:
    stages = plan(budget="default")
    assert stages.requested == 192
    assert stages.budget is not None
    assert stages.budget.prune_layers == (3, 7, 11, 15)
    assert stages.budget.protect_ratio == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("budget", "gamma", "alpha"), [(192, 0.001, 0.001), (128, 0.0012, 0.001), (64, 0.011, 0.01)]
)
def test_official_fidelity_applies_the_published_thresholds(
    budget: float, gamma: float, alpha: float
) -> None:
    stages = plan(budget=budget, fidelity="official")
    stage: Any = stages.prefill[0].stage
    assert (stage.global_threshold, stage.individual_threshold) == (gamma, alpha)
    assert stages.encoder[0].resolved["fidelity"] == "official"
    assert (stages.positions, stages.budget, stages.requested) == ("renumbered", None, budget)
    assert any("published" in warning for warning in stages.warnings)


def test_a_recipe_may_settle_positions_itself() -> None:
    assert plan("tokencarve", budget=64.0, fidelity="official").positions == "original"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "above N": ({"budget": 600.0}, "1..576"),
    "below one": ({"budget": 0.5}, "1..576"),
    "unpublished": ({"budget": 70.0, "fidelity": "official"}, "64, 128, 192"),
    "of the full model": ({"name": "full", "budget": 64.0}, "compresses nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_budget_that_cannot_be_meant_is_refused(name: str) -> None:
    options, words = REFUSED[name]
    with pytest.raises(BudgetError) as caught:
        plan(**options)
    assert words in str(caught.value)


def test_a_recipe_without_a_stage_that_follows_budgets_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\npaper: none\ndecode:\n  - tokencarve.carved_cache: {}\n")
    with pytest.raises(BudgetError, match="carved_cache"):
        try:
            plan(str(path), budget=64.0)
        except BudgetError as error:
            raise BudgetError(str(error)) from error


def test_a_missing_signal_names_the_stage_and_what_there_is() -> None:
    with pytest.raises(SignalError) as caught:
        plan(family_signals=frozenset({"attention_rows"}))
    assert "mustdrop.key_tokens needs vision_cls_attention" in caught.value.found
    assert caught.value.allowed == (
        "attention_rows, attention_rows_ahead, received_attention, window_attention"
    )


def test_what_can_be_made_of_two_signals_is_a_signal() -> None:
    parts = frozenset({"projected_features", "text_embeddings", "attention_rows"})
    assert plan("metok", family_signals=parts).encoder[0].name == "metok.event_pool"
    for lacking in ("projected_features", "text_embeddings"):
        with pytest.raises(SignalError, match="event_pool needs frame_relevance"):
            plan("metok", family_signals=parts - {lacking})


@pytest.mark.parametrize(
    ("depth", "layers", "first"), [(28, (3, 10, 19), 3), (32, (3, 11, 22), 3), (4, (1, 2, 3), 1)]
)
def test_metok_on_other_depths(depth: int, layers: tuple[int, ...], first: int) -> None:
    parts = frozenset({"frame_relevance", "attention_rows"})
    for fidelity in ("sound", "official"):
        stages = plan("metok", llm=depth, family_signals=parts, fidelity=fidelity)
        assert stages.prefill[0].stage.layers == layers
        assert stages.decode[0].stage.first_layer == first
        assert stages.positions == "entered"


def test_a_stage_behind_the_feature_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\npaper: none\nencoder:\n  - mustdrop.spatial_merge: {vision_layer: 23}\n"
    )
    with pytest.raises(RecipeError) as caught:
        plan(str(path))
    assert "0..22" in str(caught.value.faults[0])


@pytest.mark.parametrize("name", ["h2o", "snapkv", "streamingllm"])
def test_a_budget_of_cache_policies_alone_counts_entries(name: str) -> None:
    made = plan(name, budget=700.0)  # more than there are visual tokens: text counts too
    assert made.budget is None and made.requested == 700.0
    assert made.budget_counts == "cache_entries" and made.cache_budget == 700
    for wrong in (0.5, 64.5):
        with pytest.raises(BudgetError) as refused:
            plan(name, budget=wrong)
        assert "whole number of cache entries" in str(refused.value.allowed)
    assert plan("mustdrop", budget=64.0).budget_counts == "visual_tokens"
    assert plan("mustdrop", budget=64.0).cache_budget is None


def write(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\n{text}", encoding="utf-8")
    return plan(str(path), budget=64.0)


def test_behind_a_stage_that_follows_a_budget_a_cache_policy_keeps_its_own_size(
    tmp_path: Path,
) -> None:
    """One number cannot be both: the layer average of visual tokens comes first."""
    chain = write(
        tmp_path, "prefill:\n  - fastv.last_row: {}\ndecode:\n  - snapkv.observation_window: {}\n"
    )
    assert chain.budget_counts == "visual_tokens" and chain.cache_budget is None
    assert chain.budget is not None and chain.budget.prune_layers == (2,)


def test_where_text_stays_a_budget_counts_visual_entries(tmp_path: Path) -> None:
    made = write(tmp_path, "decode:\n  - h2o.heavy_hitters: {visual_only: true}\n")
    assert made.budget_counts == "visual_entries" and made.cache_budget == 64


def test_published_cache_sizes_are_the_stages_own() -> None:
    made = plan("snapkv", budget=1024.0, fidelity="official")
    stage = made.decode[0].resolved
    assert made.cache_budget is None and made.positions == "original"
    assert (stage["capacity_tokens"], stage["window_tokens"]) == (1024, 32)
    assert (stage["kernel"], stage["pool"]) == (7, "max")
