"""H2O: keep the heavy hitters, what got most attention so far, and what is recent (2306.14048).

Every cached entry counts the attention that it receives. Once the cache is full, each head lets go
of the entry that received least among those that are not recent, at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vtc_cli.core.counts import CacheCounts, Steering
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, parameter
from vtc_cli.stages.ops.entries import entry_decisions, fill_up, ruled_places
from vtc_cli.stages.ops.select import require_finite

PAPER = "H2O, arXiv 2306.14048"
CODE = "official code"


@dataclass(frozen=True, kw_only=True)
class HeavyHitters(DecodeStage):
    """Keeps for each head the H entries of most attention and the R last ones.

    The attention of an entry is the sum of the softmax probabilities of all queries so far, those
    of the prompt included. H and R are fixed when the prompt has been read.

    Early entries were seen by more queries and gather more; in a prompt that begins with a picture
    this favours its first rows. The paper corrects nothing, and neither does this stage.

    Deviation: with grouped queries the sums of the query heads that share a key/value head are
    averaged; the official code indexes keys by query head and fits models without groups only.
    Deviation: ties go to the lowest index; the official top-k leaves them open.
    Deviation: a share above zero keeps at least one entry; the official rounding may keep none
    (`fidelity: official` keeps that).
    Deviation: a token budget C is split between the two in the proportion of the shares.
    Deviation: protected entries stay and count; the paper has none.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"received_attention"})
    meets_budget: ClassVar[bool] = True
    every_step: ClassVar[bool] = True
    heavy_ratio: float = parameter(
        0.1,
        "H without a budget, as a share of the prompt in the layer",
        source="paper, 20 % with the recent ones, and official simulation",
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0, unless="heavy_tokens"),
    )
    recent_ratio: float = parameter(
        0.1,
        "R without a budget, as a share of the prompt in the layer",
        source="paper and official simulation",
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0, unless="recent_tokens"),
    )
    heavy_tokens: int | None = parameter(
        None,
        "H without a budget, whatever the share",
        source="official summarisation, 1024",
        minimum=0,
        steers=Steering(1, None),
    )
    recent_tokens: int | None = parameter(
        None,
        "R without a budget, whatever the share",
        source="official summarisation, 1024",
        minimum=0,
        steers=Steering(1, None),
    )
    visual_only: bool = parameter(
        False, "text stays uncounted, H and R are of the visual entries", source="ours"
    )
    fidelity: Literal["sound", "official"] = parameter("sound", "whether none may be left")

    @property
    def evicts_text(self) -> bool:
        """The paper's policy does: it rules the whole sequence."""
        return not self.visual_only

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision | tuple[Decision, ...]:
        """Keep the heavy and the recent; with no more entries than H + R, all."""
        prompt = len(entries) if signals.prompt_entries is None else signals.prompt_entries
        heavy, recent = self._counts(signals.cache_budget, prompt)
        ruled = ruled_places(entries, self.visual_only)
        if len(ruled) <= heavy + recent:
            note = f"{heavy + recent} entries allowed, {len(ruled)} here"
            return Decision.identity(len(entries), ruled.device, note=note)
        received = require_finite(signals.received_attention(), "attention")
        scores = received.reshape(len(entries.heads), -1, len(entries)).mean(dim=1)[:, ruled]
        first = entries.protected[ruled]
        first[len(ruled) - recent :] = True
        keeps = [fill_up(first, score, heavy + recent) for score in scores]
        return entry_decisions(entries, ruled, keeps, received.numel())

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        heavy, recent = self._counts(counts.budget, counts.prompt_entries)
        return counts.held_to(heavy + recent, recent, self.visual_only)

    def _counts(self, budget: int | None, prompt: int) -> tuple[int, int]:
        """H and R of a layer that held `prompt` entries after the prompt."""
        shares = self.heavy_ratio, self.recent_ratio
        if budget is not None:
            recent = round(budget * self.recent_ratio / (sum(shares) or 1.0))
            return budget - recent, recent
        sound = self.fidelity == "sound"
        heavy, recent = (max(int(share * prompt), int(sound and share > 0)) for share in shares)
        return (
            heavy if self.heavy_tokens is None else self.heavy_tokens,
            recent if self.recent_tokens is None else self.recent_tokens,
        )
