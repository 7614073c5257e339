"""The work of a batch: one loaded model turns jobs into lines of a results file."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from vtc_cli.commands.job import Outcome, do_job, make_plan
from vtc_cli.commands.loading import AUTO, load_session, model_for
from vtc_cli.core.errors import MemoryExhaustedError, RecipeError, SignalError, VtcError
from vtc_cli.core.media import Media
from vtc_cli.jobs.doing import Ready
from vtc_cli.jobs.job import Job, Settings
from vtc_cli.metrics.answers import Rule, matches
from vtc_cli.models.support.load import TINY_VIDEO
from vtc_cli.report.build import build_result
from vtc_cli.report.padding import padding_warnings
from vtc_cli.report.result import (
    SCHEMA_VERSION,
    BatchResult,
    ErrorBlock,
    Failure,
    JobBlock,
    Result,
)

if TYPE_CHECKING:
    from vtc_cli.commands.output import Output
    from vtc_cli.engine.reading import PromptRead
    from vtc_cli.engine.session import Session
    from vtc_cli.recipe.load import Recipe

LOGGER = logging.getLogger(__name__)
TOGETHER = "decoded together with other jobs: times of decode and of the whole are not known"


@dataclass(frozen=True)
class Line:
    """One line of a results file, and what the summary needs of it.

    Attributes:
        job_line: line of the job in its file.
        id: the job's.
        text: the line, without its end.
        answer_tokens: tokens of the answer, 0 if the job failed.
        correct: whether the answer is the expected one, None if none is.
        error: why the job failed, None if it did not.
    """

    job_line: int
    id: str | None
    text: str
    answer_tokens: int = 0
    correct: bool | None = None
    error: ErrorBlock | None = None


def read_job(job: Job) -> Ready:
    """A job with its picture or video, or what is wrong with either."""
    from vtc_cli.media.video import read_media

    if job.fault is not None:
        return Ready(job, job.fault)
    try:
        return Ready(job, read_media(job.path, job.settings.frames))
    except Exception as error:  # decoders raise whatever they like, and the next job is waiting
        return Ready(job, error)


@dataclass(frozen=True)
class JobWork:
    """A batch as engines see it (`jobs/doing.py`)."""

    settings: Settings

    @property
    def model(self) -> str:
        """Name of the model."""
        return model_for(self.settings.model, ())

    @property
    def batch_size(self) -> int:
        """Jobs that are decoded together."""
        return self.settings.batch_size

    def load(self, output: Output) -> Worker:
        """Load the model; for `auto` that for pictures, and that for videos when one comes.

        Raises:
            VtcError: it cannot be loaded, or the recipe does not fit it, nor the one for videos.
        """
        mine = self.settings

        def load(name: str) -> Session:
            return load_session(output, name, mine.device, mine.dtype, mine.attn)

        worker = Worker(load(self.model), load if mine.model == AUTO else None)
        worker.check(mine)
        return worker

    def failed(self, task: Job, error: Exception) -> Line:
        """The line of a job that could not be done."""
        return failed_line(task, error)


class Worker:
    """Does jobs with one loaded model; recipes are read once.

    Args:
        session: the model.
        load: gives another model by name, where each job gets the shipped one for what it shows;
            None if `session` is for all.

    Attributes:
        told: nothing.
    """

    told: None = None

    def __init__(self, session: Session, load: Callable[[str], Session] | None = None) -> None:
        self._session, self._load = session, load
        self._loaded = {session.facts.id: session}
        self._recipes: dict[str, Recipe] = {}
        self._notes: dict[str, None] = {}
        # On a CPU only the growth of the process is known, and it reads media ahead meanwhile.
        self._own_memory = session.adapter.device.type == "cuda"

    def check(self, settings: Settings) -> None:
        """See that the batch's own recipe fits the model at all, before any job is done.

        Raises:
            RecipeError: it does not, whatever the picture.
            SignalError: a stage needs what the family does not give.
        """
        try:
            self._check_fit(settings, self._session)
        except (RecipeError, SignalError):
            if self._load is None:
                raise
            self._check_fit(settings, self._named(TINY_VIDEO))

    def _check_fit(self, settings: Settings, session: Session) -> None:
        """See that the batch's own recipe fits one model."""
        from vtc_cli.commands.job import parse_fidelity
        from vtc_cli.recipe.resolve import resolve

        adapter = session.adapter
        shape = adapter.shape
        resolve(
            self._recipe(settings.recipe),
            shape,
            family_signals=adapter.provides,
            original_tokens=shape.patches // shape.merged_patches,
            budget=None,
            fidelity=parse_fidelity(settings.fidelity),
            exact_layers=settings.exact_layers,
        )

    def notes(self) -> list[str]:
        """What the reader of the summary should know, each thing once; then forgotten."""
        told, self._notes = list(self._notes), {}
        return told

    def read(self, task: Job) -> Ready:
        """Read the picture or video of a job; what goes wrong is part of the answer."""
        return read_job(task)

    def results(self, ready: Sequence[Ready]) -> list[Line]:
        """Do jobs; more than one of them are decoded together where their plans allow it."""
        if len(ready) == 1:
            return [self._alone(ready[0])]
        started = [self._started(one) for one in ready]
        reads = [item for item in started if not isinstance(item, Line)]
        together = iter(self._together(reads))
        return [item if isinstance(item, Line) else next(together) for item in started]

    def _alone(self, ready: Ready) -> Line:
        """One job from its media to its line."""
        job, created = ready.task, _now()
        settings = job.settings
        try:
            media = ready.sound()
            outcome = do_job(
                self._session_for(media),
                media,
                job.question,
                self._recipe(settings.recipe),
                settings.plan_options(),
                settings.generation(),
                repeats=settings.repeats,
                baseline=settings.baseline,
                memory=self._own_memory,
            )
            return _line(job, _result(job, media, outcome, created))
        except Exception as error:  # recorded in the job's line; the next job is waiting
            return failed_line(job, error, created)

    def _started(self, ready: Ready) -> _Started | Line:
        """Read the prompt of a job, or do the whole job where its plan goes alone."""
        from vtc_cli.engine.batch_decode import alone_because
        from vtc_cli.engine.inputs import note_input, shrink
        from vtc_cli.engine.reading import Request

        job, created = ready.task, _now()
        settings = job.settings
        try:
            media = ready.sound()
            if self._session_for(media) is not self._session:
                return self._alone(ready)
            whole = self._session.adapter.prepare(media, job.question)
            recipe = self._recipe(settings.recipe)
            plan = make_plan(self._session, whole, recipe, settings.plan_options())
            prompt, changes = shrink(self._session.adapter, media, whole, plan)
            reason = alone_because(plan, self._session.facts.attention)
            if reason is not None:
                self._notes[f"{plan.name}: jobs are decoded one by one, for {reason}"] = None
                return self._alone(ready)
            request = Request(prompt, plan, settings.generation())
            read = self._session.read_prompt(request)
            note_input(read.trace, whole, changes)
            return _Started(ready, media, read, created)
        except Exception as error:  # recorded in the job's line; the next job is waiting
            return failed_line(job, error, created)

    def _together(self, started: Sequence[_Started]) -> list[Line]:
        """Lines of prompts that were read; one by one if there is no memory for all."""
        if not started:
            return []
        if len(started) == 1:
            return [self._alone(started[0].ready)]
        try:
            self._session.answer_together([one.read for one in started])
        except MemoryExhaustedError as error:
            self._notes[f"no memory for {len(started)} jobs at once, done one by one"] = None
            ready = [one.ready for one in started]
            del started, error
            _free_memory()
            return [self._alone(one) for one in ready]
        except Exception as error:  # recorded in the lines of these jobs
            return [failed_line(one.ready.task, error, one.created) for one in started]
        return [_line_of(one) for one in started]

    def _session_for(self, media: Media) -> Session:
        """The model for a job."""
        return self._named(model_for(AUTO, (media,))) if self._load else self._session

    def _named(self, name: str) -> Session:
        if name not in self._loaded and self._load is not None:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            from vtc_cli.recipe.load import load_recipe

            self._recipes[name] = load_recipe(name)
        return self._recipes[name]


@dataclass(frozen=True, eq=False)
class _Started:
    """A job whose prompt was read."""

    ready: Ready
    media: Media
    read: PromptRead
    created: str


def failed_line(job: Job, error: Exception, created: str | None = None) -> Line:
    """The line of a job that failed."""
    LOGGER.debug("job %s failed", job.id, exc_info=error)
    if isinstance(error, MemoryExhaustedError):
        _free_memory()
    name, message = type(error).__name__, str(error)
    if not isinstance(error, VtcError):
        message = " ".join(message.split()) or "no message"
    block = ErrorBlock(type=name, message=message)
    failure = Failure(
        id=job.id,
        job=_job_block(job, None),
        command="run",
        schema_version=SCHEMA_VERSION,
        created=created or _now(),
        argv=list(job.settings.argv),
        seed=job.settings.seed,
        error=block,
    )
    return Line(job.line, job.id, failure.model_dump_json(), error=block)


def _line_of(started: _Started) -> Line:
    """The line of a job that was decoded together with others."""
    job, trace = started.ready.task, started.read.trace
    try:
        prompt, media = started.read.request.prompt, started.media
        padding = padding_warnings(trace, (media,), prompt.patch_boxes)
        trace.warnings.extend([*media.warnings, *padding, TOGETHER])
        outcome = Outcome(trace, prompt)
        return _line(job, _result(job, started.media, outcome, started.created))
    except Exception as error:  # recorded in the job's line
        return failed_line(job, error, started.created)


def _result(job: Job, media: Media, outcome: Outcome, created: str) -> Result:
    return build_result(
        outcome.trace,
        media,
        job.question,
        command="run",
        argv=job.settings.argv,
        seed=job.settings.seed,
        created=created,
        baseline_trace=outcome.baseline,
        nll=outcome.nll,
    )


def _line(job: Job, result: Result) -> Line:
    rule = cast("Rule", job.match or "normalised")
    correct = None if job.expected is None else matches(result.answer, job.expected, rule)
    parts: dict[str, Any] = {name: getattr(result, name) for name in Result.model_fields}
    whole = BatchResult(id=job.id, job=_job_block(job, correct), **parts)
    return Line(job.line, job.id, whole.model_dump_json(), result.answer_tokens, correct)


def _job_block(job: Job, correct: bool | None) -> JobBlock:
    sound = job.recipe_sha256 is not None
    return JobBlock(
        line=job.line,
        key=job.key,
        media=job.media or None,
        question=job.question or None,
        expected=job.expected,
        category=job.category,
        correct=correct,
        asked=job.settings.asked(job.recipe_sha256) if sound else {},
    )


def _free_memory() -> None:
    """Give back what a failed job held, or the next one fails with it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
