"""Media read ahead: in order, within bounds, errors passed on, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs.support import items, settings, write_jobs
from tests.media.clips import numbered, write
from vtc_cli.core.errors import MediaError
from vtc_cli.jobs.ahead import ReadAhead
from vtc_cli.jobs.job import Job
from vtc_cli.jobs.local import chunks
from vtc_cli.jobs.reading import JobsFile
from vtc_cli.jobs.work import read_job


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    path = write_jobs(tmp_path / "jobs.jsonl", items(10))
    return list(JobsFile(str(path), settings()).jobs())


def watched(jobs: list[Job], taken: list[int]) -> Iterator[Job]:
    for job in jobs:
        taken.append(job.line)
        yield job


def settled(taken: list[int], expected: int) -> int:
    """How many jobs are taken when `expected` are (or a minute went by) and none follows."""
    end, before = time.monotonic() + 60, -1
    while len(taken) != before or (before < expected and time.monotonic() < end):
        before = len(taken)
        time.sleep(0.1)
    return before


def test_media_come_in_order_and_are_those_of_their_jobs(jobs: list[Job]) -> None:
    with ReadAhead(jobs, read_job) as ahead:
        found = list(ahead)
    assert [ready.task.line for ready in found] == list(range(1, 11))
    for ready in found:
        assert not isinstance(ready.media, Exception)
        assert ready.media.path == ready.task.path


def test_no_more_is_read_than_was_allowed(jobs: list[Job]) -> None:
    for bounds, most in (({"most_tasks": 3}, 3), ({"most_bytes": 1}, 1)):
        taken: list[int] = []
        with ReadAhead(watched(jobs, taken), read_job, **bounds) as ahead:
            assert settled(taken, most) == most
            source = iter(ahead)
            for done in range(1, 4):
                next(source)
                assert settled(taken, most + done) == most + done


def test_leaving_early_ends_the_thread(jobs: list[Job]) -> None:
    before = threading.active_count()
    with ReadAhead(jobs, read_job, most_tasks=1) as ahead:
        next(iter(ahead))
    for _ in range(1200):
        if threading.active_count() <= before:  # one of an earlier test may end too
            return
        time.sleep(0.05)
    raise AssertionError("the thread still runs")


def broken_source(jobs: list[Job]) -> Iterator[Job]:
    yield from jobs[:3]
    raise MediaError("the pipe broke")


def test_an_error_of_the_source_comes_behind_the_jobs_before_it(jobs: list[Job]) -> None:
    seen = []
    with (
        ReadAhead(broken_source(jobs), read_job) as ahead,
        pytest.raises(MediaError, match="pipe broke"),
    ):
        for chunk in chunks(ahead, 2):
            seen.append([ready.task.line for ready in chunk])
    assert seen == [[1, 2], [3]]


def test_pictures_clips_and_broken_files_side_by_side(tmp_path: Path, jobs: list[Job]) -> None:
    clip = write(tmp_path / "clip.mp4", [numbered(number) for number in range(12)])
    (tmp_path / "broken.mp4").write_bytes(Path(clip).read_bytes()[:500])
    mixed = [
        jobs[0],
        replace(jobs[1], path=clip),
        replace(jobs[2], path=str(tmp_path / "broken.mp4")),
        jobs[3],
    ]
    with ReadAhead(mixed, read_job) as ahead:
        media = [ready.media for ready in ahead]
    assert isinstance(media[2], MediaError)
    kinds = [getattr(each, "kind", None) for each in media]
    assert kinds == ["image", "video", None, "image"]
