"""Who takes part in a comparison, whether all of them fit, and what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vtc_cli.commands.compare_options import CompareOptions
from vtc_cli.commands.job import PlanOptions, make_plan, parse_budget, parse_fidelity
from vtc_cli.core.discover import recipe_files
from vtc_cli.core.errors import BudgetError, UsageError, VtcError
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.engine.session import Session, environment
from vtc_cli.media.items import Item
from vtc_cli.media.video import read_media
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import Recipe, load_recipe
from vtc_cli.report.build import model_block
from vtc_cli.report.compare.rows import RecipeUse, Source, Wishes
from vtc_cli.store.fingerprint import fingerprint

# What every method has to beat, by recipe name; those that are shipped are added by themselves.
BASELINES = ("random", "uniform", "average_pool", "downsample")
LIMITS = ("time_limit", "memory_limit_bytes")  # of reading; they shape no answer


@dataclass(frozen=True)
class Entrants:
    """Who takes part.

    Attributes:
        recipes: what is compared, by name.
        baselines: what it is compared with, by name.
        fidelity: of the recipes; baselines have none but the sound one.
        exact_layers: take layers of the recipes literally.
    """

    recipes: dict[str, Recipe]
    baselines: dict[str, Recipe]
    fidelity: Fidelity | None
    exact_layers: bool

    def plan(self, session: Session, prompt: Prompt, name: str, budget: str) -> Plan:
        """The plan of a recipe or baseline at a budget.

        Raises:
            VtcError: it does not fit the model, the input or the budget.
        """
        if name in self.baselines:
            wanted = PlanOptions(parse_budget(budget))
            return make_plan(session, prompt, self.baselines[name], wanted)
        wanted = PlanOptions(parse_budget(budget), self.fidelity, self.exact_layers)
        return make_plan(session, prompt, self.recipes[name], wanted)


def take_part(options: CompareOptions) -> Entrants:
    """The recipes of the command line and the baselines that are shipped.

    Raises:
        VtcError: a recipe with faults, or two of one name.
    """
    recipes: dict[str, Recipe] = {}
    for name in options.recipe_names():
        recipe = load_recipe(name)
        if recipe.file.name in recipes:
            raise UsageError(
                f"two recipes are called {recipe.file.name!r}",
                where=f"{recipes[recipe.file.name].path} and {recipe.path}",
                hint="change the `name:` in one of them",
            )
        recipes[recipe.file.name] = recipe
    known = recipe_files()
    names = [] if options.no_baselines else [name for name in BASELINES if name in known]
    baselines = {name: load_recipe(known[name]) for name in names}
    for name in baselines.keys() & recipes.keys():  # asked for: it stands there at every budget
        recipes[name] = baselines[name] = recipes[name]
    return Entrants(recipes, baselines, parse_fidelity(options.fidelity), options.exact_layers)


def check_plans(
    session: Session, entrants: Entrants, options: CompareOptions, items: Sequence[Item]
) -> dict[str, str]:
    """See on the first item that can be read that every recipe can be planned.

    Baselines that cannot be planned are left out.

    Returns:
        The baselines that were left out, with the reason.

    Raises:
        VtcError: no item can be read, a recipe does not fit the model, or none meets a budget.
    """
    prompt, budgets = _first_prompt(session, options, items), options.budgets()
    refused: list[BudgetError] = []
    for name in entrants.recipes:
        for budget in budgets:
            try:
                entrants.plan(session, prompt, name, budget)
            except BudgetError as error:  # the summary tells of it; others may meet theirs
                refused.append(error)
    if len(refused) == len(entrants.recipes) * len(budgets):
        raise refused[0]
    left_out: dict[str, str] = {}
    for name in sorted(entrants.baselines.keys() - entrants.recipes.keys()):
        try:
            entrants.plan(session, prompt, name, str(prompt.layout.tokens))
        except VtcError as error:
            left_out[name] = error.found
    for name in left_out:
        del entrants.baselines[name]
    return left_out


def _first_prompt(session: Session, options: CompareOptions, items: Sequence[Item]) -> Prompt:
    """The first item that the model can take.

    Raises:
        VtcError: the fault of the first one, if no item can be taken.
    """
    first: VtcError | None = None
    for item in items:
        try:
            media = read_media(item.media, options.frame_options())
            prompt = session.adapter.prepare(media, item.question)
        except VtcError as error:
            first = first or error
            continue
        if prompt.layout.tokens > 0:
            return prompt
    allowed = "media that the model reads"
    raise first or UsageError("no visual tokens", where=items[0].media, allowed=allowed)


def wishes_of(
    options: CompareOptions, session: Session, entrants: Entrants, items: Sequence[Item]
) -> Wishes:
    """What is asked for, exactly enough to go on with a file only if nothing has changed."""
    uses = [
        RecipeUse(name=name, path=recipe.path, sha256=recipe.sha256, baseline=is_baseline)
        for part, is_baseline in ((entrants.recipes, False), (entrants.baselines, True))
        for name, recipe in part.items()
    ]
    return Wishes(
        recipes=uses,
        budgets=options.budgets(),
        fidelity=options.fidelity,
        exact_layers=options.exact_layers,
        frames=_frames(options),
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        source=Source(
            path=str(options.data or options.media), sha256=_digest(items), items=len(items)
        ),
        weights=fingerprint(session.adapter.model.named_parameters()),
        model=model_block(session.facts),  # type: ignore[arg-type]
        environment=environment(session.adapter.device),
    )


def _frames(options: CompareOptions) -> dict[str, Any]:
    """Which frames of videos are taken; not how long that may last."""
    values = asdict(options.frame_options())
    return {name: values[name] for name in values if name not in LIMITS}


def _digest(items: Sequence[Item]) -> str:
    """A hash of what is asked, whatever folder the media lie in."""
    told = [
        [item.id, item.media.rpartition("/")[2], item.question, item.answer, item.category]
        for item in items
    ]
    return hashlib.sha256(json.dumps(told).encode("utf-8")).hexdigest()
