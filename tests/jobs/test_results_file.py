"""Results files: locked, repaired, refused if they are another's, whole on a full disk."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs import appender
from tests.jobs.appender import SETTINGS, job, line
from tests.jobs.support import ENVIRONMENT, ROOT, lines_of, settings
from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.jobs.progressed import Progressed
from vtc_cli.jobs.results_file import ResultsFile

ERROR = {"type": "MediaError", "message": "gone"}


def written(path: Path, *numbers: int, failed: tuple[int, ...] = ()) -> Path:
    with ResultsFile(path) as results:
        for number in numbers:
            results.append(line(job(number), ERROR if number in failed else None))
    return path


def ids(path: Path) -> list[str]:
    return [str(values["id"]) for values in lines_of(path)]


def test_lines_are_appended_and_known_again(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", 1, 2)
    with ResultsFile(path) as results:
        progressed = Progressed(results)
        assert (progressed.count, progressed.failed) == (2, 0)
        assert [progressed.has(job(number)) for number in (1, 2, 3)] == [True, True, False]
        results.append(line(job(3)))
    assert ids(path) == ["job-1", "job-2", "job-3"]


@pytest.mark.parametrize("left", [1, 8, 9, 200, -1])
def test_a_torn_last_line_goes_and_its_job_is_done_again(tmp_path: Path, left: int) -> None:
    path = written(tmp_path / "r.jsonl", 1, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    cut = len(whole) - 1 if left == -1 else first + left
    path.write_bytes(whole[:cut])
    with ResultsFile(path) as results:
        assert results.repaired_bytes == cut - first
        assert not Progressed(results).has(job(2))
        results.append(line(job(2)))
    assert path.read_bytes() == whole


def test_a_tail_of_zeros_is_what_a_lost_machine_leaves(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(5000))
    with ResultsFile(path) as results:
        assert results.repaired_bytes == 5000
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "text",
    ["my notes", "my notes\n", '{"id": "a", "media": "b.png", "question": "c"}\n', '{"id":1}\n'],
)
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with (
        pytest.raises(UsageError, match=r"no result of a batch|neither whole"),
        ResultsFile(path) as f,
    ):
        Progressed(f)
    assert path.read_text() == text
    with ResultsFile(path, anew=True) as results:
        assert path.read_text() == text  # until there is something to write
        results.append(line(job(1)))
    assert ids(path) == ["job-1"]


def test_an_empty_file_that_was_made_here_goes_away(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "made.jsonl").close()
    (tmp_path / "there.jsonl").touch()
    ResultsFile(tmp_path / "there.jsonl").close()
    assert [path.name for path in tmp_path.iterdir()] == ["there.jsonl"]


def test_what_cannot_be_a_results_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "directory"),
        (tmp_path / "no" / "r.jsonl", "No such file"),
        (Path("/dev/null"), "device"),
        (tmp_path / "pipe", "device or a pipe"),
    ):
        with pytest.raises(UsageError, match=words):
            ResultsFile(path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with ResultsFile(path) as results:
        results.append(line(job(1)))
        other = run_appender(path, 5)
        assert other.returncode == 1
        assert "another process is writing to this file" in other.stderr
        assert ids(path) == ["job-1"]
    assert run_appender(path, 5).returncode == 0
    assert ids(path) == [f"job-{number}" for number in range(1, 6)]


def run_appender(path: Path, count: int) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, appender.__file__, str(path), str(count)]
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, cwd=ROOT)


def test_another_model_seed_or_recipe_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", 1, 2)
    with ResultsFile(path) as results:
        progressed = Progressed(results)
        progressed.check_settings(settings())
        for change, words in (
            ({"model": "narrow:llava"}, "model auto there, narrow:llava here"),
            ({"seed": 3}, "seed 0 there, 3 here"),
            ({"max_new_tokens": 5, "seed": 3}, "max_new_tokens 64 there, 5 here, seed 0 there"),
        ):
            with pytest.raises(UsageError, match=words):
                progressed.check_settings(settings(**change))
        other = appender.make_job(
            3, {"media": "3.png", "question": "?"}, settings(recipe="fastv"), "1" * 64, "3.png"
        )
        with pytest.raises(UsageError, match="recipe full there, fastv here"):
            progressed.check_recipes([other])
        with pytest.raises(UsageError, match="recipe full there, fastv here"):
            progressed.check_recipe(other)
        assert progressed.check_recipes([job(1), job(9), other]) == (3, 1)  # a mixture of both


def test_an_edited_recipe_and_an_edited_question_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", 1)
    values = {"id": "job-1", "media": "1.png", "question": "what?"}
    with ResultsFile(path) as results:
        progressed = Progressed(results)
        edited = appender.make_job(1, values, SETTINGS, "f" * 64, "1.png")
        with pytest.raises(UsageError, match="recipe_sha256"):
            progressed.has(edited)
        values["question"] = "why?"
        with pytest.raises(UsageError, match="the job 'job-1' asked something else there"):
            progressed.has(appender.make_job(1, values, SETTINGS, "0" * 64, "1.png"))


def test_failed_lines_are_taken_out_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", 1, 2, 3, 4, failed=(2, 4))
    path.chmod(0o640)
    with ResultsFile(path) as results:
        assert results.drop_failed() == 2
        with pytest.raises(UsageError, match="another process"):
            ResultsFile(path)  # the new file is locked too
        progressed = Progressed(results)
        assert [progressed.has(job(number)) for number in (1, 2, 3, 4)] == [
            True,
            False,
            True,
            False,
        ]
        results.append(line(job(2)))
    assert ids(path) == ["job-1", "job-3", "job-2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_full_disk_leaves_whole_lines_and_room_lets_it_go_on(tmp_path: Path) -> None:
    """The kernel itself refuses to write beyond a size, in the middle of a line."""
    path, limit = tmp_path / "r.jsonl", 20_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    done = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with ResultsFile(path) as results:
            with pytest.raises(VtcError, match="could not be written") as caught:
                while True:
                    results.append(line(job(done + 1)))
                    done += 1
            assert caught.value.hint is not None and "goes on" in caught.value.hint
            assert 0 < path.stat().st_size < limit - 500  # half a line was written and cut off
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(lines_of(path)) == done > 2
    assert run_appender(path, 30).returncode == 0
    assert ids(path) == [f"job-{number}" for number in range(1, 31)]


def test_killed_at_many_random_points_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    path, count, chance = tmp_path / "r.jsonl", 10_000, random.Random(0)
    kills, seen = 0, 0
    while True:
        child = subprocess.Popen(
            [sys.executable, appender.__file__, str(path), str(count)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert child.stdout is not None
        with child, child.stdout as told:
            assert told.readline() == "ready\n"
            if kills < 25:
                time.sleep(chance.random() * 0.1)
                child.send_signal(signal.SIGKILL)
                kills += 1
            elif told.readline() == "done\n":
                break
        whole = [text for text in path.read_bytes().split(b"\n")[:-1] if json.loads(text)]
        assert len(whole) >= seen  # what was there stays there
        seen = len(whole)
    assert kills == 25 and 0 < seen < count
    assert sorted(ids(path)) == sorted(f"job-{number}" for number in range(1, count + 1))
