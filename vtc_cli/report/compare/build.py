"""From the rows of a comparison to its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any, cast

from vtc_cli.metrics.answers import Rule, matches
from vtc_cli.metrics.latency import timed
from vtc_cli.metrics.statistics import pareto_front
from vtc_cli.report.compare.columns import COST_DECIMALS
from vtc_cli.report.compare.pairs import closer_than, corrected, paired, share_of
from vtc_cli.report.compare.rows import FULL, Key, Pass, Rows, matched_budget
from vtc_cli.report.compare.summary import (
    Against,
    Arm,
    ArmFlops,
    ArmKind,
    ArmKv,
    ArmTime,
    ArmTokens,
    Closeness,
    CloserThan,
    Comparison,
    Refused,
    Share,
    Spread,
)
from vtc_cli.report.compare.verdict import verdict
from vtc_cli.report.result import SCHEMA_VERSION, FirstTokenShares
from vtc_cli.report.table import NO_ACCURACY
from vtc_cli.report.units import significant

HARD_BY = ("downsample", "average_pool", "uniform")  # the first that takes part
FEW = 30
SHOWN_SHORT = 6


@dataclass
class Team:
    """An arm before its figures: its passes by item, in the order of the items."""

    recipe: str
    budget: str
    kind: ArmKind
    passes: dict[str, Pass]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Which passes these are."""
        return tuple(one.key for one in self.passes.values())


@dataclass
class Judge:
    """Rows with verdicts over answers."""

    rows: Rows

    @cached_property
    def known(self) -> bool:
        """Whether answers mean anything."""
        return self.rows.head.wishes.model.weights != "random"

    def right(self, item: str, mine: Pass) -> bool | None:
        """Whether a pass answers rightly; None if the right answer is not known."""
        line = self.rows.items[item]
        if line.answer is None or not self.known:
            return None
        rule = cast(Rule, line.match or self.rows.head.match)
        return matches(mine.answer, line.answer, rule)

    def verdicts(self, passes: dict[str, Pass]) -> dict[str, bool]:
        """By item, those without a known answer left out."""
        found = {item: self.right(item, mine) for item, mine in passes.items()}
        return {item: right for item, right in found.items() if right is not None}


def summarise(rows: Rows, *, argv: Sequence[str], created: str) -> Comparison:
    """The summary of all rows.

    Args:
        rows: of one comparison.
        argv: the command line.
        created: time of the report, ISO 8601.
    """
    judge = Judge(rows)
    full, *_ = teams = teams_of(rows)
    hard_by = next((name for name in HARD_BY if name in rows.baselines()), None)
    answered = len(judge.verdicts(full.passes))
    drafts = [_draft(team, full, judge, hard_by if answered else None) for team in teams]
    tests = corrected(drafts)
    arms = _on_front([Arm.model_validate(draft) for draft in drafts], bool(answered))
    arms = [arm.model_copy(update={"verdict": verdict(arm, noise=not judge.known)}) for arm in arms]
    wishes = rows.head.wishes
    return Comparison(
        command="compare",
        schema_version=SCHEMA_VERSION,
        created=created,
        argv=list(argv),
        seed=wishes.seed,
        model=wishes.model,
        data=wishes.source,
        recipes=wishes.recipes,
        fidelity=wishes.fidelity,
        match=rows.head.match,
        items=len(full.passes),
        answered=answered,
        pictures=len({rows.items[item].picture.sha256 for item in full.passes}),
        hard_by=hard_by if answered else None,
        tests=tests,
        arms=arms,
        refused=_refused(rows),
        failures=[line for line in rows.failures.values() if not line.refused],
        warnings=_warnings(rows, full, answered, teams),
        environment=wishes.environment,
    )


def _twins(teams: Sequence[Team]) -> list[str]:
    """Recipes that did the same to every token: on a small model two layers may become one."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for team in teams:
        masks = tuple(f"{one.item} {one.mask}" for one in team.passes.values() if one.mask)
        if team.kind == "recipe" and masks and len(masks) == len(team.passes):
            groups.setdefault(masks, []).append(f"{team.recipe} {team.budget}")
    return [
        f"{' and '.join(names)} kept the same tokens on every item: the same method here"
        for names in groups.values()
        if len(names) > 1
    ]


def _refused(rows: Rows) -> list[Refused]:
    """Budgets that could not be met, in the order of the table."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in rows.failures.values():
        if line.refused:
            found.setdefault((line.recipe, line.budget), []).append(line.error.message)
    return [
        Refused(recipe=name, budget=budget, items=len(reasons), reason=reasons[0])
        for (name, budget), reasons in found.items()
    ]


def _passes(rows: Rows, recipe: str, budget: str) -> dict[str, Pass]:
    found = {item: rows.passes.get((item, recipe, budget)) for item in rows.items}
    return {item: mine for item, mine in found.items() if mine and rows.full(item)}


def teams_of(rows: Rows) -> list[Team]:
    """The full model, then by budget the recipes and the baselines at what these achieved."""
    full = Team(FULL, "", "full", _passes(rows, FULL, ""))
    named, teams = rows.baselines(), {(FULL, ""): full}
    known: set[tuple[Key, ...]] = set()  # recipes that achieve the same have the same rivals
    for budget in rows.head.wishes.budgets:
        arms = [name for name, theirs in rows.arms() if theirs == budget]
        for name in arms:
            passes = _passes(rows, name, budget)
            kind: ArmKind = "baseline" if name in named else "recipe"
            if passes:
                teams[name, budget] = Team(name, budget, kind, passes)
        for name in (name for name in arms if name not in named):
            for rival in named:
                team = _rivals(rows, rival, name, budget)
                if team is not None and team.keys not in known:
                    known.add(team.keys)
                    teams.setdefault((team.recipe, team.budget), team)
    return list(teams.values())


def _rivals(rows: Rows, rival: str, name: str, budget: str) -> Team | None:
    """A baseline at what a recipe achieved; one budget for all items has a team of its own."""
    mine = _passes(rows, name, budget)
    asked = {matched_budget(one) for one in mine.values()}
    label = asked.pop() if len(asked) == 1 else None
    if label is not None:
        passes = _passes(rows, rival, label)
    else:
        label = f"as {name} {budget}"
        found = {item: rows.rival(rival, one) for item, one in mine.items()}
        passes = {item: one for item, one in found.items() if one}
    return Team(rival, label, "baseline", passes) if passes else None


def _draft(team: Team, full: Team, judge: Judge, hard_by: str | None) -> dict[str, Any]:
    """An arm as plain fields; p-values are corrected and the front is drawn later."""
    rows, right = judge.rows, judge.verdicts(team.passes)
    passes, others = list(team.passes.values()), [full.passes[item] for item in team.passes]
    is_full = team.kind == FULL
    against: dict[str, Against] = {}
    closer: dict[str, CloserThan] = {}
    if team.kind == "recipe":
        for name in rows.baselines():
            theirs = {item: rows.rival(name, mine) for item, mine in team.passes.items()}
            known = {item: one for item, one in theirs.items() if one}
            if right:
                _put(against, name, paired(right, judge.verdicts(known)))
            else:
                _put(closer, name, closer_than(team.passes, known))
    return {
        "recipe": team.recipe,
        "budget": team.budget,
        "kind": team.kind,
        "items": len(passes),
        "accuracy": share_of(right.values()),
        "by_category": _by_category(rows, right),
        "hard": None if is_full else _hard(team, full, judge, hard_by),
        "against_full": None if is_full else paired(right, judge.verdicts(full.passes)),
        "against": against,
        "closer_than": closer,
        "fidelity": _closeness(passes),
        "tokens": _tokens(passes),
        "flops": _flops(passes, others),
        "kv": _kv(passes),
        "time_ms": _times(passes, None if is_full else others),
        "peak_bytes": max((p.memory.peak_bytes or 0 for p in passes), default=0) or None,
        "on_front": False,
        "verdict": None,
    }


def _put(tests: dict[str, Any], name: str, test: Any) -> None:
    if test is not None:
        tests[name] = test


def _by_category(rows: Rows, right: dict[str, bool]) -> dict[str, Share]:
    """Shares by category in the order in which they come up; none if there are none."""
    kinds: dict[str, list[bool]] = {}
    for item, value in right.items():
        kinds.setdefault(rows.items[item].category or "", []).append(value)
    if set(kinds) <= {""}:
        return {}
    shares = {name or "(none)": share_of(values) for name, values in kinds.items()}
    return {name: share for name, share in shares.items() if share}


def _hard(team: Team, full: Team, judge: Judge, hard_by: str | None) -> Share | None:
    """Over items that the full model answers rightly and the down-sampling does not."""
    if hard_by is None or team.recipe == hard_by:
        return None
    found: list[bool] = []
    for item, mine in team.passes.items():
        small = judge.rows.rival(hard_by, mine)
        if small and judge.right(item, full.passes[item]) and judge.right(item, small) is False:
            found.append(bool(judge.right(item, mine)))
    return share_of(found)


def _closeness(passes: Sequence[Pass]) -> Closeness | None:
    close = [one.fidelity for one in passes if one.fidelity is not None]
    if not close:
        return None
    divergences = [one.kl_first_token for one in close if one.kl_first_token is not None]
    return Closeness(
        kl_first_token=_mean(divergences),
        kl_first_token_median=median(divergences) if divergences else None,
        top1_agree=_mean([one.top1_agree for one in close]),
        answer_nll_delta=_mean([one.answer_nll_delta for one in close]),
        exact_match=fmean(bool(one.exact_match) for one in close),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _tokens(passes: Sequence[Pass]) -> ArmTokens:
    def mean(name: str) -> float:
        return fmean(getattr(one.tokens, name) for one in passes)

    requested = _mean([one.tokens.requested for one in passes])
    average = mean("layer_average")
    return ArmTokens(
        original=mean("original"),
        requested=requested,
        gap=None if requested is None else average - requested,
        entering=mean("entering"),
        layer_average=average,
        leaving_average=mean("leaving_average"),
        final=mean("final"),
        cache_equivalent=_mean([one.tokens.cache_equivalent for one in passes]),
    )


def _flops(passes: Sequence[Pass], others: Sequence[Pass]) -> ArmFlops:
    """Sums over items, so that long prompts weigh as much as they cost."""

    def total(*names: str) -> int:
        return sum(getattr(one.flops, name) for one in passes for name in names)

    full = total("full_prefill")
    spent, prefill = total("compression"), total("prefill")
    first = total("vision", "projector", "prefill", "compression")
    return ArmFlops(
        prefill=prefill / len(passes),
        prefill_ratio=prefill / full,
        compression_ratio=spent / full,
        cost_ratio=(prefill + spent) / full,
        first_token_ratio=first / total("full_first_token"),
        decode_step_ratio=total("decode_step") / sum(one.flops.decode_step for one in others),
    )


def _kv(passes: Sequence[Pass]) -> ArmKv:
    mine, full = (fmean(getattr(p, name) for p in passes) for name in ("kv_bytes", "kv_full_bytes"))
    return ArmKv(bytes=mine, full_bytes=full, ratio=mine / full)


def _times(passes: Sequence[Pass], others: Sequence[Pass] | None) -> ArmTime:
    """Medians over items; the speed-up is that of the medians over the same items."""
    steps = [p.time_ms.decode_per_token for p in passes if p.time_ms.decode_per_token is not None]
    first = _spread([p.time_ms.ttft for p in passes])
    shares = [s for p in passes if (s := p.time_ms.first_token_shares) is not None]
    speedup = None
    if others is not None and first.median > 0:
        speedup = median(p.time_ms.ttft for p in others) / first.median
    return ArmTime(
        ttft=first,
        decode_per_token=_spread(steps) if steps else None,
        ttft_speedup=speedup,
        first_token_shares=_mean_shares(shares),
    )


def _spread(values: Sequence[float]) -> Spread:
    summary = timed(values)
    return Spread(median=summary.median_ms, spread=summary.spread_ms)


def _mean_shares(shares: Sequence[FirstTokenShares]) -> FirstTokenShares | None:
    if not shares:
        return None
    names = FirstTokenShares.model_fields
    return FirstTokenShares(**{name: fmean(getattr(s, name) for s in shares) for name in names})


def _on_front(arms: list[Arm], judged: bool) -> list[Arm]:
    """Mark the arms of the Pareto front: cost against accuracy, or against closeness.

    Figures count as they are shown: a difference that no reader sees makes no front.
    """
    placed = [(arm, gain) for arm in arms if (gain := gain_of(arm, judged)) is not None]
    costs = [round(100 * arm.flops.cost_ratio, COST_DECIMALS) for arm, _ in placed]
    gains = [round(100 * gain, 1) if judged else _as_shown(gain) for _, gain in placed]
    on = pareto_front(costs, gains)
    front = {arm.name for (arm, _), is_on in zip(placed, on, strict=True) if is_on}
    return [arm.model_copy(update={"on_front": arm.name in front}) for arm in arms]


def _as_shown(gain: float) -> float:
    return -float(significant(-gain).replace(" ", ""))


def gain_of(arm: Arm, judged: bool) -> float | None:
    """What the front is drawn over: accuracy, or where there is none minus the mean KL."""
    if judged:
        return arm.accuracy.share if arm.accuracy else None
    if arm.kind == FULL:
        return 0.0
    divergence = arm.fidelity.kl_first_token if arm.fidelity else None
    return None if divergence is None else -divergence


def _warnings(rows: Rows, full: Team, answered: int, teams: Sequence[Team]) -> list[str]:
    """What the reader must know of the whole."""
    found: list[str] = []
    if rows.head.wishes.model.weights == "random":
        found.append(NO_ACCURACY)
    items, pictures = len(full.passes), {rows.items[i].picture.sha256 for i in full.passes}
    if 0 < answered < items:
        found.append(f"{items - answered} of {items} items have no expected answer")
    if 0 < answered < FEW:
        found.append(f"few answers ({answered}): only large differences can be seen")
    if answered and len(pictures) < items:
        found.append(
            f"{items} items share {len(pictures)} pictures: intervals and tests take items as "
            "independent and are too sure"
        )
    short = {f"{t.recipe} {t.budget}": len(t.passes) for t in teams if len(t.passes) < items}
    if short:
        fewest = sorted(short.items(), key=lambda pair: pair[1])[:SHOWN_SHORT]
        counts = ", ".join(f"{name}: {count}" for name, count in fewest)
        more = f" and {len(short) - SHOWN_SHORT} more" if len(short) > SHOWN_SHORT else ""
        found.append(f"not every arm has all {items} items ({counts}{more})")
    return [*found, *_twins(teams)]
