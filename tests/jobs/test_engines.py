"""The engines as other commands use them, and what is seen of a batch on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.jobs.support import ENVIRONMENT, ITEMS, items, settings, write_jobs
from vtc_cli.commands.output import Output
from vtc_cli.jobs.engines import EngineOptions, started
from vtc_cli.jobs.job import Job, make_job
from vtc_cli.jobs.work import JobWork
from vtc_cli.recipe.load import load_recipe
from vtc_cli.report.result import BatchLine, BatchResult


def test_jobs_of_one_item_under_several_recipes_are_taken_as_needed() -> None:
    """As a comparison asks for them: no jobs file, one generator."""
    batch = settings(device="cpu", max_new_tokens=3)
    asked: list[int] = []

    def jobs() -> Iterator[Job]:
        for number, item in enumerate(items(12), start=1):
            recipe, budget = (("full", "none"), ("uniform", "64"))[number % 2]
            own = replace(batch, recipe=recipe, budget=budget)
            asked.append(number)
            yield make_job(number, item, own, load_recipe(recipe).sha256, item["media"])

    with started(JobWork(batch), EngineOptions(), Output(quiet=True)) as running:
        assert asked == []
        lines = running.results(jobs())
        first = BatchLine.model_validate_json(next(lines).text).root
        assert len(asked) < 12
        rest = list(lines)
    assert isinstance(first, BatchResult)
    assert (first.recipe.name, first.tokens.requested) == ("uniform", 64.0)
    assert first.job.expected == items(12)[0]["answer"]
    assert [line.job_line for line in rest] == list(range(2, 13))


def test_a_terminal_shows_rate_and_time_left_and_a_pipe_the_summary(tmp_path: Path) -> None:
    write_jobs(tmp_path / "jobs.jsonl", [*items(6), "{"])
    arguments = ["run", "--batch", "jobs.jsonl", "-o", "r.jsonl", "--max-new-tokens", "2"]
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "vtc_cli", *arguments],
        cwd=tmp_path,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        seen = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            seen += part
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(main)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert process.returncode == 1
    assert "7/7" in text and re.search(r"\d\.\d\d jobs/s", text) and "left" in text
    assert "job ? (line 7) failed" in text
    assert out.startswith("6 done, 0 done before, 1 failed: r.jsonl\n")
    assert re.search(r"^\d+\.\d s, \d+\.\d\d jobs/s, \d+\.\d answer tokens/s$", out, re.MULTILINE)
    assert re.search(r"^\d of 6 answers as expected$", out, re.MULTILINE)


def test_items_were_found() -> None:
    assert len(ITEMS) == 400
