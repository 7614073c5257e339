"""Items from wherever they lie: JSON lines, CSV, Parquet, Hugging Face datasets, easy-VQA."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.files import check_regular, open_regular
from vtc_cli.media.items import (
    EXAMPLE,
    FIELDS,
    NEEDED,
    Item,
    checked_values,
    collect,
    read_items,
    unusable,
)

EASY_VQA = "easy-vqa"
ALIASES = {"media": ("image", "video")}  # usual names of a column beside its own
SHOWN = "columns media (or image), question and, if known, answer, category, match, id"
OPTIONAL = "it reads this kind of data and is not installed"
CELL_LIMIT = 1_000_000
SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` of the library leaves
Columns = Mapping[str, str]
Cells = Mapping[str, Any]


def read_data(source: str, columns: Columns, folder: Path) -> list[Item]:
    """Read and check all items of a source.

    Args:
        source: a file `.jsonl`, `.csv` or `.parquet`; a folder that a Hugging Face dataset was
            saved in, or its id with `:split` behind it, from the local cache where there is no
            network; or `easy-vqa`, the test split of the installed package.
        columns: names of columns by field, for tables whose columns are called otherwise.
        folder: pictures that lie inside a table are written here, named by their hash.

    Raises:
        ItemsError: unreadable, empty or with faults.
        UsageError: a source of no known kind, or a package that it needs is missing.
    """
    path = Path(os.path.expanduser(source))
    if source == EASY_VQA:
        return _easy_vqa()
    if os.path.isdir(path) or _is_id(source, path):
        return _rows(_dataset(source, path, folder), columns, path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _rows(_csv(path), columns, path)
    if suffix in (".parquet", ".pq"):
        return _rows(_parquet(path, folder), columns, path)
    if columns:
        raise UsageError("--columns for JSON lines", allowed="--columns with a table")
    return read_items(path)


def parse_columns(text: str | None) -> dict[str, str]:
    """`media=image,question=prompt` as a mapping from field to column.

    Raises:
        UsageError: anything else.
    """
    if not text:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    for field, sign, column in pairs:
        if field.strip() not in FIELDS or not sign or not column.strip():
            raise UsageError(
                f"--columns {text}",
                allowed=f"FIELD=COLUMN with commas; the fields are {', '.join(FIELDS)}",
                hint="--columns media=image,question=prompt,answer=label",
            )
    return {field.strip(): column.strip() for field, _, column in pairs}


def _is_id(source: str, path: Path) -> bool:
    """Whether `source` can only be meant as the id of a dataset."""
    name = source.partition(":")[0]
    return not os.path.exists(path) and name.count("/") == 1 and not Path(name).suffix


def _rows(rows: Iterator[tuple[int, Cells]], columns: Columns, path: Path) -> list[Item]:
    return collect(rows, partial(_values, columns), path, SHOWN, "row")


def _values(columns: Columns, cells: Cells) -> dict[str, str]:
    """The fields of a row of a table; what is empty is not given."""
    named: dict[str, Any] = {}
    for field in FIELDS:
        names = (columns[field],) if field in columns else (field, *ALIASES.get(field, ()))
        column = next((name for name in names if name in cells), None)
        if column is None and (field in columns or field in NEEDED):
            found = f"no column {' or '.join(names)}"
            raise VtcError(found, allowed=", ".join(map(str, cells)), hint=f"--columns {field}=...")
        named[field] = None if column is None else _plain(cells[column])
    return checked_values(named, SHOWN)


def _plain(value: Any) -> Any:
    """Numbers as texts; empty cells and NaN as nothing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return None if value == "" else value


def _csv(path: Path) -> Iterator[tuple[int, Cells]]:
    """Rows by the names in the first line."""
    csv.field_size_limit(CELL_LIMIT)
    try:
        with (
            open_regular(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as stream,
        ):
            reader = csv.DictReader(stream, strict=True, restkey="", restval="")
            for number, row in enumerate(reader, start=1):
                if "" in row:
                    raise csv.Error(f"row {number} has more cells than the first line")
                yield number, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise unusable(path, found, f"CSV in UTF-8 with {SHOWN}") from error


def _parquet(path: Path, folder: Path) -> Iterator[tuple[int, Cells]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise _missing("pyarrow", path) from error
    try:
        with open_regular(path) as stream, parquet.ParquetFile(stream) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _with_files(row, folder, path.parent)
    except (OSError, pyarrow.ArrowException) as error:
        found = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise unusable(path, found, f"Parquet with {SHOWN}") from error


def _dataset(source: str, path: Path, folder: Path) -> Iterator[tuple[int, Cells]]:
    """Rows of a dataset that was saved to a folder, or of one of the hub."""
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", path) from error
    datasets.disable_progress_bars()
    name, _, split = source.partition(":")
    where = Path(os.path.expanduser(name))
    try:
        table = _loaded(datasets, where, split or None, name)
    except (OSError, ValueError, ConnectionError) as error:  # what the library raises for users
        lines = str(error).splitlines() or [type(error).__name__]
        raise unusable(Path(source), lines[0], "a saved dataset, or an id in the cache") from error
    for number in range(len(table)):
        yield number + 1, _with_files(table[number], folder, where)


def _loaded(datasets: Any, where: Path, split: str | None, name: str) -> Any:
    """One split, its pictures as bytes.

    Raises:
        VtcError: several splits and none named, or a folder in which no dataset was saved.
    """
    if os.path.isdir(where):
        found = datasets.load_from_disk(_saved(where))
    else:
        found = datasets.load_dataset(name)
    if isinstance(found, dict):
        chosen = split or (next(iter(found)) if len(found) == 1 else None)
        if chosen not in found:
            told = f"no split {chosen!r}" if chosen else "several splits"
            raise unusable(where, told, ", ".join(found), f"--data {name}:{next(iter(found))}")
        found = found[chosen]
    for column, feature in found.features.items():
        if isinstance(feature, datasets.Image | datasets.Video):
            found = found.cast_column(column, type(feature)(decode=False))
    return found


def _saved(folder: Path) -> str:
    """The whole path of a folder that `save_to_disk` wrote.

    Any other folder is refused: the library would look in it for scripts, and for a page that sends
    it to other machines.

    Raises:
        VtcError: nothing was saved there, or what lies there is no file.
    """
    if not any((folder / name).is_file() for name in SAVED):
        found, hint = "a folder, but no saved dataset", "dataset.save_to_disk(FOLDER), or a file"
        raise unusable(folder, found, f"{' or '.join(SAVED)} in it", hint)
    check_regular(folder)
    return str(folder.resolve())


def _with_files(row: dict[str, Any], folder: Path, beside: Path) -> dict[str, Any]:
    """The row with every picture inside it as a file, its path as text."""
    return {name: _as_path(value, folder, beside) for name, value in row.items()}


def _as_path(value: Any, folder: Path, beside: Path) -> Any:
    content = value
    if isinstance(value, dict) and {"bytes", "path"} <= value.keys():
        if value["bytes"] is None:
            return None if value["path"] is None else str(beside / value["path"])
        content = value["bytes"]
    if not isinstance(content, bytes):
        return value
    path = folder / hashlib.sha256(content).hexdigest()
    if not path.exists():
        path.write_bytes(content)
    return str(path)


def _easy_vqa() -> list[Item]:
    """The test split: the first question of every picture, then the second of every one, ...

    So the first items of `--limit` ask about as many pictures as they can.
    """
    try:
        import easy_vqa
    except ImportError as error:
        raise _missing("easy-vqa", Path(EASY_VQA)) from error
    paths = dict(easy_vqa.get_test_image_paths())
    asked: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, picture in zip(*easy_vqa.get_test_questions(), strict=True):
        asked[picture].append((question, answer))
    turns = ((turn, picture) for turn in range(max(map(len, asked.values()))) for picture in asked)
    return [
        _easy_item(picture, turn, paths[picture], *asked[picture][turn])
        for turn, picture in turns
        if turn < len(asked[picture])
    ]


def _easy_item(picture: int, turn: int, path: str, question: str, answer: str) -> Item:
    closed = answer in ("yes", "no")
    category = "yes or no" if closed else "colour" if "color" in question.split() else "shape"
    return Item(f"{picture}-{turn + 1}", path, question, answer, category)


def _missing(package: str, where: Path) -> UsageError:
    return UsageError(
        f"the package {package} is missing: {OPTIONAL}",
        where=str(where),
        allowed=f"JSON lines, as in {EXAMPLE}",
        hint=f"pip install {package}",
    )
