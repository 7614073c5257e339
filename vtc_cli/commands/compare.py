"""`vtc compare`: recipes and budgets over one input or many, beside what they have to beat."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtc_cli.commands.batch_options import EngineGroup
from vtc_cli.commands.compare_options import (
    BudgetsOption,
    ColumnsOption,
    CompareOptions,
    DataOption,
    FailIfOption,
    FromOption,
    LimitOption,
    MatchOption,
    NoBaselinesOption,
    OptionalMedia,
    OptionalQuestion,
    PageOption,
    RecipesOption,
    RowsOption,
    ShapeOption,
)
from vtc_cli.commands.listing import JsonOption
from vtc_cli.commands.loading import model_for_items, progress_bar, warn_of_noise
from vtc_cli.commands.option_group import option_group
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import ExactLayersOption, FidelityOption, MaxTokensOption
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    SeedOption,
)
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import CheckError, VtcError
from vtc_cli.core.terminal import emit, say, show

if TYPE_CHECKING:
    from vtc_cli.commands.compare_work import ItemDone, ItemTask
    from vtc_cli.jobs.engines import Running
    from vtc_cli.media.items import Item
    from vtc_cli.report.compare.rows import Row, Rows
    from vtc_cli.report.compare.summary import Comparison


@option_group("video", VideoOptions)
@option_group("engines", EngineGroup)
def compare(
    media: OptionalMedia = None,
    question: OptionalQuestion = None,
    recipes: RecipesOption = [],  # noqa: B006 - typer wants a list, and nobody changes it
    budget: BudgetsOption = "default",
    no_baselines: NoBaselinesOption = False,
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    data: DataOption = None,
    columns: ColumnsOption = None,
    limit: LimitOption = None,
    match: MatchOption = None,
    source: FromOption = None,
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn: AttnOption = "sdpa",
    max_new_tokens: MaxTokensOption = 64,
    seed: SeedOption = 0,
    output_file: RowsOption = None,
    html: PageOption = None,
    fail_if: FailIfOption = None,
    format: ShapeOption = "table",
    as_json: JsonOption = False,
    *,
    video: VideoOptions,
    engines: EngineGroup,
    output: Output,
    given: frozenset[str],
) -> None:
    """Compare recipes at budgets: accuracy, cost, and whether they beat random."""
    arguments = dict(locals())
    arguments["format"] = "json" if arguments.pop("as_json") else format
    del arguments["output"], arguments["engines"], arguments["video"]
    carry_out(CompareOptions(**arguments, **vars(video)), engines, output)


def carry_out(options: CompareOptions, engines: EngineGroup, output: Output) -> None:
    """Check, measure or read, report.

    Raises:
        VtcError: whatever is wrong with the options, the input, the recipes or the model.
        CheckError: under `--fail-if`, a recipe for which it holds.
    """
    options.check()
    engines.check(options.given)
    from vtc_cli.report.compare.condition import check_known, failing, parse_condition

    condition = None if options.fail_if is None else parse_condition(options.fail_if)
    with tempfile.TemporaryDirectory(prefix="vtc-") as folder:
        found = _compared(options, engines, output, Path(folder))
    _check_failures(found)
    if condition is not None:
        check_known(condition, found)
        _check_condition(failing(condition, found), options.fail_if)


def _check_condition(tripped: list[str], text: str | None) -> None:
    """Raise CheckError if the condition held for a recipe."""
    if tripped:
        raise CheckError("; ".join(tripped), where="--fail-if", allowed=f"not ({text})")


def _compared(
    options: CompareOptions, engines: EngineGroup, output: Output, folder: Path
) -> Comparison:
    """Measure or read, and report; `folder` holds pictures that lay inside a table."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    from_file = options.source is not None
    from vtc_cli.commands.compare_rows import rows_from

    measure = partial(_measured, options, engines, created, output, folder)
    rows = rows_from(options) if from_file else measure()
    from vtc_cli.report.compare.build import summarise

    found = summarise(rows, argv=sys.argv[1:], created=created)
    if found.model.weights == "random":
        warn_of_noise(output)
    for text in found.warnings:
        output.warn(text)
    if options.html is not None:
        from vtc_cli.report.compare.page import write_page

        write_page(options.html, rows, found)
    _print(found, rows, options)
    return found


def _measured(
    options: CompareOptions, engines: EngineGroup, created: str, output: Output, folder: Path
) -> Rows:
    """Make every pass that is not in the file yet."""
    from vtc_cli.commands.compare_rows import row_file, rows_in
    from vtc_cli.commands.compare_run import take_part
    from vtc_cli.commands.compare_work import CompareWork
    from vtc_cli.jobs.engines import started

    take_part(options)
    everything = _items(options, folder)
    paths = (item.media for item in everything)
    options = replace(options, model=model_for_items(options.model, paths, options.frame_options()))
    work, items = CompareWork(options, tuple(everything)), everything[: options.limit]
    engine = engines.engine_options()
    with (
        row_file(options.output_file) as file,
        started(work, engine, output, output.warn) as running,
    ):
        for name, reason in running.told.left_out.items():
            output.warn(f"the baseline {name} is left out: {reason}")
        rows = rows_in(file, options, running.told.wishes, created)
        try:
            _do_items(rows, items, running, output)
        except KeyboardInterrupt:
            if file is not None and not output.quiet:
                say("the same command goes on from here")
            raise
        return rows.only(item.id for item in items)


def _do_items(
    rows: Rows, items: list[Item], running: Running[ItemTask, Row | ItemDone], output: Output
) -> None:
    """Do what is not done yet; every row is kept before the next one comes."""
    from vtc_cli.commands.compare_work import ItemDone, ItemTask

    left = [(number, item) for number, item in enumerate(items) if not rows.is_done(item.id)]
    tasks = (ItemTask(item, number, rows.of_item(item.id)) for number, item in left)
    with progress_bar(output) as progress:
        bar = progress.add_task("comparing", total=len(items), completed=len(items) - len(left))
        for row in running.results(tasks):
            if isinstance(row, ItemDone):
                progress.advance(bar)
            else:
                rows.add(row)


def _items(options: CompareOptions, folder: Path) -> list[Item]:
    """The inputs, all of them.

    Raises:
        UsageError: a rule that could call no answer right.
    """
    from vtc_cli.commands.matching import check_rules
    from vtc_cli.media.item_sources import parse_columns, read_data
    from vtc_cli.media.items import Item

    if options.data is None:
        return [Item("1", options.media or "", (options.question or "").strip())]
    items = read_data(options.data, parse_columns(options.columns), folder)
    check_rules(items, options.match or "normalised")
    return items


def _print(found: Comparison, rows: Rows, options: CompareOptions) -> None:
    """The result on stdout, in the wanted shape."""
    if options.format == "table":
        from vtc_cli.core.console import Console
        from vtc_cli.report.compare.table import render

        render(found, Console())
    elif options.format == "json":
        show(found.model_dump_json(indent=2))
    elif options.format == "html":
        from vtc_cli.report.compare.page import page_text

        emit(page_text(rows, found))
    else:
        from vtc_cli.report.compare.formats import as_csv, as_markdown

        emit(as_csv(found) if options.format == "csv" else as_markdown(found))


def _check_failures(found: Comparison) -> None:
    """A comparison with holes is told, then fails.

    Raises:
        VtcError: some passes failed.
    """
    if found.failures:
        first = found.failures[0]
        where: Any = f"item {first.item}, {' '.join(filter(None, (first.recipe, first.budget)))}"
        raise VtcError(f"{len(found.failures)} failed; {first.error.message}", where=where)
