"""How much of the FLOPs-ideal prefill speed-up MustDrop reaches, and what deciding costs.

A LLaVA of random weights (hidden 1024, 24 decoder layers, 576 visual tokens): the full model and
MustDrop at 64 tokens in turn, A B A B, in one process. Prints medians with their spread, the ratio
pair by pair, the ideal ratio from the FLOPs, and the peak memory of either. A random tower finds
every window alike, so by default only the windows merge that the budget forces to (threshold 1.0),
and the attention filter has real work at all its layers; `--threshold 0.8` is the recipe as it is.

Run: python benchmarks/prefill.py [--budget 64] [--pairs 7] [--threshold 1.0]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import numpy as np
import torch

from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import ModelFacts, Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.metrics.flops import prefill_flops
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.offline import byte_processor, random_llava
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve
from vtc_cli.stages.mustdrop import SpatialMerge


def session() -> Session:
    """The model of the benchmark."""
    model = random_llava(
        0, width=1024, vision_layers=12, decoder_layers=24, vision_width=256, heads=16
    )
    adapter = LlavaAdapter(model, byte_processor(model))
    facts = ModelFacts("random", "llava", "random", "float32", "cpu", "sdpa", adapter.shape)
    return Session(adapter, facts)


def picture() -> Media:
    """Shapes on a plain ground: some windows are alike and some are not."""
    pixels = np.full((1, 336, 336, 3), 230, dtype=np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(12):
        top, left = generator.integers(0, 280, 2)
        pixels[0, top : top + 50, left : left + 50] = generator.integers(0, 255, 3)
    noise = generator.normal(0, 30, (336, 336, 3)) * (np.arange(336)[None, :, None] > 160)
    pixels[0] = np.clip(pixels[0] + noise, 0, 255).astype(np.uint8)
    return Media(pixels, (0.0,), "image", "generated", "0" * 64)


def mustdrop(bench: Session, budget: float, threshold: float) -> Plan:
    """The shipped recipe with another merge threshold."""
    plan = resolve(
        load_recipe("mustdrop"),
        bench.adapter.shape,
        family_signals=bench.adapter.provides,
        original_tokens=576,
        budget=budget,
    )
    merge, *rest = plan.encoder
    stage = SpatialMerge(vision_layer=merge.resolved["vision_layer"], window=3, threshold=threshold)
    return replace(plan, encoder=(replace(merge, stage=stage), *rest))


def flops_of(trace: Trace) -> int:
    """Prefill FLOPs of a trace."""
    return prefill_flops(trace.model.shape, trace.sequence_tokens)


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):8.1f} ({min(values):.1f} .. {max(values):.1f})"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threshold", type=float, default=1.0)
    options = parser.parse_args()
    bench = session()
    prompt = bench.adapter.prepare(picture(), "what is in the picture?")
    plan = mustdrop(bench, options.budget, options.threshold)
    once = Generation(max_new_tokens=1)
    plans = {"full": Plan("full"), "mustdrop": plan}
    traces: dict[str, list[Trace]] = {name: [] for name in plans}
    for turn in range(options.pairs + 1):  # the first pair warms up
        for name, chosen in plans.items():
            trace = bench.run(prompt, chosen, once)
            if turn:
                traces[name].append(trace)
    report(traces, options.budget)


def report(traces: dict[str, list[Trace]], budget: float) -> None:
    """Print times, ratios and memory."""
    full, short = traces["full"], traces["mustdrop"]
    prefill = {name: [t.timings[0].prefill_ms for t in runs] for name, runs in traces.items()}
    ratios = [a / b for a, b in zip(prefill["full"], prefill["mustdrop"], strict=True)]
    ideal = flops_of(full[0]) / flops_of(short[0])
    compression = [t.timings[0].compression_ms for t in short]
    share = [c / p for c, p in zip(compression, prefill["full"], strict=True)]
    peaks = {name: [(t.peak_bytes or 0) / 1e6 for t in runs] for name, runs in traces.items()}
    tokens = short[0].visual_tokens
    print(f"threads {torch.get_num_threads()}, budget {budget:g}, tokens a layer {tokens}")
    print(f"prefill full     ms {spread(prefill['full'])}")
    print(f"prefill mustdrop ms {spread(prefill['mustdrop'])}")
    print(f"speed-up            {spread(ratios)}   ideal {ideal:.2f}")
    print(f"of the ideal        {statistics.median(ratios) / ideal:8.2f}   wanted >= 0.80")
    print(f"compression      ms {spread(compression)}")
    print(f"of full prefill     {statistics.median(share):8.3f}   wanted <= 0.05")
    for name, values in peaks.items():
        print(f"peak growth {name:8} MB {spread(values)}")


if __name__ == "__main__":
    main()
