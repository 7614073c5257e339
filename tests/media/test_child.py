"""The decoding process: hangs, greed, murder, Ctrl-C; it is gone afterwards in every case."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.media.clips import count_up, number_of, numbered, repeated
from vtc_cli.core.errors import MediaError
from vtc_cli.media import child
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.video import read_video

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
HANG = "ctypes.PyDLL(None).sleep(600)"  # in native code, and the interpreter lock is held
GREED = "bytearray(3 << 30)"
MURDER = "os.kill(os.getpid(), 9)"
CRASH = "ctypes.PyDLL(None).abort()"
WORDS = "raise ValueError('decord says no')"


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return count_up(tmp_path / "x.mp4", 20)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make a reader do something else when the child opens a file with it."""

    def spoiled(reader: str, deed: str) -> None:
        module, name = f"vtc_cli.media.{reader}_reader", f"{reader.capitalize()}Reader"
        code = (
            "import json, sys, os, ctypes\n"
            "job = json.loads(sys.stdin.buffer.readline())\n"
            "sys.path[:] = job.pop('search')\n"
            f"import {module} as module\n"
            f"def deed(*arguments):\n    {deed}\n"
            f"module.{name} = deed\n"
            "from vtc_cli.media.decoding import main\n"
            "main(job)"
        )
        monkeypatch.setattr(child, "START", code)

    return spoiled


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No child of this process outlives a test."""
    before = set(children(os.getpid()))
    yield
    assert set(children(os.getpid())) <= before


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (HANG, "gave nothing for 0.5 s"),
        (MURDER, r"died \(SIGKILL\)"),
        (CRASH, r"died \(SIGABRT\)"),
        (GREED, "takes more memory"),
        (WORDS, "decord says no"),
    ],
)
def test_pyav_takes_over_whatever_decord_does(
    clip: str, spoil: Any, monkeypatch: pytest.MonkeyPatch, deed: str, reason: str
) -> None:
    spoil("decord", deed)
    if deed == HANG:  # the others must be found out however slowly the child starts
        monkeypatch.setattr(child, "SILENCE_S", 0.5)
    media = read_video(clip, FrameOptions(frames=2, memory_limit_bytes=2 << 30))
    assert [number_of(frame) for frame in media.frames] == [5, 15]
    (note,) = media.warnings
    assert note.startswith("decord failed (") and note.endswith("PyAV was used")
    assert re.search(reason, note)


@pytest.mark.parametrize(
    ("deed", "found", "hint"),
    [
        (HANG, "not decoded after 2 s", "raise --time-limit"),
        (MURDER, r"the decoder died \(SIGKILL\)", "free some memory"),
        (CRASH, r"the decoder died \(SIGABRT\)", "convert it anew"),
        (GREED, "decoding takes more memory", "scale the video down"),
    ],
)
def test_a_reader_without_a_second_one_costs_one_clear_error(
    clip: str, spoil: Any, deed: str, found: str, hint: str
) -> None:
    spoil("pyav", deed)
    limit = 2.0 if deed == HANG else 120.0
    options = FrameOptions(reader="pyav", time_limit=limit, memory_limit_bytes=2 << 30)
    start = time.monotonic()
    with pytest.raises(MediaError, match=found) as caught:
        read_video(clip, options)
    assert time.monotonic() - start < 100  # nothing waited for the 600 s
    error = caught.value
    assert error.where == clip and error.allowed and hint in (error.hint or "")
    assert (error.exit_code, error.title) == (2, "unusable input")


def test_decord_that_hangs_costs_the_time_limit_and_names_the_other(clip: str, spoil: Any) -> None:
    spoil("decord", HANG)
    with pytest.raises(MediaError, match="not decoded after 1 s") as caught:
        read_video(clip, FrameOptions(reader="decord", time_limit=1.0))
    assert (caught.value.hint or "").startswith("--reader pyav, which jumps; ")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clip that keeps the decoder busy for some seconds: 45000 small frames."""
    pictures = [numbered(index // 10, 96, 48) for index in range(500)]
    return repeated(tmp_path_factory.mktemp("long") / "x.mp4", 1800, pictures)


QUESTION = ["what?", "-m", "narrow:llava_next_video"]
BUSY = ["--keyframes", "11000", "--reader", "pyav"]  # looks at 44000 frames before any is sent


def command_line(path: str) -> list[str]:
    return [sys.executable, "-m", "vtc_cli", "run", path, *QUESTION, *BUSY]


def started(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A command in a group of its own, and its decoding child."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        for pid in children(process.pid):
            with suppress(OSError):
                if "libavcodec" in Path(f"/proc/{pid}/maps").read_text():
                    return process, pid
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no child: {process.communicate()}")


def gone(pid: int) -> bool:
    """Whether a process has ended within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@linux
def test_ctrl_c_ends_parent_and_child(endless: str) -> None:
    process, decoder = started(command_line(endless))
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (out, errors) == ("", "interrupted\n")
    assert gone(decoder)


@linux
def test_a_child_that_the_system_kills_is_one_block(endless: str) -> None:
    process, decoder = started(command_line(endless))
    time.sleep(0.3)
    os.kill(decoder, signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and out == ""
    lines = errors.splitlines()
    assert lines[0] == "error: unusable input" and len(lines) == 5
    assert endless in lines[1] and "SIGKILL" in lines[2]


@linux
def test_no_child_outlives_a_killed_parent(endless: str) -> None:
    code = (
        "import sys; from vtc_cli.media.video import read_video; "
        "from vtc_cli.media.frame_options import FrameOptions; "
        "read_video(sys.argv[1], FrameOptions(keyframes=11000, reader='pyav'))"
    )
    process, decoder = started([sys.executable, "-c", code, endless])
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=120)
    assert gone(decoder)
