"""How many tokens a pruning stage may leave: its own count, or the schedule of a budget."""

from __future__ import annotations

from math import ceil

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import VisualCounts
from vtc_cli.core.signals import Signals
from vtc_cli.core.tokens import TokenTable

SHARE_DIGITS = 12  # of a share as a user writes it; what lies behind them is rounding


def official_share(keep_ratio: float) -> float:
    """1 - R in double precision, where an official script names R, the share that is dropped.

    With R = 0.8 that is a little less than 0.2, and int(40 x 0.2 / 8) of the code is 0, not 1.
    """
    return 1 - round(1 - keep_ratio, SHARE_DIGITS)


def tokens_allowed(tokens: TokenTable, signals: Signals, own: int) -> int:
    """Tokens that may stay at this layer; never fewer than are protected.

    Args:
        tokens: as they come in.
        signals: with a budget or without.
        own: the stage's own count, used without a budget.
    """
    protected = int(tokens.protected.sum())
    entering = signals.entering_tokens or len(tokens)
    return _allowed(signals.budget, signals.layer, entering, protected, own)


def counted_allowed(counts: VisualCounts, own: int) -> VisualCounts:
    """What a stage leaves that keeps as many as `tokens_allowed` says, told by numbers alone."""
    entering = counts.entering or counts.tokens
    return counts.left(_allowed(counts.budget, counts.layer, entering, counts.protected, own))


def entering_allowed(tokens: TokenTable, signals: Signals, own: int, least: int = 1) -> int:
    """Tokens that an encoder stage may let through; all that are protected are among them.

    Where nothing prunes in the decoder, what enters is the layer average, so exactly the budget
    enters. Where stages of the decoder follow the budget too, they do the rest: the stage keeps its
    own count, held to what lets the budget be met.

    Args:
        tokens: as they come in.
        signals: with a budget or without.
        own: the stage's own count, used without a budget.
        least: tokens that stay whatever that count, 0 for a code that may keep none.
    """
    return _entering(signals.budget, len(tokens), max(int(tokens.protected.sum()), least), own)


def counted_entering(counts: VisualCounts, own: int, least: int = 1) -> VisualCounts:
    """What a stage leaves that keeps as many as `entering_allowed` says, by numbers alone."""
    held = max(counts.protected, least)
    return counts.left(_entering(counts.budget, counts.tokens, held, own))


def _allowed(
    budget: LayerBudget | None, layer: int, entering: int, protected: int, own: int
) -> int:
    if budget is None:
        return max(own, protected)
    return budget.schedule(entering, protected)[budget.prune_layers.index(layer)]


def _entering(budget: LayerBudget | None, total: int, least: int, own: int) -> int:
    count = own
    if budget is not None and budget.prune_layers:
        most = budget.largest_entering(total)
        count = max(min(own, most), min(ceil(budget.layer_average), most))
    elif budget is not None:
        count = round(budget.layer_average)
    return min(max(count, least), total)
