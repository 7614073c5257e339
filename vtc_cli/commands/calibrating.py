"""Solve a recipe for a budget by a calibration: a few items are run, settings are bisected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from vtc_cli.commands.job import PlanOptions, make_plan, parse_fidelity
from vtc_cli.commands.loading import load_session, progress_bar
from vtc_cli.commands.output import Output
from vtc_cli.commands.solve_options import DEFAULT_LIMIT, SolveOptions
from vtc_cli.commands.solved import (
    MEASURES,
    Context,
    Found,
    Reach,
    no_knobs,
    refuse,
    solution,
    target_of,
)
from vtc_cli.core.files import sha256_of
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import note_input, shrink
from vtc_cli.engine.session import Session
from vtc_cli.media.items import read_items
from vtc_cli.media.video import read_media
from vtc_cli.metrics.counted import Measures, trace_measures
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.knobs import (
    Knob,
    Settings,
    all_knobs,
    groups,
    named_knobs,
    rounded,
    settings_at,
    with_settings,
)
from vtc_cli.recipe.load import Recipe
from vtc_cli.recipe.solve import Approach, Target, UnreachableError, approach
from vtc_cli.report.solution import Solution

MOST_PROBES = 24
DIGITS = 4  # significant digits of what is tried, so that what is written is what was measured


@dataclass(frozen=True, eq=False)
class _Item:
    """One item of the calibration, ready to be run."""

    media: Media
    prompt: Prompt


@dataclass(eq=False)
class _Bench:
    """The items and every setting that was tried on them.

    Attributes:
        options: of the command.
        session: the model.
        recipe: as it is.
        items: what it is run over.
        step: called after each pass.
        tried: measures of each item by settings.
    """

    options: SolveOptions
    session: Session
    recipe: Recipe
    items: Sequence[_Item]
    step: Callable[[], None]
    tried: dict[tuple[tuple[Knob, Any], ...], tuple[Measures, ...]] = field(default_factory=dict)

    def plan(self, recipe: Recipe, item: _Item) -> Plan:
        """The recipe for one item, without a budget."""
        fidelity = parse_fidelity(self.options.fidelity)
        wanted = PlanOptions(None, fidelity, self.options.exact_layers)
        return make_plan(self.session, item.prompt, recipe, wanted)

    def measured(self, settings: Settings) -> tuple[Measures, ...]:
        """The measures of every item under `settings`; each setting is run once."""
        key = tuple(settings.items())
        if key not in self.tried:
            recipe = with_settings(self.recipe, settings)
            self.tried[key] = tuple(self._pass(recipe, item) for item in self.items)
        return self.tried[key]

    def mean(self, settings: Settings) -> Measures:
        """Means over the items."""
        measured = self.measured(settings)
        return Measures(*(fmean(getattr(each, name) for each in measured) for name in MEASURES))

    def _pass(self, recipe: Recipe, item: _Item) -> Measures:
        """One prompt read under the recipe."""
        plan = self.plan(recipe, item)
        prompt, changes = shrink(self.session.adapter, (item.media,), item.prompt, plan)
        generation = Generation(max_new_tokens=1, seed=self.options.seed)
        trace = self.session.run(prompt, plan, generation, memory=False)
        note_input(trace, item.prompt, changes)
        self.step()
        return trace_measures(trace)


def solve_by_calibration(
    options: SolveOptions, recipe: Recipe, argv: Sequence[str], created: str, output: Output
) -> Solution:
    """The settings whose mean over the items meets the target.

    Raises:
        BudgetError: no setting meets the target; names what can be met.
        VtcError: model or items cannot be used, or not with this recipe.
    """
    assert options.calibrate is not None  # the caller has seen to it
    read = read_items(options.calibrate)[: options.limit or DEFAULT_LIMIT]
    frames = options.frame_options()
    media = [read_media(item.media, frames) for item in read]
    session = load_session(output, options.model, options.device, options.dtype, options.attn)
    items = [
        _Item(shown, session.adapter.prepare(shown, item.question))
        for shown, item in zip(media, read, strict=True)
    ]
    with progress_bar(output) as progress:
        task = progress.add_task("calibrating", total=MOST_PROBES * len(items))
        bench = _Bench(options, session, recipe, items, lambda: progress.advance(task))
        target = target_of(options, items[0].prompt.layout.tokens)
        found, went = _found(bench, target)
    context = Context(
        plan=bench.plan(recipe, items[0]),
        shape=session.adapter.shape,
        family=session.adapter.family,
        argv=argv,
        created=created,
        given=_input_block(items[0]),
        solved_on=f"mean over {options.calibrate.name} ({len(items)})",
        notes=[*_notes(went, target), *(text for each in media for text in each.warnings)],
    )
    known = {"calibration": _calibration_block(bench, went, target)}
    return solution(options, found, context, known)


def _found(bench: _Bench, target: Target) -> tuple[Found, Approach]:
    """The settings of the first choice of hyper-parameters that reaches the target."""
    for knobs in _choices(bench):

        def settings_of(place: float, knobs: Sequence[Knob] = knobs) -> Settings:
            return rounded(settings_at(knobs, place), DIGITS)

        def value_at(place: float) -> float:
            return float(getattr(bench.mean(settings_of(place)), bench.options.measure))

        try:
            went = approach(value_at, target, close=target.tolerance, probes=MOST_PROBES)
        except UnreachableError:
            went = None
        low, high = (bench.mean(settings_of(end)) for end in (0.0, 1.0))
        reach = Reach(tuple(knobs), low, high)
        if went is not None:
            settings = settings_of(went.nearest(target.value))
            single = bench.measured(settings)
            return Found(bench.recipe, settings, bench.mean(settings), reach, single), went
    raise refuse(bench.options, bench.recipe, reach)


def _choices(bench: _Bench) -> list[list[Knob]]:
    """Which hyper-parameters to vary, the first choice first."""
    options, prompts = bench.options, [item.prompt for item in bench.items]
    visual_tokens = max(prompt.layout.tokens for prompt in prompts)
    tokens = visual_tokens, max(prompt.prompt_tokens for prompt in prompts)
    if options.vary:
        return [named_knobs(bench.recipe, options.vary, *tokens)]
    knobs = all_knobs(bench.recipe, *tokens)
    if not knobs:
        raise no_knobs(options, bench.recipe)
    return groups(knobs)


def _notes(went: Approach, target: Target) -> list[str]:
    if not went.falls(target.tolerance):
        return []
    return [
        "not monotone: a setting that should leave more left less on these items; the nearest "
        "that was tried is taken, and there may be others"
    ]


def _input_block(item: _Item) -> dict[str, Any]:
    media, prompt = item.media, item.prompt
    return {
        "path": media.path,
        "width": media.width,
        "height": media.height,
        "frames": int(media.frames.shape[0]),
        "question": prompt.question,
        "visual_tokens": prompt.layout.tokens,
        "text_tokens": prompt.prompt_tokens - prompt.layout.tokens,
    }


def _calibration_block(bench: _Bench, went: Approach, target: Target) -> dict[str, Any]:
    path = bench.options.calibrate
    assert path is not None
    return {
        "path": str(path),
        "sha256": sha256_of(path),
        "items": len(bench.items),
        "probes": len(bench.tried),
        "passes": len(bench.tried) * len(bench.items),
        "monotone": not went.falls(target.tolerance),
        "tolerance": target.tolerance,
    }
