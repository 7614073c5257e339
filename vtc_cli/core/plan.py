"""A plan: a recipe made concrete for one model, the only thing the engine is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.signals import TEXT_SIGNALS
from vtc_cli.core.stage import DecodeStage, EncoderStage, InputStage, PrefillStage, Stage

StageT = TypeVar("StageT", bound=Stage)
Positions = Literal["original", "entered", "renumbered"]
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
        requested: the budget as the user gave it, or None.
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
    requested: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def stages(self) -> tuple[Planned[Any], ...]:
        """All stages in the order of the data's way."""
        return (*self.input, *self.encoder, *self.prefill, *self.decode)

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
