"""A batch with a real model that is killed, interrupted and starved on the way."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.jobs.support import (
    ENVIRONMENT,
    EVAL,
    Zygote,
    comparable,
    items,
    lines_of,
    passes_of,
    write_jobs,
    zygote,
)
from vtc_cli.app import run_command_line

JOBS = items(10)
COMMAND = ["run", "--batch", "jobs.jsonl", "-o", "results.jsonl", "--device", "cpu"]
COMMAND += ["-r", "uniform", "-b", "32", "--max-new-tokens", "4"]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    folder = tmp_path_factory.mktemp("kill")
    with zygote(folder) as process:
        yield process


@pytest.fixture
def here(process: Zygote) -> Path:
    """The folder of the processes, with jobs and without results."""
    write_jobs(process.folder / "jobs.jsonl", JOBS)
    (process.folder / "results.jsonl").unlink(missing_ok=True)
    return process.folder


def wait_for_lines(path: Path, count: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"not {count} lines after {seconds:g} s")


def kill_on_the_way(process: Zygote, here: Path, kills: int, seed: int) -> None:
    """Start and kill until the batch gets to its end; then look at every line."""
    path, chance, seen = here / "results.jsonl", random.Random(seed), 0
    for _ in range(kills):
        pid = process.start(*COMMAND)
        wait_for_lines(path, min(seen + 1, len(JOBS)))
        time.sleep(chance.random() * 0.2)
        with suppress(ProcessLookupError):  # it got to its end meanwhile
            os.kill(pid, signal.SIGKILL)
        assert process.status() in (-signal.SIGKILL, 0)
        whole = path.read_bytes().split(b"\n")[:-1]
        assert len(whole) >= seen and all(json.loads(line)["error"] is None for line in whole)
        seen = len(whole)
        if seen == len(JOBS):
            break
    process.start(*COMMAND)
    assert process.status() == 0, process.told("err")
    assert [line["id"] for line in lines_of(path)] == [job["id"] for job in JOBS]


def undisturbed(process: Zygote, here: Path) -> list[object]:
    process.start(*COMMAND[:4], "calm.jsonl", *COMMAND[5:])
    assert process.status() == 0, process.told("err")
    return [comparable(line) for line in lines_of(here / "calm.jsonl")]


def test_killed_batches_go_on_and_end_as_if_nothing_had_been(process: Zygote, here: Path) -> None:
    kill_on_the_way(process, here, kills=4, seed=0)
    ours = [comparable(line) for line in lines_of(here / "results.jsonl")]
    assert ours == undisturbed(process, here)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_killed_at_many_more_points(process: Zygote, here: Path, seed: int) -> None:
    kill_on_the_way(process, here, kills=8, seed=seed)


@pytest.mark.slow
def test_killed_comparisons_go_on_and_end_as_if_nothing_had_been(
    process: Zygote, here: Path
) -> None:
    command = ["compare", "--data", str(EVAL), "--limit", "5", "-r", "fastv", "-b", "64", "--json"]
    path, chance, seen = here / "rows.jsonl", random.Random(0), 0
    for _ in range(6):
        pid = process.start(*command, "-o", path.name)
        wait_for_lines(path, seen + 1)
        time.sleep(chance.random() * 0.4)
        with suppress(ProcessLookupError):  # it got to its end meanwhile
            os.kill(pid, signal.SIGKILL)
        assert process.status() in (-signal.SIGKILL, 0)
        whole = path.read_bytes().split(b"\n")[:-1]
        assert len(whole) >= seen and all(json.loads(line) for line in whole)
        seen = min(len(whole), 1 + 5 * 7 - 1)
    for name in (path.name, "calm.jsonl"):
        process.start(*command, "-o", name)
        assert process.status() == 0, process.told("err")
    assert len(lines_of(path)) == len(lines_of(here / "calm.jsonl")) == 1 + 5 * (1 + 1 + 1 + 4)
    killed, calm = passes_of(path), passes_of(here / "calm.jsonl")
    assert killed == calm


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(process: Zygote, here: Path) -> None:
    pid = process.start(*COMMAND)
    wait_for_lines(here / "results.jsonl", 2)
    os.kill(pid, signal.SIGINT)
    assert process.status() == 130
    told = process.told("err")
    assert "interrupted" in told and "Traceback" not in told
    assert f"go on with: vtc {' '.join(COMMAND)}" in told
    done = len(lines_of(here / "results.jsonl"))
    assert 2 <= done < len(JOBS)
    process.start(*COMMAND, "--json")
    assert process.status() == 0
    summary = json.loads(process.told("out"))
    assert (summary["done_before"], summary["done"]) == (done, len(JOBS) - done)


def test_two_batches_on_one_file(
    process: Zygote,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pid = process.start(*COMMAND)
    wait_for_lines(here / "results.jsonl", 1)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.chdir(here)
    try:
        assert run_command_line(COMMAND) == 2
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "another process is writing to this file" in capsys.readouterr().err
    assert process.status() == 0
    assert len(lines_of(here / "results.jsonl")) == len(JOBS)


STARVED = """
import resource, sys
from pathlib import Path
from tests.jobs.support import settings
from vtc_cli.commands.loading import load_session
from vtc_cli.commands.output import Output
from vtc_cli.jobs.reading import JobsFile
from vtc_cli.jobs.work import Worker

worker = Worker(load_session(Output(quiet=True), "tiny", "cpu"))
ready = [worker.read(job) for job in JobsFile(sys.argv[1], settings()).jobs()]
kinds = []
for together in (1, 2):
    lines = worker.results(ready[:1])  # with memory
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), before[1]))
    lines += worker.results(ready[:together])
    resource.setrlimit(resource.RLIMIT_AS, before)
    lines += worker.results(ready[-1:])
    kinds.append([line.error and line.error.type for line in lines])
print(kinds)
"""


def test_a_job_without_memory_is_recorded_and_the_next_one_is_done(tmp_path: Path) -> None:
    """The system itself gives no more memory for a while."""
    path = write_jobs(tmp_path / "jobs.jsonl", JOBS[:3])
    finished = subprocess.run(
        [sys.executable, "-c", STARVED, str(path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    starved = "MemoryExhaustedError"
    assert ast.literal_eval(finished.stdout) == [
        [None, starved, None],
        [None, starved, starved, None],
    ]
