"""Hyper-parameters: what a stage dataclass allows, and what a recipe gives it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import StageError, VtcError
from vtc_cli.core.stage import PrefillStage, Stage
from vtc_cli.recipe.layers import declared_fault
from vtc_cli.recipe.schema import Reference
from vtc_cli.recipe.text import Document, Place

Stack = Literal["llm", "vision"]
FIDELITY = "fidelity"  # set for the whole recipe, handed to each stage that has the field
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter of a stage.

    Attributes:
        name: field of the dataclass.
        annotation: its type.
        required: whether it has no default.
        default: the paper's value, None if required.
        doc: meaning and unit.
        source: where the default comes from.
        layer_of: stack whose layers it counts, None if it is no layer number.
        minimum: smallest allowed value.
        maximum: largest allowed value.
    """

    name: str
    annotation: Any
    required: bool
    default: Any
    doc: str
    source: str
    layer_of: Stack | None
    minimum: float | None
    maximum: float | None

    @property
    def range(self) -> str:
        """Allowed numbers in words, empty if all are."""
        low, high = self.minimum, self.maximum
        if low is None and high is None:
            return ""
        if low is None or high is None:
            return f"at least {low:g}" if low is not None else f"at most {high:g}"
        return f"{low:g}..{high:g}"

    @property
    def takes_one(self) -> bool:
        """Whether a single integer may stand for a list of one."""
        return bool(self.annotation == tuple[int, ...])

    def convert(self, value: Any) -> Any:
        """The value as the stage wants it.

        Raises:
            ValueError: what is allowed instead.
        """
        if self.takes_one and isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        try:
            # JSON knows no tuples, so a list may become one while numbers stay strict
            converted = self.adapter().validate_json(json.dumps(value))
        except ValidationError as error:
            messages = dict.fromkeys(item["msg"] for item in error.errors())
            allowed = " or ".join(text.removeprefix("Input should be ") for text in messages)
            raise ValueError(f"{allowed} {self.range}".strip()) from error
        if any(not self._inside(number) for number in _numbers(converted)):
            raise ValueError(self.range)
        return converted

    def adapter(self) -> TypeAdapter[Any]:
        """The type as pydantic sees it."""
        return TypeAdapter(self.annotation, config=STRICT)

    def _inside(self, number: float) -> bool:
        low = self.minimum is None or number >= self.minimum
        return low and (self.maximum is None or number <= self.maximum)


@cache
def parameters_of(cls: type[Stage]) -> dict[str, Parameter]:
    """Hyper-parameters of a stage class in order, without `fidelity`.

    Raises:
        StageError: an annotation of the stage cannot be read.
    """
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError) as error:
        raise StageError(f"{cls.__name__} has an unreadable annotation: {error}") from error
    fields = (field for field in dataclasses.fields(cls) if field.init and field.name != FIDELITY)
    return {field.name: _parameter(cls, field, hints[field.name]) for field in fields}


@functools.cache
def check_defaults(cls: type[Stage]) -> None:
    """See that a stage's own defaults are what it declares; nobody else would before a run.

    Raises:
        StageError: a default of another type or out of range, or a type that recipes cannot hold.
    """
    for known in parameters_of(cls).values():
        label = f"the hyper-parameter {known.name!r} of {cls.__name__}"
        where = inspect.getsourcefile(cls)
        try:
            known.adapter()
        except PydanticUserError as error:
            found = f"{label} has the type {known.annotation}"
            allowed = "numbers, texts, truth values, lists or tuples of them, or None"
            raise StageError(found, where=where, allowed=allowed) from error
        try:
            if not known.required and known.convert(known.default) != known.default:
                raise ValueError(str(known.annotation))
        except (ValueError, TypeError) as error:
            found = f"{label} has the default {known.default!r}"
            raise StageError(found, where=where, allowed=str(error)) from error


def check_values(
    document: Document, place: Place, cls: type[Stage], raw: Any, reference: Reference
) -> dict[str, Any]:
    """The given hyper-parameters, converted; faults are written into `document`."""
    values: dict[str, Any] = {}
    known = parameters_of(cls)
    for name, value in (raw if isinstance(raw, dict) else {}).items():
        if name == FIDELITY and has_fidelity(cls):
            hint = "write `fidelity:` at the top of the recipe"
            document.fault((*place, name), "fidelity set for one stage", hint=hint)
        elif name not in known:
            found = f"unknown hyper-parameter {name!r} of {cls.short_name()}"
            near = nearest(str(name), known)
            allowed = ", ".join(known) or "it has none"
            document.fault((*place, name), found, allowed, near)
        else:
            values.update(_checked(document, (*place, name), known[name], value, reference))
    return values


def check_missing(document: Document, place: Place, cls: type[Stage], given: Iterable[Any]) -> None:
    """Write down required hyper-parameters that the recipe does not give."""
    names = set(given)
    for parameter in parameters_of(cls).values():
        if parameter.required and parameter.name not in names:
            found = f"the hyper-parameter {parameter.name!r} is missing"
            document.fault(place, found, parameter.doc or f"{parameter.name}: ...")


def check_whole(
    document: Document, place: Place, cls: type[Stage], values: Mapping[str, Any]
) -> None:
    """Write down what the stage itself objects to, once it has all it requires."""
    if any(p.required and p.name not in values for p in parameters_of(cls).values()):
        return
    try:
        cls(**values)
    except VtcError as error:
        document.fault(place, error.found, error.allowed, error.hint)
    except Exception as error:  # a stage's own code raises whatever it likes
        document.fault(place, objection(error))


def objection(error: Exception) -> str:
    """What a stage says against its hyper-parameters; an error that was not meant, by its type."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def has_fidelity(cls: type[Stage]) -> bool:
    """Whether the stage behaves differently under `fidelity: official`."""
    return any(field.name == FIDELITY for field in dataclasses.fields(cls))


def reference_depth(reference: Reference, stack: Stack) -> int:
    """Layers of `stack` in the model that the recipe was published for."""
    return reference.llm_layers if stack == "llm" else reference.vision_layers


def _parameter(cls: type[Stage], field: dataclasses.Field[Any], annotation: Any) -> Parameter:
    metadata = field.metadata
    factory = field.default_factory
    required = field.default is dataclasses.MISSING and factory is dataclasses.MISSING
    default = None if required else field.default
    if factory is not dataclasses.MISSING:
        default = factory()
    # the base class knows what `layers` means, whether or not a stage repeats it
    layers: Stack | None = (
        "llm" if issubclass(cls, PrefillStage) and field.name == "layers" else None
    )
    return Parameter(
        name=field.name,
        annotation=annotation,
        required=required,
        default=default,
        doc=metadata.get("doc", ""),
        source=metadata.get("source", ""),
        layer_of=metadata.get("layer_of") or layers,
        minimum=metadata.get("minimum"),
        maximum=metadata.get("maximum"),
    )


def _checked(
    document: Document, place: Place, known: Parameter, value: Any, reference: Reference
) -> dict[str, Any]:
    try:
        converted = known.convert(value)
    except ValueError as error:
        hint = _number_hint(value)
        document.fault(place, f"{known.name} is {json.dumps(value)}", str(error), hint)
        return {}
    if known.layer_of:
        depth = reference_depth(reference, known.layer_of)
        if fault := declared_fault(converted, depth):
            allowed = f"increasing layers in {-depth}..{depth - 1}"
            hint = f"set reference.{known.layer_of}_layers to the depth the recipe was made for"
            document.fault(place, f"{known.name}: {fault}", allowed, hint)
            return {}
    return {known.name: converted}


def _number_hint(value: Any) -> str | None:
    """YAML 1.1 reads 1e-3 as text; tell how to write the number that was meant."""
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return f"write {number} (YAML takes {value} for text)"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
