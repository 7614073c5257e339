"""Which rule judges which answer, and the refusal of rules that could never call one right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from vtc_cli.core.errors import UsageError

if TYPE_CHECKING:
    from vtc_cli.metrics.answers import Rule

SHOWN = 3


class Judged(Protocol):
    """A question with what its file says about its answer."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def answer(self) -> str | None:
        """What is right, None if it is not known."""

    @property
    def match(self) -> str | None:
        """Its own rule, None for that of the command."""


def rule_of(item: Judged, rule: Rule) -> Rule:
    """The item's own rule, or that of the command."""
    return cast("Rule", item.match or rule)


def check_rules(items: Sequence[Judged], rule: Rule) -> None:
    """See that every expected answer holds what its rule compares.

    Raises:
        UsageError: some do not; every answer to them would silently count as wrong.
    """
    from vtc_cli.metrics.answers import nothing_to_compare

    answered = [item for item in items if item.answer is not None]
    faults: list[str] = []
    for item in answered:
        lacking = nothing_to_compare(item.answer or "", rule_of(item, rule))
        if lacking:
            faults.append(f"{lacking} in {item.answer!r} (item {item.id})")
    if faults:
        shown = "; ".join(faults[:SHOWN]) + ("; ..." if len(faults) > SHOWN else "")
        raise UsageError(
            f"{len(faults)} of {len(answered)} expected answers cannot be compared: {shown}",
            where=f"--match {rule}",
            allowed="expected answers that hold what the rule compares",
            hint='--match normalised, or a field "match" at the items that need another rule',
        )
