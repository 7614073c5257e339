"""The passes of `vtc compare`: every item under every recipe and budget, and the baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vtc_cli.commands.compare_options import CompareOptions
from vtc_cli.commands.job import PlanOptions, make_plan, parse_budget, parse_fidelity
from vtc_cli.core.discover import recipe_files
from vtc_cli.core.errors import BudgetError, UsageError, VtcError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.clock import PeakMemory
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import note_input, shrink
from vtc_cli.engine.session import Session, environment
from vtc_cli.media.items import Item
from vtc_cli.media.video import read_media
from vtc_cli.metrics import fidelity
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import Recipe, load_recipe
from vtc_cli.report.build import model_block
from vtc_cli.report.compare.passes import finite, pass_line, picture_facts
from vtc_cli.report.compare.rows import (
    FULL,
    FailureLine,
    ItemLine,
    Pass,
    RecipeUse,
    Rows,
    Source,
    Wishes,
    matched_budget,
)
from vtc_cli.report.result import ErrorBlock, FidelityBlock
from vtc_cli.store.fingerprint import fingerprint

# What every method has to beat, by recipe name; those that are shipped are added by themselves.
BASELINES = ("random", "uniform", "average_pool", "downsample")


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


@dataclass(frozen=True, eq=False)
class _Reference:
    """One item, the full model on it and how to answer it."""

    item: str
    media: Media
    prompt: Prompt
    generation: Generation
    trace: Trace
    nll: float


@dataclass
class Comparer:
    """A loaded model with what it has to do; `rows` know what is done.

    Attributes:
        session: the model.
        entrants: who takes part.
        rows: what is done, and where new lines go.
        max_new_tokens: longest answer.
        seed: of the first item.
        warm: recipes and budgets that have run once, so that the next pass is worth timing.
    """

    session: Session
    entrants: Entrants
    rows: Rows
    max_new_tokens: int
    seed: int
    warm: set[tuple[str, str]] = field(default_factory=set)

    def run(self, items: Sequence[Item], step: Callable[[], None]) -> None:
        """Do what is not done yet; `step` is called behind every item."""
        for number, item in enumerate(items):
            if not self._is_done(item.id):
                self._run_item(item, number)
            step()

    def _is_done(self, item: str) -> bool:
        return self.rows.full(item) is not None and not self._missing(item)

    def _missing(self, item: str) -> list[tuple[str, str]]:
        """Passes of recipes that are not there, and of baselines where the budget is known."""
        found: list[tuple[str, str]] = []
        for name, budget in self.rows.arms():
            mine = self.rows.passes.get((item, name, budget))
            if mine is None:
                found += [] if self.rows.is_refused(item, name, budget) else [(name, budget)]
            elif name not in self.entrants.baselines:
                found += self._missing_rivals(mine)
        return found

    def _missing_rivals(self, mine: Pass) -> list[tuple[str, str]]:
        budget = matched_budget(mine)
        wanted = [] if budget is None else [(name, budget) for name in self.entrants.baselines]
        return [
            (name, budget)
            for name, budget in wanted
            if self.rows.rival(name, mine) is None
            and not self.rows.is_refused(mine.item, name, budget)
        ]

    def _run_item(self, item: Item, number: int) -> None:
        try:
            reference = self._reference(item, number)
        except VtcError as error:
            self._fail(item.id, FULL, "", error)
            return
        for name, budget in self.rows.arms():
            mine = self._pass(reference, name, budget)
            matched = None if mine is None else matched_budget(mine)
            if matched is None or name in self.entrants.baselines:
                continue
            for rival in self.entrants.baselines:
                self._pass(reference, rival, matched)

    def _reference(self, item: Item, number: int) -> _Reference:
        """The full model on an item.

        Raises:
            VtcError: the media cannot be read or the model cannot take it.
        """
        session, plan = self.session, Plan(FULL)
        media = read_media(item.media)
        prompt = session.adapter.prepare(media, item.question)
        if self._is_cold(FULL, ""):
            session.warm_up(prompt)
        generation = Generation(self.max_new_tokens, seed=self.seed + number)
        trace = session.run(prompt, plan, generation)
        trace.warnings.extend(media.warnings)
        _, logits = session.follow(prompt, plan, trace.answer_ids)
        nll = fidelity.answer_nll(logits, trace.answer_ids)
        if item.id not in self.rows.items:
            facts = picture_facts(media, prompt.layout, prompt.patch_boxes)
            self.rows.add(_item_line(item, number, facts))
        if self.rows.full(item.id) is None:
            self.rows.add(pass_line(trace, item.id, FULL, "", None))
        return _Reference(item.id, media, prompt, generation, trace, nll)

    def _pass(self, reference: _Reference, name: str, budget: str) -> Pass | None:
        """One pass, unless it is there; None if it failed."""
        known = self.rows.passes.get((reference.item, name, budget))
        if known is not None or self.rows.is_refused(reference.item, name, budget):
            return known
        try:
            plan = self.entrants.plan(self.session, reference.prompt, name, budget)
            trace, close = self._followed(reference, plan, self._is_cold(name, budget))
        except VtcError as error:
            self._fail(reference.item, name, budget, error)
            return None
        line = pass_line(trace, reference.item, name, budget, close)
        self.rows.add(line)
        return line

    def _followed(
        self, reference: _Reference, plan: Plan, cold: bool
    ) -> tuple[Trace, FidelityBlock]:
        """The pass under `plan` and its distance to the full model.

        The full model's answer is fed first. Where every token of it would have been chosen, that
        pass is the answer; only where one would not, the recipe answers in a pass of its own.
        """
        ids, first = reference.trace.answer_ids, reference.trace.first_logits
        session, whole, seed = self.session, reference.prompt, reference.generation.seed
        prompt, changes = shrink(session.adapter, reference.media, whole, plan)
        if cold:
            session.follow(prompt, plan, ids, seed=seed)
        with PeakMemory(session.adapter.device) as memory:
            trace, logits = session.follow(prompt, plan, ids, seed=seed)
        trace.peak_bytes, trace.memory_kind = memory.peak_bytes, memory.kind
        logits = logits.cpu()
        assert first is not None  # every pass leaves them
        nll = fidelity.answer_nll(logits, ids)
        same = logits.argmax(dim=-1).tolist() == ids
        close = FidelityBlock(
            kl_first_token=finite(fidelity.kl_nats(first, logits[0])),
            top1_agree=fidelity.top1_agrees(first, logits[0]),
            answer_nll_delta=finite(fidelity.answer_nll_delta(nll, reference.nll)),
            exact_match=same,
        )
        if not same:
            trace = session.run(prompt, plan, reference.generation)
        note_input(trace, whole, changes)
        return trace, close

    def _is_cold(self, name: str, budget: str) -> bool:
        cold = (name, budget) not in self.warm
        self.warm.add((name, budget))
        return cold

    def _fail(self, item: str, name: str, budget: str, error: VtcError) -> None:
        block = ErrorBlock(type=type(error).__name__, message=str(error))
        self.rows.add(FailureLine(item=item, recipe=name, budget=budget, error=block))


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
    session: Session, entrants: Entrants, budgets: Sequence[str], items: Sequence[Item]
) -> dict[str, str]:
    """See on the first item that can be read that every recipe can be planned.

    Baselines that cannot be planned are left out.

    Returns:
        The baselines that were left out, with the reason.

    Raises:
        VtcError: no item can be read, a recipe does not fit the model, or none meets a budget.
    """
    prompt = _first_prompt(session, items)
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


def _first_prompt(session: Session, items: Sequence[Item]) -> Prompt:
    """The first item that the model can take.

    Raises:
        VtcError: the fault of the first one, if no item can be taken.
    """
    first: VtcError | None = None
    for item in items:
        try:
            prompt = session.adapter.prepare(read_media(item.media), item.question)
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
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        source=Source(
            path=str(options.data or options.media), sha256=_digest(items), items=len(items)
        ),
        weights=fingerprint(session.adapter.model.named_parameters()),
        model=model_block(session.facts),  # type: ignore[arg-type]
        environment=environment(session.adapter.device),
    )


def _digest(items: Sequence[Item]) -> str:
    """A hash of what is asked, whatever folder the media lie in."""
    told = [
        [item.id, item.media.rpartition("/")[2], item.question, item.answer, item.category]
        for item in items
    ]
    return hashlib.sha256(json.dumps(told).encode("utf-8")).hexdigest()


def _item_line(item: Item, number: int, facts: object) -> ItemLine:
    return ItemLine.model_validate(
        {
            "id": item.id,
            "number": number,
            "question": item.question,
            "answer": item.answer,
            "category": item.category,
            "match": item.match,
            "picture": facts,
        }
    )
