"""JSON Schema of recipe files for editors, with the hyper-parameters of every known stage."""

from __future__ import annotations

from typing import Any

from vtc_cli.core.discover import all_stages
from vtc_cli.core.stage import Stage
from vtc_cli.recipe.parameters import Parameter, parameters_of
from vtc_cli.recipe.schema import PHASES, RecipeFile


def recipe_json_schema() -> dict[str, Any]:
    """The schema as plain data; imports all stage modules."""
    schema = RecipeFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vtc recipe"
    stages = all_stages()
    definitions = schema.setdefault("$defs", {})
    definitions.update({name: _stage_schema(cls) for name, cls in stages.items()})
    modules = [name.partition(".")[0] for name in stages]
    for phase in PHASES:
        names = {
            spelling: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}
            for name, cls in stages.items()
            if cls.phase == phase
            for spelling in _spellings(name, modules)
        }
        schema["properties"][phase]["items"] = {
            "type": "object",
            "properties": names,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
    return schema


def _spellings(name: str, modules: list[str]) -> list[str]:
    module = name.partition(".")[0]
    return [name, module] if modules.count(module) == 1 else [name]


def _stage_schema(cls: type[Stage]) -> dict[str, Any]:
    parameters = parameters_of(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").partition("\n")[0],
        "properties": {name: _parameter_schema(known) for name, known in parameters.items()},
        "required": [name for name, known in parameters.items() if known.required],
        "additionalProperties": False,
    }


def _parameter_schema(known: Parameter) -> dict[str, Any]:
    schema = _bounded(known.adapter().json_schema(), known)
    if known.takes_one:
        schema = {"anyOf": [schema["items"], schema]}
    if known.doc:
        schema["description"] = known.doc
    if not known.required:
        schema["default"] = known.default
    return schema


def _bounded(schema: dict[str, Any], known: Parameter) -> dict[str, Any]:
    """Add the range to the numbers of a schema, inside lists as well."""
    if "items" in schema:
        return schema | {"items": _bounded(schema["items"], known)}
    bounds = {"minimum": known.minimum, "maximum": known.maximum}
    return schema | {name: value for name, value in bounds.items() if value is not None}
