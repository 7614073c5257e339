"""Items of an evaluation: a file with one JSON object a line, checked as a whole before any run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vtc_cli.core.errors import MediaError, VtcError
from vtc_cli.core.files import open_regular
from vtc_cli.core.text import HALF_CHARACTER
from vtc_cli.core.words import counted

FIELDS = ("id", "media", "question", "answer", "category", "match")
NEEDED = ("media", "question")
MATCHES = ("normalised", "exact", "numeric", "multiple_choice", "contains")
MOST_FAULTS = 20
LONGEST_LINE_BYTES = 1_000_000  # far above any question; a file without line ends is not read whole
EXAMPLE = '{"media": "a.png", "question": "what color is it?", "answer": "red"}'


Row = TypeVar("Row")


class ItemsError(MediaError):
    """An items file with faults; `faults` holds the first of them, each with its line."""

    title = "unusable items"

    def __init__(self, faults: list[VtcError], *, where: str) -> None:
        least = "" if len(faults) < MOST_FAULTS else "at least "
        super().__init__(least + counted(len(faults), "fault"), where=where)
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
        match: the rule by which its answer is right, None for that of the command.
    """

    id: str
    media: str
    question: str
    answer: str | None = None
    category: str | None = None
    match: str | None = None


def read_items(path: Path) -> list[Item]:
    """Read and check a JSONL file of items, line by line; empty lines are passed over.

    Numbers count as texts, spelled as in the file. `null` means that a field is not given, and
    fields of other names are left alone.

    Raises:
        ItemsError: unreadable, empty, or lines with faults: at most 20 are listed at once.
    """
    path = _expanded(path)
    return collect(_lines(path), line_values, path, EXAMPLE)


def collect(
    rows: Iterable[tuple[int, Row]],
    values_of: Callable[[Row], Mapping[str, str]],
    path: Path,
    example: str,
    name: str = "line",
) -> list[Item]:
    """Check numbered rows of any source and make items of them.

    Args:
        rows: with the number under which faults are told.
        values_of: the fields of a row as texts, those without a value left out; raises VtcError.
        path: of the source; media are found from its folder.
        example: of a row, for the error.
        name: of a row, `line` or `row`.

    Raises:
        ItemsError: no rows, or rows with faults: at most 20 are listed at once.
    """
    items: list[Item] = []
    faults: list[VtcError] = []
    seen: dict[str, int] = {}
    for number, row in rows:
        try:
            item = _item(values_of(row), number, path.parent)
            if item.id in seen:
                raise VtcError(f"the id {item.id!r} is that of {name} {seen[item.id]} too")
        except VtcError as fault:
            fault.where = f"{path}, {name} {number}"
            faults.append(fault)
            if len(faults) == MOST_FAULTS:
                break
            continue
        seen[item.id] = number
        items.append(item)
    if faults:
        raise ItemsError(faults, where=str(path))
    if not items:
        raise unusable(path, "no items", example)
    return items


def _expanded(path: Path) -> Path:
    """`path` with `~` resolved, or as it stands where there is no such home."""
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that hold something; one that is too long is given in part and ends it all."""
    try:
        with open_regular(path) as stream:
            number, line = 1, stream.readline(LONGEST_LINE_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
            while line or number == 1:
                if line.strip():
                    yield number, line
                if len(line) > LONGEST_LINE_BYTES:
                    return
                number, line = number + 1, stream.readline(LONGEST_LINE_BYTES + 1)
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise unusable(path, found, "a JSONL file") from error


def unusable(path: Path, found: str, allowed: str, hint: str | None = None) -> ItemsError:
    """The one fault of a source that cannot be read at all."""
    fault = VtcError(found, where=str(path), allowed=allowed, hint=hint)
    return ItemsError([fault], where=str(path))


def _item(values: Mapping[str, str], number: int, folder: Path) -> Item:
    """One checked item.

    Raises:
        VtcError: what is wrong with the row.
    """
    media = folder / _expanded(Path(values["media"]))
    if not os.path.isfile(media):  # unlike Path.is_file, never raises over an impossible name
        found = "a folder" if os.path.isdir(media) else "no such file"
        raise VtcError(f"{found}: {media}", allowed="a file, seen from the folder of this one")
    check_rule(values)
    rest = {name: values.get(name) for name in ("answer", "category", "match")}
    return Item(values.get("id", str(number)), str(media), values["question"], **rest)


def check_rule(values: Mapping[str, str]) -> None:
    """See that the rule for the answer, if a row names one, is one.

    Raises:
        VtcError: it is none.
    """
    match = values.get("match")
    if match is not None and match not in MATCHES:
        raise VtcError(f"match is {match!r}", allowed=", ".join(MATCHES))


def line_values(line: bytes, fields: Sequence[str] = FIELDS) -> dict[str, str]:
    """The `fields` of a line as texts, those without a value left out.

    Raises:
        VtcError: too long, not UTF-8, no JSON object, without media or question.
    """
    return _values(_decoded(line), fields)


def _decoded(line: bytes) -> str:
    if len(line) > LONGEST_LINE_BYTES:
        allowed = f"one object a line, at most {LONGEST_LINE_BYTES // 1000} kB"
        raise VtcError("the line is too long; nothing behind it was read", allowed=allowed)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 text: byte {error.start + 1} of the line is {line[error.start]:#04x}"
        raise VtcError(found, allowed="JSON lines in UTF-8", hint="save it as UTF-8") from error


def _values(line: str, fields: Sequence[str]) -> dict[str, str]:
    try:
        raw = json.loads(
            line,
            parse_int=str,  # an answer of 3.50 stays 3.50, and no number is too large
            parse_float=str,
            parse_constant=_no_constant,
            object_pairs_hook=_without_repeats,
        )
    except RecursionError as error:
        raise VtcError("no JSON: nested too deeply", allowed=EXAMPLE) from error
    except ValueError as error:
        hint = "jq -c '.[]' turns a list into lines" if line.lstrip().startswith("[") else None
        raise VtcError(f"no JSON: {error}", allowed=EXAMPLE, hint=hint) from error
    if not isinstance(raw, dict):
        raise VtcError(f"a {type(raw).__name__}", allowed=EXAMPLE)
    return checked_values(raw, EXAMPLE, fields)


def checked_values(
    raw: Mapping[str, Any], example: str, fields: Sequence[str] = FIELDS
) -> dict[str, str]:
    """The `fields` of a row, each a text that says something.

    Raises:
        VtcError: a needed one is missing, or one is no text.
    """
    lacking = [name for name in NEEDED if raw.get(name) in (None, "", [], {})]
    if lacking:
        raise VtcError(f"no {' and no '.join(lacking)}", allowed=example)
    return {name: _text(name, raw[name]) for name in fields if raw.get(name) is not None}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says everything once."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return values


def _text(name: str, value: Any) -> str:
    """A text that says something; numbers have become texts before.

    Raises:
        VtcError: anything else.
    """
    if not isinstance(value, str):
        raise VtcError(f"{name} is {json.dumps(value)[:60]}", allowed="a text or a number")
    if not value.strip():
        raise VtcError(f"{name} is blank", allowed="a text, or leave it out if it is not known")
    if HALF_CHARACTER.search(value):
        raise VtcError(f"{name} holds half a character", allowed="whole \\u pairs")
    return value
