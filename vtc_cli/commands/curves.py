"""The measuring behind `vtc analyze`: layers under recipes, and sweeps over token counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vtc_cli.core.observe import Matrix
    from vtc_cli.core.plan import Plan
    from vtc_cli.core.tokens import TokenTable
    from vtc_cli.core.trace import Trace
    from vtc_cli.engine.decode import Generation
    from vtc_cli.engine.session import Session
    from vtc_cli.metrics.sweep import Point
    from vtc_cli.models.support.prompt import Prompt

Judge = Callable[[str], bool]
Step = Callable[[], None]


@dataclass(frozen=True)
class Selection:
    """A way to choose tokens: its name, the layer at whose input it acts, its plan for a count."""

    name: str
    layer: int
    plan: Callable[[int], Plan]


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep measures.

    Attributes:
        selections: how tokens are chosen.
        counts: tokens to keep.
        generation: how answers are made.
        matrix: whose ranks to take.
        tau: threshold of the numerical rank.
    """

    selections: Sequence[Selection]
    counts: Sequence[int]
    generation: Generation
    matrix: Matrix
    tau: float

    @property
    def steps(self) -> int:
        """Points of one input."""
        return len(self.selections) * len(self.counts)

    def with_seed(self, seed: int) -> SweepOptions:
        """The same sweep from another seed."""
        return replace(self, generation=replace(self.generation, seed=seed))


@dataclass(frozen=True)
class _Reference:
    """One input and the full model on it.

    Attributes:
        prompt: the input.
        door: what the tower gives; every selection acts in the decoder, on the same tokens.
        trace: the full model's pass.
        nll: of its own answer, nats a token.
    """

    prompt: Prompt
    door: TokenTable
    trace: Trace
    nll: float


def observe_layers(
    session: Session, prompt: Prompt, plan: Plan, matrix: Matrix | None, tau: float
) -> Trace:
    """One pass over the prompt whose trace holds the figures of every layer."""
    from vtc_cli.engine.decode import Generation
    from vtc_cli.metrics.layers import layer_observer

    observer = layer_observer(matrix, tau)
    only_prompt = Generation(max_new_tokens=1)
    return session.run(prompt, plan, only_prompt, capture=True, observer=observer)


def sweep_input(
    session: Session,
    prompt: Prompt,
    options: SweepOptions,
    *,
    judge: Judge | None = None,
    step: Step = lambda: None,
) -> dict[str, list[Point]]:
    """Points of one input by selection, in the order of the counts.

    Args:
        session: the model.
        prompt: the input.
        options: what to measure.
        judge: whether an answer is right, None if the right one is not known.
        step: called after each point.
    """
    reference = _reference(session, prompt, options)
    points: dict[str, list[Point]] = {}
    for selection in options.selections:
        points[selection.name] = []
        for count in options.counts:
            plan = selection.plan(count)
            point = replace(
                _point(session, reference, plan, selection.layer, options), tokens=count
            )
            if judge is not None:
                answer = _answer(session, reference, plan, point, options.generation)
                point = replace(point, correct=float(judge(answer)))
            points[selection.name].append(point)
            step()
    return points


def _reference(session: Session, prompt: Prompt, options: SweepOptions) -> _Reference:
    from vtc_cli.core.plan import Plan
    from vtc_cli.metrics.fidelity import answer_nll

    full = Plan("full")
    door = session.compress(prompt, full).entering
    trace = session.run(prompt, full, options.generation, capture=True, tokens=door)
    _, logits = session.follow(prompt, full, trace.answer_ids, tokens=door)
    return _Reference(prompt, door, trace, answer_nll(logits, trace.answer_ids))


def _point(
    session: Session, reference: _Reference, plan: Plan, layer: int, options: SweepOptions
) -> Point:
    """Feed the full model's answer under the selection and compare."""
    from vtc_cli.metrics.fidelity import answer_nll, answer_nll_delta, kl_nats
    from vtc_cli.metrics.information import information_kept
    from vtc_cli.metrics.layers import layer_observer
    from vtc_cli.metrics.sweep import Point

    ids, first = reference.trace.answer_ids, reference.trace.first_logits
    trace, logits = session.follow(
        reference.prompt,
        plan,
        ids,
        seed=options.generation.seed,
        capture=True,
        observer=layer_observer(options.matrix, options.tau, attention=False),
        tokens=reference.door,
    )
    kept = information_kept(trace, reference.trace)
    assert kept is not None and first is not None  # both passes captured their features
    chosen = logits.argmax(dim=-1).tolist()
    return Point(
        tokens=trace.visual_tokens[-1],
        kept=trace.visual_tokens[-1],
        **_ranks(trace, layer),
        energy_kept=kept.energy_kept,
        ics_kept=kept.ics_kept,
        kl_first_token=kl_nats(first, logits[0].cpu()),
        top1_agree=float(chosen[0] == ids[0]),
        answer_nll_delta=answer_nll_delta(answer_nll(logits, ids), reference.nll),
        exact_match=float(chosen == ids),
    )


def _ranks(trace: Trace, layer: int) -> dict[str, float]:
    """Ranks of the first layer that processes the selection, and of the last."""
    first, last = trace.observed[layer].ranks, trace.observed[-1].ranks
    return {
        "rank_first": first.rank,
        "effective_rank_first": first.effective_rank,
        "rank_last": last.rank,
        "effective_rank_last": last.effective_rank,
    }


def _answer(
    session: Session, reference: _Reference, plan: Plan, point: Point, generation: Generation
) -> str:
    """The answer under `plan`; a pass is spared where every token agreed with the full model's."""
    if point.exact_match:
        return reference.trace.answer
    return session.run(reference.prompt, plan, generation, tokens=reference.door).answer
