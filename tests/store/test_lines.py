"""Files of lines: nothing written is lost, nothing half is read, one writer at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.store.lines import LineFile, read_lines

WRITER = """
import sys
from pathlib import Path
from vtc_cli.store.lines import LineFile
with LineFile(Path(sys.argv[1])) as file:
    for number in range(100000):
        file.append('{"number": %d}' % number)
        print(number, flush=True)
"""


def test_lines_come_back_in_order_over_several_openings(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for part in ([{"a": 1}, {"b": "ü\n"}], [{"c": None}]):
        with LineFile(path) as file:
            for line in part:
                file.append(json.dumps(line, ensure_ascii=False))
    assert list(read_lines(path)) == [{"a": 1}, {"b": "ü\n"}, {"c": None}]
    assert path.read_text(encoding="utf-8").count("\n") == 3


@pytest.mark.parametrize("cut", [1, 3, 70_000])
def test_a_line_that_was_cut_off_is_replaced(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lines.jsonl"
    whole = b'{"a": 1}\n'
    path.write_bytes(whole + (b'{"b": "' + b"x" * 80_000)[:cut])
    assert list(read_lines(path)) == [{"a": 1}]
    with LineFile(path) as file:
        file.append('{"c":2}')
    assert list(read_lines(path)) == [{"a": 1}, {"c": 2}]
    assert path.read_bytes() == whole + b'{"c":2}\n'


def test_a_file_of_one_torn_line_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a')
    with LineFile(path) as file:
        file.append('{"a":1}')
    assert list(read_lines(path)) == [{"a": 1}]


def test_a_killed_writer_leaves_every_line_it_told_of(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    command = [sys.executable, "-c", WRITER, str(path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(50)]
        with pytest.raises(UsageError, match="another process"), LineFile(path):
            pass
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    numbers = [line["number"] for line in read_lines(path)]
    assert numbers == list(range(len(numbers))) and len(numbers) >= len(told) >= 50
    with LineFile(path) as file:  # the lock went with its process
        file.append('{"number":-1}')


def test_what_is_no_line_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n[1]\n")
    with pytest.raises(UsageError, match="line 2"):
        list(read_lines(path))
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_lines(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("loss", ["removed", "moved", "replaced", "folder", "at the end"])
def test_a_file_that_loses_its_name_loses_no_line(tmp_path: Path, loss: str) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    path = folder / "lines.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(VtcError, match="removed, moved or replaced") as caught, LineFile(path) as f:
        f.append('{"b": 2}')
        if loss == "moved":
            path.rename(tmp_path / "elsewhere")
        elif loss == "folder":
            shutil.rmtree(folder)
        else:
            path.unlink()
        if loss == "replaced":
            path.write_text("somebody else's\n")
        if loss != "at the end":
            f.append('{"c": 3}')
    assert caught.value.exit_code == 1 and caught.value.where == str(path)
    saved = Path((caught.value.hint or "").partition("in ")[2].partition(": move")[0])
    try:
        want = [{"a": 1}, {"b": 2}] + [{"c": 3}] * (loss != "at the end")
        assert list(read_lines(saved)) == want
        if loss == "replaced":
            assert path.read_text() == "somebody else's\n"
        folder.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        shutil.move(saved, path)
    finally:
        saved.unlink(missing_ok=True)
    with LineFile(path) as f:  # as the hint says: it goes on
        f.append('{"d": 4}')
    assert list(read_lines(path)) == [*want, {"d": 4}]


def test_an_empty_file_of_another_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with pytest.raises(VtcError), LineFile(path):
        path.unlink()
        path.touch()
    assert path.exists()


def test_lines_go_to_regular_files_of_their_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/null", "/dev/zero", str(tmp_path)):
        with pytest.raises(UsageError):
            LineFile(Path(name))
        with pytest.raises(UsageError):
            list(read_lines(Path(name)))
