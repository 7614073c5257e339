"""The file of a comparison: a head, then a line for each item, each pass and each failure.

The summary is computed from these lines alone, so that a comparison can be taken up where it was
broken off and reported again without a model. Fields may be added, never renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from vtc_cli.core.errors import BudgetError, UsageError
from vtc_cli.report.result import (
    Block,
    ErrorBlock,
    FidelityBlock,
    FirstTokenShares,
    MemoryBlock,
    ModelBlock,
)

FORMAT: Literal["vtc-compare"] = "vtc-compare"
VERSION: Literal[1] = 1
FULL = "full"
MET_TOKENS = 0.5  # a budget is met within half a token of the layer average
Key = tuple[str, str, str]


class RecipeUse(Block):
    """A recipe of the comparison; baselines are there to be beaten."""

    name: str
    path: str
    sha256: str
    baseline: bool


class Source(Block):
    """Where the items come from; `sha256` is that of all of them, also beyond a limit."""

    path: str
    sha256: str
    items: int


class Wishes(Block):
    """What was asked for; a file goes on only under the same."""

    recipes: list[RecipeUse]
    budgets: list[str]
    fidelity: str | None
    exact_layers: bool
    frames: dict[str, Any] | None = None
    max_new_tokens: int
    seed: int
    source: Source
    weights: str
    model: ModelBlock
    environment: dict[str, Any]


class HeadLine(Block):
    """The first line: what is compared, on which model, over which items."""

    kind: Literal["head"] = "head"
    format: Literal["vtc-compare"] = FORMAT
    version: Literal[1] = VERSION
    created: str
    argv: list[str]
    match: str
    wishes: Wishes


class PictureFacts(Block):
    """The media of an item and how its visual tokens lie over it.

    Attributes:
        path: of the file.
        sha256: of the file.
        kind: image or video.
        width: pixels.
        height: pixels.
        frames: of a video.
        grid: frames, rows and columns of the visual tokens; null if they form no single grid.
        box: left, top, right and bottom of that grid in pixels of the picture.
    """

    path: str
    sha256: str
    kind: str
    width: int
    height: int
    frames: int
    grid: tuple[int, int, int] | None
    box: tuple[float, float, float, float] | None


class ItemLine(Block):
    """One question; `number` is its place among all items and moves the seed."""

    kind: Literal["item"] = "item"
    id: str
    number: int
    question: str
    answer: str | None
    category: str | None
    match: str | None
    picture: PictureFacts


class PassTokens(Block):
    """Visual tokens of one pass.

    `cache_equivalent` is there where cache policies alone cut: visual tokens in every layer whose
    cache would be as large, below 1 where the text alone fills it.
    """

    original: int
    requested: float | None
    entering: int
    layer_average: float
    leaving_average: float
    final: int
    cache_equivalent: float | None = None


class PassFlops(Block):
    """Operations of one pass and of the full model over the same prompt."""

    vision: int
    projector: int
    prefill: int
    decode_step: int
    compression: int
    full_prefill: int
    full_first_token: int


class PassTime(Block):
    """Milliseconds of one pass."""

    ttft: float
    vision: float | None
    prefill: float
    compression: float
    decode_per_token: float | None
    first_token_shares: FirstTokenShares | None


class Pass(Block):
    """One item under one recipe and budget; the full model has the recipe `full`, no budget.

    Attributes:
        kind: of line.
        item: id of the item.
        recipe: its name.
        budget: as asked for: tokens, `default` or `none`.
        answer: of the model.
        answer_tokens: its length.
        tokens: counts of visual tokens.
        kv_bytes: of the cache behind the prompt.
        kv_full_bytes: of the full model's.
        flops: operations.
        time_ms: of this one pass.
        memory: its peak.
        fidelity: to the full model; null for itself.
        mask: what became of every visual token: 2 bits each, four a byte from the lowest bits on,
            base64; 0 left in the encoder, 1 left in the decoder, 2 lives in a token at another
            place, 3 keeps its place. Null for the full model and for a picture that was made
            smaller, whose patches are others.
        warnings: of this pass.
    """

    kind: Literal["pass"] = "pass"
    item: str
    recipe: str
    budget: str
    answer: str
    answer_tokens: int
    tokens: PassTokens
    kv_bytes: int
    kv_full_bytes: int
    flops: PassFlops
    time_ms: PassTime
    memory: MemoryBlock
    fidelity: FidelityBlock | None
    mask: str | None
    warnings: list[str]

    @property
    def key(self) -> Key:
        """What was asked."""
        return (self.item, self.recipe, self.budget)


class FailureLine(Block):
    """A pass that failed; under the recipe `full` the whole item did.

    One that was refused asked for a budget that the recipe cannot meet there.
    """

    kind: Literal["failure"] = "failure"
    item: str
    recipe: str
    budget: str
    error: ErrorBlock

    @property
    def refused(self) -> bool:
        """Whether nothing went wrong but the wish."""
        return self.error.type == BudgetError.__name__


Row = ItemLine | Pass | FailureLine

KINDS: dict[str, type[BaseModel]] = {
    "head": HeadLine,
    "item": ItemLine,
    "pass": Pass,
    "failure": FailureLine,
}


def _nowhere(line: Row) -> None:
    """Lines of a comparison that is kept nowhere."""


@dataclass
class Rows:
    """The lines of a comparison by what they say.

    Attributes:
        head: the first line.
        items: by id, in the order of the file.
        passes: by item, recipe and budget.
        failures: those that no later pass made good.
        write: is given every new line.
        taken: every line of each item as it came.
    """

    head: HeadLine
    items: dict[str, ItemLine] = field(default_factory=dict)
    passes: dict[Key, Pass] = field(default_factory=dict)
    failures: dict[Key, FailureLine] = field(default_factory=dict)
    write: Callable[[Row], None] = _nowhere
    taken: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, line: Row) -> None:
        """Write a line down, then know it."""
        self.write(line)
        self.take(line)

    def take(self, line: Row) -> None:
        """Know a line that is written down already; a later pass makes a failure good."""
        name = line.id if isinstance(line, ItemLine) else line.item
        self.taken.setdefault(name, []).append(line)
        if isinstance(line, ItemLine):
            self.items[line.id] = line
        elif isinstance(line, Pass):
            self.passes[line.key] = line
            self.failures.pop(line.key, None)
        elif (key := (line.item, line.recipe, line.budget)) not in self.passes:
            self.failures[key] = line

    def only(self, items: Iterable[str]) -> Rows:
        """The rows of these items, in the order of these; workers may have ended in another."""
        wanted = list(items)
        order = {name: place for place, name in enumerate(wanted)}
        failures = sorted(
            (line for line in self.failures.values() if line.item in order),
            key=lambda line: order[line.item],
        )
        return Rows(
            self.head,
            {name: self.items[name] for name in wanted if name in self.items},
            {key: line for key, line in self.passes.items() if key[0] in order},
            {(line.item, line.recipe, line.budget): line for line in failures},
        )

    def full(self, item: str) -> Pass | None:
        """The full model on an item, None while it has not answered."""
        return self.passes.get((item, FULL, ""))

    def rival(self, baseline: str, mine: Pass) -> Pass | None:
        """A baseline on the same item at the budget that a pass achieved."""
        budget = matched_budget(mine)
        return None if budget is None else self.passes.get((mine.item, baseline, budget))

    def is_refused(self, item: str, recipe: str, budget: str) -> bool:
        """Whether a pass cannot be had."""
        failure = self.failures.get((item, recipe, budget))
        return failure is not None and failure.refused

    def is_done(self, item: str) -> bool:
        """Whether every pass over an item is there, or cannot be had."""
        return self.full(item) is not None and not self._missing(item)

    def _missing(self, item: str) -> list[tuple[str, str]]:
        """Passes of recipes that are not there, and of baselines where the budget is known."""
        found: list[tuple[str, str]] = []
        for name, budget in self.arms():
            mine = self.passes.get((item, name, budget))
            if mine is None:
                found.append((name, budget))
            elif name not in self.baselines():
                matched = matched_budget(mine)
                rivals = [] if matched is None else self.baselines()
                found += [(rival, str(matched)) for rival in rivals if not self.rival(rival, mine)]
        return [(name, budget) for name, budget in found if not self.is_refused(item, name, budget)]

    def of_item(self, item: str) -> tuple[Row, ...]:
        """Everything that is known of one item."""
        known = self.taken.get(item, [])
        return tuple(row for row in known if not isinstance(row, FailureLine) or row.refused)

    def arms(self) -> list[tuple[str, str]]:
        """Recipes with their budgets, baselines left out, in the order asked for."""
        wishes = self.head.wishes
        names = [recipe.name for recipe in wishes.recipes if not recipe.baseline]
        return [(name, budget) for name in names for budget in wishes.budgets]

    def baselines(self) -> list[str]:
        """Names of the baselines."""
        return [recipe.name for recipe in self.head.wishes.recipes if recipe.baseline]


def matched_budget(mine: Pass) -> str | None:
    """The budget at which a baseline spends as much as this pass.

    That asked for if it was met within half a token; else the whole number of tokens next to the
    layer average that was achieved. Where cache policies alone cut, the baseline has a cache of the
    same size; None where not one visual token fits into it.
    """
    asked, achieved = mine.tokens.requested, mine.tokens.layer_average
    if mine.tokens.cache_equivalent is not None:
        fits = round(mine.tokens.cache_equivalent)
        return str(min(fits, mine.tokens.original)) if fits >= 1 else None
    if asked is not None and abs(achieved - asked) <= MET_TOKENS:
        return f"{asked:g}"
    return str(min(max(round(achieved), 1), mine.tokens.original))


def rows_of(lines: Iterable[dict[str, Any]], where: str) -> Rows:
    """The rows of a file.

    Args:
        lines: its objects in order.
        where: the file, for errors.

    Raises:
        UsageError: no file of a comparison, or one of another version.
    """
    rows: Rows | None = None
    for number, line in enumerate(lines, start=1):
        model = KINDS.get(str(line.get("kind")))
        if model is None or (rows is None) != (model is HeadLine):
            raise _foreign(where, number)
        try:
            value: Any = model.model_validate(line)
        except ValidationError as error:
            raise _foreign(where, number) from error
        if rows is None:
            rows = Rows(value)
        else:
            rows.take(value)
    if rows is None:
        raise _foreign(where, 1)
    lines_in_order = sorted(rows.items.values(), key=lambda line: line.number)
    rows.items = {line.id: line for line in lines_in_order}
    return rows


def _foreign(where: str, number: int) -> UsageError:
    return UsageError(
        "not the line of a comparison",
        where=f"{where}, line {number}",
        allowed=f"a file that `vtc compare -o` wrote, version {VERSION}",
    )
