"""One decision: ask the stage, time it, check it, write it down."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.contract import line_in
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError, VtcError
from vtc_cli.core.layout import Layout
from vtc_cli.core.plan import Planned
from vtc_cli.core.signals import Producer, Signals, SpanCounts
from vtc_cli.core.stage import EncoderStage, PrefillStage, Stage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.engine.clock import synchronize
from vtc_cli.engine.spans import decide_by_span

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Scene:
    """What every signal view of one pass has in common."""

    trace: Trace
    layout: Layout
    decoder_layers: int
    budget: LayerBudget | None
    seed: int
    device: torch.device

    def signals(
        self,
        producers: Mapping[str, Producer],
        layer: int,
        entering_tokens: int | None,
        processed_tokens: tuple[int, ...] = (),
        spans: tuple[SpanCounts, ...] = (),
        prompt_entries: int | None = None,
    ) -> Signals:
        """A fresh view for one decision at `layer`."""
        return Signals(
            producers,
            layout=self.layout,
            decoder_layers=self.decoder_layers,
            original_tokens=self.layout.tokens,
            layer=layer,
            entering_tokens=entering_tokens,
            processed_tokens=processed_tokens,
            budget=self.budget,
            cache_budget=self.trace.plan.cache_budget,
            prompt_entries=prompt_entries,
            seed=self.seed,
            spans=spans,
            synchronize=lambda: synchronize(self.device),
        )

    def of_span(self, span: int) -> Scene:
        """The same for one picture or video alone, with a trace of its own."""
        plan, layout = self.trace.plan, self.layout.part(span)
        trace = replace(self.trace, layout=layout, tower=[], records=[])
        budget = plan.budget_of(span, self.trace.uncompressed.layout)
        return replace(self, trace=trace, layout=layout, budget=budget, seed=self.seed + span)

    def span_counts(
        self, entering: TokenTable | None = None, processed: Sequence[TokenTable] = ()
    ) -> tuple[SpanCounts, ...]:
        """What each of several pictures and videos counts alone; empty for a single one.

        Args:
            entering: tokens that entered decoder layer 0, None before that is known.
            processed: tokens of each decoder layer so far.
        """
        layout = self.layout
        if layout.spans == 1:
            return ()
        held = [torch.bincount(t.span, minlength=layout.spans).tolist() for t in processed]
        entered = None
        if entering is not None:
            entered = torch.bincount(entering.span, minlength=layout.spans).tolist()
        return tuple(
            SpanCounts(
                None if entered is None else entered[span],
                tuple(counts[span] for counts in held),
                self.trace.plan.budget_of(span, self.trace.uncompressed.layout),
            )
            for span in range(layout.spans)
        )


def decide(
    planned: Planned[EncoderStage] | Planned[PrefillStage],
    tokens: TokenTable,
    signals: Signals,
    scene: Scene,
) -> tuple[Decision, TokenTable]:
    """Run one encoder or prefill stage and record what it did.

    Raises:
        StageError: features are not finite, the stage fails, or its decision breaks the contract;
            names the stage and the layer.
    """
    where = f"{planned.name} at {planned.stage.phase} layer {signals.layer}"
    if not bool(torch.isfinite(tokens.features).all()):
        raise StageError("features with NaN or infinity", where=where, hint="try --dtype float32")
    decision, elapsed_ms = timed(
        lambda: decide_by_span(planned.stage, tokens, signals), scene, planned.stage, where
    )
    try:
        after = tokens.apply(decision)
    except StageError as error:
        raise StageError(error.found, where=where) from error
    scene.trace.records.append(
        StageRecord(
            stage=planned.name,
            phase=planned.stage.phase,
            layer=signals.layer,
            before=len(tokens),
            after=len(after),
            decision=decision,
            holder=after.state(),
            anchor=after.anchor.cpu(),
            protected_tokens=int(after.protected.sum()),
            decision_ms=max(elapsed_ms - signals.cost.ms, 0.0),
            signal_ms=signals.cost.ms,
            signal_flops=signals.cost.flops,
            signals=tuple(signals.cost.names),
        )
    )
    return decision, after


def timed(call: Any, scene: Scene, stage: Stage, where: str) -> tuple[Any, float]:
    """The result of `call()` and its milliseconds; what `stage` raises becomes its fault."""
    synchronize(scene.device)
    start = time.perf_counter()
    with stage_faults(stage, where):
        result = call()
    synchronize(scene.device)
    return result, (time.perf_counter() - start) * 1000


@contextmanager
def stage_faults(stage: Stage, where: str) -> Iterator[None]:
    """Errors of a stage's own code, with its place in the run and in its file.

    Raises:
        VtcError: as it was, with `where` if it had none.
        StageError: for everything else but a lack of memory.
    """
    try:
        yield
    except VtcError as error:
        error.where = error.where or where
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):  # the CPU allocator has no error class of its own
            raise
        line = line_in(error, inspect.getsourcefile(type(stage)))
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        place = f"{where} ({line})" if line else where
        raise StageError(text, where=place, hint="--debug shows the traceback") from error


class RowMap:
    """Which row of a captured layer each current row was, through later decisions."""

    def __init__(self) -> None:
        self._rows: dict[int, Tensor] = {}

    def start(self, layer: int, rows: int, device: torch.device) -> None:
        """Layer `layer` was captured with the rows as they stand now."""
        self._rows[layer] = torch.arange(rows, device=device)

    def select(self, index: Tensor) -> None:
        """The current rows became rows `index` of themselves."""
        self._rows = {layer: rows.index_select(0, index) for layer, rows in self._rows.items()}

    def rows(self, layer: int) -> Tensor:
        """(n,) rows of captured layer `layer` for the current rows."""
        return self._rows[layer]
