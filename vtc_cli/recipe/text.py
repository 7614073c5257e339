"""YAML text to plain data that remembers its lines; nothing in the text can run or expand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vtc_cli.core.errors import RecipeError, VtcError
from vtc_cli.core.files import open_regular
from vtc_cli.core.numbers import number_fault

MAXIMUM_BYTES = 256_000
MAXIMUM_DEPTH = 12
MOST_VALUES = 30_000
MOST_FAULTS = 100
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
Key = str | int | float | bool | None
Place = tuple[Key, ...]


@dataclass
class Document:
    """A recipe as written.

    Attributes:
        path: file, as given.
        data: mappings, lists, strings, numbers, booleans and None.
        lines: line (from 1) of every key and list item, by its path through the data.
        faults: what was found wrong so far.
    """

    path: str
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[VtcError] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """Line of `place` or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fault(
        self, place: Place, found: str, allowed: str | None = None, hint: str | None = None
    ) -> None:
        """Record a fault at `place`."""
        self.fault_at(self.line(place), found, allowed, hint)

    def fault_at(
        self, line: int, found: str, allowed: str | None = None, hint: str | None = None
    ) -> None:
        """Record a fault at a line; the hundredth ends the search for more.

        Raises:
            RecipeError: with all hundred.
        """
        where = f"{self.path}:{line}"
        self.faults.append(VtcError(found, where=where, allowed=allowed, hint=hint))
        if len(self.faults) == MOST_FAULTS:
            self.check()

    def check(self) -> None:
        """Raise what was recorded, in the order of the file.

        Raises:
            RecipeError: with all faults.
        """
        if self.faults:
            # an override of two uses of one stage is checked twice, its fault is told once
            distinct = {str(fault): fault for fault in self.faults}.values()
            ordered = sorted(distinct, key=lambda fault: _line_of(fault.where))
            raise RecipeError(ordered, where=self.path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a recipe file, not more than the bound.

    Raises:
        RecipeError: missing, unreadable, too large, or no regular file.
    """
    try:
        with open_regular(path) as stream:
            raw = stream.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise RecipeError([VtcError(found, where=str(path))], where=str(path)) from error
    if len(raw) > MAXIMUM_BYTES:
        fault = VtcError(
            "the file is too large for a recipe",
            where=str(path),
            allowed=f"at most {MAXIMUM_BYTES // 1000} kB",
        )
        raise RecipeError([fault], where=str(path))
    return raw


def parse(raw: bytes, path: str) -> Document:
    """Parse one YAML document; faults of the text stand in the result.

    Tags, anchors and aliases are refused, so nothing expands; scalars other than null, booleans
    and numbers are strings. The text is checked event by event before any node is built.
    """
    document = Document(path)
    try:
        text = raw.decode("utf-8-sig")
        if _check_events(text, document):
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            builder = _Builder(document, yaml.SafeLoader(""))
            document.data = None if node is None else builder.build(node, ())
    except UnicodeDecodeError as error:
        document.fault_at(raw[: error.start].count(b"\n") + 1, "not UTF-8 text", "UTF-8")
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two of escapes
        _record_yaml_error(error, document)
    return document


def _line_of(where: str | None) -> int:
    return int((where or ":0").rpartition(":")[2])


def _record_yaml_error(error: Exception, document: Document) -> None:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    document.fault_at(mark.line + 1 if mark else 1, f"not YAML: {reason}")


def _check_events(text: str, document: Document) -> bool:
    """Refuse what could expand or nest without bound; False if the text must not be built."""
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = _line(event)
        if number > MOST_VALUES:
            document.fault_at(line, "too many values for a recipe", f"at most {MOST_VALUES}")
            return False
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                document.fault_at(line, "a second document begins", "one recipe a file")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                document.fault_at(line, "nested too deeply", f"at most {MAXIMUM_DEPTH} levels")
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        for problem in _forbidden(event):
            document.fault_at(line, problem, "plain values", "write the value out")
    return not document.faults


def _line(item: yaml.Event | yaml.Node) -> int:
    return item.start_mark.line + 1 if item.start_mark else 1


def _forbidden(event: yaml.Event) -> Iterator[str]:
    if isinstance(event, yaml.AliasEvent):
        yield f"the alias *{event.anchor}"
    elif getattr(event, "anchor", None):
        yield f"the anchor &{getattr(event, 'anchor', '')}"
    if getattr(event, "tag", None):
        yield f"the tag {getattr(event, 'tag', '')}"


@dataclass
class _Builder:
    """Turns nodes into data and writes down lines and repeated keys."""

    document: Document
    loader: yaml.SafeLoader

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.document.lines.setdefault(place, _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Key, Any]:
        data: dict[Key, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.fault_at(line, "a key that is a list or a mapping", "plain keys")
                continue
            key = self._scalar(key_node)
            if key in data:
                first = self.document.lines[(*place, key)]
                self.document.fault_at(line, f"the key {key!r} stands twice (see line {first})")
                continue
            self.document.lines[(*place, key)] = line
            data[key] = self.build(value_node, (*place, key))
        return data

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in PLAIN_TAGS:
            return node.value
        line, text = _line(node), str(node.value)[:40]
        try:
            value = self.loader.construct_object(node)
        except (ValueError, yaml.YAMLError):
            self.document.fault_at(line, f"the number {text!r} cannot be read")
            return None
        # what is not finite is refused where it is used, with the range that is allowed there
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if finite and (fault := number_fault(value)):
            self.document.fault_at(line, f"the number {text}", fault)
            return None
        return value
