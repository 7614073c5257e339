"""Selections that give every picture and every frame its share."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.signals import Signals
from vtc_cli.core.tokens import TokenTable


def views(tokens: TokenTable) -> Tensor:
    """(N,) int64: which picture or frame each token belongs to, counted from 0."""
    # One whole number a token: comparing rows of a table takes a hundred times as long.
    places = tokens.span * max(tokens.layout.frames, 1) + tokens.frame
    _, number = torch.unique(places, return_inverse=True)
    assert isinstance(number, Tensor)
    return number


def even_top(scores: Tensor, view: Tensor, protected: Tensor, count: int) -> Tensor:
    """The best `count` of N tokens, as many of each view as of every other.

    The best of each view come first, then the second best of each, and so on; where a last round
    has room for some views only, the higher score wins. With one view this is a plain top-k.

    Args:
        scores: (N,).
        view: (N,) int64.
        protected: (N,) bool, tokens that come before all others.
        count: up to N.

    Returns:
        (count,) int64, ascending; the lowest index wins a tie.
    """
    best = torch.argsort(scores, descending=True, stable=True)
    best = best[torch.argsort((~protected[best]).long(), stable=True)]
    grouped = best[torch.argsort(view[best], stable=True)]
    held = torch.bincount(view)
    rank = torch.empty_like(best)
    index = torch.arange(best.shape[0], device=best.device)
    rank[grouped] = index - (held.cumsum(0) - held)[view[grouped]]
    rank = torch.where(protected, -1, rank)
    order = best[torch.argsort(rank[best], stable=True)]
    return order[: max(count, 0)].sort().values


def patch_attention(signals: Signals, layer: int) -> Tensor:
    """(N,) attention of [CLS] in tower layer `layer`, or what each token receives without [CLS]."""
    if "vision_cls_attention" in signals.available():
        return signals.vision_cls_attention(layer)
    return signals.vision_received_attention(layer)


def attention_source(signals: Signals) -> str:
    """What `patch_attention` ranks by, for a note."""
    found = "vision_cls_attention" in signals.available()
    return "" if found else "no [CLS]: attention received"
