"""What a decision costs as tokens grow: every shipped stage over synthetic signals.

Stages with a count of their own leave 64 of 576, 320 of 2,880 and 2,000 of 20,000 tokens of width
4,096; the others act as they are by default. `ms` is processor time. `time x` and `N K x` are the
growth, since the size before, of that time and of the product of tokens in and tokens out: a stage
whose first stays near or below its second needs no more than N K. `peak MB` is the largest memory
in use beside the features, `N x N MB` a float32 matrix of all pairs, which no stage may need beyond
4,096 tokens. Signals are made before and cost nothing here.

Run: python benchmarks/stages.py [--only divprune] [--turns 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.discover import all_stages
from vtc_cli.core.layout import Grid
from vtc_cli.core.signals import Produced, Producer, Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, EncoderStage, InputStage, PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.clock import PeakMemory

WIDTH, HEADS, HEAD_DIM, TEXT = 4096, 8, 128, 40
SIZES: Mapping[int, tuple[Grid, int]] = {
    576: (Grid(1, 24, 24), 64),
    2880: (Grid(5, 24, 24), 320),
    20000: (Grid(32, 25, 25), 2000),
}


def values_of(table: TokenTable) -> dict[str, Tensor]:
    """Every signal that a stage may ask for, random."""
    chance, count = torch.Generator().manual_seed(1), len(table)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=chance)

    rows = rand(HEADS, TEXT, count).softmax(dim=-1)
    return {
        "vision_cls_attention": rand(count),
        "vision_received_attention": rand(count),
        "vision_keys": rand(count, HEADS, HEAD_DIM) - 0.5,
        "vision_class_state": table.features,
        "frame_relevance": rand(table.layout.frames),
        "attention_rows": rows,
        "attention_rows_ahead": rows,
        "keys": rand(HEADS, count, HEAD_DIM) - 0.5,
        "text_keys": rand(HEADS, TEXT, HEAD_DIM) - 0.5,
        "normed_hidden": table.features,
        "normed_text": rand(TEXT, table.features.shape[1]) - 0.5,
        "visual_places": torch.arange(count),
        "text_places": torch.arange(count, count + TEXT),
        "attention_output": table.features,
        "attention_projection": table.features,
    }


def view(values: Mapping[str, Tensor], table: TokenTable, layer: int) -> Signals:
    """Signals of given tensors, whatever layer they are asked of."""

    def producer(value: Tensor) -> Producer:
        def produce(**asked: object) -> Produced:
            return Produced(value[:, -1:] if asked.get("queries") == "last" else value)

        return produce

    return Signals(
        {name: producer(value) for name, value in values.items()},
        layout=table.layout,
        decoder_layers=32,
        original_tokens=len(table),
        layer=layer,
        entering_tokens=len(table),
        processed_tokens=(len(table),) * max(layer, 0),
    )


def entries_of(table: TokenTable) -> CacheEntries:
    """A cache with all visual tokens, a tenth of them alive, and some text."""
    count = len(table) + TEXT
    visual = torch.arange(count) < len(table)
    return CacheEntries(
        layer=8,
        kv_heads=HEADS,
        heads=tuple(range(HEADS)),
        index=torch.arange(count),
        visual=visual,
        anchor=torch.where(visual, torch.arange(count), -1),
        alive=torch.arange(count) % 10 == 0,
        protected=torch.zeros(count, dtype=torch.bool),
    )


def call_of(stage: Any, table: TokenTable, values: Mapping[str, Tensor]) -> Callable[[], Any]:
    """One decision of `stage`, with fresh signals each time."""
    if isinstance(stage, DecodeStage):
        entries = entries_of(table)
        return lambda: stage.decide(entries, view(values, table, 8))
    assert isinstance(stage, EncoderStage | PrefillStage)
    layer = stage.layers[0] if isinstance(stage, PrefillStage) else -1
    return lambda: stage.decide(table, view(values, table, layer))


def measure(call: Callable[[], Any], turns: int) -> tuple[float, float, int]:
    """Fewest processor seconds of `turns` calls, megabytes at the peak, and what was left."""
    best, peak, kept = float("inf"), 0.0, 0
    for _ in range(turns):
        with PeakMemory(torch.device("cpu")) as memory:
            start = time.process_time()  # of this process alone, whatever runs beside it
            decision = call()
            taken = time.process_time() - start
        best, peak = min(best, taken), max(peak, (memory.peak_bytes or 0) / 1e6)
        kept = (decision[0] if isinstance(decision, tuple) else decision).kept_tokens
        if taken > 10:
            break  # a long call tells enough by itself
    return best, peak, kept


def main() -> None:
    """Print a row for each stage and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="stages whose name contains this")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, threads {torch.get_num_threads()}, width {WIDTH}")
    print(f"{'stage':32}{'tokens':>8}{'left':>7}{'ms':>11}{'time x':>9}{'N K x':>8}", end="")
    print(f"{'peak MB':>9}{'N x N MB':>10}")
    before: dict[str, tuple[float, int]] = {}
    for count, (grid, wanted) in SIZES.items():
        chance = torch.Generator().manual_seed(0)
        table = TokenTable.from_grid(torch.randn(count, WIDTH, generator=chance), grid)
        values = values_of(table)
        for name, cls in all_stages().items():
            if options.only in name and not issubclass(cls, InputStage):
                stage: Any = cls()
                if hasattr(stage, "tokens"):
                    stage = replace(stage, tokens=wanted)
                seconds, peak, kept = measure(call_of(stage, table, values), options.turns)
                earlier = before.get(name)
                growth = ["", ""]
                if earlier:
                    growth = [f"{seconds / earlier[0]:.1f}", f"{count * kept / earlier[1]:.1f}"]
                print(f"{name:32}{count:8}{kept:7}{seconds * 1e3:11.1f}", end="")
                print(f"{growth[0]:>9}{growth[1]:>8}{peak:9.0f}{4 * count**2 / 1e6:10.0f}")
                before[name] = seconds, count * max(kept, 1)


if __name__ == "__main__":
    main()
