"""How many tokens of each event stay behind each pruning layer, by share or by budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from vtc_cli.core.errors import BudgetError

BISECTIONS = 60
TOLERANCE = 0.5  # tokens of the layer average


@dataclass(frozen=True)
class Descent:
    """The rule by which events shrink from pruning layer to pruning layer.

    Attributes:
        key: for each event whether it is a key event.
        places: number of pruning layers; the last of them follows `last_keep`.
        last_keep: share of every event that stays behind the last pruning layer.
        held: for each event the tokens that must stay.
    """

    key: Sequence[bool]
    places: int
    last_keep: float
    held: Sequence[int]

    def counts(self, lengths: Sequence[int], place: int, share: float) -> list[int]:
        """Tokens of each event behind pruning layer number `place`, given those before it.

        A key event keeps the share, at least one token; another one keeps half the share, at least
        one, behind the first layer and nothing behind a later one.
        """
        events = zip(lengths, self.key, self.held, strict=True)
        return [
            min(max(self._count(length, key, place, share), held), length)
            for length, key, held in events
        ]

    def _count(self, length: int, key: bool, place: int, share: float) -> int:
        if place == self.places - 1:
            return ceil(self.last_keep * length)
        if not key and place > 0:
            return 0
        return max(1, ceil((share if key else share / 2) * length))


@dataclass(frozen=True)
class Remaining:
    """What a layer-average budget leaves for the layers from a pruning layer on.

    Attributes:
        rule: how events shrink.
        place: number of the pruning layer.
        spans: decoder layers that run behind this and each later pruning layer.
        spent: visual tokens that the layers before have processed, summed over layers.
        wanted: the same for the whole decoder, as the budget asks.
        layers: decoder layers in all.
    """

    rule: Descent
    place: int
    spans: tuple[int, ...]
    spent: int
    wanted: float
    layers: int

    def total(self, counts: Sequence[int], share: float) -> int:
        """Tokens over all layers if `counts` stay here and later layers follow `share`."""
        total = self.spent + self.spans[0] * sum(counts)
        for step, span in enumerate(self.spans[1:], start=1):
            counts = self.rule.counts(counts, self.place + step, share)
            total += span * sum(counts)
        return total

    def fit(self, lengths: Sequence[int]) -> list[int]:
        """Counts of each event at this layer: the share that meets the budget, then the rest.

        Counts grow with the share, so bisection finds the largest one that stays within the budget;
        equal events would step together there, so what is left goes to one event after the other.
        Later layers ask again with what is left then.

        Raises:
            BudgetError: no share comes within half a token of the layer average.
        """
        most = self.rule.counts(lengths, self.place, 1.0)
        self._check(self.rule.counts(lengths, self.place, 0.0), most)
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            within = self._total_of(lengths, middle) <= self.wanted
            low, high = (middle, high) if within else (low, middle)
        if self._total_of(lengths, 1.0) <= self.wanted:
            low = 1.0
        return self._filled(self.rule.counts(lengths, self.place, low), most, low)

    def _total_of(self, lengths: Sequence[int], share: float) -> int:
        return self.total(self.rule.counts(lengths, self.place, share), share)

    def _filled(self, counts: list[int], most: list[int], share: float) -> list[int]:
        """Give events, in order and up to `most`, one token more while that comes nearer."""
        best = abs(self.wanted - self.total(counts, share))
        for event, limit in enumerate(most):
            more = list(counts)
            more[event] = min(more[event] + 1, limit)
            missing = abs(self.wanted - self.total(more, share))
            if missing < best:
                counts, best = more, missing
        return counts

    def _check(self, fewest: Sequence[int], most: Sequence[int]) -> None:
        """Refuse a budget out of reach."""
        low, high = self.total(fewest, 0.0) / self.layers, self.total(most, 1.0) / self.layers
        asked = self.wanted / self.layers
        if low - TOLERANCE <= asked <= high + TOLERANCE:
            return
        nearest = ceil(low - TOLERANCE) if asked < low else int(high + TOLERANCE)
        raise BudgetError(
            f"a layer average of {asked:g} tokens was asked for",
            allowed=f"{low:.1f}..{high:.1f} with these events and pruning layers",
            hint=f"--budget {nearest}",
        )


def spans_behind(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Decoder layers that run behind each pruning layer of `layers`, in a decoder of `depth`."""
    return tuple(after - before for before, after in pairwise([*layers, depth]))
