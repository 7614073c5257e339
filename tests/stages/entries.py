"""Cache entries and their attention made of given tensors, for the tests of cache policies."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.signals import Produced, Signals
from vtc_cli.core.stage import CacheEntries


def entries(
    count: int, visual: range = range(0), heads: int = 1, protected: int = -1
) -> CacheEntries:
    """`count` entries of which those in `visual` are visual; `protected` is one of them."""
    place = torch.arange(count)
    flags = (place >= visual.start) & (place < visual.stop)
    return CacheEntries(
        layer=0,
        kv_heads=heads,
        heads=tuple(range(heads)),
        index=place,
        visual=flags,
        anchor=torch.where(flags, place - visual.start, -1),
        alive=torch.ones_like(flags),
        protected=place == protected,
    )


def view(
    rows: Tensor | None = None,
    received: Tensor | None = None,
    *,
    budget: int | None = None,
    prompt_entries: int | None = None,
) -> Signals:
    """`rows` (heads, W, n) of the prompt's last tokens, `received` (heads, n)."""
    producers = {}
    if rows is not None:
        producers["window_attention"] = lambda rows: Produced(given[:, -rows:])
        given = rows
    if received is not None:
        producers["received_attention"] = lambda: Produced(received)
    return Signals(
        producers,
        layout=Layout.of(Grid(1, 1, 1)),
        decoder_layers=1,
        original_tokens=1,
        cache_budget=budget,
        prompt_entries=prompt_entries,
    )


def kept(answer: object) -> list[list[int]]:
    """What each head keeps."""
    decisions = answer if isinstance(answer, tuple) else (answer,)
    return [decision.keep.tolist() for decision in decisions]
