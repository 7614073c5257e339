"""Items of tables and packages: the same items from every kind of source, faults by row."""

from __future__ import annotations

import csv
import os
import socket
from collections import Counter
from pathlib import Path

import easy_vqa
import pytest
from PIL import Image

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.media.image import read_image
from vtc_cli.media.item_sources import parse_columns, read_data
from vtc_cli.media.items import Item, ItemsError

ROWS = [
    {"id": "1", "question": "what?", "answer": "red", "category": "c", "match": "exact"},
    {"id": "2", "question": "how many?", "answer": "3", "category": "", "match": ""},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("1.png", "red"), ("2.png", "blue")):
        Image.new("RGB", (8, 6), colour).save(tmp_path / name)
    (tmp_path / "inside").mkdir()
    return tmp_path


def write_csv(folder: Path, names: dict[str, str], rows: list[dict[str, str]]) -> str:
    path = folder / "items.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names.values())
        writer.writerows([row[name] for name in names] for row in rows)
    return str(path)


def with_files(folder: Path) -> list[dict[str, str]]:
    return [row | {"media": str(folder / f"{row['id']}.png")} for row in ROWS]


def check(items: list[Item], folder: Path) -> None:
    assert [item.question for item in items] == ["what?", "how many?"]
    assert [item.answer for item in items] == ["red", "3"]
    assert [item.category for item in items] == ["c", None]
    assert [item.match for item in items] == ["exact", None]
    for item, name in zip(items, ("1.png", "2.png"), strict=True):
        expected = read_image(str(folder / name)).frames
        assert (read_image(item.media).frames == expected).all()


def test_csv(folder: Path) -> None:
    names = {name: name for name in ("id", "media", "question", "answer", "category", "match")}
    check(read_data(write_csv(folder, names, with_files(folder)), {}, folder), folder)


def test_csv_with_columns_of_other_names(folder: Path) -> None:
    names = {"media": "image", "question": "prompt", "answer": "label", "category": "kind"}
    path = write_csv(folder, {**names, "match": "match"}, with_files(folder))
    columns = parse_columns("question=prompt, answer=label,category=kind")
    check(read_data(path, columns, folder), folder)


def test_faults_of_a_table_name_their_rows(folder: Path) -> None:
    rows = with_files(folder)
    rows[0]["media"], rows[1]["match"] = "none.png", "clever"
    names = {name: name for name in ("media", "question", "answer", "match")}
    with pytest.raises(ItemsError) as caught:
        read_data(write_csv(folder, names, rows), {}, folder)
    assert [fault.where for fault in caught.value.faults] == [
        f"{folder}/items.csv, row {number}" for number in (1, 2)
    ]
    with pytest.raises(ItemsError, match="no column question"):
        read_data(write_csv(folder, {"media": "media"}, rows), {}, folder)


@pytest.mark.parametrize("content", [b"media,question\na.png\xff,b\n", b"", b'media\n"a'])
def test_broken_tables_are_refused(folder: Path, content: bytes) -> None:
    path = folder / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(ItemsError):
        read_data(str(path), {}, folder)
    path.rename(folder / "broken.parquet")
    pytest.importorskip("pyarrow")
    with pytest.raises(ItemsError, match="cannot be read"):
        read_data(str(folder / "broken.parquet"), {}, folder)


def test_pictures_inside_a_parquet_table(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pictures = [{"bytes": (folder / f"{n}.png").read_bytes(), "path": None} for n in (1, 2)]
    texts = {name: [row[name] for row in ROWS] for name in ("question", "category", "match")}
    table = pyarrow.table({"image": pictures, "answer": ["red", "3"], **texts})
    parquet.write_table(table, folder / "items.parquet")
    check(read_data(str(folder / "items.parquet"), {}, folder / "inside"), folder)
    assert len(list((folder / "inside").iterdir())) == 2


def test_a_saved_dataset_and_its_splits(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    columns = {name: [row[name] or None for row in ROWS] for name in ROWS[0] if name != "id"}
    columns["image"] = [str(folder / "1.png"), str(folder / "2.png")]
    table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    table.save_to_disk(str(folder / "one"))
    check(read_data(str(folder / "one"), {}, folder / "inside"), folder)
    both = datasets.DatasetDict({"train": table.select([0]), "test": table})
    both.save_to_disk(str(folder / "two"))
    with pytest.raises(ItemsError, match="train, test"):
        read_data(str(folder / "two"), {}, folder / "inside")


def test_a_folder_makes_no_connection_and_runs_no_script(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library looks into any folder for scripts and for pages that name other machines."""
    datasets = pytest.importorskip("datasets")

    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    page = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"
    script = f"open({str(folder / 'ran')!r}, 'w')\n"
    for name in ("plain", "saved"):
        inside = folder / name
        if name == "saved":
            columns = {"media": ["1.png"], "question": ["what?"]}
            datasets.Dataset.from_dict(columns).save_to_disk(str(inside))
        inside.mkdir(exist_ok=True)
        (inside / f"{name}.py").write_text(script)
        (inside / "__init__.py").write_text(script)
        (inside / "README.md").write_text(page.format("https://example.org/a.jsonl"))
    with pytest.raises(ItemsError, match="no saved dataset"):
        read_data(str(folder / "plain"), {}, folder / "inside")
    (item,) = read_data(str(folder / "saved"), {}, folder / "inside")
    assert Path(item.media).samefile(folder / "1.png")
    assert not (folder / "ran").exists()


def test_tables_and_datasets_that_hang_are_refused(folder: Path) -> None:
    (folder / "saved").mkdir()
    (folder / "saved" / "state.json").write_text("{}")
    names = ("a.jsonl", "a.csv", "a.parquet", "saved/dataset_info.json")
    for name in names:
        os.mkfifo(folder / name)
        source = folder / name if "/" not in name else folder / "saved"
        if name == "a.parquet":
            pytest.importorskip("pyarrow")
        if source.is_dir():
            pytest.importorskip("datasets")
        with pytest.raises(ItemsError, match="no regular file"):
            read_data(str(source), {}, folder)


def test_easy_vqa_is_its_test_split() -> None:
    items = read_data("easy-vqa", {}, Path())
    questions, answers, pictures = easy_vqa.get_test_questions()
    assert Counter((item.question, item.answer) for item in items) == Counter(
        zip(questions, answers, strict=True)
    )
    paths = dict(easy_vqa.get_test_image_paths())
    mine = Counter((item.media, item.question) for item in items)
    assert mine == Counter(
        (paths[picture], question) for picture, question in zip(pictures, questions, strict=True)
    )
    assert len({item.media for item in items[:1000]}) == 1000
    kinds = {item.category: item.answer for item in items}
    assert set(kinds) == {"yes or no", "colour", "shape"}
    assert {i.answer for i in items if i.category == "shape"} == {"circle", "rectangle", "triangle"}


def test_columns_are_checked() -> None:
    assert parse_columns(None) == {}
    for text in ("media", "media=", "picture=image"):
        with pytest.raises(UsageError):
            parse_columns(text)
    with pytest.raises(VtcError):
        read_data("nothing.jsonl", {}, Path())
