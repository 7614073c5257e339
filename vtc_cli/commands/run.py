"""`vtc run`: answer a question about a picture under a recipe and report what that cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vtc_cli.commands.listing import FormatOption, JsonOption
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import (
    BaselineOption,
    BudgetOption,
    ExactLayersOption,
    FidelityOption,
    HtmlOption,
    MaxTokensOption,
    MediaArgument,
    OutputFileOption,
    OverlayOption,
    QuestionArgument,
    RepeatsOption,
    RunOptions,
    StrictOption,
    TemperatureOption,
    TopPOption,
)
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    RecipeOption,
    SeedOption,
)
from vtc_cli.core.errors import CheckError

if TYPE_CHECKING:
    from vtc_cli.commands.job import Outcome
    from vtc_cli.core.media import Media
    from vtc_cli.core.observe import Observer
    from vtc_cli.engine.session import Session
    from vtc_cli.report.result import Result


def run(
    media: MediaArgument,
    question: QuestionArgument,
    recipe: RecipeOption = "full",
    budget: BudgetOption = "default",
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn: AttnOption = "sdpa",
    max_new_tokens: MaxTokensOption = 64,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
    repeats: RepeatsOption = 1,
    baseline: BaselineOption = False,
    overlay: OverlayOption = None,
    html: HtmlOption = None,
    output_file: OutputFileOption = None,
    strict: StrictOption = False,
    format: FormatOption = "table",
    as_json: JsonOption = False,
    *,
    output: Output,
) -> None:
    """Answer QUESTION about MEDIA under a recipe; report tokens, FLOPs, KV bytes and time."""
    arguments = dict(locals())
    arguments["format"] = "json" if arguments.pop("as_json") else format
    del arguments["output"]
    carry_out(RunOptions(**arguments), output)


def carry_out(options: RunOptions, output: Output) -> None:
    """Check, load, answer, report.

    Raises:
        VtcError: whatever is wrong with the options, the input, the recipe or the model.
        CheckError: under `--strict`, a stage that did nothing.
    """
    options.check()
    created = datetime.now(UTC)
    live = options.format == "table" and sys.stdout.isatty()
    media, outcome = _answer(options, output, live)
    result = _result(options, media, outcome, created)
    if options.output_file is not None:
        text = result.model_dump_json(indent=2) + "\n"
        options.output_file.write_text(text, encoding="utf-8")
    if options.overlay is not None:
        _draw(options, media, outcome)
    if options.html is not None:
        _write_page(options, media, outcome, result)
    _print(result, options, output, answered=live)
    if options.strict:
        _check_idle(outcome)


def _answer(options: RunOptions, output: Output, live: bool) -> tuple[Media, Outcome]:
    """Everything cheap that can fail first, then the model, then the job."""
    from vtc_cli.commands.job import PlanOptions, do_job, parse_budget, parse_fidelity
    from vtc_cli.media.image import read_image
    from vtc_cli.recipe.load import load_recipe

    plan = PlanOptions(
        parse_budget(options.budget), parse_fidelity(options.fidelity), options.exact_layers
    )
    media = read_image(options.media)
    recipe = load_recipe(options.recipe)
    with _busy(output, f"loading {options.model}"):
        session = _load(options)
    from vtc_cli.engine.decode import Generation

    outcome = do_job(
        session,
        media,
        options.question,
        recipe,
        plan,
        Generation(options.max_new_tokens, options.temperature, options.top_p, options.seed),
        repeats=options.repeats,
        baseline=options.baseline,
        observer=None if options.html is None else _observer(),
        show_text=_show if live else None,
    )
    if live:
        print(flush=True)
    return media, outcome


def _load(options: RunOptions) -> Session:
    """The model, with the libraries' own chatter off."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.load import LoadOptions, load_model

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    adapter, facts = load_model(
        options.model, LoadOptions(options.device, options.dtype, options.attn)
    )
    return Session(adapter, facts)


def _observer() -> Observer:
    """Looks at the output of every decoder layer and at the attention that the text gives it."""
    from vtc_cli.metrics.layers import layer_observer

    return layer_observer("hidden")


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _result(options: RunOptions, media: Media, outcome: Outcome, created: datetime) -> Result:
    from vtc_cli.report.build import build_result

    return build_result(
        outcome.trace,
        media,
        options.question,
        command="run",
        argv=sys.argv[1:],
        seed=options.seed,
        created=created.isoformat(timespec="seconds"),
        baseline_trace=outcome.baseline,
        nll=outcome.nll,
    )


def _draw(options: RunOptions, media: Media, outcome: Outcome) -> None:
    from vtc_cli.report.overlay import save_overlay

    assert options.overlay is not None
    save_overlay(options.overlay, outcome.trace, media, outcome.prompt.patch_boxes)


def _write_page(options: RunOptions, media: Media, outcome: Outcome, result: Result) -> None:
    from vtc_cli.report.page.write import write_page

    assert options.html is not None
    write_page(options.html, result, outcome.trace, media, outcome.prompt.patch_boxes)


def _print(result: Result, options: RunOptions, output: Output, *, answered: bool) -> None:
    """Print the result; an answer that was streamed is not printed twice."""
    from rich.console import Console

    from vtc_cli.report.formats import print_result
    from vtc_cli.report.table import render

    if answered:
        render(result, Console(), answer=False)
    else:
        errors = Console(stderr=True)
        print_result(result, options.format, Console(), errors, output.quiet)


def _check_idle(outcome: Outcome) -> None:
    """Raise CheckError if a stage changed nothing."""
    from vtc_cli.metrics.tokens import idle_warnings

    idle = idle_warnings(outcome.trace)
    if idle:
        raise CheckError(
            "; ".join(idle),
            allowed="under --strict every stage changes something",
            hint="a smaller --budget, or leave the stage out",
        )


@contextmanager
def _busy(output: Output, text: str) -> Iterator[None]:
    """A spinner on stderr while something slow happens."""
    if not output.shows_progress:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
