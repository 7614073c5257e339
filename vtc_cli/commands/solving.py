"""Solve a recipe for a budget by arithmetic: sizes and counts, no weights and no pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vtc_cli.commands.job import parse_fidelity
from vtc_cli.commands.loading import load_session
from vtc_cli.commands.output import Output
from vtc_cli.commands.solve_options import DEFAULT_QUESTION, SolveOptions
from vtc_cli.commands.solved import (
    Context,
    Found,
    Reach,
    named_stages,
    no_knobs,
    refuse,
    solution,
    target_of,
)
from vtc_cli.core.errors import VtcError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.shape import ModelShape
from vtc_cli.metrics.counted import Measures, measures
from vtc_cli.recipe.counting import Counted, DataDependentError, PromptCounts, count_plan
from vtc_cli.recipe.knobs import Knob, all_knobs, groups, named_knobs, settings_at
from vtc_cli.recipe.load import Recipe
from vtc_cli.recipe.resolve import Budget, resolve
from vtc_cli.recipe.solve import Arithmetic, UnreachableError

if TYPE_CHECKING:
    from vtc_cli.models.support.base import Adapter
    from vtc_cli.report.solution import Solution

BLANK_SIDE = 336  # pixels, of the picture that stands in where none is given


@dataclass(frozen=True, eq=False)
class Sizes:
    """What arithmetic knows of model and prompt."""

    adapter: Adapter
    media: Media
    question: str | None
    prompt: PromptCounts

    @property
    def shape(self) -> ModelShape:
        """Sizes of the model."""
        return self.adapter.shape


@dataclass(frozen=True, eq=False)
class Counting:
    """Counts and measures of recipes on one model and prompt."""

    options: SolveOptions
    sizes: Sizes

    def plan(self, recipe: Recipe, budget: Budget = None) -> Plan:
        """The recipe for this model and prompt."""
        return resolve(
            recipe,
            self.sizes.shape,
            family_signals=self.sizes.adapter.provides,
            original_tokens=self.sizes.prompt.layout.tokens,
            budget=budget,
            fidelity=parse_fidelity(self.options.fidelity),
            exact_layers=self.options.exact_layers,
        )

    def count(self, recipe: Recipe, budget: Budget = None) -> Counted:
        """What it leaves."""
        depth = self.sizes.shape.decoder.layers
        return count_plan(self.plan(recipe, budget), self.sizes.prompt, depth)

    def measures(self, counted: Counted) -> Measures:
        """The three measures of counts."""
        counts = counted.visual_tokens, counted.sequence_tokens, counted.kv_entries
        return measures(self.sizes.shape, self.sizes.prompt.prompt_tokens, *counts)

    def measure(self, counted: Counted) -> float:
        """The one that is asked for."""
        return float(getattr(self.measures(counted), self.options.measure))


def solve_by_arithmetic(
    options: SolveOptions, recipe: Recipe, adapter: Adapter, argv: Sequence[str], created: str
) -> Solution:
    """The settings that meet the target, and what they leave.

    Args:
        options: of the command.
        recipe: to be solved.
        adapter: of the model; no weight is read.
        argv: the command line.
        created: time, ISO 8601.

    Raises:
        DataDependentError: counts depend on the data; names stages, hyper-parameters and ways out.
        BudgetError: no setting meets the target; names what can be met.
        VtcError: recipe or media cannot be used with this model.
    """
    sizes = _sizes(options, adapter)
    counting = Counting(options, sizes)
    plan = counting.plan(recipe)  # what does not fit the model at all is told first
    tokens = sizes.prompt.layout.tokens, sizes.prompt.prompt_tokens
    knobs = all_knobs(recipe, *tokens)
    named = named_knobs(recipe, options.vary, *tokens) if options.vary else []
    if not knobs and not named:
        raise no_knobs(options, recipe)
    try:
        found, counted = _found(counting, recipe, [named] if named else groups(knobs))
    except DataDependentError as error:
        raise _advised(error, options, recipe, knobs) from error
    context = Context(
        plan=plan,
        shape=sizes.shape,
        family=adapter.family,
        argv=argv,
        created=created,
        given=_input_block(sizes),
        solved_on=_prompt_text(sizes),
        notes=_notes(options, sizes),
    )
    budget = _matching_budget(counting, recipe, counted)
    known = {"budget": budget, "tokens": _tokens_block(sizes, counted)}
    return solution(options, found, context, known)


def _found(
    counting: Counting, recipe: Recipe, choices: Sequence[Sequence[Knob]]
) -> tuple[Found, Counted]:
    """The settings of the first choice of hyper-parameters that reaches the target."""
    options, sizes = counting.options, counting.sizes
    arithmetic = Arithmetic(recipe, counting.count, counting.measure)
    target = target_of(options, sizes.prompt.layout.tokens)
    for knobs in choices:
        lowest = arithmetic.lowest(knobs)
        low, high = (arithmetic.counted(settings_at(knobs, place)) for place in (lowest, 1.0))
        ends = counting.measures(low), counting.measures(high)
        reach = Reach(tuple(knobs), ends[0], ends[1], open_below=lowest > 0)
        try:
            settings = arithmetic.solve(knobs, target)
        except UnreachableError:
            continue
        counted = arithmetic.counted(settings)
        return Found(recipe, settings, counting.measures(counted), reach), counted
    raise refuse(options, recipe, reach, _text_alone(counting))


def _text_alone(counting: Counting) -> Measures:
    """What a prompt without any visual token would take."""
    prompt, depth = counting.sizes.prompt, counting.sizes.shape.decoder.layers
    text = prompt.text_tokens
    return counting.measures(Counted((0,) * depth, text, (text,) * depth))


def _advised(
    error: DataDependentError, options: SolveOptions, recipe: Recipe, knobs: Sequence[Knob]
) -> DataDependentError:
    """The error with the hyper-parameters behind it and what to do."""
    advised = DataDependentError(error.stages, recipe.path)
    advised.found = f"what is left depends on the data: {named_stages(error.stages, knobs)}"
    advised.allowed = "stages whose counts follow from numbers, or a calibration"
    advised.hint = "--calibrate ITEMS.jsonl runs the recipe over your items"
    followers = [use for use in recipe.stages if use.cls.meets_budget and use.cls.phase != "decode"]
    if options.measure == "layer_average" and followers:
        advised.hint += (
            f"; `vtc run --budget {options.wanted:g}` meets one on each input that allows it"
        )
    return advised


def _matching_budget(counting: Counting, recipe: Recipe, solved: Counted) -> dict[str, Any] | None:
    """The budget under which the recipe as it is comes nearest to `solved`; None without any."""
    found: list[tuple[float, float, Counted]] = []
    wanted = counting.measures(solved)
    for budget in _likely_budgets(solved):
        try:
            counted = counting.count(recipe, budget)
        except VtcError:
            continue  # this recipe follows no such budget
        measured = counting.measures(counted)
        distance = abs(measured.layer_average - wanted.layer_average) / wanted.layer_average
        distance += abs(measured.kv - wanted.kv) / wanted.kv
        found.append((0.0 if counted == solved else distance, budget, counted))
    if not found:
        return None
    _, budget, counted = min(found, key=lambda each: (each[0], each[1] % 1 > 0))
    return {
        "budget": budget,
        "counts": counting.plan(recipe, budget).budget_counts,
        "same_tokens": counted == solved,
        **asdict(counting.measures(counted)),
    }


def _likely_budgets(solved: Counted) -> list[float]:
    """Budgets to try: the layer average, whole and as it is, and the sizes of caches."""
    average = sum(solved.visual_tokens) / len(solved.visual_tokens)
    text = solved.text_tokens
    caches = {entries - held for entries in solved.kv_entries for held in (0, text)}
    whole = [float(int(average)), float(int(average) + 1), *map(float, sorted(caches))]
    return [budget for budget in dict.fromkeys([*whole, average]) if budget >= 1]


def _sizes(options: SolveOptions, adapter: Adapter) -> Sizes:
    """Model and prompt."""
    from vtc_cli.media.video import read_media
    from vtc_cli.models.support.parts import as_taken, prompt_ids
    from vtc_cli.models.support.prompt import layout_of

    media = (
        _blank() if options.media is None else read_media(options.media, options.frame_options())
    )
    if options.media is None and "image" not in adapter.takes:
        media = replace(media, kind="video")
    seen = adapter.see_all([as_taken(media, adapter.takes, adapter.family)])
    layout = layout_of(seen)
    unpooled = None if seen[0].unpooled is None else layout_of([seen[0].unpooled])
    question = options.question or DEFAULT_QUESTION
    text_tokens = options.text_tokens
    if text_tokens is None:
        ids = prompt_ids(adapter.parts, adapter.fallback, seen, question)
        text_tokens = int(ids.shape[1]) - layout.tokens
    shape = adapter.shape
    fixed = layout.tokens == shape.patches // shape.merged_patches
    asked = question if options.text_tokens is None else None
    return Sizes(adapter, media, asked, PromptCounts(layout, text_tokens, fixed, unpooled))


def sizing_adapter(options: SolveOptions, output: Output) -> Adapter:
    """The model's adapter; that of a `shape:` model holds no weights.

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch

    from vtc_cli.models.support.load import SHAPE, family_class
    from vtc_cli.models.support.true_size import builder, read_true_size

    if not options.model.startswith(SHAPE):
        return load_session(
            output, options.model, options.device, options.dtype, options.attn
        ).adapter
    size = read_true_size(options.model.removeprefix(SHAPE))
    nowhere = builder(torch.device("meta"), torch.float32, 0)
    return family_class(size.family).true_size(size.config, nowhere)


def _blank() -> Media:
    """The picture that stands in where none is given; counts depend on its size alone."""
    import numpy as np

    pixels = np.zeros((1, BLANK_SIDE, BLANK_SIDE, 3), dtype=np.uint8)
    return Media(pixels, (0.0,), "image", "", "")


def _input_block(sizes: Sizes) -> dict[str, Any]:
    media = sizes.media
    return {
        "path": media.path or None,
        "width": media.width,
        "height": media.height,
        "frames": int(media.frames.shape[0]),
        "question": sizes.question,
        "visual_tokens": sizes.prompt.layout.tokens,
        "text_tokens": sizes.prompt.text_tokens,
    }


def _tokens_block(sizes: Sizes, counted: Counted) -> dict[str, Any]:
    return {
        "original": sizes.prompt.layout.tokens,
        "per_layer": list(counted.visual_tokens),
        "kv_entries_per_layer": list(counted.kv_entries),
    }


def _prompt_text(sizes: Sizes) -> str:
    prompt = sizes.prompt
    return f"{prompt.layout.tokens} visual and {prompt.text_tokens} text tokens"


def _notes(options: SolveOptions, sizes: Sizes) -> list[str]:
    """What the reader must know of the counts."""
    notes = [*sizes.media.warnings]
    if options.measure != "layer_average" and options.text_tokens is None:
        from vtc_cli.models.support.load import NARROW, SHAPE

        if options.model.startswith((SHAPE, NARROW)):
            notes.append(
                f"{sizes.prompt.text_tokens} text tokens are those of a byte tokenizer, which "
                "random weights come with; --text-tokens gives those of the real one"
            )
    return notes
