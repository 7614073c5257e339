"""DART: keep tokens that duplicate a few pivots as little as possible (arXiv 2502.11494)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_allowed, official_share, tokens_allowed
from vtc_cli.stages.ops.diversity import unit_rows
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "DART, arXiv 2502.11494"
CODE = "official code"


@dataclass(frozen=True, kw_only=True)
class Pivots(PrefillStage):
    """Keeps the tokens with the longest keys, the pivots, and those that are least like them.

    Pivots are the visual tokens, and the tokens of the text behind them, whose keys in the layer
    before have the largest L1 norm. One pivot after the other takes, of the tokens that are left,
    those with the lowest cosine to itself; states are compared under the norm at the decoder's end.
    No attention is looked at.

    Deviation: exactly n tokens stay, what is left beside the pivots is shared among them as evenly
    as possible, the first get one more; the official code gives each int(N x keep_ratio / pivots),
    which keeps a few less than n (`fidelity: official` keeps that).
    Deviation: pivots take their turns by falling norm, visual ones first; in the official code the
    order is that in which CPython walks a set of their places in the sequence, which depends on the
    number of tokens before the picture (`fidelity: official` walks the same set).
    Deviation: ties go to the lowest index; a zero vector has cosine 0 to everything.
    Deviation: protected tokens are pivots before all others; DART alone has none.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset(
        {"keys", "text_keys", "normed_hidden", "normed_text", "visual_places", "text_places"}
    )
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (2,), "first layer on the short sequence", source=CODE, layer_of="llm"
    )
    keep_ratio: float = parameter(
        0.222,
        "share of the tokens left without a budget, 1 - r of the paper",
        source="official scripts; r is 0.778",
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0, unless="tokens"),
    )
    tokens: int | None = parameter(
        None,
        "tokens left without a budget, whatever the share",
        source="official scripts have 128 as an option",
        minimum=1,
        steers=Steering(1, None),
    )
    visual_pivots: int = parameter(4, "pivots among the visual tokens", source=CODE, minimum=1)
    text_pivots: int = parameter(4, "pivots among the text behind them", source=CODE, minimum=0)
    fidelity: Literal["sound", "official"] = parameter(
        "sound", "how many tokens a pivot takes, and the order of their turns"
    )

    def __post_init__(self) -> None:
        """Refuse a layer that no keys stand before.

        Raises:
            ValueError: layer 0.
        """
        if 0 in self.layers:
            raise ValueError("layer 0 has no layer before it whose keys could name pivots")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep pivots and the tokens that they take; with n >= N nothing changes."""
        wanted = tokens_allowed(tokens, signals, self._own_count(len(tokens)))
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        norm = _key_norms(signals.keys())
        lifted = norm + tokens.protected * (norm.max() + 1)
        pivots = top_indices(lifted, min(self.visual_pivots, wanted))
        text = top_indices(_key_norms(signals.text_keys()), self.text_pivots)
        states = unit_rows(require_finite(signals.normed_hidden(), "hidden states"))
        words = unit_rows(require_finite(signals.normed_text(), "hidden states"))
        taken = tokens.protected.clone()
        taken[pivots] = True
        shares = self._shares(wanted - int(taken.sum()), pivots.shape[0] + text.shape[0])
        turns = self._turns(pivots, text, signals)
        _take(torch.cat([states[pivots], words[text]])[turns], shares, states, taken)
        keep = taken.nonzero()[:, 0]
        flops = signals.keys().numel() + 2 * len(shares) * states.numel()
        return Decision.prune(keep, len(tokens), scores=norm, flops=flops)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves; the official count depends on how much text there is."""
        if self.fidelity == "official":
            return None
        return counted_allowed(counts, self._own_count(counts.tokens))

    def _own_count(self, count: int) -> int:
        """Tokens left of `count` without a budget."""
        if self.fidelity == "official":
            return self.visual_pivots + self._configured * self._official_share(count)
        return max(round(count * self.keep_ratio), 1) if self.tokens is None else self.tokens

    def _turns(self, pivots: Tensor, text: Tensor, signals: Signals) -> list[int]:
        """The order in which pivots choose: indices into the visual and then the text ones."""
        if self.fidelity == "sound":
            return list(range(pivots.shape[0] + text.shape[0]))
        places = torch.cat([signals.visual_places()[pivots], signals.text_places()[text]]).tolist()
        # A set of whole numbers is walked by their hashes and by how they came in, not by size.
        return [places.index(place) for place in set(places)]

    @property
    def _configured(self) -> int:
        return self.visual_pivots + self.text_pivots

    def _official_share(self, count: int) -> int:
        """Tokens that each pivot takes of `count` in the official code."""
        if self.tokens is not None:
            return self.tokens // self._configured
        return int(count * official_share(self.keep_ratio) / self._configured)

    def _shares(self, room: int, pivots: int) -> list[int]:
        """Tokens that each pivot takes, as even as whole numbers are, the first get one more."""
        if self.fidelity == "official":
            return [room // self._configured] * pivots
        return [room // pivots + int(place < room % pivots) for place in range(pivots)]


def _key_norms(keys: Tensor) -> Tensor:
    """(n,) float32 L1 norms of keys (kv_heads, n, head_dim) over all heads."""
    return require_finite(keys.float().abs().sum(dim=(0, 2)), "keys")


def _take(pivots: Tensor, shares: list[int], states: Tensor, taken: Tensor) -> None:
    """Mark in `taken` (N,), for each of `pivots` (P, d) in turn, the rows least like it.

    All vectors have length 1. A row is taken once; the lowest index wins a tie.
    """
    for pivot, share in zip(pivots, shares, strict=True):
        likeness = (states @ pivot).masked_fill(taken, torch.inf)
        share = min(share, int((~taken).sum()))
        taken[torch.argsort(likeness, stable=True)[:share]] = True
