"""Paired tests between arms, and the correction over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from vtc_cli.metrics.statistics import (
    Paired,
    holm,
    items_to_see,
    mcnemar,
    paired_interval,
    signed_rank,
    wilson,
)
from vtc_cli.report.compare.rows import Pass
from vtc_cli.report.compare.summary import Against, CloserThan, Share

VISIBLE = 0.05  # of two accuracies: the difference that a comparison should be able to show


def share_of(right: Iterable[bool]) -> Share | None:
    """Right answers with their interval; None without any answer."""
    values = list(right)
    if not values:
        return None
    low, high = wilson(sum(values), len(values))
    count = len(values)
    return Share(right=sum(values), count=count, share=sum(values) / count, low=low, high=high)


def paired(mine: Mapping[str, bool], theirs: Mapping[str, bool]) -> Against | None:
    """McNemar's test over the items that both answered, not corrected yet; None without any."""
    common = [item for item in mine if item in theirs]
    if not common:
        return None
    table = Paired.of([mine[item] for item in common], [theirs[item] for item in common])
    low, high = paired_interval(table)
    p_value = mcnemar(table)
    return Against(
        difference=table.difference,
        low=low,
        high=high,
        mine_only=table.first_only,
        other_only=table.second_only,
        count=table.count,
        p_value=p_value,
        p_corrected=p_value,
        items_needed=items_to_see(VISIBLE, table),
    )


def closer_than(mine: Mapping[str, Pass], theirs: Mapping[str, Pass]) -> CloserThan | None:
    """The signed-rank test of the two KL over common items, not corrected yet; None without any."""
    pairs = [(_kl(mine[item]), _kl(theirs[item])) for item in mine if item in theirs]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return None
    first, second = zip(*known, strict=True)
    p_value = signed_rank(first, second)
    difference = fmean(first) - fmean(second)
    return CloserThan(difference=difference, count=len(known), p_value=p_value, p_corrected=p_value)


def _kl(one: Pass) -> float | None:
    return None if one.fidelity is None else one.fidelity.kl_first_token


def corrected(drafts: Sequence[dict[str, Any]]) -> int:
    """Put Holm's correction over every p-value of all arms into the drafts; how many there are."""
    places: list[tuple[dict[str, Any], str]] = []
    for draft in drafts:
        places += [(draft, "against_full")]
        places += [(draft["against"], name) for name in draft["against"]]
        places += [(draft["closer_than"], name) for name in draft["closer_than"]]
    tested = [(holder, name) for holder, name in places if _p_value(holder[name]) is not None]
    values = holm([holder[name].p_value for holder, name in tested])
    for (holder, name), value in zip(tested, values, strict=True):
        holder[name] = holder[name].model_copy(update={"p_corrected": value})
    return len(tested)


def _p_value(test: Against | CloserThan | None) -> float | None:
    return None if test is None else test.p_value
