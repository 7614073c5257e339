"""How many tokens a pruning stage may leave: its own count, or the schedule of a budget."""

from __future__ import annotations

from math import ceil

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


def entering_allowed(tokens: TokenTable, signals: Signals, own: int) -> int:
    """Tokens that an encoder stage may let through; at least one, and all that are protected.

    Where nothing prunes in the decoder, what enters is the layer average, so exactly the budget
    enters. Where stages of the decoder follow the budget too, they do the rest: the stage keeps its
    own count, held to what lets the budget be met.

    Args:
        tokens: as they come in.
        signals: with a budget or without.
        own: the stage's own count, used without a budget.
    """
    budget, total = signals.budget, len(tokens)
    count = own
    if budget is not None and budget.prune_layers:
        most = budget.largest_entering(total)
        count = max(min(own, most), min(ceil(budget.layer_average), most))
    elif budget is not None:
        count = round(budget.layer_average)
    return min(max(count, int(tokens.protected.sum()), 1), total)
