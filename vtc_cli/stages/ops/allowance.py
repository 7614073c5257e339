"""How many tokens a pruning stage may leave: its own count, or the schedule of a budget."""

from __future__ import annotations

from vtc_cli.core.signals import Signals
from vtc_cli.core.tokens import TokenTable


def tokens_allowed(tokens: TokenTable, signals: Signals, own: int) -> int:
    """Tokens that may stay at this layer; never fewer than are protected.

    Args:
        tokens: as they come in.
        signals: with a budget or without.
        own: the stage's own count, used without a budget.
    """
    protected = int(tokens.protected.sum())
    if signals.budget is None:
        return max(own, protected)
    entering = signals.entering_tokens or len(tokens)
    counts = signals.budget.schedule(entering, protected)
    return counts[signals.budget.prune_layers.index(signals.layer)]
