"""Jobs files as they come: sound, broken in every way, and far too long to be held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.support import ENVIRONMENT, settings, write_jobs
from vtc_cli.core.errors import MediaError
from vtc_cli.jobs import reading
from vtc_cli.jobs.job import Job
from vtc_cli.jobs.reading import JobsFile
from vtc_cli.media.items import LONGEST_LINE_BYTES
from vtc_cli.recipe.load import load_recipe

SOUND = {"media": "a.png", "question": "what?"}


def read(path: Path, **changes: Any) -> list[Job]:
    return list(JobsFile(str(path), settings(**changes)).jobs())


def test_a_job_has_everything_its_line_says(tmp_path: Path) -> None:
    line = {"id": 7, "answer": 3.50, "category": "count", "recipe": "mustdrop", "budget": 64}
    line["match"] = "contains"
    (job,) = read(write_jobs(tmp_path / "jobs.jsonl", [SOUND | line]))
    assert (job.line, job.id, job.expected, job.category) == (1, "7", "3.5", "count")
    assert job.match == "contains"
    assert (job.settings.recipe, job.settings.budget) == ("mustdrop", "64")
    assert job.recipe_sha256 == load_recipe("mustdrop").sha256
    assert (job.media, job.path) == ("a.png", str(tmp_path / "a.png"))
    assert job.fault is None


def test_a_recipe_file_is_seen_from_the_folder_of_the_jobs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "recipes" / "fastv.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text)
    (job,) = read(write_jobs(tmp_path / "jobs.jsonl", [SOUND | {"recipe": "mine.yaml"}]))
    assert job.settings.recipe == str(tmp_path / "mine.yaml")
    assert job.recipe_sha256 == load_recipe("fastv").sha256


FAULTS = {
    "no json": ("{", "no JSON"),
    "a list": ("[1]", "a list"),
    "no media": ('{"question": "what?"}', "no media"),
    "no question": ('{"media": "a.png"}', "no question"),
    "blank question": ('{"media": "a.png", "question": " "}', "question is blank"),
    "a number too deep": ("[" * 100_000, "nested too deeply"),
    "key twice": ('{"media": "a.png", "question": "a", "question": "b"}', "stands twice"),
    "recipe": ('{"media": "a.png", "question": "a", "recipe": "mustdorp"}', "mustdrop"),
    "recipe file": ('{"media": "a.png", "question": "a", "recipe": "no.yaml"}', "no such file"),
    "budget": ('{"media": "a.png", "question": "a", "budget": "many"}', "--budget 64"),
    "match": ('{"media": "a.png", "question": "a", "match": "nearly"}', "match is 'nearly'"),
    "standard input": ('{"media": "-", "question": "a"}', "media is -"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_line_is_one_failed_job_between_others(tmp_path: Path, name: str) -> None:
    line, words = FAULTS[name]
    other = SOUND | {"id": "after"}
    before, broken, after = read(write_jobs(tmp_path / "jobs.jsonl", [SOUND, line, other]))
    assert before.fault is None and after.fault is None
    assert broken.fault is not None and words in str(broken.fault)
    assert f"{tmp_path / 'jobs.jsonl'}, line 2" in str(broken.fault)


def test_a_broken_line_keeps_its_id(tmp_path: Path) -> None:
    (job,) = read(write_jobs(tmp_path / "jobs.jsonl", ['{"id": "x", "media": "a.png"}']))
    assert job.fault is not None and job.id == "x"


def test_bytes_that_are_no_text_spoil_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    latin = json.dumps(SOUND | {"question": "gr\u00fcn?"}, ensure_ascii=False).encode("latin-1")
    path.write_bytes(latin + b"\n" + json.dumps(SOUND).encode() + b"\n")
    broken, sound = read(path)
    assert "not UTF-8" in str(broken.fault)
    assert sound.fault is None


def test_a_byte_order_mark_is_no_fault_and_two_bytes_a_letter_are(tmp_path: Path) -> None:
    path, text = tmp_path / "jobs.jsonl", json.dumps(SOUND) + "\n"
    path.write_text(text, encoding="utf-8-sig")
    assert [job.fault for job in read(path)] == [None]
    path.write_text(text, encoding="utf-16")
    with pytest.raises(MediaError, match="UTF-16"):
        read(path)


def test_a_line_without_end_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    for longer in (1, LONGEST_LINE_BYTES, 3 * LONGEST_LINE_BYTES + 7):
        path = tmp_path / "jobs.jsonl"
        path.write_text("x" * (LONGEST_LINE_BYTES + longer) + "\n" + json.dumps(SOUND) + "\n")
        broken, sound = read(path)
        assert "too long" in str(broken.fault)
        assert (sound.line, sound.fault) == (2, None)
    path.write_text("x" * (2 * LONGEST_LINE_BYTES + 2))
    assert len(read(path)) == 1


@pytest.mark.parametrize(("text", "words"), [("", "no jobs"), ("\n \n", "no jobs")])
def test_an_empty_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(text)
    with pytest.raises(MediaError, match=words):
        read(path)
    with pytest.raises(MediaError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(MediaError, match="cannot be read"):
        read(tmp_path)


def test_a_second_job_of_an_id_is_a_fault_and_so_is_the_same_job_twice(tmp_path: Path) -> None:
    named = SOUND | {"id": "a"}
    other = {"media": "b.png", "question": "what?"}
    jobs = read(write_jobs(tmp_path / "jobs.jsonl", [named, SOUND, named, SOUND, other]))
    assert [job.fault is not None for job in jobs] == [False, False, True, True, False]
    assert "line 1" in str(jobs[2].fault) and "line 2" in str(jobs[3].fault)
    assert len({job.key for job in jobs}) == 5  # a fault has a key of its own


def test_a_key_changes_with_all_that_shapes_the_answer_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    path = write_jobs(tmp_path / "jobs.jsonl", [SOUND])
    same = {read(path)[0].key, read(path, device="cuda", batch_size=8, argv=("x",))[0].key}
    assert len(same) == 1
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert {read(write_jobs(moved / "jobs.jsonl", ["", SOUND]))[0].key} == same
    keys = set(same)
    for change in (
        {"model": "narrow:llava"},
        {"recipe": "fastv"},
        {"budget": "64"},
        {"seed": 1},
        {"max_new_tokens": 5},
        {"fidelity": "official"},
        {"dtype": "bfloat16"},
    ):
        keys.add(read(path, **change)[0].key)
    for values in ({"question": "why?"}, {"media": "b.png"}, {"recipe": "uniform"}):
        keys.add(read(write_jobs(path, [SOUND | values]))[0].key)
    assert len(keys) == 11


COUNTING = """
import resource, sys
from tests.jobs.support import settings
from vtc_cli.jobs.reading import JobsFile

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

file = JobsFile(sys.argv[1], settings())
jobs = file.jobs()
next(jobs)  # loads what reading needs
before = peak()
print(file.count(), 1 + sum(job.fault is None for job in jobs), peak() - before)
"""


def test_a_hundred_thousand_jobs_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    with path.open("w") as stream:
        for number in range(100_000):
            question = f"{number} " + "what is it? " * 50
            stream.write(json.dumps({"media": f"{number}.png", "question": question}) + "\n")
    finished = subprocess.run(
        [sys.executable, "-c", COUNTING, str(path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines, sound, grown_bytes = map(int, finished.stdout.split())
    assert lines == sound == 100_000
    assert grown_bytes < 30_000_000 < path.stat().st_size / 2  # what tells ids apart, no job


def test_a_line_without_an_end_ends_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `vtc run --batch - < /dev/zero` gives; with a smaller bound, for time."""
    monkeypatch.setattr(reading, "MOST_PASSED_BYTES", 10 * LONGEST_LINE_BYTES)
    with open("/dev/zero", "rb") as zero:
        lines = reading._lines(zero)
        assert len(next(lines)[1]) > LONGEST_LINE_BYTES
        with pytest.raises(MediaError, match="a line without an end"):
            next(lines)
