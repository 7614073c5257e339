"""The head of a token file: where the tokens come from and what was decided about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from vtc_cli.core.layout import View
from vtc_cli.core.plan import Fidelity, Positions
from vtc_cli.core.stage import Phase
from vtc_cli.core.text import all_writable

FORMAT: Literal["vtc-tokens"] = "vtc-tokens"
FORMAT_VERSION: Literal["2"] = "2"
PLAIN = ("format", "format_version", "vtc", "created")  # the other fields are JSON


class Part(BaseModel):
    """Part of a head; readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _writable(cls, values: Any) -> Any:
        """Names of files need not be UTF-8, and what is written is."""
        return all_writable(values)


class ModelPart(Part):
    """The model that made the tokens; `fingerprint` tells its weights."""

    id: str
    family: str
    weights: str
    dtype: Literal["float32", "bfloat16", "float16"]
    device: str
    attention: str
    fingerprint: str


class AskedPart(Part):
    """What the command line asked of the recipe; `budget` may be `default` or null.

    `relevance` names the pair of encoders that scored frames, null for the model's own features.
    """

    budget: float | Literal["default"] | None
    fidelity: Fidelity | None
    exact_layers: bool
    stage: str | None
    relevance: str | None = None


class BudgetPart(Part):
    """The layer average that stages worked towards, cache policies included."""

    layer_average: float
    decoder_layers: int
    prune_layers: tuple[int, ...]
    protect_ratio: float


class RecipePart(Part):
    """The recipe as it was resolved.

    `given` is what the command line named, a file or a known recipe; `path` the whole path of the
    file; `requested` the budget in tokens.
    """

    name: str
    given: str
    path: str
    sha256: str
    fidelity: Fidelity
    positions: Positions
    requested: float | None
    budget: BudgetPart | None


class StagePart(Part):
    """A stage with its hyper-parameters as used and as declared on the reference depth."""

    stage: str
    phase: Phase
    parameters: dict[str, Any]
    declared: dict[str, Any]


class DecisionPart(Part):
    """One decision of the prefill; `place` is the number of its stage in the list of stages."""

    stage: str
    place: NonNegativeInt
    layer: NonNegativeInt
    note: str


class GridPart(Part):
    """One grid of the original tokens; see `Grid`."""

    frames: PositiveInt
    rows: PositiveInt
    columns: PositiveInt
    span: NonNegativeInt
    view: View
    top: NonNegativeInt
    left: NonNegativeInt
    line_ends: bool


class InputPart(Part):
    """The picture or video that was compressed; `timestamps` are the seconds of its frames."""

    path: str
    kind: Literal["image", "video"]
    sha256: str
    width: PositiveInt
    height: PositiveInt
    frames: PositiveInt
    timestamps: tuple[float, ...]


class Head(Part):
    """Everything in a token file that is no tensor.

    `text_readers` are the stages whose decisions depend on the question; `question` is null if none
    was asked; `stopped_after` is the stage behind which the recipe was left.
    """

    format: Literal["vtc-tokens"] = FORMAT
    format_version: Literal["2"] = FORMAT_VERSION
    vtc: str
    created: str
    model: ModelPart
    asked: AskedPart
    recipe: RecipePart
    stages: tuple[StagePart, ...]
    decisions: tuple[DecisionPart, ...]
    grids: tuple[GridPart, ...] = Field(min_length=1)
    input: InputPart
    question: str | None
    text_readers: tuple[str, ...]
    seed: int
    stopped_after: str | None
    warnings: tuple[str, ...] = Field(())

    def metadata(self) -> dict[str, str]:
        """The head as a safetensors file holds it: a text a field."""
        fields = self.model_dump(mode="json")
        return {name: _text(name, value) for name, value in fields.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Head:
        """Read what `metadata` wrote.

        Raises:
            ValueError: a field is missing or says something impossible.
        """
        known = {name: text for name, text in metadata.items() if name in cls.model_fields}
        return cls.model_validate_json(
            json.dumps({name: _value(name, text) for name, text in known.items()})
        )

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two files share if one need not be made again."""
        parts = (self.recipe.sha256, self.input.sha256, self.model.fingerprint)
        return (self.vtc, *parts, self.asked, self.question, self.seed)


def _text(name: str, value: Any) -> str:
    return str(value) if name in PLAIN else json.dumps(value, ensure_ascii=False)


def _value(name: str, text: str) -> Any:
    return text if name in PLAIN else json.loads(text)
