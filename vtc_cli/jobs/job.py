"""A job, what is asked of all jobs alike, and the key under which a result is known again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vtc_cli.core.errors import VtcError

if TYPE_CHECKING:
    from vtc_cli.commands.job import PlanOptions
    from vtc_cli.engine.decode import Generation
    from vtc_cli.media.frame_options import FrameOptions

SHORT_KEY = 16  # hexadecimal digits of a key that serve as the id of a job without one


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a batch asks of every job; field names are the option names of `vtc run`.

    Workers on other machines get it as it is. Of a job that names its own recipe or budget these
    two are replaced.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    attn: str = "sdpa"
    recipe: str = "full"
    budget: str = "default"
    fidelity: str | None = None
    exact_layers: bool = False
    frames: FrameOptions
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repeats: int = 1
    baseline: bool = False
    argv: tuple[str, ...] = ()
    batch_size: int = 1

    def asked(self, recipe_sha256: str | None) -> dict[str, Any]:
        """What shapes an answer, as JSON holds it; neither where it is computed nor how fast."""
        left_out = ("device", "argv", "batch_size")
        values = {name: value for name, value in asdict(self).items() if name not in left_out}
        frames = values.pop("frames")
        for name in ("time_limit", "memory_limit_bytes"):
            del frames[name]
        return values | {"frames": frames, "recipe_sha256": recipe_sha256}

    def plan_options(self) -> PlanOptions:
        """Budget, fidelity and layers.

        Raises:
            UsageError: no budget or fidelity.
        """
        from vtc_cli.commands.job import PlanOptions, parse_budget, parse_fidelity

        return PlanOptions(
            parse_budget(self.budget), parse_fidelity(self.fidelity), self.exact_layers
        )

    def generation(self) -> Generation:
        """How answers are made."""
        from vtc_cli.engine.decode import Generation

        return Generation(self.max_new_tokens, self.temperature, self.top_p, self.seed)


@dataclass(frozen=True)
class Job:
    """One line of a jobs file.

    Attributes:
        line: its number, from 1.
        id: from the file, else made of the key; None if the line could not be read at all.
        key: hash of all that shapes the answer; of a line with a fault, of the line itself.
        settings: those of the batch with the job's own recipe and budget.
        recipe_sha256: hash of the recipe file, None in a line with a fault.
        media: path as the file has it, empty if the line has a fault.
        path: where that is, seen from the folder of the jobs file.
        question: what to ask.
        expected: the expected answer, None if it is not known.
        match: rule by which the answer is the expected one, None for `normalised`.
        category: kind of question, None if it is not given.
        fault: what is wrong with the line, None if nothing is.
    """

    line: int
    id: str | None
    key: str
    settings: Settings
    recipe_sha256: str | None = None
    media: str = ""
    path: str = ""
    question: str = ""
    expected: str | None = None
    match: str | None = None
    category: str | None = None
    fault: VtcError | None = None


def make_job(
    line: int,
    values: dict[str, str],
    settings: Settings,
    recipe_sha256: str,
    path: str,
) -> Job:
    """The job of a sound line.

    Args:
        line: its number.
        values: its fields as texts.
        settings: those of the batch with the job's own recipe and budget.
        recipe_sha256: hash of that recipe.
        path: where the media is.
    """
    media, question = values["media"], values["question"]
    key = _hash([_asked_text(settings, recipe_sha256), values.get("id"), media, question])
    return Job(
        line=line,
        id=values.get("id", key[:SHORT_KEY]),
        key=key,
        settings=settings,
        recipe_sha256=recipe_sha256,
        media=media,
        path=path,
        question=question,
        expected=values.get("answer"),
        match=values.get("match"),
        category=values.get("category"),
    )


def faulty_job(
    line: int, raw: bytes, job_id: str | None, settings: Settings, fault: VtcError
) -> Job:
    """The job of a line with a fault; `raw` are its bytes, as far as they were read."""
    key = _hash(["fault", line, hashlib.sha256(raw).hexdigest()])
    return Job(line=line, id=job_id, key=key, settings=settings, fault=fault)


def with_fault(job: Job, raw: bytes, fault: VtcError) -> Job:
    """A sound line that cannot be carried out beside the others, for instance a second id."""
    broken = faulty_job(job.line, raw, job.id, job.settings, fault)
    names = ("media", "question", "expected", "category")
    return replace(broken, **{name: getattr(job, name) for name in names})


@lru_cache(maxsize=64)
def _asked_text(settings: Settings, recipe_sha256: str) -> str:
    return json.dumps(settings.asked(recipe_sha256), sort_keys=True)


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
