"""Selections: the pruning of a recipe alone, at one layer, down to a wanted number of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vtc_cli.core.errors import UsageError
from vtc_cli.core.plan import Plan
from vtc_cli.core.shape import ModelShape
from vtc_cli.recipe.layers import scale_layers
from vtc_cli.recipe.load import Recipe, StageUse, load_recipe
from vtc_cli.recipe.resolve import resolve

# How `analyze` calls the rules by which tokens are chosen, and the recipes that hold them.
SELECTIONS = {
    "tokencarve": "tokencarve",
    "attention": "fastv",
    "random": "random",
    "uniform": "uniform",
}
REFERENCE_LAYER, REFERENCE_DEPTH = 2, 32  # where TokenCarve and FastV act in LLaVA-1.5-7B


def selection_layer(decoder_layers: int) -> int:
    """The layer of this depth at which all selections act, so that only the choice differs."""
    layer = scale_layers((REFERENCE_LAYER,), REFERENCE_DEPTH, decoder_layers).value
    assert isinstance(layer, tuple)
    return layer[0]


def selection_plan(
    name: str,
    tokens: int,
    layer: int,
    shape: ModelShape,
    *,
    family_signals: frozenset[str],
    original_tokens: int,
) -> Plan:
    """The prefill stage of a recipe with `tokens` left behind the input of `layer`.

    Encoder stages and cache policies of the recipe are left out: a selection is compared with
    other selections, not with whole methods.

    Raises:
        UsageError: the recipe has no single prefill stage with a `tokens` hyper-parameter.
        SignalError: the model family lacks a signal.
    """
    recipe = load_recipe(SELECTIONS.get(name, name))
    chosen = replace(recipe, stages=(_stage(recipe, tokens, layer),))
    plan = resolve(
        chosen,
        shape,
        family_signals=family_signals,
        original_tokens=original_tokens,
        budget=None,
        exact_layers=True,
    )
    return replace(plan, name=name)


def _stage(recipe: Recipe, tokens: int, layer: int) -> StageUse:
    """The recipe's pruning stage with a count and a layer of its own."""
    uses = [use for use in recipe.stages if use.cls.phase == "prefill"]
    if len(uses) != 1 or "tokens" not in _fields(uses[0]):
        raise UsageError(
            f"{recipe.file.name} has no single stage that prunes to a number of tokens",
            where=recipe.path,
            allowed=", ".join(SELECTIONS),
        )
    values: dict[str, Any] = {**uses[0].values, "tokens": tokens, "layers": (layer,)}
    return replace(uses[0], values=values, overrides={})


def _fields(use: StageUse) -> set[str]:
    return set(use.cls.__dataclass_fields__)
