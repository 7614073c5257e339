"""The shape of a recipe file; hyper-parameters of stages are checked in `parameters.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vtc_cli.core.discover import nearest
from vtc_cli.core.plan import Positions
from vtc_cli.recipe.text import Document, Place

PHASES = ("input", "encoder", "prefill", "decode")
Parameters = dict[str, Any] | None
StageEntry = Annotated[dict[str, Parameters], Field(min_length=1, max_length=1)]
Budget = Annotated[int, Field(ge=1)]


class Reference(BaseModel):
    """Depths that the layer numbers of a recipe belong to."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    llm_layers: Annotated[int, Field(ge=1, description="layers of the decoder")] = 32
    vision_layers: Annotated[int, Field(ge=1, description="layers of the vision tower")] = 24


class RecipeFile(BaseModel):
    """Everything a recipe file may say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="for reports; the file's name without its ending, if left out",
    )
    paper: str = Field("", description="title and arXiv id")
    description: str = Field("", description="one sentence")
    reference: Reference = Field(Reference(), description="depths the layer numbers belong to")
    fidelity: Literal["sound", "official"] | None = Field(
        None, description="sound behaviour (the default) or bit for bit the official code's"
    )
    positions: Positions | None = Field(None, description="position ids of the tokens that stay")
    input: list[StageEntry] = Field([], description="stages on the picture before the model")
    encoder: list[StageEntry] = Field([], description="stages in the vision tower or behind it")
    prefill: list[StageEntry] = Field([], description="stages in the decoder over the prompt")
    decode: list[StageEntry] = Field([], description="cache policies")
    budgets: dict[Budget, dict[str, Parameters]] = Field(
        {}, description="the paper's own settings by budget: tokens -> stage -> hyper-parameters"
    )
    default_budget: Budget | None = Field(None, description="budget if none is asked for")
    source: dict[str, str] = Field({}, description="where the figures come from")


def validate_file(document: Document) -> RecipeFile | None:
    """The typed file, or None with all faults written into `document`."""
    if not isinstance(document.data, dict):
        document.fault((), "not a mapping of keys", ", ".join(RecipeFile.model_fields))
        return None
    named = {"name": Path(document.path).stem, **document.data}
    try:
        return RecipeFile.model_validate(named)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _record(document, dict(details))
        return None


def _record(document: Document, details: dict[str, Any]) -> None:
    """Translate one pydantic error."""
    place: Place = tuple(part for part in details["loc"] if part != "[key]")
    label = ".".join(str(part) for part in place) or "recipe"
    kind = details["type"]
    if kind == "extra_forbidden":
        model = Reference if place[0] == "reference" else RecipeFile
        names = list(model.model_fields)
        near = nearest(str(place[-1]), names)
        document.fault(place, f"unknown key {place[-1]!r}", ", ".join(names), near)
    elif kind == "invalid_key":  # pydantic gives the key as input and as text in the place
        key = details["input"]
        document.fault((*place[:-1], key), f"the key {_shown(key)}", "a text as key")
    elif place == ("name",) and "name" not in document.data:
        found = f"no name, and that of the file, {details['input']!r}, cannot be one"
        document.fault((), found, "letters, digits and . _ - behind a letter or digit", "name: ...")
    else:
        document.fault(place, f"{label} is {_shown(details['input'])}", _allowed(details))


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _allowed(details: dict[str, Any]) -> str:
    if details["type"] in ("too_long", "too_short") and isinstance(details["input"], dict):
        return "one stage an entry, as in `- fastv: {}`"
    message: str = details["msg"]
    for prefix in ("Input should be ", "Value should be "):
        message = message.removeprefix(prefix)
    return message
