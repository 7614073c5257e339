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


GOOD = '{"media": "a.png", "question": "what?"}'


def one_line(**fields: Any) -> bytes:
    return json.dumps({"media": "a.png", "question": "what?", **fields}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no items"),
        (b"\n \n", "no items"),
        (b"\xff\xfe{", "not UTF-8 text: byte 1 of the line is 0xff"),
        (b"\xef\xbb\xbf", "no items"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"media": "a.png", "question": ' + b"[" * 100_000, "nested too deeply"),
        (b"[\n" + GOOD.encode() + b"\n]", "jq -c"),
        (b'{"media": "a.png", "media": "a.png", "question": "x"}', "'media' stands twice"),
        (b'{"id": NaN, "media": "a.png", "question": "x"}', "NaN is no JSON value"),
        (one_line(question="x" * 1_000_001), "too long"),
        (one_line(question="\ud800"), "half a character"),
        (one_line(question=" "), "question is blank"),
        (one_line(question=[]), "no question"),
        (one_line(question={"en": "what?"}), "a text or a number"),
        (one_line(id=" "), "id is blank"),
        (one_line(answer=""), "answer is blank"),
        (one_line(media="."), "a folder"),
        (one_line(media="a" * 5000), "no such file"),
        (one_line(media="a\0.png"), "no such file"),
        (one_line(media="~nobody-of-that-name/a.png"), "no such file"),
    ],
)
def test_files_without_items(folder: Path, content: bytes, expected: str) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(content)
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_byte_that_is_no_text_hides_no_other_fault(folder: Path) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(b"{oops\n" + GOOD.encode() + b"\ncaf\xe9\n[]\n")
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    places = [str(fault.where).rpartition(" ")[2] for fault in caught.value.faults]
    assert places == ["1", "3", "4"]
    assert "byte 4 of the line is 0xe9" in caught.value.faults[1].found


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n \n"])
def test_a_byte_order_mark_and_any_line_ends_are_read(folder: Path, separator: str) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + separator.join([GOOD, GOOD]).encode())
    assert [item.question for item in read_items(path)] == ["what?", "what?"]


def test_a_file_without_line_ends_is_not_read_whole(folder: Path) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(b"x" * 3_000_000)
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    (fault,) = caught.value.faults
    assert "nothing behind it was read" in fault.found


def test_numbers_keep_their_spelling_and_null_is_not_given(folder: Path) -> None:
    path = folder / "items.jsonl"
    fields = '"media": "a.png", "question": "what?"'
    path.write_text(
        f'{{"id": 0, {fields}, "answer": 3.50}}\n'
        f'{{"id": null, {fields}, "answer": null}}\n'
        f'{{{fields}, "answer": {"9" * 5000}}}\n'
    )
    first, second, third = read_items(path)
    assert (first.id, first.answer) == ("0", "3.50")
    assert (second.id, second.answer) == ("2", None)
    assert third.answer == "9" * 5000


def test_an_id_that_is_another_line_s_number_is_a_double(folder: Path) -> None:
    good = {"media": "a.png", "question": "what?"}
    with pytest.raises(ItemsError, match="'2' is that of line 1 too"):
        read_items(write(folder, {**good, "id": 2}, good))


def test_the_home_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    write(folder, {"media": "a.png", "question": "what?"})
    (item,) = read_items(Path("~/items.jsonl"))
    assert item.media == str(folder / "a.png")


def test_a_folder_and_a_missing_file_are_refused(folder: Path) -> None:
    for path in (folder, folder / "none.jsonl", Path("a\0.jsonl"), Path("a" * 5000)):
        with pytest.raises(ItemsError):
            read_items(path)
