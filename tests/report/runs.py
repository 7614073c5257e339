"""Runs to make pages of: small hand-made ones of any grid, and `tiny` under shipped recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from tests.report import traces
from vtc_cli.commands.job import PlanOptions, do_job
from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.stage import Phase
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.media.image import read_image
from vtc_cli.metrics.layers import HeadFigures, LayerFigures, layer_observer
from vtc_cli.metrics.rank import Ranks
from vtc_cli.recipe.load import load_recipe
from vtc_cli.report.build import build_result
from vtc_cli.report.page.write import page_text
from vtc_cli.report.result import Result

SMALL = Grid(1, 6, 8)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """What a page is made of."""

    result: BaseModel
    trace: Trace
    media: Media
    boxes: NDArray[np.float64]

    def page(self) -> str:
        return page_text(self.result, self.trace, self.media, self.boxes)


def tiny_run(session: Session, recipe: str, sample: str, budget: float, baseline: bool) -> Run:
    """`tiny` answers under a recipe and is observed."""
    media = read_image(str(ROOT / "samples" / sample))
    question = "what digit is there?"
    outcome = do_job(
        session,
        media,
        question,
        load_recipe(recipe),
        PlanOptions(budget),
        Generation(8),
        baseline=baseline,
        observer=layer_observer("hidden"),
    )
    result = result_of(outcome.trace, media, question, outcome.baseline, outcome.nll)
    return Run(result, outcome.trace, media, outcome.prompt.patch_boxes)


def result_of(
    trace: Trace,
    media: Media,
    question: str,
    baseline: Trace | None = None,
    nll: tuple[float, float] | None = None,
) -> Result:
    return build_result(
        trace,
        media,
        question,
        command="run",
        argv=["run", media.path, question],
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        baseline_trace=baseline,
        nll=nll,
    )


class Story:
    """Decisions one after the other over a grid, written down as the engine does."""

    def __init__(self, grid: Grid) -> None:
        self.table = TokenTable.from_grid(torch.zeros(grid.tokens, 2), grid)
        self.records: list[StageRecord] = []

    def apply(self, stage: str, phase: Phase, layer: int, decision: Decision) -> None:
        before, self.table = len(self.table), self.table.apply(decision)
        record = traces.record(stage, phase, layer, before, self.table, decision)
        self.records.append(record)

    def evict(self, stage: str, layer: int, held: Sequence[int], before: int) -> None:
        """A cache policy that leaves the entries `held` (anchors) in one layer."""
        record = replace(
            self.records[0] if self.records else _no_record(),
            stage=stage,
            phase="decode",
            layer=layer,
            before=before,
            after=len(held),
            decision=Decision.prune(torch.arange(len(held)), before),
            holder=None,
            anchor=torch.tensor(held, dtype=torch.int64),
            protected_tokens=0,
        )
        self.records.append(record)


def _no_record() -> StageRecord:
    empty = Decision.identity(1, torch.device("cpu"))
    place = torch.zeros(1, dtype=torch.int64)
    return StageRecord("", "decode", 0, 1, 1, empty, None, place, 0, 0.1, 0.0, 0, ())


def told(
    grid: Grid, records: list[StageRecord], layers: int, media: Media, answer: str = "yes"
) -> Run:
    """A run of a model with `layers` decoder layers that took these decisions."""
    trace = traces.compressed()
    shape = trace.model.shape
    deep = replace(shape, decoder=replace(shape.decoder, layers=layers))
    trace.model = replace(trace.model, shape=deep)
    trace.layout, trace.records, trace.answer = Layout.of(grid), records, answer
    trace.plan = Plan("toy")
    counts = [len(_in_force(records, layer, grid)) for layer in range(layers)]
    trace.visual_tokens, trace.sequence_tokens = counts, [count + 8 for count in counts]
    trace.kv_entries = [float(count + 8) for count in counts]
    trace.observed = [_figures(layer, count) for layer, count in enumerate(counts)]
    return Run(result_of(trace, media, "is it there?"), trace, media, boxes(grid, media))


def _in_force(records: list[StageRecord], layer: int, grid: Grid) -> list[int]:
    acted = [
        r for r in records if r.phase == "encoder" or (r.phase == "prefill" and r.layer <= layer)
    ]
    anchors: list[int] = acted[-1].anchor.tolist() if acted else list(range(grid.tokens))
    return anchors


def _figures(layer: int, tokens: int) -> LayerFigures:
    ranks = Ranks(tokens, tokens / 2, 1.5, max(tokens // 3, 1), 10.0 * tokens, 1e-5)
    heads = (HeadFigures(0.5, 1.0), HeadFigures(0.7 + 0.001 * layer, 1.2))
    return LayerFigures(layer, tokens, ranks if tokens else None, heads)


def noise(width: int = 120, height: int = 90, frames: int = 1) -> Media:
    """Pictures of noise."""
    shape = (frames, height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stamps = tuple(float(frame) for frame in range(frames))
    return Media(pixels, stamps, "image" if frames == 1 else "video", "noise.png", "cd" * 32)


def boxes(grid: Grid, media: Media) -> NDArray[np.float64]:
    """Patches that cover the picture."""
    x = np.linspace(0, media.width, grid.columns + 1)
    y = np.linspace(0, media.height, grid.rows + 1)
    lefts, tops = np.meshgrid(x[:-1], y[:-1])
    rights, bottoms = np.meshgrid(x[1:], y[1:])
    one = np.stack([lefts, tops, rights, bottoms], axis=-1).reshape(-1, 4)
    return np.tile(one, (grid.frames, 1))


def eventful(grid: Grid = SMALL, layers: int = 6, media: Media | None = None) -> Run:
    """A run in which everything happens: merges near and far, protection, drops, eviction.

    Of the 48 patches of `SMALL`: 0, 1, 8 and 9 become token 0; 3 is protected; at layer 2 all odd
    tokens but 3 go; at layer 4 patch 46 joins token 0. Then the cache of layer 1 forgets token 2
    and that of layer 3 everything up to token 4.
    """
    count = grid.tokens
    story = Story(grid)
    window = [0, 1, grid.columns, grid.columns + 1]
    alone = [i for i in range(count) if i not in window[1:]]
    pairs = [(row, patch) for row, i in enumerate(alone) for patch in (window if i == 0 else [i])]
    merge = Decision.merge(
        torch.tensor(alone), torch.tensor(pairs).T, None, count, note="1 window merged"
    )
    story.apply("toy.merge", "encoder", 1, merge)
    left = len(alone)
    marks = torch.tensor([anchor == 3 for anchor in alone])
    scores = torch.tensor([float("nan"), *[0.0001 * i for i in range(1, left)]])
    story.apply(
        "toy.mark",
        "encoder",
        -1,
        Decision.identity(left, torch.device("cpu"), protect=marks, scores=scores),
    )
    keep = [row for row, anchor in enumerate(alone) if anchor % 2 == 0 or anchor == 3]
    ranked = torch.arange(left).flip(0) // 2
    story.apply(
        "toy.prune",
        "prefill",
        2,
        Decision.prune(torch.tensor(keep), left, scores=ranked.float()),
    )
    kept = story.table.anchor.tolist()
    rows = list(range(len(kept) - 1))
    far = [[row, row] for row in rows] + [[0, len(kept) - 1]]
    weights = story.table.size[[member for _, member in far]]
    story.apply(
        "toy.join",
        "prefill",
        4,
        Decision.merge(torch.tensor(rows), torch.tensor(far).T, weights, len(kept)),
    )
    story.evict("toy.forget", 1, [anchor for anchor in alone if anchor != 2], left)
    story.evict("toy.forget", 3, [anchor for anchor in kept if anchor > 4], len(kept))
    return told(grid, story.records, layers, media or noise())


class DecisionsResult(BaseModel):
    """What a command might report that stops before the answer."""

    command: str = "compress"
    input: None = None
    warnings: list[str] = ["only a part was run"]


def decisions_only() -> Run:
    """The eventful run as far as its last prefill stage: nothing processed, timed or observed."""
    run = eventful()
    trace = run.trace
    trace.records = [record for record in trace.records if record.phase != "decode"]
    trace.visual_tokens, trace.sequence_tokens, trace.kv_entries = [], [], []
    trace.observed, trace.timings, trace.answer, trace.answer_ids = [], [], "", []
    return replace(run, result=DecisionsResult())
