"""What both ways of solving share: targets, refusals and the solution itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtc_cli.commands.solve_options import SolveOptions
from vtc_cli.core.errors import BudgetError
from vtc_cli.core.shape import ModelShape
from vtc_cli.metrics.counted import Measure, Measures
from vtc_cli.recipe.knobs import Knob, Settings, with_settings
from vtc_cli.recipe.load import Recipe
from vtc_cli.recipe.schema import Reference
from vtc_cli.recipe.solve import Target
from vtc_cli.recipe.write import solved_text

if TYPE_CHECKING:
    from vtc_cli.core.plan import Plan
    from vtc_cli.report.solution import Solution

MEASURES: tuple[Measure, ...] = ("layer_average", "flops", "kv")
WORDS = {
    "layer_average": "a layer average of {} tokens",
    "flops": "a prefill of {} of the full model's FLOPs",
    "kv": "a KV cache of {} of the full model's bytes",
}
FLAGS = {"layer_average": "--layer-average", "flops": "--flops", "kv": "--kv"}


@dataclass(frozen=True)
class Reach:
    """What hyper-parameters reach.

    Attributes:
        knobs: the hyper-parameters.
        low: the measures where they leave fewest.
        high: the measures where they leave most.
        open_below: they can leave fewer, how many depends on the data.
    """

    knobs: tuple[Knob, ...]
    low: Measures
    high: Measures
    open_below: bool = False

    def of(self, measure: Measure) -> tuple[float, float]:
        """Least and most of one measure."""
        return getattr(self.low, measure), getattr(self.high, measure)


@dataclass(frozen=True)
class Found:
    """Settings that come nearest to a target.

    Attributes:
        recipe: as it was.
        settings: of its hyper-parameters.
        achieved: the measures under them, means over items of a calibration.
        reach: of the hyper-parameters that were varied.
        single: measures of single items, empty without a calibration.
    """

    recipe: Recipe
    settings: Settings
    achieved: Measures
    reach: Reach
    single: tuple[Measures, ...] = ()


def target_of(options: SolveOptions, visual_tokens: int) -> Target:
    """The target; half a token beside it is as good as met."""
    tolerance = 0.5 if options.measure == "layer_average" else 0.5 / max(visual_tokens, 1)
    return Target(options.wanted, tolerance)


def named_stages(stages: Iterable[str], knobs: Sequence[Knob]) -> str:
    """Stages with the hyper-parameters that govern their counts."""
    texts = []
    for stage in stages:
        names = [knob.parameter for knob in knobs if knob.stage == stage]
        texts.append(f"{stage} ({', '.join(names) or 'what it sees'})")
    return ", ".join(texts)


def no_knobs(options: SolveOptions, recipe: Recipe) -> BudgetError:
    """Nothing in the recipe governs how much is left."""
    stages = ", ".join(use.name for use in recipe.stages)
    reason = (
        f"no hyper-parameter of {stages} governs a count" if stages else "it compresses nothing"
    )
    return BudgetError(
        f"{_asked(options)} was asked for",
        where=recipe.path,
        allowed=f"no target: {recipe.file.name} has none to meet one with, {reason}",
        hint="choose another recipe; `vtc recipes list` names them",
    )


def refuse(
    options: SolveOptions, recipe: Recipe, reach: Reach, text_alone: Measures | None = None
) -> BudgetError:
    """The target lies outside what the hyper-parameters reach."""
    measure = options.measure
    low, high = reach.of(measure)
    names = ", ".join(dict.fromkeys(knob.name for knob in reach.knobs))
    if shown(measure, low) == shown(measure, high):
        allowed = f"{shown(measure, low)}, whatever {names} is set to"
    else:
        allowed = f"{shown(measure, low)}..{shown(measure, high)} by {names}"
    if text_alone is not None and measure != "layer_average" and options.wanted < low:
        allowed += f"; the text alone takes {shown(measure, getattr(text_alone, measure))}"
    return BudgetError(
        f"{_asked(options)} was asked for",
        where=recipe.path,
        allowed=allowed,
        hint=_way_out(options, reach),
    )


def _way_out(options: SolveOptions, reach: Reach) -> str:
    """Another measure that these hyper-parameters do govern, or other stages."""
    low, high = reach.of(options.measure)
    if reach.open_below and options.wanted < low:
        return "--calibrate ITEMS.jsonl: with less, what is left depends on the data"
    moved = [name for name in MEASURES if reach.of(name)[1] - reach.of(name)[0] > 1e-9]
    if low == high and moved:
        ends = reach.of(moved[-1])
        return f"{FLAGS[moved[-1]]} within {ends[0]:.4g}..{ends[1]:.4g}, which they govern"
    if options.wanted > high:
        return "the recipe `full` keeps all"
    return "earlier layers in the recipe, other stages, or --vary with hyper-parameters of both"


def shown(measure: Measure, value: float) -> str:
    """A measure in words for errors."""
    return f"{value:.1f}" if measure == "layer_average" else f"{value:.4f}"


def _asked(options: SolveOptions) -> str:
    return WORDS[options.measure].format(f"{options.wanted:g}")


@dataclass(frozen=True, eq=False)
class Context:
    """Where a solution comes from.

    Attributes:
        plan: of the recipe as it was.
        shape: sizes of the model.
        family: of the model.
        argv: the command line.
        created: time, ISO 8601.
        given: the prompt.
        solved_on: the prompt or the items in words.
        notes: what the reader must know.
    """

    plan: Plan
    shape: ModelShape
    family: str
    argv: Sequence[str]
    created: str
    given: dict[str, Any]
    solved_on: str
    notes: Sequence[str]


def solution(
    options: SolveOptions, found: Found, context: Context, known: dict[str, Any]
) -> Solution:
    """Everything that is known of a solved recipe.

    Args:
        options: of the command.
        found: the settings.
        context: where they come from.
        known: the blocks `budget`, `tokens` and `calibration`, as far as there are any.
    """
    from vtc_cli.report.result import SCHEMA_VERSION
    from vtc_cli.report.solution import Solution

    blocks = [_measure_block(options, found, measure) for measure in MEASURES]
    half = target_of(options, context.given["visual_tokens"]).tolerance
    gaps = [_gap_note(block, half) for block in blocks if abs(block["gap"] or 0.0) > half]
    return Solution.model_validate(
        {
            "command": "recipes solve",
            "schema_version": SCHEMA_VERSION,
            "created": context.created,
            "argv": list(context.argv),
            "seed": options.seed,
            "model": _model_block(options, context),
            "recipe": _recipe_block(context.plan),
            "input": context.given,
            "method": "calibration" if "calibration" in known else "arithmetic",
            "measures": blocks,
            "varied": [_varied_block(knob, value) for knob, value in found.settings.items()],
            **{"budget": None, "tokens": None, "calibration": None, **known},
            "solved_recipe": _text(options, found, context),
            "output": None if options.output_file is None else str(options.output_file),
            "warnings": list(dict.fromkeys([*gaps, *context.plan.warnings, *context.notes])),
            "error": None,
        }
    )


def _model_block(options: SolveOptions, context: Context) -> dict[str, Any]:
    return {
        "id": options.model,
        "family": context.family,
        "layers": context.shape.decoder.layers,
        "vision_layers": context.shape.vision.layers,
    }


def _recipe_block(plan: Plan) -> dict[str, Any]:
    names = ("name", "path", "sha256", "fidelity")
    stages = [planned.name for planned in plan.stages]
    return {name: getattr(plan, name) for name in names} | {"stages": stages}


def _measure_block(options: SolveOptions, found: Found, measure: Measure) -> dict[str, Any]:
    achieved: float = getattr(found.achieved, measure)
    asked = measure == options.measure
    low, high = found.reach.of(measure)
    single = [getattr(each, measure) for each in found.single]
    return {
        "measure": measure,
        "requested": options.wanted if asked else None,
        "achieved": achieved,
        "gap": achieved - options.wanted if asked else None,
        "low": low,
        "high": high,
        "smallest": min(single, default=None),
        "largest": max(single, default=None),
    }


def _gap_note(block: dict[str, Any], half: float) -> str:
    measure: Measure = block["measure"]
    return (
        f"{shown(measure, block['requested'])} was asked for and "
        f"{shown(measure, block['achieved'])} is the nearest that was found; the gap of "
        f"{block['gap']:+.4g} is more than {half:.4g}"
    )


def _varied_block(knob: Knob, value: Any) -> dict[str, Any]:
    plain = list(value) if isinstance(value, tuple) else value
    declared = list(knob.declared) if isinstance(knob.declared, tuple) else knob.declared
    return {
        "stage": knob.stage,
        "phase": knob.phase,
        "parameter": knob.parameter,
        "declared": declared,
        "solved": plain,
    }


def _text(options: SolveOptions, found: Found, context: Context) -> str:
    """The solved recipe."""
    achieved, shape = found.achieved, context.shape
    measure = options.measure.replace("layer_", "")
    figures = (
        f"layer average {achieved.layer_average:.2f}, prefill FLOPs {achieved.flops:.4f}, "
        f"KV {achieved.kv:.4f}"
    )
    solved_on = f"{options.model}, {context.solved_on}"
    exact = Reference(llm_layers=shape.decoder.layers, vision_layers=shape.vision.layers)
    return solved_text(
        with_settings(found.recipe, found.settings),
        f"{found.recipe.file.name}-{measure}-{options.wanted:g}",
        f"{_asked(options)} on {solved_on}: {figures}",
        notes=[
            f"Solved from {found.recipe.file.name} by `vtc recipes solve` for {_asked(options)}; "
            "run it without --budget.",
            f"On {solved_on}: {figures}.",
        ],
        fidelity=None if options.fidelity is None else context.plan.fidelity,
        reference=exact if options.exact_layers else None,
    )
