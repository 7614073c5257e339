"""`vtc run --batch` as a user meets it: the lines of a batch are the results of single runs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.jobs.support import ROOT, Values, comparable, items, lines_of, write_jobs
from vtc_cli.app import run_command_line
from vtc_cli.jobs.results_file import ResultsFile
from vtc_cli.report.result import BatchLine, BatchResult, Failure
from vtc_cli.report.table import NO_ACCURACY

RECIPES: list[Values] = [
    {},
    {"recipe": "mustdrop", "budget": 64},
    {"recipe": "fastv"},
    {"recipe": "tokencarve", "budget": "default"},
    {"recipe": "random", "budget": 128},
]
JOBS = [item | recipe for item, recipe in zip(items(5), RECIPES, strict=True)]
SHORT = ["--max-new-tokens", "6", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of five jobs under five recipes."""
    folder = tmp_path_factory.mktemp("batch")
    path = write_jobs(folder / "jobs.jsonl", JOBS)
    target = folder / "results.jsonl"
    assert run_command_line(["run", "--batch", str(path), "-o", str(target), *SHORT]) == 0
    return target


def run_batch(jobs: list[Any], *arguments: str) -> int:
    write_jobs(Path("jobs.jsonl"), jobs)
    return run_command_line(
        ["run", "--batch", "jobs.jsonl", "-o", "results.jsonl", *SHORT, *arguments]
    )


@pytest.mark.usefixtures("here")
def test_random_weights_are_named_once_and_quiet_hides_it_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in ([], ["-q"]):
        options = ["-m", "narrow:llava", "--no-resume", *quiet]
        assert run_batch(list(items(2)), *options) == 0
        assert capsys.readouterr().err == f"warning: {NO_ACCURACY}\n"


def test_each_line_is_the_result_of_a_single_run(
    batch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(batch)
    for job, line in zip(JOBS, lines, strict=True):
        arguments = ["run", job["media"], job["question"], "--json", *SHORT]
        arguments += ["-r", job["recipe"]] if "recipe" in job else []
        arguments += ["-b", str(job["budget"])] if "budget" in job else []
        capsys.readouterr()
        assert run_command_line(arguments) == 0
        single = json.loads(capsys.readouterr().out)
        assert comparable(line, "id", "job") == comparable(single)
        assert set(line) == set(single) | {"id", "job"}


def test_a_line_keeps_what_its_job_says_and_judges_the_answer(batch: Path) -> None:
    for number, (job, line) in enumerate(zip(JOBS, lines_of(batch), strict=True), start=1):
        assert line["id"] == job["id"]
        block = line["job"]
        assert (block["line"], block["media"], block["question"]) == (
            number,
            job["media"],
            job["question"],
        )
        assert (block["expected"], block["category"]) == (job["answer"], job["category"])
        assert block["correct"] is (line["answer"] == job["answer"])
        assert block["asked"]["recipe"] == line["recipe"]["name"]
        assert block["asked"]["recipe_sha256"] == line["recipe"]["sha256"]
        assert isinstance(BatchLine.model_validate(line).root, BatchResult)
    assert {line["job"]["correct"] for line in lines_of(batch)} >= {True}
    with pytest.raises(ValidationError):
        BatchLine.model_validate({"id": "x"})


def test_the_growth_of_a_process_that_reads_ahead_is_nobodys_memory(batch: Path) -> None:
    assert {line["memory"]["peak_bytes"] for line in lines_of(batch)} == {None}
    assert all(line["time_ms"]["total"] > 0 for line in lines_of(batch))


@pytest.mark.parametrize("size", ["2", "5"])
def test_jobs_decoded_together_answer_as_one_by_one(batch: Path, here: Path, size: str) -> None:
    assert run_batch(JOBS, "--batch-size", size) == 0
    ours, theirs = lines_of(here / "results.jsonl"), lines_of(batch)
    assert [line["id"] for line in ours] == [line["id"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        note = [text for text in mine["warnings"] if "decoded together" in text]
        alone = size == "2" and mine is ours[-1]  # the last of five has nobody beside it
        assert len(note) == (0 if alone else 1)
        times = mine["time_ms"]
        assert (times["decode_per_token"] is None) is (times["total"] is None) is (not alone)
        assert times["ttft"] > 0 and times["prefill"] > 0
        mine["warnings"] = [text for text in mine["warnings"] if text not in note]
        assert comparable(mine) == comparable(other)


def test_a_batch_goes_on_where_it_stopped(
    batch: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = batch.read_bytes().splitlines(keepends=True)
    torn = b"".join(head[:2]) + head[2][:100]
    (here / "results.jsonl").write_bytes(torn)
    assert run_batch(JOBS, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done_before"], summary["done"], summary["failed"]) == (2, 3, 0)
    assert any("torn" in note for note in summary["notes"])
    ours = lines_of(here / "results.jsonl")
    assert [comparable(line) for line in ours] == [comparable(line) for line in lines_of(batch)]
    before = (here / "results.jsonl").read_bytes()
    assert run_batch(JOBS) == 0
    assert (here / "results.jsonl").read_bytes() == before
    assert "0 done, 5 done before, 0 failed" in capsys.readouterr().out


def test_another_recipe_or_model_is_refused_and_may_start_anew(
    batch: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "results.jsonl").write_bytes(batch.read_bytes())
    jobs = [{name: job[name] for name in ("id", "media", "question")} for job in JOBS]
    for arguments, words in (
        (["--seed", "1"], "seed 0 there, 1 here"),
        (["-m", "narrow:llava"], "model auto there, narrow:llava here"),
        (["-r", "uniform"], "recipe full there, uniform here"),
    ):
        assert run_batch(jobs, *arguments) == 2
        assert words in capsys.readouterr().err
    assert (here / "results.jsonl").read_bytes() == batch.read_bytes()
    assert run_batch(jobs[:1], "-r", "uniform", "--no-resume") == 0
    assert [line["recipe"]["name"] for line in lines_of(here / "results.jsonl")] == ["uniform"]


def bad_jobs(folder: Path) -> list[Any]:
    """Sound pictures between everything that can be wrong."""
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    first, second = ({**job, "id": f"sound-{i}"} for i, job in enumerate(JOBS[:2]))
    question = {"question": "what is it?"}
    return [
        first,
        "{",
        {"id": "missing", "media": "no.png", **question},
        {"id": "text", "media": "text.png", **question},
        {"id": "empty", "media": "empty.png", **question},
        {"id": "sound-0", "media": "a.png", **question},
        {"id": "small", "media": first["media"], "recipe": "mustdrop", "budget": 1, **question},
        {"id": "unknown", "media": first["media"], "recipe": "mustdorp", **question},
        second,
    ]


@pytest.mark.parametrize("size", ["1", "4"])
def test_failed_jobs_are_recorded_and_the_rest_is_done(
    here: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert run_batch(bad_jobs(here), "--batch-size", size) == 1
    captured = capsys.readouterr()
    assert "2 done, 0 done before, 7 failed" in captured.out
    assert "job missing (line 3) failed" in captured.err and "Traceback" not in captured.err
    lines = lines_of(here / "results.jsonl")
    assert sorted(line["job"]["line"] for line in lines) == list(range(1, 10))
    by_line = {line["job"]["line"]: line for line in lines}
    errors = {number: line["error"] for number, line in by_line.items() if line["error"]}
    kinds = {number: error["type"] for number, error in errors.items()}
    assert kinds == {
        2: "JobError",
        3: "MediaError",
        4: "MediaError",
        5: "MediaError",
        6: "JobError",
        7: "BudgetError",
        8: "JobError",
    }
    assert "no such file" in errors[3]["message"] and "line 2" in errors[2]["message"]
    assert [by_line[number]["id"] for number in (1, 2, 3, 6, 9)] == [
        "sound-0",
        None,
        "missing",
        "sound-0",
        "sound-1",
    ]
    assert isinstance(BatchLine.model_validate(by_line[3]).root, Failure)


def test_failed_jobs_are_left_alone_or_done_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = bad_jobs(here)
    assert run_batch(jobs) == 1
    before = (here / "results.jsonl").read_bytes()
    assert run_batch(jobs) == 1  # a batch with failed jobs is no success
    assert (here / "results.jsonl").read_bytes() == before
    assert "0 done, 2 done before, 0 failed, 7 failed before" in capsys.readouterr().out
    (here / "no.png").write_bytes(Path(JOBS[0]["media"]).read_bytes())
    assert run_batch(jobs, "--retry-failed") == 1
    assert "1 done, 2 done before, 6 failed" in capsys.readouterr().out
    lines = lines_of(here / "results.jsonl")
    assert sorted(line["job"]["line"] for line in lines) == list(range(1, 10))
    assert next(line for line in lines if line["id"] == "missing")["error"] is None


class _Bytes:
    """Standard input as bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def put(jobs: list[Values]) -> None:
        text = "".join(json.dumps(job) + "\n" for job in jobs)
        monkeypatch.setattr(sys, "stdin", _Bytes(text.encode()))

    yield put


def test_jobs_through_a_pipe(
    here: Path, piped: Any, batch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--batch", "-", "-o", "results.jsonl", *SHORT]
    piped(JOBS[:1])
    assert run_command_line(arguments) == 0
    piped([*JOBS[:1], {**JOBS[2], "recipe": "full"}])
    assert run_command_line(arguments) == 0
    assert [line["id"] for line in lines_of(here / "results.jsonl")] == [
        JOBS[0]["id"],
        JOBS[2]["id"],
    ]
    assert comparable(lines_of(here / "results.jsonl")[0]) == comparable(lines_of(batch)[0])
    piped(JOBS)
    assert run_command_line([*arguments, "-r", "uniform"]) == 2
    assert "recipe full there, uniform here" in capsys.readouterr().err


def test_a_pipe_of_another_recipe_is_refused_before_a_line_is_written(
    here: Path, piped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = [{name: job[name] for name in ("media", "question")} for job in JOBS[:2]]
    arguments = ["run", "--batch", "-", "-o", "results.jsonl", *SHORT]
    piped(nameless)
    assert run_command_line(arguments) == 0
    before = (here / "results.jsonl").read_bytes()
    piped(nameless)
    assert run_command_line([*arguments, "-r", "uniform"]) == 2
    assert "recipe full there, uniform here" in capsys.readouterr().err
    assert (here / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("source", ["-", "jobs.jsonl"])
def test_without_a_file_stdout_carries_the_lines_and_nothing_else(
    here: Path, piped: Any, batch: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    jobs = [*JOBS[:2], {"id": "gone", "media": "none.png", "question": "what?"}]
    piped(jobs)
    write_jobs(here / "jobs.jsonl", jobs)
    assert run_command_line(["run", "--batch", source, *SHORT]) == 1  # one of them failed
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["id"] for line in lines] == [job["id"] for job in jobs]
    assert comparable(lines[0]) == comparable(lines_of(batch)[0])
    assert "no such file" in lines[2]["error"]["message"]
    assert "2 done, 0 done before, 1 failed: stdout" in captured.err
    assert [path.name for path in here.iterdir()] == ["jobs.jsonl"]


def test_a_reader_that_leaves_ends_the_batch_without_a_word(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jobs(here / "jobs.jsonl", JOBS[:2])
    reading, writing = os.pipe()
    os.close(reading)
    with monkeypatch.context() as patch, os.fdopen(writing, "w") as stream:
        patch.setattr("sys.stdout", stream)
        assert run_command_line(["run", "--batch", "jobs.jsonl", *SHORT]) == 1
    assert capsys.readouterr().err == ""


def test_a_baseline_in_every_line(here: Path) -> None:
    job = {name: JOBS[1][name] for name in ("id", "media", "question", "recipe", "budget")}
    assert run_batch([job], "--baseline", "--repeats", "2") == 0
    (line,) = lines_of(here / "results.jsonl")
    assert line["baseline"]["fidelity"]["exact_match"] is not None
    assert line["time_ms"]["repeats"] == 2
    assert line["baseline"]["memory"]["peak_bytes"] is None


REFUSED = {
    "a picture": (["a.png", "--batch", "jobs.jsonl", "-o", "r.jsonl"], "beside --batch"),
    "lines and a summary on stdout": (["--batch", "jobs.jsonl", "--json"], "with -o FILE"),
    "a table of lines": (["--batch", "jobs.jsonl", "-f", "csv"], "JSON lines on stdout"),
    "stdout gone on with": (["--batch", "jobs.jsonl", "--resume"], "--resume without --output"),
    "stdout mended": (["--batch", "jobs.jsonl", "--retry-failed"], "without --output"),
    "pictures": (["--batch", "jobs.jsonl", "-o", "r", "--with", "a.png"], "--with beside"),
    "turns": (["--batch", "jobs.jsonl", "-o", "r", "--then", "why?"], "--then beside"),
    "frames scored": (["--batch", "jobs.jsonl", "-o", "r", "--relevance", "x"], "--relevance"),
    "overlay": (["--batch", "jobs.jsonl", "-o", "r", "--overlay", "x.png"], "--overlay beside"),
    "html": (["--batch", "jobs.jsonl", "-o", "r", "--html", "x.html"], "--html beside"),
    "csv": (["--batch", "jobs.jsonl", "-o", "r", "--format", "csv"], "table or json"),
    "the jobs": (["--batch", "jobs.jsonl", "-o", "jobs.jsonl"], "holds the jobs"),
    "no jobs": (["--batch", "none.jsonl", "-o", "r"], "no such file"),
    "both": (["--batch", "jobs.jsonl", "-o", "r", "--retry-failed", "--no-resume"], "one of them"),
    "times": (
        ["--batch", "jobs.jsonl", "-o", "r", "--batch-size", "2", "--repeats", "3"],
        "no times of their own",
    ),
    "recipe": (["--batch", "jobs.jsonl", "-o", "r", "-r", "mustdorp"], "mustdrop"),
    "budget": (["--batch", "jobs.jsonl", "-o", "r", "-b", "many"], "--budget 64"),
    "tower": (
        ["--batch", "jobs.jsonl", "-o", "r", "-r", "mustdrop", "-m", "narrow:internvl"],
        "tower",
    ),
    "a cluster": (["--batch", "jobs.jsonl", "-o", "r", "--workers", "2"], "--engine ray"),
    "no batch": (["a.png", "what?", "--batch-size", "2"], "--batch-size without --batch"),
    "no batch either": (["a.png", "what?", "--no-resume"], "--resume without --batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_block_and_leaves_no_file(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, words = REFUSED[name]
    write_jobs(here / "jobs.jsonl", JOBS[:1])
    assert run_command_line(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ")
    assert words in captured.err and "Traceback" not in captured.err
    assert [path.name for path in here.iterdir()] == ["jobs.jsonl"]


def test_a_jobs_own_rule_judges_its_answer(tmp_path: Path) -> None:
    picture = str(ROOT / "samples" / "plain.png")
    told = {"media": picture, "question": "describe the picture.", "answer": "triangle"}
    jobs = [told | {"id": "by words", "match": "contains"}, told | {"id": "as a whole"}]
    write_jobs(tmp_path / "jobs.jsonl", jobs)
    target = tmp_path / "r.jsonl"
    command = ["run", "--batch", str(tmp_path / "jobs.jsonl"), "-o", str(target), "--device", "cpu"]
    assert run_command_line(command) == 0
    assert {line["id"]: line["job"]["correct"] for line in lines_of(target)} == {
        "by words": True,
        "as a whole": False,
    }


def test_a_results_file_that_is_removed_meanwhile_is_a_failure_and_loses_no_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append = ResultsFile.append

    def removed_after_the_first(results: ResultsFile, text: str) -> None:
        first = results.end == 0
        append(results, text)
        if first:
            results.path.unlink()

    monkeypatch.setattr(ResultsFile, "append", removed_after_the_first)
    assert run_batch(JOBS[:3]) == 1
    told = capsys.readouterr()
    assert "removed, moved or replaced" in told.err
    (saved,) = here.glob("results.jsonl.saved-*")
    assert str(saved) in told.err and len(lines_of(saved)) == 2
    monkeypatch.undo()
    monkeypatch.chdir(here)
    saved.rename("results.jsonl")
    assert run_batch(JOBS[:3]) == 0
    assert len(lines_of(Path("results.jsonl"))) == 3


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_file_without_jobs_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("jobs.jsonl").write_text(content)
    for source in ("jobs.jsonl", "/dev/null"):
        assert run_command_line(["run", "--batch", source, "-o", "r.jsonl", *SHORT]) == 2
        assert "error: unusable input" in capsys.readouterr().err
        assert not Path("r.jsonl").exists()


def test_media_and_recipes_that_hang_are_failed_jobs(here: Path) -> None:
    os.mkfifo("pipe.png")
    os.mkfifo("pipe.yaml")
    ask = {"question": "what?"}
    jobs = [{"media": name, **ask} for name in ("pipe.png", "/dev/zero", "/proc/kmsg", "a\0b")]
    jobs += [{"media": JOBS[0]["media"], "recipe": "./pipe.yaml", **ask}]
    assert run_batch(jobs) == 1
    errors = [line["error"]["message"] for line in lines_of(Path("results.jsonl"))]
    words = ["no regular file", "no regular file", "", "no possible name", "no regular file"]
    assert len(errors) == 5 and all(map(str.__contains__, errors, words))
