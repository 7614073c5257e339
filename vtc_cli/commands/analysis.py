"""From the options of `vtc analyze` to its result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vtc_cli.commands.analyze_options import AnalyzeOptions
from vtc_cli.commands.curves import Selection, SweepOptions, observe_layers, sweep_input
from vtc_cli.commands.job import PlanOptions, make_plan, parse_budget, parse_fidelity
from vtc_cli.commands.loading import load_session, model_for, model_for_items
from vtc_cli.commands.matching import check_rules, rule_of
from vtc_cli.commands.output import Output
from vtc_cli.commands.relevance import check_read, load_relevance, scored
from vtc_cli.core.errors import MediaError, UsageError
from vtc_cli.core.files import sha256_of
from vtc_cli.core.observe import Matrix
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import shrink
from vtc_cli.engine.session import Session, environment
from vtc_cli.media.items import Item, read_items
from vtc_cli.media.video import read_media
from vtc_cli.metrics.answers import Rule, matches
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.selection import SELECTIONS, selection_layer, selection_plan
from vtc_cli.report.analysis import Analysis, DataBlock, LayerRun, Sweep
from vtc_cli.report.analysis_build import gather, layer_run, sweep
from vtc_cli.report.build import input_facts, model_block
from vtc_cli.report.result import SCHEMA_VERSION

if TYPE_CHECKING:
    from rich.progress import Progress


SILENT = Output(no_progress=True)  # the bar of the analysis is on the terminal already
DEFAULT_QUESTION = "what is in the picture?"
MATRIX: dict[str, Matrix] = {"layer_output": "hidden", "attention_output": "attention_output"}
LADDER = (1, 3 / 4, 5 / 9, 4 / 9, 1 / 3, 2 / 9, 1 / 6, 1 / 9, 1 / 12, 1 / 18, 1 / 36, 1 / 72)


def measure(
    options: AnalyzeOptions, argv: Sequence[str], created: str, progress: Progress
) -> Analysis:
    """Read the input, load the model, measure the curve.

    Raises:
        VtcError: whatever is wrong with the input, the recipes, the counts or the model.
    """
    body = _swept(options, progress) if options.curve == "tokens" else _observed(options, progress)
    return Analysis.model_validate(
        {
            "command": "analyze",
            "schema_version": SCHEMA_VERSION,
            "created": created,
            "argv": list(argv),
            "seed": options.seed,
            "curve": options.curve,
            "matrix": options.matrix,
            "tau": options.tau,
            "error": None,
            "input": None,
            "data": None,
            "runs": None,
            "sweeps": None,
            **body,
        }
    )


def _observed(options: AnalyzeOptions, progress: Progress) -> dict[str, Any]:
    """Layers or heads of the full model and of each recipe."""
    assert options.media is not None  # checked with the options
    media = read_media(options.media, options.frame_options())
    question = _question(options)
    recipes = [load_recipe(name) for name in options.recipes]
    check_read(options.relevance, recipes)
    wanted = PlanOptions(
        parse_budget(options.budget), parse_fidelity(options.fidelity), options.exact_layers
    )
    session = _session(options, model_for(options.model, (media,)))
    prompt = _visual(session.adapter.prepare(media, question), options.media)
    pair = load_relevance(options.relevance, session, SILENT)
    plans = [Plan("full"), *(make_plan(session, prompt, recipe, wanted) for recipe in recipes)]
    matrix = None if options.curve == "heads" else MATRIX[options.matrix]
    runs: list[LayerRun] = []
    for plan in progress.track(plans, description="observing layers"):
        seen, _ = shrink(session.adapter, (media,), prompt, plan)
        seen = scored(seen, pair, media)
        runs.append(
            layer_run(observe_layers(session, seen, plan, matrix, options.tau), options.tau)
        )
    notes = [*prompt.warnings, *(warning for plan in plans for warning in plan.warnings)]
    return {
        **_common(session, [*_question_notes(options), *media.warnings, *notes]),
        "input": input_facts(media) | {"question": question},
        "runs": runs,
    }


def _swept(options: AnalyzeOptions, progress: Progress) -> dict[str, Any]:
    """A sweep over token counts for one input or for many."""
    items = _items(options)
    frames = options.frame_options()
    media = [read_media(item.media, frames) for item in items[:1]]  # the first tells the counts
    counts = options.counts()
    names = _selection_names(options)
    model = model_for_items(options.model, (item.media for item in items), frames)
    session = _session(options, model if options.data else model_for(options.model, media))
    first = _visual(session.adapter.prepare(media[0], items[0].question), items[0].media)
    chosen = _options(session, first, names, _counts(counts, first.layout.tokens), options)
    task = progress.add_task("sweeping", total=len(items) * chosen.steps)
    found = []
    for number, item in enumerate(items):
        prompt = session.adapter.prepare(read_media(item.media, frames), item.question)
        judge = None if item.answer is None else partial(_right, item, options.match)
        step = partial(progress.advance, task)
        own = chosen.with_seed(options.seed + number)  # each input has a random choice of its own
        found.append(sweep_input(session, prompt, own, judge=judge, step=step))
    sweeps: list[Sweep] = [
        sweep(one.name, one.layer, gather(found, one.name)) for one in chosen.selections
    ]
    notes = [*_question_notes(options), *media[0].warnings]
    body = _common(session, notes) | {"sweeps": sweeps}
    if options.data is None:
        return body | {"input": input_facts(media[0]) | {"question": items[0].question}}
    return body | {"data": _data_block(options, items)}


def _items(options: AnalyzeOptions) -> list[Item]:
    """The inputs of a sweep."""
    if options.data is None:
        assert options.media is not None  # checked with the options
        return [Item("1", options.media, _question(options))]
    items = read_items(options.data)[: options.limit]
    check_rules(items, options.match)
    return items


def _right(item: Item, rule: Rule, answer: str) -> bool:
    return matches(answer, item.answer or "", rule_of(item, rule))


def _options(
    session: Session,
    prompt: Prompt,
    names: Sequence[str],
    counts: Sequence[int],
    options: AnalyzeOptions,
) -> SweepOptions:
    layer = selection_layer(session.adapter.shape.decoder.layers)
    selections = [Selection(name, layer, _planner(session, prompt, name, layer)) for name in names]
    return SweepOptions(
        selections=selections,
        counts=counts,
        generation=Generation(options.max_new_tokens, seed=options.seed),
        matrix=MATRIX[options.matrix],
        tau=options.tau,
    )


def _planner(session: Session, prompt: Prompt, name: str, layer: int) -> Any:
    """The plan of a selection for each count."""

    def plan(count: int) -> Plan:
        return selection_plan(
            name,
            count,
            layer,
            session.adapter.shape,
            family_signals=session.adapter.provides,
            original_tokens=prompt.layout.tokens,
        )

    return plan


def _selection_names(options: AnalyzeOptions) -> list[str]:
    """The wanted selections, each once.

    Raises:
        UsageError: an unknown one.
    """
    names = list(dict.fromkeys(options.select)) or ["tokencarve"]
    for name in names:
        if name not in SELECTIONS:
            from vtc_cli.core.discover import nearest

            raise UsageError(
                f"--select {name}", allowed=", ".join(SELECTIONS), hint=nearest(name, SELECTIONS)
            )
    return names


def _counts(counts: list[int] | None, original_tokens: int) -> list[int]:
    """The wanted counts, or a ladder from all tokens down.

    Raises:
        UsageError: a count above the tokens there are.
    """
    if counts is None:
        return list(dict.fromkeys(max(round(original_tokens * share), 1) for share in LADDER))
    if counts[0] > original_tokens:
        raise UsageError(
            f"--points {counts[0]}",
            allowed=f"1..{original_tokens}, the visual tokens of this input",
        )
    return counts


def _session(options: AnalyzeOptions, model: str) -> Session:
    return load_session(SILENT, model, options.device, options.dtype, options.attn)


def _visual(prompt: Prompt, path: str) -> Prompt:
    """The prompt, if it has visual tokens.

    Raises:
        MediaError: it has none.
    """
    if prompt.layout.tokens == 0:
        raise MediaError("no visual tokens", where=path, allowed="a picture that the model reads")
    return prompt


def _question(options: AnalyzeOptions) -> str:
    return (options.question or "").strip() or DEFAULT_QUESTION


def _question_notes(options: AnalyzeOptions) -> list[str]:
    if options.data is not None or (options.question or "").strip():
        return []
    return [f'no question was given; "{DEFAULT_QUESTION}" was asked']


def _common(session: Session, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "model": model_block(session.facts),
        "warnings": list(dict.fromkeys(notes)),
        "environment": environment(session.adapter.device),
    }


def _data_block(options: AnalyzeOptions, items: Sequence[Item]) -> DataBlock:
    assert options.data is not None
    return DataBlock(
        path=str(options.data),
        sha256=sha256_of(options.data),
        items=len(items),
        answered=sum(item.answer is not None for item in items),
        match=options.match,
    )
