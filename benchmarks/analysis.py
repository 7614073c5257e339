"""What looking costs: the rank family, TokenCarve's decision, and the layer curves.

Prints medians with their range next to what is wanted. Comparisons are made turn by turn in one
process, for machines are noisy.

Run: python benchmarks/analysis.py [--turns 5] [--long]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vtc_cli.commands.curves import observe_layers
from vtc_cli.commands.loading import load_session
from vtc_cli.commands.output import Output
from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.signals import Produced, Signals
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.metrics.rank import ranks
from vtc_cli.stages.tokencarve import Carve


def states(tokens: int, width: int) -> Tensor:
    """Rows whose singular values fall, as those of hidden states do."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(tokens, width, generator=generator)
    scale = torch.arange(1, width + 1) ** -0.7
    return noise * scale


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):8.3f} ({min(values):.3f} .. {max(values):.3f})"


def rank_family(tokens: int, width: int, turns: int, wanted: float) -> None:
    """Time all five ranks of one matrix and the memory that they add."""
    matrix = states(tokens, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = [seconds(lambda: ranks(matrix)) for _ in range(turns)]
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    name = f"rank family {tokens} x {width}"
    print(f"{name:28} s {spread(taken)}   wanted <= {wanted:g}; peak grew by {growth:.2f} GB")


def carve(matrix: Tensor) -> Callable[[], Decision]:
    """TokenCarve's decision over (N, d) rows, 64 tokens left."""
    tokens = matrix.shape[0]
    attention = torch.rand(32, 1, tokens, generator=torch.Generator().manual_seed(1))
    side = int(tokens**0.5)
    table = TokenTable.from_grid(matrix, Grid(1, side, tokens // side))
    stage = Carve(layers=(2,), tokens=64)

    def decide() -> Decision:
        signals = Signals(
            {"attention_rows": lambda queries: Produced(attention)},
            layout=table.layout,
            decoder_layers=32,
            original_tokens=tokens,
            layer=2,
            entering_tokens=tokens,
        )
        return stage.decide(table, signals)

    return decide


def tokencarve(turns: int) -> None:
    """The decision beside a singular value decomposition with full matrices, turn by turn."""
    matrix = states(576, 4096)
    decide = carve(matrix)
    decide()
    pairs = [
        (seconds(decide), seconds(lambda: torch.linalg.svd(matrix, full_matrices=True)))
        for _ in range(turns)
    ]
    ratios = [full / mine for mine, full in pairs]
    print(f"TokenCarve decides 576 x 4096 s {spread([p[0] for p in pairs])}   wanted <= 0.25")
    print(f"full SVD of the same        s {spread([p[1] for p in pairs])}")
    print(f"times faster than the SVD     {spread(ratios)}   wanted >= 5")


def layer_curve(turns: int) -> None:
    """An observed pass over the prompt beside a plain one on `tiny`, turn by turn."""
    session = load_session(Output(quiet=True), "tiny", "cpu", "float32")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), dtype=np.uint8)
    media = Media(pixels, (0.0,), "image", "noise", "0" * 64)
    prompt = session.adapter.prepare(media, "what color is the circle?")
    once, full = Generation(max_new_tokens=1), Plan("full")

    def observed() -> None:
        observe_layers(session, prompt, full, "hidden", 1e-5)

    def plain() -> None:
        session.run(prompt, full, once)

    pairs = [(seconds(observed), seconds(plain)) for _ in range(turns + 1)]
    ratios = [mine / theirs for mine, theirs in pairs[1:]]  # the first pair warms up
    print(f"layer curves over a forward   {spread(ratios)}   wanted <= 3")


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--long", action="store_true", help="also the 8,192 x 4,096 matrix")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, threads {torch.get_num_threads()}")
    rank_family(576, 4096, options.turns, 0.5)
    tokencarve(options.turns)
    layer_curve(options.turns)
    if options.long:
        rank_family(8192, 4096, 1, 30)


if __name__ == "__main__":
    main()
