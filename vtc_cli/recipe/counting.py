"""What a plan leaves in every layer, worked out from numbers: the model is not run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from vtc_cli.core.counts import CacheCounts, VisualCounts
from vtc_cli.core.errors import BudgetError
from vtc_cli.core.layout import Layout
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.stage import EncoderStage


@dataclass(frozen=True)
class PromptCounts:
    """A prompt as far as counts go.

    Attributes:
        layout: geometry of its visual tokens, of one picture or video.
        text_tokens: the rest of it.
        fixed: the model makes as many tokens of a picture of any size.
        unpooled: geometry before the family's own pooling of frames, None where it does none.
    """

    layout: Layout
    text_tokens: int
    fixed: bool
    unpooled: Layout | None = None

    @property
    def prompt_tokens(self) -> int:
        """Text and visual tokens without compression."""
        return self.layout.tokens + self.text_tokens


@dataclass(frozen=True)
class Counted:
    """What each decoder layer processes of a prompt, and what its cache holds behind it.

    Attributes:
        visual_tokens: of each layer.
        text_tokens: the same in every layer.
        kv_entries: of each layer and head after the cache policies have decided once.
    """

    visual_tokens: tuple[int, ...]
    text_tokens: int
    kv_entries: tuple[int, ...]

    @property
    def sequence_tokens(self) -> tuple[int, ...]:
        """Text and visual tokens that each layer processes."""
        return tuple(count + self.text_tokens for count in self.visual_tokens)


class DataDependentError(BudgetError):
    """Counts that numbers alone do not tell; `stages` are those whose counts depend on the data."""

    title = "arithmetic is not enough"

    def __init__(self, stages: list[str], where: str) -> None:
        names = ", ".join(stages)
        super().__init__(f"what is left depends on the data: {names}", where=where)
        self.stages = stages


def count_plan(plan: Plan, prompt: PromptCounts, decoder_layers: int) -> Counted:
    """Work out what `plan` leaves of `prompt`.

    Raises:
        DataDependentError: a stage whose counts depend on the data; all such stages are named.
        BudgetError: a budget that a stage cannot meet.
    """
    counter = _Counter(plan, prompt, decoder_layers)
    counted = counter.count()
    if counter.open:
        raise DataDependentError(list(dict.fromkeys(counter.open)), plan.path)
    return counted


class _Counter:
    """State of one way through the stages of a plan.

    A stage without an answer is noted and taken to change nothing, so that all are found at once.
    """

    def __init__(self, plan: Plan, prompt: PromptCounts, decoder_layers: int) -> None:
        self.open: list[str] = []
        self._plan, self._prompt, self._depth = plan, prompt, decoder_layers

    def count(self) -> Counted:
        """Encoder, decoder and cache, one after the other."""
        if self._plan.input and not self._prompt.fixed:
            self.open.extend(planned.name for planned in self._plan.input)
        layers = list(self._layers(self._entering()))
        text = self._prompt.text_tokens
        kept = tuple(self._cached(layer, layers) for layer in range(self._depth))
        return Counted(tuple(counts.tokens for counts in layers), text, kept)

    def _entering(self) -> VisualCounts:
        """What enters decoder layer 0."""
        layout = self._prompt.layout
        if self._plan.before_pooling:
            layout = self._prompt.unpooled or layout
        learned = sum(
            grid.frames * grid.rows * (grid.columns - grid.patch_columns) for grid in layout.grids
        )
        counts = VisualCounts(layout.tokens, learned, layout, self._depth, budget=self._plan.budget)
        for planned in sorted(self._plan.encoder, key=_acting_place):
            layer = planned.stage.tower_layer
            counts = replace(counts, layer=-1 if layer is None else layer)
            counts = self._after(planned, counts)
        return replace(counts, entering=counts.tokens)

    def _layers(self, counts: VisualCounts) -> Iterator[VisualCounts]:
        """What each decoder layer processes, given what enters the first."""
        for layer in range(self._depth):
            counts = replace(counts, layer=layer)
            for planned in self._plan.prefill:
                if layer in planned.stage.layers and counts.tokens:
                    counts = self._after(planned, counts)
            yield counts
            counts = replace(counts, processed=(*counts.processed, counts.tokens))

    def _cached(self, layer: int, layers: list[VisualCounts]) -> int:
        """Entries that a head of `layer` holds after the policies."""
        visual = layers[layer].tokens
        entries = visual + self._prompt.text_tokens
        alive, protected = layers[-1].tokens, layers[-1].protected
        budget = self._plan.cache_budget
        counts = CacheCounts(layer, entries, visual, alive, protected, entries, budget)
        for planned in self._plan.decode:
            if layer >= planned.stage.first_layer:
                counts = self._after(planned, counts)
        return counts.entries

    def _after(self, planned: Planned[Any], counts: Any) -> Any:
        """What `planned` leaves of `counts`."""
        left = planned.stage.count(counts)
        if left is None:
            self.open.append(planned.name)
        return counts if left is None else left


def _acting_place(planned: Planned[EncoderStage]) -> float:
    """Tower stages in the order of their layers, then those behind the projector."""
    layer = planned.stage.tower_layer
    return float("inf") if layer is None else layer
