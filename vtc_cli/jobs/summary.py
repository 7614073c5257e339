"""What a batch came to: counts, rates, and how many answers were the expected ones."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vtc_cli.core.terminal import escaped
from vtc_cli.jobs.work import Line


@dataclass
class Summary:
    """Counts of one batch; times are those of its jobs, without loading the model.

    Attributes:
        output: the results file.
        before: lines that were there already.
        failed_before: how many of them are those of failed jobs.
        done: jobs answered now.
        failed: jobs that failed now.
        answer_tokens: made now.
        judged: jobs answered now whose answer is known.
        right: how many of these answers are the expected ones.
        errors: failed jobs by kind of error.
        notes: what else the reader should know.
    """

    output: str
    before: int = 0
    failed_before: int = 0
    done: int = 0
    failed: int = 0
    answer_tokens: int = 0
    judged: int = 0
    right: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _begin: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """The first job begins now."""
        self._begin = time.perf_counter()

    def add(self, line: Line) -> None:
        """Count a line that was written."""
        if line.error is not None:
            self.failed += 1
            self.errors[line.error.type] += 1
            return
        self.done += 1
        self.answer_tokens += line.answer_tokens
        if line.correct is not None:
            self.judged += 1
            self.right += line.correct

    def plain(self) -> dict[str, Any]:
        """As JSON; rates are null where nothing was done."""
        seconds = time.perf_counter() - self._begin
        count = self.done + self.failed
        return {
            "command": "run",
            "output": self.output,
            "done": self.done,
            "failed": self.failed,
            "done_before": self.before - self.failed_before,
            "failed_before": self.failed_before,
            "seconds": seconds,
            "jobs_per_s": count / seconds if count else None,
            "answer_tokens": self.answer_tokens,
            "answer_tokens_per_s": self.answer_tokens / seconds if count else None,
            "judged": self.judged,
            "right": self.right,
            "errors": dict(self.errors),
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """For a reader."""
        plain = self.plain()
        head = f"{self.done} done, {plain['done_before']} done before, {self.failed} failed"
        if self.failed_before:
            head += f", {self.failed_before} failed before"
        told = [f"{head}: {self.output}"]
        if plain["jobs_per_s"]:
            told.append(
                f"{plain['seconds']:.1f} s, {plain['jobs_per_s']:.2f} jobs/s, "
                f"{plain['answer_tokens_per_s']:.1f} answer tokens/s"
            )
        if self.judged:
            told.append(f"{self.right} of {self.judged} answers as expected")
        told += [f"{count} x {name}" for name, count in self.errors.most_common()]
        return [escaped(line) for line in (*told, *(f"note: {note}" for note in self.notes))]

    @property
    def any_failed(self) -> bool:
        """Whether a job failed, now or before."""
        return bool(self.failed or self.failed_before)
