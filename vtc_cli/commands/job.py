"""One job: a picture, a question and a recipe become traces; what `run` and batches share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vtc_cli.commands.relevance import scored
from vtc_cli.core.errors import UsageError
from vtc_cli.core.numbers import number_fault

if TYPE_CHECKING:
    from vtc_cli.core.media import Media
    from vtc_cli.core.observe import Observer
    from vtc_cli.core.plan import Fidelity, Plan
    from vtc_cli.core.trace import Trace
    from vtc_cli.engine.decode import Generation
    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.prompt import Prompt
    from vtc_cli.models.support.relevance import Pair
    from vtc_cli.recipe.load import Recipe
    from vtc_cli.report.result import TokensFileBlock

Budget = float | tuple[float, ...] | Literal["default"] | None
ShowText = Callable[[str], None]


@dataclass(frozen=True)
class PlanOptions:
    """What the command line says about the plan.

    Attributes:
        budget: tokens, one number for each picture and video, `default` for the recipe's own, None
            for none.
        fidelity: sound or official, None for the recipe's own.
        exact_layers: take layer numbers literally.
    """

    budget: Budget = "default"
    fidelity: Fidelity | None = None
    exact_layers: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a job leaves.

    Attributes:
        trace: the run under the recipe.
        prompt: model inputs, for the geometry of pictures.
        baseline: the full model beside it, if asked for.
        nll: nats a token of the full model's answer under the recipe and under the full model
            itself, with a baseline.
    """

    trace: Trace
    prompt: Prompt
    baseline: Trace | None = None
    nll: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answered:
    """An outcome with what it answers.

    Attributes:
        media: the picture, or a blank one of its size if its tokens came from a file.
        question: what was asked.
        outcome: what the job left.
        more: further pictures and videos of the prompt.
        tokens_file: the file that the tokens came from, if they did.
    """

    media: Media
    question: str
    outcome: Outcome
    more: tuple[Media, ...] = ()
    tokens_file: TokensFileBlock | None = None


def parse_budget(text: str) -> Budget:
    """`default`, `none`, a number of tokens or one for each picture and video.

    Raises:
        UsageError: anything else.
    """
    if text == "default":
        return "default"
    if text == "none":
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (0.0,)
    if not all(number > 0 and number_fault(number) is None for number in numbers):
        from vtc_cli.core.discover import nearest

        near = nearest(text, ("default", "none"))
        raise UsageError(
            f"--budget {text!r}",
            allowed="a number of tokens above 0, one for each picture (64,128), `default` or "
            "`none`",
            hint=f"--budget {near or 64}",
        )
    return numbers if len(numbers) > 1 else numbers[0]


def parse_fidelity(text: str | None) -> Fidelity | None:
    """`sound`, `official` or nothing.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    if text == "sound":
        return "sound"
    if text == "official":
        return "official"
    raise UsageError(f"--fidelity {text!r}", allowed="sound, official")


def make_plan(session: Session, prompt: Prompt, recipe: Recipe, options: PlanOptions) -> Plan:
    """The recipe resolved for the loaded model and this input.

    Raises:
        UsageError: budgets for another number of pictures and videos than the prompt shows.
    """
    from vtc_cli.recipe.resolve import resolve

    each, spans = options.budget, len(prompt.seen)
    apart = each if isinstance(each, tuple) else ()
    if apart and len(apart) != spans:
        raise UsageError(
            f"--budget with {len(apart)} numbers for {spans} picture{'s' * (spans > 1)}",
            allowed="one number, or one for each picture and video",
        )
    plan = resolve(
        recipe,
        session.adapter.shape,
        family_signals=session.adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=sum(each) if isinstance(each, tuple) else each,
        fidelity=options.fidelity,
        exact_layers=options.exact_layers,
    )
    return replace(plan, span_budgets=apart) if apart else plan


def do_job(
    session: Session,
    media: Media | Sequence[Media],
    question: str,
    recipe: Recipe,
    options: PlanOptions,
    generation: Generation,
    *,
    pair: Pair | None = None,
    repeats: int = 1,
    baseline: bool = False,
    observer: Observer | None = None,
    show_text: ShowText | None = None,
    turns: tuple[str, ...] = (),
    memory: bool = True,
) -> Outcome:
    """Answer one question and, with `baseline`, let the full model answer beside it.

    The full model is not asked the `turns`. An `observer` looks at passes of its own.
    """
    from vtc_cli.engine.inputs import note_input, shrink

    shown, whole = several(media), session.adapter.prepare(media, question)
    if observer is not None:
        _check_page(whole)
    plan = make_plan(session, whole, recipe, options)
    smaller, changes = shrink(session.adapter, shown, whole, plan)
    prompt = scored(smaller, pair, media)
    if baseline:  # so that the first of both pays for no first times
        session.warm_up(whole)
    trace = session.run(
        prompt,
        plan,
        generation,
        repeats=repeats,
        on_token=stream(session, show_text),
        capture=baseline,
        turns=turns,
        memory=memory,
    )
    note_input(trace, whole, changes)
    trace.warnings.extend(_input_warnings(trace, shown, prompt))
    trace.observed = _observed(session, prompt, plan, generation.seed, observer)
    if not baseline:
        return Outcome(trace, prompt)
    full, nll_full = _full_model(session, whole, generation, repeats, observer, memory)
    nll = _answer_nll(session, prompt, plan, full.answer_ids, generation.seed)
    return Outcome(trace, prompt, full, (nll, nll_full))


def _input_warnings(trace: Trace, media: Sequence[Media], prompt: Prompt) -> list[str]:
    """What the reader must know of the pictures and of the padding around them."""
    from vtc_cli.report.padding import padding_warnings

    found = [text for each in media for text in each.warnings]
    return found + padding_warnings(trace, media, prompt.patch_boxes)


def _check_page(prompt: Prompt) -> None:
    """See that a page can show the prompt, before anything is computed for it."""
    from vtc_cli.report.page.data import page_grid

    page_grid(prompt.layout)


def _full_model(
    session: Session,
    prompt: Prompt,
    generation: Generation,
    repeats: int,
    observer: Observer | None,
    memory: bool,
) -> tuple[Trace, float]:
    """The full model's run, and nats a token of its own answer."""
    from vtc_cli.core.plan import Plan

    plan, seed = Plan("full"), generation.seed
    full = session.run(prompt, plan, generation, repeats=repeats, capture=True, memory=memory)
    full.observed = _observed(session, prompt, plan, seed, observer)
    return full, _answer_nll(session, prompt, plan, full.answer_ids, seed)


def several(media: Media | Sequence[Media]) -> Sequence[Media]:
    """The pictures and videos of a prompt, also where there is one."""
    return media if isinstance(media, Sequence) else (media,)


def _answer_nll(
    session: Session, prompt: Prompt, plan: Plan, answer_ids: list[int], seed: int
) -> float:
    """Mean NLL of a known answer under `plan`, nats a token."""
    from vtc_cli.metrics.fidelity import answer_nll

    _, logits = session.follow(prompt, plan, answer_ids, seed=seed)
    return answer_nll(logits, answer_ids)


def _observed(
    session: Session, prompt: Prompt, plan: Plan, seed: int, observer: Observer | None
) -> list[Any]:
    """What the observer keeps of the prefill under `plan`; one answer token ends the pass."""
    if observer is None:
        return []
    from vtc_cli.engine.decode import Generation

    one = Generation(max_new_tokens=1, seed=seed)
    return session.run(prompt, plan, one, observer=observer).observed


def stream(session: Session, show_text: ShowText | None) -> Callable[[list[int]], None] | None:
    """A listener that shows the words each new token adds."""
    if show_text is None:
        return None
    shown = ""

    def listen(token_ids: list[int]) -> None:
        nonlocal shown
        text = session.adapter.text(token_ids)
        if text.startswith(shown) and not text.endswith("\ufffd"):  # half of a character
            show_text(text[len(shown) :])
            shown = text

    return listen
