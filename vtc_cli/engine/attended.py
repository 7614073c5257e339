"""Attended: what the attention of a layer says about the entries of its cache.

Cache policies rank entries by the attention that these get. The last rows of a prompt are kept as
queries, few vectors a layer, and become softmax rows when a policy asks; the attention that each
entry receives from all queries is summed in blocks of queries, so that no full map is ever made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtc_cli.core.plan import Plan
from vtc_cli.engine.tap import Capture

BLOCK_VALUES = 1 << 24  # attention values made at once: 64 MiB
BLOCK_ROWS = 128  # queries at once, so that a short prompt has no whole map either


@dataclass(frozen=True)
class Watch:
    """What is kept of the attention of one layer.

    Attributes:
        rows: last rows of the prompt whose queries are kept.
        sums: whether the attention that each entry receives is summed over the prompt.
        steps: whether the sums go on while the answer grows.
    """

    rows: int
    sums: bool
    steps: bool


def watches(plan: Plan, layers: int) -> dict[int, Watch]:
    """For each decoder layer that a cache policy of `plan` asks about, what it asks for."""
    found = {}
    for layer in range(layers):
        stages = [item.stage for item in plan.decode if item.stage.first_layer <= layer]
        readers = [stage for stage in stages if "received_attention" in stage.needs]
        rows = max((stage.observed_rows for stage in stages), default=0)
        if rows or readers:
            steps = any(stage.every_step for stage in readers)
            found[layer] = Watch(rows, bool(readers), steps)
    return found


def last_rows(capture: Capture, rows: int) -> Capture:
    """The capture with its last `rows` queries only; the keys stay those of the cache."""
    mask = None if capture.mask is None else capture.mask[:, -rows:].clone()
    query, output = capture.query[:, -rows:].clone(), capture.output[-rows:].clone()
    return replace(capture, query=query, output=output, mask=mask)


def column_sums(capture: Capture, block_values: int = BLOCK_VALUES) -> Tensor:
    """(heads, K) float32: softmax attention to each key, summed over all queries."""
    heads, queries, _ = capture.query.shape
    keys = int(capture.key.shape[1])
    block = max(min(block_values // (heads * keys), BLOCK_ROWS), 1)
    index = torch.arange(queries, device=capture.query.device)
    sums = torch.zeros(heads, keys, device=capture.query.device)
    for start in range(0, queries, block):
        sums += capture.rows(index[start : start + block]).sum(dim=1)
    return sums


class Received:
    """Attention that each stored column of one layer received from all queries so far.

    Attributes:
        sums: (heads, n) float32, one row a query head.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.sums = torch.zeros(0, 0)
        self._synchronize = synchronize
        self._ms, self._flops = 0.0, 0

    def start(self, capture: Capture) -> None:
        """Sum over the queries of the prompt."""
        self.sums = self._timed(capture)

    def grow(self, columns: int) -> None:
        """Fresh columns were stored; nothing has looked at them yet."""
        self.sums = torch.nn.functional.pad(self.sums, (0, columns))

    def add(self, capture: Capture) -> None:
        """Add the queries of one more forward over the stored columns."""
        self.sums = self.sums + self._timed(capture)

    def keep(self, columns: Tensor) -> None:
        """Retain columns (kv_heads, m) as the cache does; padding receives nothing."""
        wide = columns.repeat_interleave(self.sums.shape[0] // columns.shape[0], dim=0)
        kept = self.sums.gather(1, wide.clamp_min(0))
        self.sums = torch.where(wide >= 0, kept, 0.0)

    def take_cost(self) -> tuple[float, int]:
        """Milliseconds and operations spent since the last call."""
        spent = self._ms, self._flops
        self._ms, self._flops = 0.0, 0
        return spent

    def _timed(self, capture: Capture) -> Tensor:
        self._synchronize()
        start = time.perf_counter()
        sums = column_sums(capture)
        self._synchronize()
        self._ms += (time.perf_counter() - start) * 1000
        self._flops += capture.row_flops(int(capture.query.shape[1]))
        return sums
