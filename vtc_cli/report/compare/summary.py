"""The result of `vtc compare`: one arm for each recipe at each budget, and what the tests say.

Fields may be added, never renamed. A figure that was not measured is null, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from vtc_cli.report.compare.rows import FailureLine, RecipeUse, Source
from vtc_cli.report.result import Block, FirstTokenShares, Head, ModelBlock

ArmKind = Literal["full", "recipe", "baseline"]


class Share(Block):
    """Right answers with the 95 % Wilson interval of their share."""

    right: int
    count: int
    share: float
    low: float
    high: float


class Against(Block):
    """An arm and another over the same items: McNemar's exact test.

    Attributes:
        difference: accuracy of the arm minus that of the other.
        low: lower end of Newcombe's 95 % interval of the difference.
        high: its upper end.
        mine_only: items that only the arm answers rightly.
        other_only: items that only the other answers rightly.
        count: items that both answered.
        p_value: of no difference, two-sided.
        p_corrected: after Holm's correction over every test of the comparison.
        items_needed: to see a difference of 5 points (`vtc explain power`).
    """

    difference: float
    low: float
    high: float
    mine_only: int
    other_only: int
    count: int
    p_value: float
    p_corrected: float
    items_needed: int


class CloserThan(Block):
    """An arm and a baseline by their distance to the full model: Wilcoxon's signed-rank test.

    It stands in for accuracy where no right answers are known. `difference` is the mean KL of the
    arm minus that of the baseline, nats; both p-values are null with fewer than 6 items.
    """

    difference: float
    count: int
    p_value: float | None
    p_corrected: float | None


class Closeness(Block):
    """Fidelity to the full model, means over items; KL in nats also as a median."""

    kl_first_token: float | None
    kl_first_token_median: float | None
    top1_agree: float | None
    answer_nll_delta: float | None
    exact_match: float


class ArmTokens(Block):
    """Visual tokens, means over items; `gap` is achieved minus requested layer average.

    `cache_equivalent` is there where cache policies alone cut: visual tokens in every layer whose
    cache would be as large.
    """

    original: float
    requested: float | None
    gap: float | None
    entering: float
    layer_average: float
    leaving_average: float
    final: float
    cache_equivalent: float | None = None


class ArmFlops(Block):
    """Operations as shares of the full model's over the same items.

    Attributes:
        prefill: of the decoder's prefill, in operations, mean.
        prefill_ratio: prefill over that of the full model.
        compression_ratio: the compression itself over the full model's prefill.
        cost_ratio: both together; the cost axis of the Pareto front.
        first_token_ratio: tower, projector, prefill and compression over the full model's.
        decode_step_ratio: one decode step over that of the full model.
    """

    prefill: float
    prefill_ratio: float
    compression_ratio: float
    cost_ratio: float
    first_token_ratio: float
    decode_step_ratio: float


class ArmKv(Block):
    """Key/value cache behind the prompt, mean over items."""

    bytes: float
    full_bytes: float
    ratio: float


class Spread(Block):
    """Median over items and half of their inter-quartile range, milliseconds."""

    median: float
    spread: float | None


class ArmTime(Block):
    """Times of single passes over items; `ttft_speedup` is the full model's median over this."""

    ttft: Spread
    decode_per_token: Spread | None
    ttft_speedup: float | None
    first_token_shares: FirstTokenShares | None


class Arm(Block):
    """One recipe at one budget.

    Attributes:
        recipe: its name; `full` is the uncompressed model.
        budget: as asked for; of a baseline that follows a recipe, `as RECIPE BUDGET`.
        kind: what it is there for.
        items: passes behind the figures.
        accuracy: over the items whose answer is known.
        by_category: the same for each kind of question.
        hard: the same over the hard subset: items that the full model answers rightly and the
            down-sampling at this arm's budget does not.
        against_full: the paired test against the full model.
        against: those against the baselines at the budget that was achieved.
        closer_than: in place of them where no answers are known.
        fidelity: to the full model.
        tokens: counts.
        flops: operations.
        kv: cache.
        time_ms: times.
        peak_bytes: largest of any pass.
        on_front: no other arm costs less and is as good, or costs as much and is better.
        verdict: in plain words; of recipes only.
    """

    recipe: str
    budget: str
    kind: ArmKind
    items: int
    accuracy: Share | None
    by_category: dict[str, Share]
    hard: Share | None
    against_full: Against | None
    against: dict[str, Against]
    closer_than: dict[str, CloserThan]
    fidelity: Closeness | None
    tokens: ArmTokens
    flops: ArmFlops
    kv: ArmKv
    time_ms: ArmTime
    peak_bytes: int | None
    on_front: bool
    verdict: str | None

    @property
    def name(self) -> str:
        """Recipe and budget."""
        return self.recipe if self.kind == "full" else f"{self.recipe} {self.budget}"


class Refused(Block):
    """A budget that a recipe cannot meet, on how many items, and the first reason."""

    recipe: str
    budget: str
    items: int
    reason: str


class Comparison(Head):
    """Everything that a comparison found.

    Attributes:
        model: which model ran and how.
        data: where the items come from.
        recipes: who takes part.
        fidelity: sound or official for all recipes, null for each one's own.
        match: the rule for answers of items without one of their own.
        items: items that the full model answered.
        answered: those of them whose right answer is known and counted.
        pictures: different media among them.
        hard_by: the baseline that tells which items are hard; null without one.
        tests: p-values that Holm's correction is taken over.
        arms: the full model first, then budget by budget.
        refused: budgets that recipes cannot meet.
        failures: passes that failed otherwise.
        warnings: what the reader must know.
        environment: versions and platform.
    """

    model: ModelBlock
    data: Source
    recipes: list[RecipeUse]
    fidelity: str | None
    match: str
    items: int
    answered: int
    pictures: int
    hard_by: str | None
    tests: int
    arms: list[Arm]
    refused: list[Refused]
    failures: list[FailureLine]
    warnings: list[str]
    environment: dict[str, Any]

    @property
    def judged(self) -> bool:
        """Whether there is an accuracy."""
        return self.answered > 0
