"""Signals made of given tensors, through the real `Signals` class."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.signals import SIGNAL_NAMES, Produced, Producer, Signals
from vtc_cli.core.tokens import TokenTable


def table(features: Tensor, rows: int, columns: int, frames: int = 1) -> TokenTable:
    return TokenTable.from_grid(features, Grid(frames, rows, columns))


def signals(
    grid: Grid | Layout,
    *,
    attention: Tensor | None = None,
    cls: Tensor | None = None,
    relevance: Tensor | None = None,
    output: Tensor | None = None,
    layer: int = -1,
    entering: int | None = None,
    budget: LayerBudget | None = None,
    processed: tuple[int, ...] = (),
    decoder_layers: int = 32,
    **values: Tensor,
) -> Signals:
    """`attention` (T, N) is given to every head of two; `cls` is (N,), `relevance` (F,).

    `values` are signals by their own names, the same for every layer.
    """
    producers: dict[str, Producer] = {}
    if attention is not None:
        rows = attention.expand(2, -1, -1)
        producers["attention_rows"] = producers["attention_rows_ahead"] = lambda queries: Produced(
            rows if queries == "after_visual" else rows[:, -1:]
        )
    for name, value in values.items():
        assert name in SIGNAL_NAMES
        producers[name] = lambda value=value, **_: Produced(value)
    if cls is not None:
        producers["vision_cls_attention"] = lambda layer: Produced(cls)
    if relevance is not None:
        producers["frame_relevance"] = lambda: Produced(relevance, source="a test")
    if output is not None:
        producers["attention_output"] = lambda: Produced(output)
        producers["attention_projection"] = lambda: Produced(output * 2)
    return Signals(
        producers,
        layout=Layout.of(grid) if isinstance(grid, Grid) else grid,
        decoder_layers=decoder_layers,
        original_tokens=grid.tokens,
        layer=layer,
        entering_tokens=entering,
        processed_tokens=processed,
        budget=budget,
    )


def noise(count: int, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
