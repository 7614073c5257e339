"""The exported JSON Schema takes the shipped recipes and refuses what the loader refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from vtc_cli.core.discover import all_stages, recipe_files
from vtc_cli.recipe.json_schema import recipe_json_schema
from vtc_cli.recipe.parameters import parameters_of

SCHEMA = recipe_json_schema()
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
NOTES = {"title", "description", "default", "$schema", "$defs"}
KNOWN = NOTES | {"type", "enum", "anyOf", "$ref", "items", "minimum", "maximum", "pattern"}
KNOWN |= {"properties", "additionalProperties", "required", "minProperties", "maxProperties"}


def errors(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    """A validator of the few keywords that the schema uses; another keyword is a fault too."""
    yield from (f"the keyword {word} is not known here" for word in schema.keys() - KNOWN)
    if "$ref" in schema:
        yield from errors(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema and all(any(errors(value, part)) for part in schema["anyOf"]):
        yield f"{value!r} is none of the alternatives"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is not in {schema['enum']}"
    if "type" in schema and not has_type(value, schema["type"]):
        yield f"{value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from object_errors(value, schema)
    elif isinstance(value, list):
        for item in value:
            yield from errors(item, schema.get("items", {}))
    else:
        yield from scalar_errors(value, schema)


def has_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def scalar_errors(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(value, str):
        if not re.search(schema.get("pattern", ""), value):
            yield f"{value!r} does not match {schema['pattern']}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            yield f"{value!r} is not in {low}..{high}"


def object_errors(value: dict[Any, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in schema.get("required", []) if name not in value)
    count = len(value)
    if not schema.get("minProperties", count) <= count <= schema.get("maxProperties", count):
        yield f"{count} keys"
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name, item in value.items():
        if name not in properties and rest is False:
            yield f"unknown key {name!r}"
        else:
            yield from errors(item, properties.get(name, rest if isinstance(rest, dict) else {}))


def faults(text: str) -> list[str]:
    return list(errors(yaml.safe_load(text), SCHEMA))


def test_every_shipped_recipe_fits_the_schema() -> None:
    files = recipe_files()
    assert len(files) > 1
    for path in files.values():
        assert faults(path.read_text(encoding="utf-8")) == [], path


REFUSED = {
    "an empty name": "name: ''\n",
    "unknown key": "name: x\nbudgit: 1\n",
    "unknown stage": "name: x\nencoder: [{mustdrop.spatial_merg: {}}]\n",
    "wrong phase": "name: x\nencoder: [{mustdrop.dual_attention: {}}]\n",
    "two in one item": (
        "name: x\nencoder: [{mustdrop.spatial_merge: {}, mustdrop.key_tokens: {}}]\n"
    ),
    "unknown value": "name: x\nencoder: [{mustdrop.spatial_merge: {windw: 3}}]\n",
    "truth for a number": "name: x\nencoder: [{mustdrop.spatial_merge: {window: true}}]\n",
    "below the range": "name: x\nencoder: [{mustdrop.spatial_merge: {window: 1}}]\n",
    "above the range": "name: x\nencoder: [{mustdrop.key_tokens: {protect_ratio: 1.5}}]\n",
    "text as layer": "name: x\nprefill: [{mustdrop.dual_attention: {layers: [x]}}]\n",
    "fidelity": "name: x\nfidelity: exact\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_schema_refuses(name: str) -> None:
    assert len(faults(REFUSED[name])) > 0


@pytest.mark.parametrize("layers", ["3", "[3]", "[3, 7]"])
def test_the_schema_takes_one_layer_with_and_without_brackets(layers: str) -> None:
    assert faults(f"name: x\nprefill: [{{mustdrop.dual_attention: {{layers: {layers}}}}}]\n") == []


def test_every_hyper_parameter_of_every_stage_is_in_the_schema_with_its_meaning() -> None:
    stages = all_stages()
    assert len(stages) > 1
    for name, cls in stages.items():
        exported = SCHEMA["$defs"][name]["properties"]
        assert list(exported) == list(parameters_of(cls))
        for parameter in parameters_of(cls).values():
            assert exported[parameter.name].get("description", "") == parameter.doc
        phase = SCHEMA["properties"][cls.phase]["items"]["properties"]
        assert name in phase
