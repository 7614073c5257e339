"""What a method is made of: frozen dataclasses of hyper-parameters that decide."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import CacheCounts, Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.tokens import TokenTable

Phase = Literal["input", "encoder", "prefill", "decode"]


def parameter(
    default: Any,
    doc: str,
    *,
    source: str = "",
    layer_of: Literal["llm", "vision"] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    steers: Steering | None = None,
) -> Any:
    """A hyper-parameter of a stage with what validation and documentation need.

    Args:
        default: the paper's default (layer numbers as on the recipe's reference depth).
        doc: meaning and unit, one sentence.
        source: where the default comes from, for instance "official code".
        layer_of: set if the value is a layer number (or a tuple of them) of that stack; recipes
            scale such numbers to the depth of the model.
        minimum: smallest allowed value.
        maximum: largest allowed value.
        steers: set if the value governs how much the stage leaves; `vtc recipes solve` varies it.

    Raises:
        ValueError: no such stack, or a range without numbers in it.
    """
    if layer_of not in (None, "llm", "vision"):
        raise ValueError(f"layer_of is {layer_of!r}; allowed: 'llm' or 'vision'")
    given = [bound for bound in (minimum, maximum) if bound is not None]
    if any(not isinstance(bound, (int, float)) for bound in given) or given != sorted(given):
        raise ValueError(f"the range {minimum!r}..{maximum!r} holds no number")
    metadata = {
        "doc": doc,
        "source": source,
        "layer_of": layer_of,
        "minimum": minimum,
        "maximum": maximum,
        "steers": steers,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One step of a method.

    Class attributes:
        phase: where on the way the stage acts.
        needs: names of the signals it asks for.
        paper: title and arXiv id.
        meets_budget: whether the stage follows `signals.budget` when there is one.
    """

    phase: ClassVar[Phase]
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    meets_budget: ClassVar[bool] = False

    @classmethod
    def short_name(cls) -> str:
        """The class name in the spelling of recipes: `SpatialMerge` is `spatial_merge`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def steering(self) -> dict[str, Steering]:
        """The hyper-parameters that govern how much this stage leaves, as it is set now.

        Those whose `parameter` says `steers`, without those that are not set or overruled. A stage
        whose ends depend on its other hyper-parameters overrides this.
        """
        found: dict[str, Steering] = {}
        for item in fields(self):
            steers: Steering | None = item.metadata.get("steers")
            if steers is None or getattr(self, item.name) is None:
                continue
            if not steers.unless or getattr(self, steers.unless) is None:
                found[item.name] = steers
        return found


@dataclass(frozen=True, kw_only=True)
class InputStage(Stage):
    """Acts on the picture before the model prepares it, on every frame of a video alike."""

    phase: ClassVar[Phase] = "input"

    @abstractmethod
    def scale(self, original_tokens: int, budget: LayerBudget | None) -> float:
        """How much of each side is left of what the model would see; above 0, at most 1.

        Args:
            original_tokens: N0, visual tokens of the picture as it is.
            budget: the layer average to be met, or None.
        """


@dataclass(frozen=True, kw_only=True)
class EncoderStage(Stage):
    """Acts on one visual span inside the vision tower or between tower and decoder.

    Class attributes:
        before_projector: whether a stage behind the tower decides over what enters the projector
            instead of what leaves it; the rows that it changes are projected anew.
    """

    phase: ClassVar[Phase] = "encoder"
    before_projector: ClassVar[bool] = False

    @property
    def tower_layer(self) -> int | None:
        """Tower layer at whose input the stage acts; None means behind the tower."""
        layer: int | None = getattr(self, "vision_layer", None)
        return layer

    @property
    def unpooled(self) -> bool:
        """Whether the stage takes the place of the pooling that a family does to video frames.

        Its field `before_pooling` says so. The tokens of a video are then those before that
        pooling; nothing changes for pictures and for families that do not pool frames.
        """
        return bool(getattr(self, "before_pooling", False))

    @property
    def watched_layers(self) -> tuple[int, ...]:
        """Tower layers whose attention or keys the stage reads: the fields that count them.

        A stage whose fields name a range of layers overrides this.
        """
        named = (item for item in fields(self) if item.metadata.get("layer_of") == "vision")
        return tuple(getattr(self, item.name) for item in named if item.name != "vision_layer")

    @abstractmethod
    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Decide over the visual tokens of one span; features are those of the acting place."""

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone; None if that depends on the data."""
        return None


@dataclass(frozen=True, kw_only=True)
class PrefillStage(Stage):
    """Acts at the input of each decoder layer in `layers`, once, while the prompt is read."""

    phase: ClassVar[Phase] = "prefill"
    layers: tuple[int, ...]

    @abstractmethod
    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Decide over the visual tokens alive at `signals.layer`; features are hidden states."""

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone; None if that depends on the data."""
        return None


@dataclass(frozen=True, eq=False)
class CacheEntries:
    """The entries that one decoder layer has in its KV cache, in stored order.

    Attributes:
        layer: decoder layer, from 0.
        kv_heads: key/value heads of the layer.
        heads: the heads that these entries belong to: all of them while they agree; once a policy
            has kept different entries in different heads, each head is asked about alone.
        index: (n,) int64 logical index in the sequence that entered layer 0; generated tokens
            count on from there.
        visual: (n,) bool, visual tokens.
        anchor: (n,) int64, original visual token of each visual entry, -1 for text.
        alive: (n,) bool, still processed at the last layer after prefill pruning.
        protected: (n,) bool.
    """

    layer: int
    kv_heads: int
    heads: tuple[int, ...]
    index: Tensor
    visual: Tensor
    anchor: Tensor
    alive: Tensor
    protected: Tensor

    def __len__(self) -> int:
        """n, entries stored now."""
        return int(self.index.shape[0])


@dataclass(frozen=True, kw_only=True)
class DecodeStage(Stage):
    """A cache policy for decoder layers `first_layer` and deeper.

    Class attributes:
        every_step: False decides once, after the prompt; True also after each generated token.
        meets_budget: whether the policy follows `signals.cache_budget`: entries that each layer
            and head goes on holding, text included if the policy `evicts_text`, else visual ones.
    """

    phase: ClassVar[Phase] = "decode"
    every_step: ClassVar[bool] = False
    first_layer: int = parameter(0, "first decoder layer the policy touches", layer_of="llm")

    @property
    def evicts_text(self) -> bool:
        """Whether text may leave the cache too; without this promise the engine refuses it."""
        return False

    @property
    def observed_rows(self) -> int:
        """Last rows of the prompt whose `window_attention` the policy asks for."""
        return 0

    @abstractmethod
    def decide(self, entries: CacheEntries, signals: Signals) -> Decision | tuple[Decision, ...]:
        """Decide over the entries of one layer: one decision, or one for each of `heads`."""

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone; None if that depends on the data."""
        return None
