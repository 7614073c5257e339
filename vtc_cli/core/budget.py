"""A layer-average budget and the schedule of counts that meets it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vtc_cli.core.errors import BudgetError


@dataclass(frozen=True)
class LayerBudget:
    """A wanted mean, over decoder layers, of the visual tokens that each layer processes.

    Attributes:
        layer_average: the mean asked for, in tokens.
        decoder_layers: D, layers of the decoder.
        prune_layers: layers at whose input the recipe prunes, strictly increasing.
        protect_ratio: share of the entering tokens that the recipe protects from pruning.
    """

    layer_average: float
    decoder_layers: int
    prune_layers: tuple[int, ...]
    protect_ratio: float = 0.0

    def spans(self) -> list[int]:
        """Layers that run at each count: before the first prune, then after each one."""
        edges = [0, *self.prune_layers, self.decoder_layers]
        return [after - before for before, after in pairwise(edges)]

    def average(self, counts: list[int]) -> float:
        """Layer average of `counts`: entering tokens, then the tokens after each prune."""
        weighted = sum(span * count for span, count in zip(self.spans(), counts, strict=True))
        return weighted / self.decoder_layers

    def smallest_average(self, entering_tokens: int, protected_tokens: int) -> float:
        """The least layer average if `entering_tokens` enter and only protected ones stay."""
        kept = min(max(protected_tokens, 1), entering_tokens)
        return self.average([entering_tokens] + [kept] * len(self.prune_layers))

    def protected(self, entering_tokens: int) -> int:
        """Tokens that a `protect_ratio` stage marks among `entering_tokens`."""
        return -int(-self.protect_ratio * entering_tokens // 1)

    def largest_entering(self, original_tokens: int) -> int:
        """The most tokens that may enter the decoder so that the budget can still be met."""
        count = original_tokens
        while (
            count > 0 and self.smallest_average(count, self.protected(count)) > self.layer_average
        ):
            count -= 1
        return count

    def schedule(self, entering_tokens: int, protected_tokens: int) -> tuple[int, ...]:
        """Counts after each prune: the same share at every prune, never below the protected.

        The share rho solves average(M, M rho, M rho^2, ...) = layer_average by bisection; the
        rounding that remains is taken up by the last count, so the average is met within half a
        token whenever it can be met. With at least as much budget as tokens nothing is pruned.

        Raises:
            BudgetError: the protected tokens alone exceed the budget.
        """
        least = self.smallest_average(entering_tokens, protected_tokens)
        if least > self.layer_average + 0.5:
            raise BudgetError(
                f"a layer average of {self.layer_average:g} tokens was asked for",
                allowed=f"at least {least:.1f} with {entering_tokens} tokens entering",
                hint=f"--budget {int(least) + 1}",
            )
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            counts = self._counts(entering_tokens, protected_tokens, middle)
            low, high = (
                (middle, high) if self.average(counts) <= self.layer_average else (low, middle)
            )
        return tuple(self._settle(self._counts(entering_tokens, protected_tokens, low))[1:])

    def _counts(self, entering: int, protected: int, share: float) -> list[int]:
        floor = min(max(protected, 1), entering)
        powers = range(1, len(self.prune_layers) + 1)
        return [entering, *(max(int(entering * share**power), floor) for power in powers)]

    def _settle(self, counts: list[int]) -> list[int]:
        """Give the tokens that rounding left over to the deepest counts, kept non-increasing.

        The way back, from the shallowest count, serves deep counts that had no room under it.
        """
        settled = list(counts)
        deepest = len(counts) - 1
        for index in (*range(deepest, 0, -1), *range(1, deepest + 1)):
            missing = (self.layer_average - self.average(settled)) * self.decoder_layers
            step = round(missing / self.spans()[index])
            settled[index] = min(settled[index] + max(step, 0), settled[index - 1])
        return settled
