"""Jobs over the shipped evaluation pictures, and lines without what a clock or a place says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vtc_cli.jobs.job import Settings
from vtc_cli.media.frame_options import FrameOptions

ROOT = Path(__file__).parents[2]
EVAL = ROOT / "samples" / "eval" / "items.jsonl"
EVALUATION = ROOT / "samples" / "eval"
ITEMS = [json.loads(line) for line in (EVALUATION / "items.jsonl").read_text().splitlines()]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PERCENT = re.compile(r"\d+ %|[\d.]+x")
Values = dict[str, Any]


def settings(**changes: Any) -> Settings:
    return Settings(frames=FrameOptions(), **changes)


def items(count: int) -> list[Values]:
    """Evaluation items of different kinds, their pictures by absolute path."""
    step = len(ITEMS) // count
    return [{**item, "media": str(EVALUATION / item["media"])} for item in ITEMS[::step][:count]]


def write_jobs(path: Path, jobs: list[Any]) -> Path:
    """A jobs file; texts are lines as they stand."""
    lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def lines_of(path: Path) -> list[Values]:
    """Every line of a results file; each must be whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def comparable(line: Values, *more: str) -> Values:
    """A line without times, memory, the command line and the fields `more`."""
    left_out = {"created", "argv", "time_ms", "memory", *more}
    kept = {name: value for name, value in line.items() if name not in left_out}
    if isinstance(kept.get("verdict"), str):  # it names shares of time
        kept["verdict"] = PERCENT.sub("", kept["verdict"]).partition(";")[0]
    if isinstance(kept.get("baseline"), dict):
        kept["baseline"] = comparable(kept["baseline"])
    return kept


def vtc(*arguments: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A real process."""
    return subprocess.run(
        [sys.executable, "-m", "vtc_cli", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **options,
    )


class Zygote:
    """Forks command lines that can be killed; see `zygote.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        assert self._answer() == "ready"

    def start(self, *arguments: str) -> int:
        """Carry out a command line; its process id."""
        for stream in ("out", "err"):
            (self.folder / f"told.{stream}").unlink(missing_ok=True)
        order = {"arguments": arguments, "folder": str(self.folder)}
        order["told"] = str(self.folder / "told")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def status(self) -> int:
        """Exit status of the last one, when it ended; a signal's number below 0."""
        return int(self._answer())

    def told(self, stream: str) -> str:
        """What the last one wrote to `out` or `err`."""
        return (self.folder / f"told.{stream}").read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def zygote(folder: Path) -> Iterator[Zygote]:
    process = Zygote(folder)
    try:
        yield process
    finally:
        process.close()


NEAR = {"kl_first_token", "answer_nll_delta"}  # another process may round the last digits anew
UNLIKE = {"time_ms", "memory", "warnings"}


def passes_of(path: Path) -> dict[tuple[str, str, str], Values]:
    """Passes by what was asked, each of which must be there once, without times."""
    lines = [line for line in lines_of(path) if line["kind"] == "pass"]
    found = {(line["item"], line["recipe"], line["budget"]): line for line in lines}
    assert len(found) == len(lines) and not any(x["kind"] == "failure" for x in lines_of(path))
    for line in found.values():
        line.update(dict.fromkeys(UNLIKE))
        close = line["fidelity"] or {}
        line["near"] = [close.pop(name) for name in sorted(NEAR & close.keys())]
    return found
