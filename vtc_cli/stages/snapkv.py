"""SnapKV: the end of the prompt says which of its entries the answer will need (arXiv 2404.14469).

The last rows of the prompt, the observation window, vote with their attention for the keys before
them. Votes are pooled over neighbours, so that what is kept stays in pieces, and each head keeps
its own best. It happens once, after the prompt; the answer is appended without limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtc_cli.core.counts import CacheCounts, Steering
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, parameter
from vtc_cli.stages.ops.entries import entry_decisions, fill_up, ruled_places
from vtc_cli.stages.ops.select import require_finite

PAPER = "SnapKV, arXiv 2404.14469"
CODE = "official code"


@dataclass(frozen=True, kw_only=True)
class ObservationWindow(DecodeStage):
    """Keeps the window and, for each head, the entries before it that the window looks at most.

    With A (W, n) the softmax rows of the last W prompt tokens over the prompt, the vote for entry j
    before the window is the sum over the rows of A[., j], pooled over `kernel` neighbours (an
    average counts the zeros of the padding). `capacity_tokens` counts the window.

    Deviation: with grouped queries the votes of the query heads that share a key/value head are
    joined (`gqa`) and each key/value head keeps one set. The official code repeats keys and values
    to all query heads first, chooses for each, and stores them so, which takes the group's size
    times the memory; with one query head a key/value head both agree.
    Deviation: entries stay in the order of the sequence; the official code stores them by score.
    Attention does not see the order.
    Deviation: ties go to the lowest index; the official top-k leaves them open.
    Deviation: protected entries stay and count; the paper has none.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"window_attention"})
    meets_budget: ClassVar[bool] = True
    capacity_tokens: int = parameter(
        2048,
        "entries left without a budget, the window included",
        source=CODE,
        minimum=1,
        steers=Steering(1, None),
    )
    window_tokens: int = parameter(
        32, "W, last prompt tokens that vote and stay", source=CODE, minimum=1
    )
    kernel: int = parameter(
        5, "neighbours that a vote is pooled over, odd", source="official code; 7 in its LongBench"
    )
    pool: Literal["average", "max"] = parameter(
        "average", "how votes are pooled", source="official code; max in its LongBench"
    )
    gqa: Literal["mean", "max"] = parameter(
        "mean", "how query heads that share a key/value head join", source="kvpress"
    )
    window_source: Literal["prompt", "question"] = parameter(
        "prompt",
        "`question` ends the window at the last visual token, where W would reach over it",
        source="`prompt` is the official code's; `question` is ours",
    )
    visual_only: bool = parameter(
        False, "text stays uncounted, the capacity is of the visual entries", source="ours"
    )

    def __post_init__(self) -> None:
        """Refuse sizes that leave no choice.

        Raises:
            ValueError: an even kernel, or a capacity that the window uses up.
        """
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"a kernel of {self.kernel}: pooling keeps the length if it is odd")
        if self.capacity_tokens <= self.window_tokens and not self.visual_only:
            raise ValueError(
                f"a capacity of {self.capacity_tokens} holds no more than the window of "
                f"{self.window_tokens}"
            )

    @property
    def evicts_text(self) -> bool:
        """The paper's policy does: it rules the whole sequence."""
        return not self.visual_only

    @property
    def observed_rows(self) -> int:
        """The window."""
        return self.window_tokens

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision | tuple[Decision, ...]:
        """Keep window and best; with no more entries than the capacity, all.

        Raises:
            BudgetError: a budget that the window alone uses up.
        """
        capacity, window = self._capacity(signals.cache_budget), self._window(entries)
        ruled = ruled_places(entries, self.visual_only)
        if len(ruled) <= capacity:
            note = f"{capacity} entries allowed, {len(ruled)} here"
            return Decision.identity(len(entries), ruled.device, note=note)
        rows = require_finite(signals.window_attention(self.window_tokens), "attention")
        inside = ruled >= len(entries) - window
        votes = self._votes(rows[:, -window:].sum(dim=1)[:, ruled[~inside]], len(entries.heads))
        scores = torch.zeros(len(entries.heads), len(ruled), device=ruled.device)
        scores[:, ~inside] = votes
        first = inside | entries.protected[ruled]
        keeps = [fill_up(first, score, capacity) for score in scores]
        flops = rows.numel() + self.kernel * rows.shape[0] * len(ruled)
        return entry_decisions(entries, ruled, keeps, flops)

    def steering(self) -> dict[str, Steering]:
        """The capacity; one that rules text too holds more than the window."""
        least = 1 if self.visual_only else self.window_tokens + 1
        return {"capacity_tokens": Steering(least, None)}

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        capacity = self._capacity(counts.budget)
        window = min(self.window_tokens, counts.entries)
        return counts.held_to(capacity, window, self.visual_only)

    def _capacity(self, budget: int | None) -> int:
        """Entries that stay."""
        if budget is None:
            return self.capacity_tokens
        if budget <= self.window_tokens and not self.visual_only:
            raise BudgetError(
                f"{budget} cache entries were asked for",
                allowed=f"at least {self.window_tokens + 1}: the window has {self.window_tokens}",
                hint=f"--budget {self.window_tokens + 1}, or a smaller window_tokens",
            )
        return budget

    def _window(self, entries: CacheEntries) -> int:
        """W of this prompt."""
        window = min(self.window_tokens, len(entries))
        visual = entries.visual.nonzero()[:, 0]
        if self.window_source == "prompt" or len(visual) == 0:
            return window
        return max(min(window, len(entries) - 1 - int(visual[-1])), 1)

    def _votes(self, votes: Tensor, kv_heads: int) -> Tensor:
        """(kv_heads, p) pooled and joined votes of `votes` (heads, p)."""
        pad = self.kernel // 2
        if votes.shape[1] == 0:  # the window reaches over all that may leave
            return votes[:kv_heads]
        if self.pool == "max":
            pooled = torch.nn.functional.max_pool1d(votes, self.kernel, 1, pad)
        else:
            pooled = torch.nn.functional.avg_pool1d(votes, self.kernel, 1, pad)
        grouped = pooled.reshape(kv_heads, -1, pooled.shape[1])
        return grouped.mean(dim=1) if self.gqa == "mean" else grouped.amax(dim=1)
