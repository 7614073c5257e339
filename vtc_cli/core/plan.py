"""A plan: a recipe made concrete for one model, the only thing the engine is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.layout import Layout
from vtc_cli.core.signals import TEXT_SIGNALS
from vtc_cli.core.stage import DecodeStage, EncoderStage, InputStage, PrefillStage, Stage

StageT = TypeVar("StageT", bound=Stage)
Positions = Literal["original", "entered", "renumbered"]
Fidelity = Literal["sound", "official"]
BudgetCounts = Literal["visual_tokens", "cache_entries", "visual_entries"]


@dataclass(frozen=True)
class Planned(Generic[StageT]):
    """A stage with its recipe name and its hyper-parameters before and after layer scaling.

    Attributes:
        name: as in the recipe, for instance `mustdrop.spatial_merge`.
        stage: the stage with layers of this model.
        declared: every hyper-parameter as on the reference depth.
        resolved: every hyper-parameter as used.
    """

    name: str
    stage: StageT
    declared: Mapping[str, Any]
    resolved: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """Name, phase and hyper-parameters as JSON holds them, equal to their own round trip."""
        return {
            "stage": self.name,
            "phase": self.stage.phase,
            "parameters": _plain(self.resolved),
            "declared": _plain(self.declared),
        }


@dataclass(frozen=True)
class Plan:
    """Stages for one model.

    Attributes:
        name: recipe name.
        path: file of the recipe.
        sha256: hash of the recipe file.
        fidelity: sound behaviour or the official code's.
        positions: `original` keeps the position ids of the uncompressed prompt; `entered` counts
            0, 1, 2, ... once at the door of the decoder, behind the encoder stages, and keeps these
            ids from there on; `renumbered` counts anew in every layer, and while decoding each
            layer takes its own number of cached entries as the position of the query (what forks of
            model code do).
        input: stages on the picture itself, in order; who prepares the picture applies them.
        encoder: in order.
        prefill: in order.
        decode: in order.
        budget: the layer average to be met, or None.
        span_budgets: the layer average of each picture or video of the prompt, empty if they share
            `budget` by the numbers of their tokens.
        requested: the budget as the user gave it, or None; `budget_counts` says of what.
        warnings: what the reader must know about the plan.
    """

    name: str
    path: str = ""
    sha256: str = ""
    fidelity: Fidelity = "sound"
    positions: Positions = "original"
    input: tuple[Planned[InputStage], ...] = ()
    encoder: tuple[Planned[EncoderStage], ...] = ()
    prefill: tuple[Planned[PrefillStage], ...] = ()
    decode: tuple[Planned[DecodeStage], ...] = ()
    budget: LayerBudget | None = None
    span_budgets: tuple[float, ...] = ()
    requested: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def stages(self) -> tuple[Planned[Any], ...]:
        """All stages in the order of the data's way."""
        return (*self.input, *self.encoder, *self.prefill, *self.decode)

    @property
    def before_pooling(self) -> bool:
        """Whether a stage decides over the tokens of videos before the family pools them."""
        return any(planned.stage.unpooled for planned in self.encoder)

    def budget_of(self, span: int, layout: Layout) -> LayerBudget | None:
        """What one picture or video of the prompt may spend, None without a budget."""
        if self.budget is None:
            return None
        share = layout.tokens_of(span) / max(layout.tokens, 1)
        average = self.budget.layer_average * share
        if self.span_budgets:
            average = self.span_budgets[span]
        return replace(self.budget, layer_average=average)

    @property
    def budget_counts(self) -> BudgetCounts:
        """What a requested budget counts.

        Visual tokens, mean over layers, unless cache policies alone follow one. Then entries that
        each layer and head holds after the prompt: all of them where text may be evicted too, else
        the visual ones.
        """
        followers = [item.stage for item in self.stages if item.stage.meets_budget]
        policies = [stage for stage in followers if isinstance(stage, DecodeStage)]
        if not policies or len(policies) < len(followers):
            return "visual_tokens"
        wide = any(stage.evicts_text for stage in policies)
        return "cache_entries" if wide else "visual_entries"

    @property
    def cache_budget(self) -> int | None:
        """Entries that cache policies shall leave in each layer and head, None without a wish.

        Under official fidelity the published settings stand in the stages themselves.
        """
        counts_tokens = self.budget_counts == "visual_tokens"
        if self.requested is None or counts_tokens or self.fidelity == "official":
            return None
        return int(self.requested)

    @property
    def text_readers(self) -> tuple[str, ...]:
        """Names of the encoder and prefill stages whose decisions depend on the question."""
        stages: tuple[Planned[Any], ...] = (*self.encoder, *self.prefill)
        readers = [planned.name for planned in stages if planned.stage.needs & TEXT_SIGNALS]
        return tuple(dict.fromkeys(readers))


def _plain(value: Any) -> Any:
    """Mappings as dictionaries and sequences as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
