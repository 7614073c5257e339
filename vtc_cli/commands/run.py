"""`vtc run`: answer a question about a picture under a recipe and report what that cost."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtc_cli.commands.batch_options import BatchGroup
from vtc_cli.commands.listing import FormatOption, JsonOption
from vtc_cli.commands.loading import load_session, model_for
from vtc_cli.commands.option_group import option_group
from vtc_cli.commands.output import Output
from vtc_cli.commands.relevance import RelevanceOption, check_read, load_relevance
from vtc_cli.commands.run_options import (
    BaselineOption,
    BudgetOption,
    ExactLayersOption,
    FidelityOption,
    HtmlOption,
    MaxTokensOption,
    MediaArgument,
    MoreOption,
    OutputFileOption,
    OverlayOption,
    QuestionArgument,
    RepeatsOption,
    RunOptions,
    StrictOption,
    TemperatureOption,
    ThenOption,
    TokensOption,
    TopPOption,
    placed,
)
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    RecipeOption,
    SeedOption,
)
from vtc_cli.commands.video_options import (
    EndOption,
    FpsOption,
    FramesOption,
    KeyframesOption,
    ReaderOption,
    StartOption,
    TimeLimitOption,
)
from vtc_cli.core.errors import CheckError
from vtc_cli.core.files import write_whole
from vtc_cli.core.terminal import show

if TYPE_CHECKING:
    from vtc_cli.commands.job import Answered, Outcome, ShowText
    from vtc_cli.core.observe import Observer
    from vtc_cli.report.result import Result


@option_group("batch", BatchGroup)
def run(
    media: MediaArgument = None,
    question: QuestionArgument = None,
    more: MoreOption = None,
    then: ThenOption = None,
    tokens: TokensOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    keyframes: KeyframesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    reader: ReaderOption = "auto",
    time_limit: TimeLimitOption = 120.0,
    recipe: RecipeOption = "full",
    relevance: RelevanceOption = None,
    budget: BudgetOption = "default",
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    model: ModelOption = "auto",
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
    batch: BatchGroup,
    output: Output,
    given: frozenset[str],
) -> None:
    """Answer QUESTION about MEDIA under a recipe; report tokens, FLOPs, KV bytes and time.

    With --batch many jobs are done with one loaded model, one line each in the file of -o.
    """
    arguments = dict(locals())
    del arguments["output"], arguments["batch"]
    _start(arguments, batch, output)


def _start(arguments: dict[str, Any], batch: BatchGroup, output: Output) -> None:
    """Carry out the command line whose values are `arguments`: one job or a batch."""
    words = (arguments["media"], arguments["question"], arguments["tokens"])
    arguments["media"], arguments["question"] = placed(*words, batch.batch is not None)
    for name in ("more", "then"):
        arguments[name] = tuple(arguments[name] or ())
    if arguments.pop("as_json"):
        arguments["format"] = "json"
    options = RunOptions(**arguments)
    if batch.batch is None:
        batch.check_absent(options.given)
        carry_out(options, output)
    else:
        from vtc_cli.commands.batch import carry_out_batch

        carry_out_batch(options, batch, output)


def carry_out(options: RunOptions, output: Output) -> None:
    """Check, load, answer, report.

    Raises:
        VtcError: whatever is wrong with the options, the input, the recipe or the model.
        CheckError: under `--strict`, a stage that did nothing.
    """
    options.check()
    created = datetime.now(UTC)
    live = options.format == "table" and sys.stdout.isatty()
    answered = _answer(options, output, live)
    result = _result(options, answered, created)
    if options.output_file is not None:
        text = result.model_dump_json(indent=2) + "\n"
        write_whole(options.output_file, text)
    if options.overlay is not None:
        _draw(options.overlay, answered)
    if options.html is not None:
        _write_page(options.html, answered, result)
    _print(result, options, output, answered=live)
    if options.strict:
        _check_idle(answered.outcome)


def _answer(options: RunOptions, output: Output, live: bool) -> Answered:
    """Answer, showing the words as they come if `live`."""
    show_text = _show if live else None
    if options.tokens is None:
        answered = _answer_about_media(options, output, show_text)
    else:
        from vtc_cli.commands.replay import answer_from_tokens

        answered = answer_from_tokens(options, options.tokens, output, show_text)
    if live:
        show("")
    return answered


def _answer_about_media(
    options: RunOptions, output: Output, show_text: ShowText | None
) -> Answered:
    """Everything cheap that can fail first, then the model, then the job."""
    from vtc_cli.commands.job import Answered, PlanOptions, do_job, parse_budget, parse_fidelity
    from vtc_cli.media.video import read_media
    from vtc_cli.recipe.load import load_recipe

    plan = PlanOptions(
        parse_budget(options.budget), parse_fidelity(options.fidelity), options.exact_layers
    )
    frames = options.frame_options()
    media, *more = (read_media(path, frames) for path in (options.media, *options.more))
    recipe = load_recipe(options.recipe)
    check_read(options.relevance, [recipe])
    model = model_for(options.model, (media, *more))
    session = load_session(output, model, options.device, options.dtype, options.attn)
    pair = load_relevance(options.relevance, session, output)
    from vtc_cli.engine.decode import Generation

    outcome = do_job(
        session,
        (media, *more),
        options.question,
        recipe,
        plan,
        Generation(options.max_new_tokens, options.temperature, options.top_p, options.seed),
        pair=pair,
        repeats=options.repeats,
        baseline=options.baseline,
        observer=None if options.html is None else _observer(),
        show_text=show_text,
        turns=options.then,
    )
    return Answered(media, options.question, outcome, tuple(more))


def _observer() -> Observer:
    """Looks at the output of every decoder layer and at the attention that the text gives it."""
    from vtc_cli.metrics.layers import layer_observer

    return layer_observer("hidden")


def _show(text: str) -> None:
    show(text, end="")


def _result(options: RunOptions, answered: Answered, created: datetime) -> Result:
    from vtc_cli.report.build import build_result

    outcome = answered.outcome
    return build_result(
        outcome.trace,
        answered.media,
        answered.question,
        command="run",
        argv=sys.argv[1:],
        seed=options.seed,
        created=created.isoformat(timespec="seconds"),
        baseline_trace=outcome.baseline,
        nll=outcome.nll,
        tokens_file=answered.tokens_file,
        more=answered.more,
    )


def _draw(path: Path, answered: Answered) -> None:
    from vtc_cli.report.strips import save_media

    outcome = answered.outcome
    shown = (answered.media, *answered.more)
    save_media(path, outcome.trace, shown, outcome.prompt.patch_boxes)


def _write_page(path: Path, answered: Answered, result: Result) -> None:
    from vtc_cli.report.page.write import write_page

    outcome = answered.outcome
    write_page(path, result, outcome.trace, answered.media, outcome.prompt.patch_boxes)


def _print(result: Result, options: RunOptions, output: Output, *, answered: bool) -> None:
    """Print the result; an answer that was streamed is not printed twice."""
    from vtc_cli.core.console import Console
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
