"""`vtc run --batch`: many jobs with one loaded model, one crash-safe line each."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from vtc_cli.commands.batch_options import BatchGroup
from vtc_cli.commands.output import Output
from vtc_cli.core.errors import UsageError
from vtc_cli.core.terminal import say, show

if TYPE_CHECKING:
    from vtc_cli.commands.run_options import RunOptions
    from vtc_cli.jobs.job import Job, Settings
    from vtc_cli.jobs.progressed import Progressed
    from vtc_cli.jobs.reading import JobsFile
    from vtc_cli.jobs.results_file import ResultsFile, ResultsStream
    from vtc_cli.jobs.summary import Summary

EXAMPLE = "vtc run --batch jobs.jsonl -o results.jsonl"
ONE_JOB = {"overlay": "--overlay", "html": "--html", "strict": "--strict", "tokens": "--tokens"}
ONE_JOB |= {"more": "--with", "then": "--then", "relevance": "--relevance"}


def carry_out_batch(options: RunOptions, batch: BatchGroup, output: Output) -> None:
    """Everything cheap that can fail first, then the results file, then the model, then the jobs.

    Raises:
        VtcError: whatever is wrong with the options, the files, the recipe or the model.
        Exit: code 1 if a job failed.
    """
    from vtc_cli.jobs.reading import JobsFile
    from vtc_cli.jobs.results_file import ResultsFile, ResultsStream
    from vtc_cli.jobs.summary import Summary
    from vtc_cli.recipe.load import load_recipe

    _check(options, batch)
    target = options.output_file
    settings = _settings(options, batch)
    settings.plan_options()
    load_recipe(settings.recipe)
    summary = Summary(str(target or ResultsStream.path))
    goal: ResultsFile | ResultsStream
    goal = ResultsFile(target, anew=not batch.resume) if target else ResultsStream()
    with goal as results:
        if results.repaired_bytes:
            summary.notes.append("the last line was torn and is gone; its job is done again")
        jobs = JobsFile(batch.batch or "", settings)
        try:
            _do_jobs(jobs, results, settings, batch, output, summary)
        except BaseException as error:
            _tell_end(error, summary, output)
            raise
    if target is not None:
        _print(summary, options)
    elif not output.quiet:
        say("\n".join(summary.lines()))
    if summary.any_failed:
        raise typer.Exit(1)


def _check(options: RunOptions, batch: BatchGroup) -> None:
    """A look at what cannot work.

    Raises:
        UsageError: options of a single job, or times that a batch does not have.
    """
    for name, flag in ONE_JOB.items():
        if name in options.given:
            raise UsageError(f"{flag} beside --batch", allowed=f"{flag} with a single picture")
    _check_output(options, batch)
    if batch.batch_size > 1 and (options.repeats > 1 or options.baseline):
        flag = "--baseline" if options.baseline else "--repeats"
        raise UsageError(
            f"{flag} beside --batch-size {batch.batch_size}",
            allowed="--batch-size 1: jobs that are decoded together have no times of their own",
        )
    if batch.retry_failed and not batch.resume:
        raise UsageError("--retry-failed beside --no-resume", allowed="one of them")
    options.check_answer()
    batch.check(options.given)


def _check_output(options: RunOptions, batch: BatchGroup) -> None:
    """Without -o stdout carries the lines, and nothing else; with it, the summary.

    Raises:
        UsageError: options that contradict this, or results over the jobs.
    """
    shapes = ("table", "json") if options.output_file else ("table", "jsonl")
    if options.given & {"format", "as_json"} and options.format not in shapes:
        if options.output_file is not None:
            raise UsageError(f"--format {options.format}", allowed="table or json, of the summary")
        allowed = "JSON lines on stdout; with -o FILE, --format json is the summary's"
        found = f"--format {options.format} without --output"
        raise UsageError(found, allowed=allowed, hint=EXAMPLE)
    for name, flag in (("retry_failed", "--retry-failed"), ("resume", "--resume")):
        if options.output_file is None and name in options.given:
            raise UsageError(
                f"{flag} without --output", allowed=f"{flag} with a file of results", hint=EXAMPLE
            )
    with suppress(OSError):
        if options.output_file and os.path.samefile(options.output_file, batch.batch or ""):
            raise UsageError(f"{options.output_file} holds the jobs", where="--output")


def _settings(options: RunOptions, batch: BatchGroup) -> Settings:
    from vtc_cli.jobs.job import Settings

    names = ["model", "device", "dtype", "attn", "recipe", "budget", "fidelity", "exact_layers"]
    names += ["max_new_tokens", "temperature", "top_p", "seed", "repeats", "baseline"]
    return Settings(
        frames=options.frame_options(),
        argv=tuple(sys.argv[1:]),
        batch_size=batch.batch_size,
        **{name: getattr(options, name) for name in names},
    )


def _do_jobs(
    jobs: JobsFile,
    results: ResultsFile | ResultsStream,
    settings: Settings,
    batch: BatchGroup,
    output: Output,
    summary: Summary,
) -> None:
    """Do what is not done yet and write each line at once."""
    from vtc_cli.jobs.engines import started
    from vtc_cli.jobs.progress import watching
    from vtc_cli.jobs.progressed import Progressed
    from vtc_cli.jobs.results_file import ResultsFile
    from vtc_cli.jobs.work import JobWork

    progressed = Progressed(results)
    progressed.check_settings(settings)
    if batch.retry_failed and isinstance(results, ResultsFile) and results.drop_failed():
        progressed = Progressed(results)
    total, done = _look_ahead(jobs, progressed)
    summary.before, summary.failed_before = progressed.count, progressed.failed
    if total is not None and total == done:
        return
    work, engine = JobWork(settings), batch.engine_options()
    with started(work, engine, output, summary.notes.append) as running:
        summary.start()
        with watching(output, total, done) as watcher:
            for line in running.results(_left(jobs, progressed)):
                results.append(line.text)
                summary.add(line)
                watcher.line(line)


def _look_ahead(jobs: JobsFile, progressed: Progressed) -> tuple[int | None, int]:
    """How many jobs there are, None if that is not known, and how many of them are done."""
    if progressed.count and jobs.can_be_read_again:
        return progressed.check_recipes(jobs.jobs())
    return jobs.count(), 0


def _left(jobs: JobsFile, progressed: Progressed) -> Iterator[Job]:
    """The jobs that are not done yet."""
    for job in jobs.jobs():
        if not progressed.has(job):
            if not jobs.can_be_read_again:
                progressed.check_recipe(job)
            yield job


def _tell_end(error: BaseException, summary: Summary, output: Output) -> None:
    """What is kept when a batch ends early, and how to go on."""
    silent = output.quiet or isinstance(error, BrokenPipeError)
    if silent or not (summary.done or summary.failed):
        return
    command = shlex.join(["vtc", *(word for word in sys.argv[1:] if word != "--no-resume")])
    for text in summary.lines():
        say(text)
    if isinstance(error, KeyboardInterrupt) and summary.output != "stdout":
        say(f"go on with: {command}")


def _print(summary: Summary, options: RunOptions) -> None:
    """The summary, as JSON or in words."""
    if options.format == "json":
        show(json.dumps(summary.plain(), indent=2, ensure_ascii=False))
    else:
        show("\n".join(summary.lines()))
