"""A plan: a recipe made concrete for one model, the only thing the engine is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.stage import DecodeStage, EncoderStage, PrefillStage, Stage

StageT = TypeVar("StageT", bound=Stage)
Positions = Literal["original", "renumbered"]
Fidelity = Literal["sound", "official"]


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


@dataclass(frozen=True)
class Plan:
    """Stages for one model.

    Attributes:
        name: recipe name.
        path: file of the recipe.
        sha256: hash of the recipe file.
        fidelity: sound behaviour or the official code's.
        positions: `original` keeps the position ids of the uncompressed prompt; `renumbered` counts
            0, 1, 2, ... anew in every layer, and while decoding each layer takes its own number of
            cached entries as the position of the query (what forks of model code do).
        encoder: in order.
        prefill: in order.
        decode: in order.
        budget: the layer average to be met, or None.
        requested: the budget as the user gave it, or None.
        warnings: what the reader must know about the plan.
    """

    name: str
    path: str = ""
    sha256: str = ""
    fidelity: Fidelity = "sound"
    positions: Positions = "original"
    encoder: tuple[Planned[EncoderStage], ...] = ()
    prefill: tuple[Planned[PrefillStage], ...] = ()
    decode: tuple[Planned[DecodeStage], ...] = ()
    budget: LayerBudget | None = None
    requested: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def stages(self) -> tuple[Planned[Any], ...]:
        """All stages in the order of the data's way."""
        return (*self.encoder, *self.prefill, *self.decode)
