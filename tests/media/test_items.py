"""Items files: what is read, and every fault at once with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtc_cli.commands.edge import error_block
from vtc_cli.media.items import MOST_FAULTS, Item, ItemsError, read_items


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"x")
    return tmp_path


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "items.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_fields_are_read_and_ids_default_to_the_line(folder: Path) -> None:
    path = write(
        folder,
        {"media": "a.png", "question": "how many?", "answer": 3, "extra": [1]},
        "",
        {"id": 7, "media": str(folder / "a.png"), "question": "wie?", "category": "c"},
    )
    media = str(folder / "a.png")
    assert read_items(path) == [
        Item("1", media, "how many?", "3", None),
        Item("7", media, "wie?", None, "c"),
    ]


def test_all_faults_come_at_once_with_their_lines(folder: Path) -> None:
    good = {"id": "x", "media": "a.png", "question": "what?"}
    path = write(
        folder,
        good,
        "{oops",
        [1],
        {"media": "a.png"},
        {**good, "media": "none.png"},
        {**good, "id": "y", "answer": ["red"]},
        good,
        {**good, "id": "z", "answer": True},
    )
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    places = [fault.where for fault in caught.value.faults]
    assert places == [f"{path}, line {number}" for number in (2, 3, 4, 5, 6, 7, 8)]
    text = error_block(caught.value)
    assert "7 faults" in text and "none.png" in text and "line 1 too" in text


def test_the_list_of_faults_ends(folder: Path) -> None:
    with pytest.raises(ItemsError) as caught:
        read_items(write(folder, *["{"] * 1000))
    assert len(caught.value.faults) == MOST_FAULTS
    assert "at least 20" in error_block(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", "no items"), (b"\n \n", "no items"), (b"\xff\xfe{", "UTF-8")]
)
def test_files_without_items(folder: Path, content: bytes, expected: str) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(content)
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_and_a_missing_file_are_refused(folder: Path) -> None:
    for path in (folder, folder / "none.jsonl"):
        with pytest.raises(ItemsError):
            read_items(path)
