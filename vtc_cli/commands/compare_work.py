"""The work of `vtc compare`: every item under every recipe and budget, and under the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vtc_cli.commands.compare_options import CompareOptions
from vtc_cli.commands.compare_run import Entrants, check_plans, take_part, wishes_of
from vtc_cli.commands.output import Output
from vtc_cli.core.errors import VtcError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.clock import PeakMemory
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import note_input, shrink
from vtc_cli.engine.session import Session
from vtc_cli.jobs.doing import Ready
from vtc_cli.media.items import Item
from vtc_cli.media.video import read_media
from vtc_cli.metrics import fidelity
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.report.compare.passes import finite, pass_line, picture_facts
from vtc_cli.report.compare.rows import (
    FULL,
    FailureLine,
    HeadLine,
    ItemLine,
    Pass,
    PictureFacts,
    Row,
    Rows,
    Wishes,
    matched_budget,
)
from vtc_cli.report.result import ErrorBlock, FidelityBlock


@dataclass(frozen=True)
class ItemTask:
    """One item with what is known of it already; `number` is its place and moves the seed."""

    item: Item
    number: int
    known: tuple[Row, ...] = ()


@dataclass(frozen=True)
class ItemDone:
    """Stands behind the rows of an item."""

    item: str


@dataclass(frozen=True)
class Told:
    """What a comparison must know of the model: what was asked, and which baselines do not fit."""

    wishes: Wishes
    left_out: dict[str, str]


@dataclass(frozen=True)
class CompareWork:
    """A comparison as engines see it (`jobs/doing.py`)."""

    options: CompareOptions
    items: tuple[Item, ...]
    batch_size: int = 1

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.options.model

    def load(self, output: Output) -> Comparer:
        """Load the model and see that recipes and items fit it.

        Raises:
            VtcError: it cannot be loaded, or something does not fit.
        """
        from vtc_cli.commands.loading import load_session

        mine = self.options
        entrants = take_part(mine)
        session = load_session(output, mine.model, mine.device, mine.dtype, mine.attn)
        left_out = check_plans(session, entrants, mine, self.items)
        told = Told(wishes_of(mine, session, entrants, self.items), left_out)
        return Comparer(session, entrants, told, mine)

    def failed(self, task: ItemTask, error: Exception) -> Row:
        """The row of an item that could not be done."""
        return _failure(task.item.id, FULL, "", error)


@dataclass(frozen=True, eq=False)
class _Reference:
    """One item, the full model on it and how to answer it."""

    item: str
    media: Media
    prompt: Prompt
    generation: Generation
    trace: Trace
    nll: float


class Comparer:
    """A loaded model that does the passes of a comparison.

    Args:
        session: the model.
        entrants: who takes part.
        told: what was asked for.
        options: how answers are made and media are read.

    Attributes:
        told: the same.
    """

    def __init__(
        self, session: Session, entrants: Entrants, told: Told, options: CompareOptions
    ) -> None:
        self.told = told
        self._session, self._entrants = session, entrants
        self._options = options
        self._warm: set[tuple[str, str]] = set()  # have run once: the next pass is worth timing
        self._new: list[Row] = []
        self._rows = self._rows_of(())

    def read(self, task: ItemTask) -> Ready:
        """Read the picture or video of an item; what goes wrong is part of the result."""
        try:
            return Ready(task, read_media(task.item.media, self._options.frame_options()))
        except Exception as error:  # decoders raise whatever they like, and the next is waiting
            return Ready(task, error)

    def results(self, ready: Sequence[Ready]) -> Iterator[Row | ItemDone]:
        """The rows of items as they come, and behind those of each a mark that it is done."""
        for one in ready:
            self._rows = self._rows_of(one.task.known)
            for _ in self._passes(one):
                yield from self._fresh()
            yield from self._fresh()
            yield ItemDone(one.task.item.id)

    def notes(self) -> list[str]:
        """Nothing: what is odd about a pass stands in its row."""
        return []

    def _rows_of(self, known: Sequence[Row]) -> Rows:
        """The rows of one item; those that come stay here until they are handed on."""
        wishes = self.told.wishes
        rows = Rows(HeadLine(created="", argv=[], match="", wishes=wishes), write=self._new.append)
        for line in known:
            rows.take(line)
        return rows

    def _fresh(self) -> Iterator[Row]:
        while self._new:
            yield self._new.pop(0)

    def _passes(self, ready: Ready) -> Iterator[None]:
        """Every pass over an item, with a halt behind each."""
        item = ready.task.item
        try:
            reference = self._reference(item, ready.task.number, ready.sound())
        except Exception as error:  # recorded in the file; the next item is waiting
            self._fail(item.id, FULL, "", error)
            return
        yield
        for name, budget in self._rows.arms():
            mine = self._pass(reference, name, budget)
            yield
            matched = None if mine is None else matched_budget(mine)
            if matched is None or name in self._entrants.baselines:
                continue
            for rival in self._entrants.baselines:
                self._pass(reference, rival, matched)
                yield

    def _reference(self, item: Item, number: int, media: Media) -> _Reference:
        """The full model on an item.

        Raises:
            VtcError: the model cannot take it.
        """
        session, plan = self._session, Plan(FULL)
        prompt = session.adapter.prepare(media, item.question)
        if self._is_cold(FULL, ""):
            session.warm_up(prompt)
        generation = Generation(self._options.max_new_tokens, seed=self._options.seed + number)
        trace = session.run(prompt, plan, generation)
        trace.warnings.extend(media.warnings)
        _, logits = session.follow(prompt, plan, trace.answer_ids)
        nll = fidelity.answer_nll(logits, trace.answer_ids)
        if item.id not in self._rows.items:
            facts = picture_facts(media, prompt.layout, prompt.patch_boxes)
            self._rows.add(_item_line(item, number, facts))
        if self._rows.full(item.id) is None:
            self._rows.add(pass_line(trace, item.id, FULL, "", None))
        return _Reference(item.id, media, prompt, generation, trace, nll)

    def _pass(self, reference: _Reference, name: str, budget: str) -> Pass | None:
        """One pass, unless it is there; None if it failed."""
        known = self._rows.passes.get((reference.item, name, budget))
        if known is not None or self._rows.is_refused(reference.item, name, budget):
            return known
        try:
            plan = self._entrants.plan(self._session, reference.prompt, name, budget)
            trace, close = self._followed(reference, plan, self._is_cold(name, budget))
        except Exception as error:  # recorded in the file; the next pass is waiting
            self._fail(reference.item, name, budget, error)
            return None
        line = pass_line(trace, reference.item, name, budget, close)
        self._rows.add(line)
        return line

    def _followed(
        self, reference: _Reference, plan: Plan, cold: bool
    ) -> tuple[Trace, FidelityBlock]:
        """The pass under `plan` and its distance to the full model.

        The full model's answer is fed first. Where every token of it would have been chosen, that
        pass is the answer; only where one would not, the recipe answers in a pass of its own.
        """
        ids, first = reference.trace.answer_ids, reference.trace.first_logits
        session, whole, seed = self._session, reference.prompt, reference.generation.seed
        prompt, changes = shrink(session.adapter, reference.media, whole, plan)
        if cold:
            session.follow(prompt, plan, ids, seed=seed)
        with PeakMemory(session.adapter.device) as memory:
            trace, logits = session.follow(prompt, plan, ids, seed=seed)
        trace.peak_bytes, trace.memory_kind = memory.peak_bytes, memory.kind
        logits = logits.cpu()
        assert first is not None  # every pass leaves them
        nll = fidelity.answer_nll(logits, ids)
        same = logits.argmax(dim=-1).tolist() == ids
        close = FidelityBlock(
            kl_first_token=finite(fidelity.kl_nats(first, logits[0])),
            top1_agree=fidelity.top1_agrees(first, logits[0]),
            answer_nll_delta=finite(fidelity.answer_nll_delta(nll, reference.nll)),
            exact_match=same,
        )
        if not same:
            trace = session.run(prompt, plan, reference.generation)
        note_input(trace, whole, changes)
        return trace, close

    def _is_cold(self, name: str, budget: str) -> bool:
        cold = (name, budget) not in self._warm
        self._warm.add((name, budget))
        return cold

    def _fail(self, item: str, name: str, budget: str, error: Exception) -> None:
        self._rows.add(_failure(item, name, budget, error))


def _failure(item: str, name: str, budget: str, error: Exception) -> FailureLine:
    message = str(error) if isinstance(error, VtcError) else " ".join(str(error).split())
    block = ErrorBlock(type=type(error).__name__, message=message or "no message")
    return FailureLine(item=item, recipe=name, budget=budget, error=block)


def _item_line(item: Item, number: int, facts: PictureFacts) -> ItemLine:
    return ItemLine.model_validate(
        {
            "id": item.id,
            "number": number,
            "question": item.question,
            "answer": item.answer,
            "category": item.category,
            "match": item.match,
            "picture": facts,
        }
    )
