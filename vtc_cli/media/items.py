"""Items of an evaluation: a file with one JSON object a line, checked as a whole before any run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc_cli.core.errors import MediaError, VtcError

FIELDS = ("id", "media", "question", "answer", "category")
NEEDED = ("media", "question")
MOST_FAULTS = 20
EXAMPLE = '{"media": "a.png", "question": "what color is it?", "answer": "red"}'


class ItemsError(MediaError):
    """An items file with faults; `faults` holds the first of them, each with its line."""

    title = "unusable items"

    def __init__(self, faults: list[VtcError], *, where: str) -> None:
        count = f"{len(faults)}" if len(faults) < MOST_FAULTS else f"at least {MOST_FAULTS}"
        super().__init__(f"{count} fault{'s' if len(faults) != 1 else ''}", where=where)
        self.faults = faults

    def __str__(self) -> str:
        """All faults, one after the other."""
        return " | ".join(str(fault) for fault in self.faults)


@dataclass(frozen=True)
class Item:
    """One question about one picture.

    Attributes:
        id: from the file, or its line number.
        media: path of the picture, found from the folder of the file.
        question: what to ask.
        answer: the expected answer, None if it is not known.
        category: kind of question, None if it is not given.
    """

    id: str
    media: str
    question: str
    answer: str | None = None
    category: str | None = None


def read_items(path: Path) -> list[Item]:
    """Read and check a JSONL file of items; empty lines are passed over.

    Raises:
        ItemsError: unreadable, empty, or lines with faults: at most 20 are listed at once.
    """
    items: list[Item] = []
    faults: list[VtcError] = []
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            item = _item(line, number, path.parent)
            if item.id in seen:
                raise VtcError(f"the id {item.id!r} is that of line {seen[item.id]} too")
        except VtcError as fault:
            fault.where = f"{path}, line {number}"
            faults.append(fault)
            if len(faults) == MOST_FAULTS:
                break
            continue
        seen[item.id] = number
        items.append(item)
    if faults:
        raise ItemsError(faults, where=str(path))
    if not items:
        raise _unusable(path, "no items", EXAMPLE)
    return items


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something."""
    try:
        with path.expanduser().open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise _unusable(path, f"not UTF-8 text: {error.reason}", "JSON lines in UTF-8") from error
    except OSError as error:
        found = error.strerror or str(error)
        raise _unusable(path, f"cannot be read: {found}", "a JSONL file") from error


def _unusable(path: Path, found: str, allowed: str) -> ItemsError:
    fault = VtcError(found, where=str(path), allowed=allowed)
    return ItemsError([fault], where=str(path))


def _item(line: str, number: int, folder: Path) -> Item:
    """One checked item.

    Raises:
        VtcError: what is wrong with the line.
    """
    values = _values(line)
    media = Path(values["media"]).expanduser()
    media = media if media.is_absolute() else folder / media
    if not media.exists():
        raise VtcError(f"no such file: {media}", allowed="a path seen from the folder of this file")
    rest = {name: values.get(name) for name in ("answer", "category")}
    return Item(values.get("id") or str(number), str(media), values["question"], **rest)


def _values(line: str) -> dict[str, Any]:
    """The fields of a line, numbers as text; fields of other names are left alone."""
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise VtcError(f"no JSON: {error}", allowed=EXAMPLE) from error
    if not isinstance(raw, dict):
        raise VtcError(f"a {type(raw).__name__}", allowed=EXAMPLE)
    lacking = [name for name in NEEDED if not str(raw.get(name) or "").strip()]
    if lacking:
        raise VtcError(f"no {' and no '.join(lacking)}", allowed=EXAMPLE)
    return {name: _text(name, raw[name]) for name in FIELDS if raw.get(name) is not None}


def _text(name: str, value: Any) -> str:
    """A text, or a number written as one.

    Raises:
        VtcError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise VtcError(f"{name} is {json.dumps(value)}", allowed="a text or a number")
    return str(value)
