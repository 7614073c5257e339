"""A checked recipe and the sizes of a model become a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import BudgetError, RecipeError, SignalError, VtcError
from vtc_cli.core.plan import Fidelity, Plan, Planned, Positions
from vtc_cli.core.shape import ModelShape
from vtc_cli.core.signals import with_derived
from vtc_cli.core.stage import DecodeStage, EncoderStage, PrefillStage, Stage
from vtc_cli.recipe.layers import Scaled, literal_layers, scale_layers
from vtc_cli.recipe.load import Recipe, StageUse
from vtc_cli.recipe.parameters import (
    FIDELITY,
    Parameter,
    Stack,
    has_fidelity,
    objection,
    parameters_of,
    reference_depth,
)

Budget = float | Literal["default"] | None


@dataclass(frozen=True)
class _Target:
    """The model and the wishes that stages are resolved for."""

    recipe: Recipe
    shape: ModelShape
    fidelity: Fidelity
    requested: float | None
    exact_layers: bool


def resolve(
    recipe: Recipe,
    shape: ModelShape,
    *,
    family_signals: frozenset[str],
    original_tokens: int,
    budget: Budget = None,
    fidelity: Fidelity | None = None,
    exact_layers: bool = False,
) -> Plan:
    """Make a recipe concrete.

    Args:
        recipe: without faults.
        shape: sizes of the model.
        family_signals: what the model family provides.
        original_tokens: N0, visual tokens without compression.
        budget: wanted layer average (sound) or published setting (official), in tokens; `default`
            is the recipe's own.
        fidelity: overrules the recipe.
        exact_layers: take layer numbers literally instead of scaling them.

    Raises:
        RecipeError: layers that the model does not have.
        SignalError: stages that ask for more than the family provides.
        BudgetError: a budget that the recipe cannot meet.
    """
    chosen = fidelity or recipe.file.fidelity or "sound"
    requested = recipe.file.default_budget if budget == "default" else budget
    _check_signals(recipe, with_derived(family_signals))
    _check_budget(recipe, requested, chosen, original_tokens)
    target = _Target(recipe, shape, chosen, requested, exact_layers)
    planned, notes = _plan_stages(target)
    usual: Positions = "renumbered" if chosen == "official" else "original"
    return Plan(
        name=recipe.file.name,
        path=recipe.path,
        sha256=recipe.sha256,
        fidelity=chosen,
        positions=recipe.file.positions or usual,
        input=tuple(item for item in planned if item.stage.phase == "input"),
        encoder=tuple(item for item in planned if item.stage.phase == "encoder"),
        prefill=tuple(item for item in planned if item.stage.phase == "prefill"),
        decode=tuple(item for item in planned if item.stage.phase == "decode"),
        budget=_layer_budget(target, planned),
        requested=requested,
        warnings=(*_budget_notes(target), *notes),
    )


def _check_signals(recipe: Recipe, family_signals: frozenset[str]) -> None:
    lacking = {
        use.name: sorted(use.cls.needs - family_signals)
        for use in recipe.stages
        if not use.cls.needs <= family_signals
    }
    if lacking:
        parts = [f"{name} needs {', '.join(names)}" for name, names in lacking.items()]
        raise SignalError(
            "; ".join(parts),
            where=recipe.path,
            allowed=", ".join(sorted(family_signals)) or "this family provides no signals",
            hint="choose a model of another family, or leave the stage out",
        )


def _check_budget(
    recipe: Recipe, requested: float | None, fidelity: Fidelity, original_tokens: int
) -> None:
    if requested is None:
        return
    found, where = f"a budget of {requested:g} tokens was asked for", recipe.path
    if not recipe.stages:
        allowed = f"no budget: {recipe.file.name} compresses nothing"
        hint = "choose another recipe, or --budget none"
        raise BudgetError(found, where=where, allowed=allowed, hint=hint)
    followers = [use.cls for use in recipe.stages if use.cls.meets_budget]
    in_cache = bool(followers) and all(issubclass(cls, DecodeStage) for cls in followers)
    if in_cache and (requested < 1 or requested % 1):
        raise BudgetError(found, where=where, allowed="a whole number of cache entries, from 1 on")
    if not in_cache and not 1 <= requested <= original_tokens:
        raise BudgetError(found, where=where, allowed=f"1..{original_tokens} for this input")
    if fidelity == "official":
        if requested not in recipe.file.budgets:
            published = ", ".join(map(str, sorted(recipe.file.budgets)))
            allowed = f"the published settings: {published}" if published else "none is published"
            hint = "--fidelity sound meets any budget"
            raise BudgetError(found, where=where, allowed=allowed, hint=hint)
    elif not followers:
        names = ", ".join(use.name for use in recipe.stages)
        allowed = f"no budget: none of the stages follows one ({names})"
        hint = "set their hyper-parameters, or --fidelity official for published settings"
        raise BudgetError(found, where=where, allowed=allowed, hint=hint)


def _plan_stages(target: _Target) -> tuple[list[Planned[Any]], list[str]]:
    planned: list[Planned[Any]] = []
    faults: list[VtcError] = []
    notes: list[str] = []
    for use in target.recipe.stages:
        try:
            planned.append(_plan_stage(target, use, notes))
        except VtcError as fault:
            faults.append(fault)
    if faults:
        raise RecipeError(faults, where=target.recipe.path)
    return planned, notes


def _plan_stage(target: _Target, use: StageUse, notes: list[str]) -> Planned[Any]:
    parameters = parameters_of(use.cls)
    declared = {name: known.default for name, known in parameters.items()} | dict(use.values)
    if target.fidelity == "official" and target.requested is not None:
        declared |= use.overrides.get(int(target.requested), {})
    resolved = dict(declared)
    for name, known in parameters.items():
        if known.layer_of:
            scaled = _place_layers(target, use, known, declared[name])
            resolved[name] = scaled.value
            if scaled.moved:
                notes.append(f"{use.name}: {name} moved to {_shown(scaled.value)} to fit the model")
    if has_fidelity(use.cls):
        declared[FIDELITY] = resolved[FIDELITY] = target.fidelity
    stage = _build(use, resolved)
    _check_tower_layer(target, use, stage)
    return Planned(use.name, stage, declared, resolved)


def _place_layers(target: _Target, use: StageUse, known: Parameter, value: Any) -> Scaled:
    stack: Stack = known.layer_of or "llm"
    shape = target.shape
    depth = shape.decoder.layers if stack == "llm" else shape.vision.layers
    reference = reference_depth(target.recipe.file.reference, stack)
    try:
        if target.exact_layers:
            return literal_layers(value, depth)
        return scale_layers(value, reference, depth)
    except ValueError as error:
        raise VtcError(
            f"{use.name}: {known.name}: {_shown(value)}: {error}",
            where=use.where,
            allowed=f"increasing layers in {-depth}..{depth - 1} of this {stack} stack",
            hint="leave out --exact-layers" if target.exact_layers else "name fewer layers",
        ) from error


def _build(use: StageUse, resolved: Mapping[str, Any]) -> Stage:
    """The stage with layers of this model; its own objections become faults of the recipe."""
    try:
        return use.cls(**resolved)
    except VtcError:
        raise
    except Exception as error:  # a stage's own code raises whatever it likes
        raise VtcError(f"{use.name}: {objection(error)}", where=use.where) from error


def _check_tower_layer(target: _Target, use: StageUse, stage: Stage) -> None:
    if not isinstance(stage, EncoderStage) or stage.tower_layer is None:
        return
    between = target.shape.between
    if between:
        raise VtcError(
            f"{use.name} acts inside the vision tower",
            where=use.where,
            allowed=f"stages behind the projector: {between}, and that needs every row",
            hint="choose another recipe, or a model whose tower rows are the visual tokens",
        )
    last = target.shape.feature_layers - 1
    if not 0 <= stage.tower_layer <= last:
        raise VtcError(
            f"{use.name} acts at tower layer {stage.tower_layer}",
            where=use.where,
            allowed=f"0..{last}: the features of this model are taken after layer {last}",
        )


def _layer_budget(target: _Target, planned: Sequence[Planned[Any]]) -> LayerBudget | None:
    if target.requested is None or target.fidelity == "official":
        return None
    stages = [item.stage for item in planned]
    if not any(stage.meets_budget for stage in stages if not isinstance(stage, DecodeStage)):
        return None  # cache policies alone follow it, and they are given `Plan.cache_budget`
    prune_layers = {
        layer
        for stage in stages
        if isinstance(stage, PrefillStage) and stage.meets_budget
        for layer in stage.layers
    }
    encoders = [stage for stage in stages if isinstance(stage, EncoderStage)]
    return LayerBudget(
        layer_average=target.requested,
        decoder_layers=target.shape.decoder.layers,
        prune_layers=tuple(sorted(prune_layers)),
        protect_ratio=sum(getattr(stage, "protect_ratio", 0.0) for stage in encoders),
    )


def _budget_notes(target: _Target) -> list[str]:
    if target.requested is None or target.fidelity != "official":
        return []
    source = target.recipe.file.source.get("budgets")
    tuned = f" (tuned on: {source})" if source else ""
    return [f"published settings for {target.requested:g} tokens{tuned}; the count may differ"]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
