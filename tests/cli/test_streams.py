"""Streams, locales, disks and names that cannot take what is written: one block, the right code."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_files import full_disk
from tests.jobs.support import items
from vtc_cli.app import run_command_line
from vtc_cli.commands import edge
from vtc_cli.commands.compare_rows import RowFile
from vtc_cli.commands.output import Output
from vtc_cli.commands.run import run
from vtc_cli.commands.settings import Setting, declared, found_settings
from vtc_cli.core.errors import UsageError

ROOT = Path(__file__).parents[2]
PICTURE: str = items(1)[0]["media"]
SHORT = ["-r", "fastv", "-b", "64", "--max-new-tokens", "2", "--device", "cpu"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A shell's line, in which `vtc` stands for the command."""
    words = command.replace("vtc ", f"{sys.executable} -m vtc_cli ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(["bash", "-c", words], cwd=folder, env=environment, capture_output=True)


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("vtc recipes schema >/dev/full", 1, b"standard output\n  found    No space left"),
        ("vtc recipes list >&-", 1, b"standard output\n  found    Bad file descriptor"),
        ("vtc nosuch 2>&-", 2, b""),
        ("vtc nosuch 2>/dev/full", 2, b""),
        ("vtc nosuch <&- >&- 2>&-", 2, b""),
        ("vtc run - what? <&-", 2, b"no bytes at all"),
    ],
)
def test_streams_that_take_nothing(here: Path, command: str, code: int, told: bytes) -> None:
    for buffered in ("", "1"):  # the fault comes at the end, or at the first word
        done = shell(command, here, PYTHONUNBUFFERED=buffered)
        assert done.returncode == code and done.stdout == b"", done.stderr
        assert told in done.stderr and done.stderr.count(b"\n") <= 5
        assert b"Traceback" not in done.stderr and b"unexpected" not in done.stderr


def test_in_place_of_a_closed_stream_no_file_is_written(here: Path) -> None:
    """The next file that is opened takes the free number, and prints go into it."""
    code = "from vtc_cli.__main__ import _fill_streams; import sys; _fill_streams(); "
    code += "open('a', 'w'); print('b'); print('c', file=sys.stderr)"
    done = shell(f'{sys.executable} -c "{code}" 2>&-', here)
    assert done.stdout == b"b\n" and Path("a").read_bytes() == b""


@pytest.mark.parametrize("locale", [ASCII, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_under_every_locale_text_is_utf8(here: Path, locale: dict[str, str]) -> None:
    Path("é.yaml").write_text("name: x\ndescription: ü\n", encoding="utf-8")
    done = shell("vtc recipes show é.yaml", here, **locale)
    assert done.returncode == 0, done.stderr
    assert "é.yaml" in done.stdout.decode("utf-8") and "ü" in done.stdout.decode("utf-8")


def test_a_name_that_is_no_utf8_is_shown_spelled_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, stem = os.fsdecode(b"p\xff.png"), os.fsdecode(b"o\xff")
    shutil.copy(PICTURE, picture)
    assert run_command_line(["run", picture, "what?", "--json", *SHORT, "-o", f"{stem}.json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["input"]["path"] == "p\\udcff.png"
    assert json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))["input"] == result["input"]
    arguments = ["compress", picture, "--question", "what?", "-r", "fastv", "-o", stem]
    assert run_command_line([*arguments, "--device", "cpu", "--json"]) == 0
    tokens = ["run", "--tokens", f"{stem}.safetensors", "--max-new-tokens", "2"]
    assert run_command_line([*tokens, "--device", "cpu", "--json"]) == 0
    capsys.readouterr()
    assert run_command_line(["jobs", ".", "what?"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a.png", "\udce9"],
        ["run", "a.png", "q", "--then", "\udce9"],
        ["compress", "a.png", "-o", "x", "--question", "\udce9"],
        ["compare", "a.png", "\udce9", "-r", "fastv"],
        ["analyze", "a.png", "\udce9"],
        ["run", "a.png", "q", "--seed", str(1 << 64)],
        ["run", "a.png", "q", "--seed", "-1"],
        ["run", "a.png", "q", "--max-new-tokens", str(1 << 64)],
        *(["run", "a.png", "q", "--temperature", text] for text in ("1e-320", "nan", "inf", "-1")),
        *(["run", "a.png", "q", "--budget", text] for text in ("1e-320", "nan", "inf", "1e308")),
        ["run", "a.png", "q", "--frames", "9" * 5000],
        ["run", "a.png", "q", "--time-limit", "1e30"],
        ["analyze", "a.png", "q", "--tau", "1e-320"],
        ["recipes", "solve", "fastv", "--layer-average", "1e-320"],
    ],
    ids=lambda words: " ".join(words)[:60].encode("ascii", "replace").decode(),
)
def test_what_is_no_text_and_no_number_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(arguments) == 2
    assert capsys.readouterr().err.startswith("error: wrong usage")


WRITERS: dict[str, tuple[list[str], list[str]]] = {
    "run": (["run", PICTURE, "what?", *SHORT, "-o", "o.json"], ["o.json"]),
    "overlay": (["run", PICTURE, "what?", *SHORT, "--overlay", "o.jpg"], ["o.jpg"]),
    "html": (["run", PICTURE, "what?", *SHORT, "--html", "o.html"], ["o.html"]),
    "analyze": (["analyze", PICTURE, "what?", "--device", "cpu", "-o", "o.json"], ["o.json"]),
    "plot": (["analyze", PICTURE, "what?", "--device", "cpu", "--plot", "o.svg"], ["o.svg"]),
    "compress": (
        ["compress", PICTURE, "-r", "uniform", "--device", "cpu", "-o", "o"],
        ["o.json", "o.png", "o.safetensors"],
    ),
    "solve": (
        ["recipes", "solve", "fastv", "--layer-average", "100", "-o", "o.yaml"],
        ["o.yaml"],
    ),
    "jobs": (["jobs", str(Path(PICTURE).parent), "what?", "-o", "o.jsonl"], ["o.jsonl"]),
    "compare": (
        ["compare", PICTURE, "what?", "--no-baselines", *SHORT, "--html", "o.html"],
        ["o.html"],
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_leaves_old_files_and_no_half_ones(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, written = WRITERS[name]
    for file in written:
        Path(file).write_text("old")
    with full_disk():
        assert run_command_line(arguments) == 1
    err = capsys.readouterr().err
    assert "could not be written: File too large" in err and "Traceback" not in err
    assert {path.name: path.read_text() for path in here.iterdir()} == dict.fromkeys(written, "old")


def test_no_system_s_fault_is_unexpected(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(error: OSError) -> Any:
        def call(output: Output) -> None:
            raise error

        return edge.run_guarded(call)

    assert broken(OSError(errno.ENOSPC, "No space left on device")) == 1
    assert "standard output" in capsys.readouterr().err
    assert broken(PermissionError(errno.EACCES, "Permission denied", "a/b")) == 1
    err = capsys.readouterr().err
    assert "where    a/b" in err and "found    Permission denied" in err


def settings_of(folder: Path) -> dict[str, Setting]:
    return found_settings(declared(run), Output(), folder)


@pytest.mark.parametrize("content", ["pipe", "deep", "no text"])
def test_settings_that_cannot_be_read_are_refused(here: Path, content: str) -> None:
    path = here / "vtc.toml"
    if content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"a = " + b"[" * 100_000 if content == "deep" else b"\xff\xfe")
    with pytest.raises(UsageError) as caught:
        settings_of(here)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("home", ["", "/dev/null", "nowhere"])
def test_without_a_home_there_are_no_settings_of_the_user(
    here: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    assert settings_of(here) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_of_settings_that_may_not_be_looked_into_holds_none(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "vtc").mkdir()
    (here / "vtc" / "vtc.toml").write_text("seed = 1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
    (here / "vtc" / "vtc.toml").chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        settings_of(here)
    (here / "vtc").chmod(0)
    try:
        assert settings_of(here) == {}
    finally:
        (here / "vtc").chmod(0o755)


def test_a_removed_current_folder_is_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run_command_line(["run", PICTURE, "what?", *SHORT]) == 2
    assert "the current folder" in capsys.readouterr().err


def test_pipes_and_devices_are_no_outputs_of_a_comparison(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    for target in ("pipe", "/dev/null", "/dev/zero", "/dev/stdout"):
        arguments = ["compare", PICTURE, "what?", "-r", "fastv", "-o", target]
        assert run_command_line(arguments) == 2
        assert "--output" in capsys.readouterr().err
    for source in ("pipe", "/dev/zero"):
        assert run_command_line(["compare", "--from", source]) == 2
        assert run_command_line(["run", "--tokens", source]) == 2
        assert "no regular file" in capsys.readouterr().err


def test_rows_of_a_comparison_whose_file_is_removed_are_not_lost(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append, arguments = RowFile.append, ["compare", PICTURE, "what?", "--no-baselines", *SHORT]

    def removed_after_the_first_row(file: RowFile, text: str) -> None:
        begun = file.end > 0  # the head is written before any row
        append(file, text)
        if begun:
            file.path.unlink()

    monkeypatch.setattr(RowFile, "append", removed_after_the_first_row)
    assert run_command_line([*arguments, "-o", "rows.jsonl"]) == 1
    assert "removed, moved or replaced" in capsys.readouterr().err
    monkeypatch.setattr(RowFile, "append", append)
    (saved,) = here.glob("rows.jsonl.saved-*")
    rows = saved.read_bytes().count(b"\n")
    saved.rename("rows.jsonl")
    assert run_command_line([*arguments, "-o", "rows.jsonl"]) == 0
    assert Path("rows.jsonl").read_bytes().count(b"\n") > rows >= 2
