"""Only regular files are read; what is written is there whole or not at all."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vtc_cli.core.errors import VtcError
from vtc_cli.core.files import (
    check_output,
    check_regular,
    open_regular,
    read_bytes,
    sha256_of,
    write_all,
    write_whole,
)


@contextmanager
def full_disk(room_bytes: int = 100) -> Iterator[None]:
    """The limit on the size of files stands for a disk that fills."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def odd_files(tmp_path: Path) -> Iterator[list[str]]:
    """Names that hang, never end, or hold nothing to read; `/proc/kmsg` waits for the kernel."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        names = [str(tmp_path / name) for name in ("pipe", "link", "socket", ".")]
        yield [*names, "/dev/zero", "/dev/null", "/dev/full", "a\0b", "\ud800"]


def test_what_is_no_regular_file_is_not_opened(odd_files: list[str]) -> None:
    for name in odd_files:
        for read in (open_regular, sha256_of, lambda path: read_bytes(path, 10)):
            with pytest.raises(OSError):
                read(name)


def test_a_pipe_with_somebody_at_its_other_end_is_refused_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(OSError, match="no regular file"):
            open_regular(pipe)
        with pytest.raises(OSError, match="no regular file"):
            check_output(pipe)
    finally:
        os.close(end)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux only")
def test_a_file_that_claims_no_bytes_is_not_read() -> None:
    assert Path("/proc/self/status").read_bytes()
    with open_regular("/proc/self/status") as stream:
        assert stream.read() == b""


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, and at most 4"):
        read_bytes(path, 4)
    os.truncate(path, 1 << 40)  # a hole: it takes no room, and reading it would
    with pytest.raises(OSError, match="at most"):
        read_bytes(path, 1 << 30)


def test_a_folder_with_a_pipe_far_below_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "nowhere").symlink_to("gone")
    check_regular(tmp_path)
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        check_regular(tmp_path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with full_disk(), pytest.raises(VtcError, match="could not be written"):
        write_whole(path, "new" * 100)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    path.unlink()
    with full_disk(), pytest.raises(VtcError):
        write_whole(path, "new" * 100)
    assert not list(tmp_path.iterdir())


def test_links_rights_and_the_longest_names_stay(tmp_path: Path) -> None:
    target, link = tmp_path / ("ü" * 127), tmp_path / "link"  # 254 bytes of 255
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    check_output(link)
    assert target.read_text() == "old"
    write_whole(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_looking_whether_it_could_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
    for name in ("no/such/folder", "x" * 300, "."):
        with pytest.raises(OSError):
            check_output(tmp_path / name)


def test_nothing_goes_through_a_pipe_or_a_device(odd_files: list[str]) -> None:
    for name in odd_files:
        if name != "/dev/null":
            with pytest.raises(OSError):
                check_output(Path(name))
            with pytest.raises(VtcError):
                write_all({Path(name): b"x"})
    write_whole(Path("/dev/null"), "x")
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


def test_stdout_by_its_name_keeps_what_was_printed_before(tmp_path: Path) -> None:
    """A renaming would take the file away from the shell's redirection, and its lines with it."""
    code = (
        "from pathlib import Path; from vtc_cli.core.files import write_whole; "
        "print('before'); write_whole(Path('/dev/stdout'), 'written\\n'); print('behind')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nwritten\nbehind\n"
