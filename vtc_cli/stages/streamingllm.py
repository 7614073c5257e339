"""StreamingLLM: a cache of the first tokens and the most recent ones (arXiv 2309.17453).

The first tokens of a sequence draw attention whatever they say; a cache that keeps them and a
window of recent tokens goes on speaking for ever. Nothing is looked at, only places count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vtc_cli.core.counts import CacheCounts, Steering
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, parameter
from vtc_cli.stages.ops.entries import entry_decisions, fill_up, ruled_places

PAPER = "StreamingLLM, arXiv 2309.17453"


@dataclass(frozen=True, kw_only=True)
class AttentionSinks(DecodeStage):
    """Keeps the first `sink_tokens` and the last `recent_tokens` entries of every layer.

    It acts after the prompt and after each token, so that a step reads sink + recent entries and
    its own; the official code has this form beside one that makes room before the step.

    Visual tokens stand in the middle of a prompt and leave first: a lower bound for other policies
    rather than a method for pictures.

    Deviation: keys keep the rotation of their original positions, and a query stands at its true
    place. The official code rotates keys by their index inside the cache, which lets a text go on
    behind the longest position that was trained; a prompt of one picture ends long before, and ids
    with several axes (time, row, column) have no such index.
    Deviation: the prompt is read whole and cut afterwards, so that the first answer token is the
    full model's; a text longer than memory is out of reach here.
    Deviation: protected entries stay, in place of the oldest recent ones; the paper has none.
    """

    paper: ClassVar[str] = PAPER
    meets_budget: ClassVar[bool] = True
    every_step: ClassVar[bool] = True
    sink_tokens: int = parameter(4, "first entries that stay", source="paper and code", minimum=0)
    recent_tokens: int = parameter(
        512,
        "last entries that stay without a budget",
        source="official class; 2000 in its chat demo",
        minimum=0,
        steers=Steering(1, None),
    )
    visual_only: bool = parameter(
        False, "text stays uncounted, sinks and window are of the visual entries", source="ours"
    )

    @property
    def evicts_text(self) -> bool:
        """The paper's policy does: it rules the whole sequence."""
        return not self.visual_only

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision | tuple[Decision, ...]:
        """Keep the ends; with no more entries than allowed, all.

        Raises:
            BudgetError: a budget that the sinks alone use up.
        """
        count = self._capacity(signals.cache_budget)
        ruled = ruled_places(entries, self.visual_only)
        if len(ruled) <= count:
            note = f"{count} entries allowed, {len(ruled)} here"
            return Decision.identity(len(entries), ruled.device, note=note)
        first = entries.protected[ruled]
        first[: self.sink_tokens] = True
        latest = torch.arange(len(ruled), device=ruled.device)
        return entry_decisions(entries, ruled, [fill_up(first, latest, count)])

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        capacity = self._capacity(counts.budget)
        return counts.held_to(capacity, self.sink_tokens, self.visual_only)

    def _capacity(self, budget: int | None) -> int:
        """Entries of a full cache."""
        if budget is None:
            return self.sink_tokens + self.recent_tokens
        if budget <= self.sink_tokens:
            raise BudgetError(
                f"{budget} cache entries were asked for",
                allowed=f"at least {self.sink_tokens + 1}: {self.sink_tokens} are sinks",
                hint=f"--budget {self.sink_tokens + 1}",
            )
        return budget
