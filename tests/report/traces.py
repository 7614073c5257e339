"""A hand-made trace through the real core types: a merge of windows, a mark, two prunes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.shape import ModelShape, TowerInput, TowerPass, TransformerShape
from vtc_cli.core.stage import Phase
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import ModelFacts, StageRecord, Timings, Trace

SIDE = 24
GRID = Grid(1, SIDE, SIDE)
TOWER = TowerInput(1, SIDE, SIDE)
TEXT_TOKENS = 20
SHAPE = ModelShape(
    vision=TransformerShape(6, 64, 4, 4, 16, 256, False),
    patch_inputs=48,
    patches=576,
    class_tokens=1,
    feature_layers=5,
    projector=((64, 128), (128, 128)),
    decoder=TransformerShape(12, 128, 4, 2, 32, 344, True, 512),
)
FACTS = ModelFacts("tiny", "llava", "trained", "float32", "cpu", "sdpa", SHAPE)
MERGED_WINDOWS = ((6, 8), (6, 11), (12, 14))  # top left patch of each 3 x 3 window
MERGED = 576 - 8 * len(MERGED_WINDOWS)
AFTER_FIRST, AFTER_SECOND = 140, 31


def merge_windows() -> Decision:
    """Each window becomes one token in the place of its middle patch."""
    index = torch.arange(576).reshape(SIDE, SIDE)
    groups = {int(i): [int(i)] for i in index.flatten()}
    for row, column in MERGED_WINDOWS:
        window = [int(i) for i in index[row : row + 3, column : column + 3].flatten()]
        for patch in window:
            groups.pop(patch)
        groups[window[4]] = window
    keep = sorted(groups)
    pairs = [(row, patch) for row, middle in enumerate(keep) for patch in groups[middle]]
    note = f"{len(MERGED_WINDOWS)} windows merged"
    return Decision.merge(torch.tensor(keep), torch.tensor(pairs).T, None, 576, note=note, flops=99)


def prune(incoming: int, count: int) -> Decision:
    """Keep `count` rows spread evenly from the first to the last."""
    keep = torch.linspace(0, incoming - 1, count).round().long()
    return Decision.prune(keep, incoming)


class Builder:
    """Applies decisions to a table and writes the records down."""

    def __init__(self) -> None:
        self.table = TokenTable.from_grid(torch.zeros(576, 4), GRID)
        self.records: list[StageRecord] = []

    def apply(self, stage: str, phase: Phase, layer: int, decision: Decision) -> None:
        """One more stage."""
        before, self.table = len(self.table), self.table.apply(decision)
        self.records.append(record(stage, phase, layer, before, self.table, decision))


def record(
    stage: str, phase: Phase, layer: int, before: int, table: TokenTable, decision: Decision
) -> StageRecord:
    """The record of an encoder or prefill stage."""
    return StageRecord(
        stage=stage,
        phase=phase,
        layer=layer,
        before=before,
        after=len(table),
        decision=decision,
        holder=table.state(),
        anchor=table.anchor,
        protected_tokens=int(table.protected.sum()),
        decision_ms=0.5,
        signal_ms=0.25,
        signal_flops=1000,
        signals=("hidden",),
    )


def protect(count: int, incoming: int) -> Decision:
    """Keep all, protect the first `count`."""
    marks = torch.arange(incoming) < count
    return Decision.identity(incoming, torch.device("cpu"), protect=marks)


def compressed() -> Trace:
    """552 tokens enter, 140 from layer 2 on, 31 from layer 6 on."""
    builder = Builder()
    builder.apply("mustdrop.spatial_merge", "encoder", 0, merge_windows())
    builder.apply("mustdrop.key_tokens", "encoder", 5, protect(1, MERGED))
    builder.apply("mustdrop.dual_attention", "prefill", 2, prune(MERGED, AFTER_FIRST))
    builder.apply("mustdrop.dual_attention", "prefill", 6, prune(AFTER_FIRST, AFTER_SECOND))
    visual = [MERGED] * 2 + [AFTER_FIRST] * 4 + [AFTER_SECOND] * 6
    return _trace(
        visual, builder.records, passes=5, scale=1.0, logits=torch.tensor([2.0, 1.0, 0.0])
    )


def full() -> Trace:
    """The full model on the same input."""
    logits = torch.tensor([2.1, 1.0, 0.0])
    return _trace([576] * 12, [], passes=5, scale=3.0, logits=logits)


def random_weights(trace: Trace) -> Trace:
    """The same run of a model without training."""
    trace.model = replace(trace.model, weights="random")
    return trace


def _trace(
    visual: list[int], records: list[StageRecord], *, passes: int, scale: float, logits: Tensor
) -> Trace:
    rows = (MERGED if records else 576) + 1
    sequence = [count + TEXT_TOKENS for count in visual]
    return Trace(
        model=FACTS,
        plan=Plan("mustdrop", requested=140.0 if records else None),
        layout=Layout.of(GRID),
        prompt_tokens=576 + TEXT_TOKENS,
        text_tokens=TEXT_TOKENS,
        tower_inputs=(TOWER,),
        tower=[TowerPass(TOWER, [rows] * 6)],
        visual_tokens=visual,
        sequence_tokens=sequence,
        records=records,
        kv_entries=[float(count) for count in sequence],
        kv_bytes=sum(sequence) * 2 * 2 * 32 * 4,
        answer_ids=[7, 2],
        answer="rectangle",
        first_logits=logits,
        timings=[_timings(scale, 0.1 * number) for number in range(passes)],
        peak_bytes=12_345_678,
        environment={"vtc": "0.1.0", "torch": "2.13", "gpu": None},
    )


def _timings(scale: float, more: float) -> Timings:
    vision, prefill = 9.0 + more, 8.0 * scale + more
    total = vision + prefill + 6.0
    return Timings(vision, prefill, vision + prefill, 3.0, [3.0 + more, 3.2 + more], total)


def media() -> Media:
    """A picture of 320 x 240 with a red disc on a blue ramp."""
    y, x = np.mgrid[0:240, 0:320]
    ramp = np.stack([x * 0 + 60, y * 0.6 + 60, x * 0.5 + 90], axis=-1)
    disc = (x - 180) ** 2 + (y - 110) ** 2 < 60**2
    ramp[disc] = (220, 50, 40)
    return Media(ramp.astype(np.uint8)[None], (0.0,), "image", "scene.png", "ab" * 32)


def boxes(width: int = 320, height: int = 320, top: int = -40) -> NDArray[np.float64]:
    """Patches of the square that pads the picture above and below."""
    x, y = np.linspace(0, width, SIDE + 1), np.linspace(top, top + height, SIDE + 1)
    lefts, tops = np.meshgrid(x[:-1], y[:-1])
    rights, bottoms = np.meshgrid(x[1:], y[1:])
    return np.stack([lefts, tops, rights, bottoms], axis=-1).reshape(-1, 4)
