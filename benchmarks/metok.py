"""What METok saves of the prefill on a clip, and what deciding about events costs.

The decoder of LLaVA-OneVision-0.5B at true size with random weights reads visual tokens that are
handed to it, so no tower runs: all of them, and METok's three phases, in turn, A B A B, in one
process. Prints medians with their range, the ratio pair by pair, the ideal from the FLOPs and the
peak memory of either. Then the time of segmentation and pooling alone on 64 frames of 27 x 27
tokens of width 3584, against the full prefill.

Run: python benchmarks/metok.py [--frames 64] [--pairs 3] [--dtype float32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.signals import Produced, Signals
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.metrics.flops import prefill_flops
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve
from vtc_cli.stages.metok import EventPool

QUESTION = "what happens in the video?"


def clip(frames: int) -> Media:
    """Blank frames: the features are drawn apart."""
    pixels = np.zeros((frames, 64, 64, 3), dtype=np.uint8)
    times = tuple(float(frame) for frame in range(frames))
    return Media(pixels, times, "video", "generated", "0" * 64)


def scenes(layout: Layout, width: int, dtype: torch.dtype) -> Tensor:
    """(N, width) features: a base for each of eight scenes and noise on every token."""
    generator = torch.Generator().manual_seed(0)
    frame = layout.columns(torch.device("cpu")).frame
    bases = torch.randn(8, width, generator=generator)
    base = bases[frame * 8 // max(layout.frames, 1)]
    return (base + 0.5 * torch.randn(base.shape, generator=generator)).to(dtype)


def view(layout: Layout) -> Signals:
    """The one signal that the pooling reads: chance."""
    scores = torch.rand(layout.frames, generator=torch.Generator().manual_seed(1))
    producers = {"frame_relevance": lambda: Produced(scores, source="chance")}
    count = layout.tokens
    return Signals(producers, layout=layout, decoder_layers=24, original_tokens=count)


def deciding_ms(turns: int) -> list[float]:
    """Segmentation and pooling of 64 frames of 27 x 27 tokens of width 3584."""
    layout = Layout.of(Grid(64, 27, 27))
    table = TokenTable.from_layout(scenes(layout, 3584, torch.bfloat16), layout)
    times = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        table.apply(EventPool().decide(table, view(layout)))
        times.append((time.perf_counter() - start) * 1000)
    return times[1:]


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):9.1f} ({min(values):.1f} .. {max(values):.1f})"


def runs(session: Session, frames: int, pairs: int) -> dict[str, list[Trace]]:
    """Traces of the full prefill and of METok's, pair by pair; the first pair warms up."""
    prompt = session.adapter.prepare(clip(frames), QUESTION)
    width, dtype = session.adapter.shape.decoder.width, session.adapter.model.dtype
    unpooled = session.adapter.unpooled(prompt)
    full, whole = (
        TokenTable.from_layout(scenes(each.layout, width, dtype), each.layout)
        for each in (prompt, unpooled)
    )
    pooled = whole.apply(EventPool().decide(whole, view(unpooled.layout)))
    recipe = resolve(
        load_recipe("metok"),
        session.adapter.shape,
        family_signals=session.adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=None,
    )
    chosen: dict[str, tuple[Prompt, Plan, TokenTable]] = {
        "full": (prompt, Plan("full"), full),
        "metok": (unpooled, replace(recipe, encoder=()), pooled),
    }
    found: dict[str, list[Trace]] = {name: [] for name in chosen}
    once: Any = Generation(max_new_tokens=1)
    for turn in range(pairs + 1):
        for name, (shown, plan, tokens) in chosen.items():
            trace = session.run(shown, plan, once, tokens=tokens)
            if turn:
                found[name].append(trace)
    return found


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    adapter, facts = load_model("shape:llava-onevision-0.5b", LoadOptions(dtype=options.dtype))
    found = runs(Session(adapter, facts), options.frames, options.pairs)
    prefill = {name: [t.timings[0].prefill_ms for t in runs] for name, runs in found.items()}
    ratios = [a / b for a, b in zip(prefill["full"], prefill["metok"], strict=True)]
    lengths = {name: runs[0].sequence_tokens for name, runs in found.items()}
    work = {name: prefill_flops(adapter.shape, tokens) for name, tokens in lengths.items()}
    ideal = work["full"] / work["metok"]
    print(f"threads {torch.get_num_threads()}, {options.dtype}, {options.frames} frames")
    print(f"tokens a layer: full {lengths['full'][0]}, metok {lengths['metok']}")
    for name, times in prefill.items():
        print(f"prefill {name:6} ms {spread(times)}   {work[name] / 1e12:.2f} TFLOPs")
    print(f"speed-up          {spread(ratios)}   ideal {ideal:.2f}")
    print(f"of the ideal      {statistics.median(ratios) / ideal:9.2f}   wanted >= 0.80")
    for name, traces in found.items():
        print(f"peak growth {name:6} MB {spread([(t.peak_bytes or 0) / 1e6 for t in traces])}")
    deciding = deciding_ms(options.pairs)
    share = statistics.median(deciding) / statistics.median(prefill["full"])
    print(f"events and pooling of 64 x 729 x 3584, ms {spread(deciding)}")
    print(f"of the full prefill above {share:9.4f}   wanted <= 0.02 at 64 frames")


if __name__ == "__main__":
    main()
