"""`vtc compare`: recipes and budgets over one input or many, beside what they have to beat."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from vtc_cli.commands.loading import load_session, progress_bar
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import ExactLayersOption, FidelityOption, MaxTokensOption
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    SeedOption,
)
from vtc_cli.core.errors import CheckError, UsageError, VtcError

if TYPE_CHECKING:
    from vtc_cli.media.items import Item
    from vtc_cli.report.compare.rows import Rows, Wishes
    from vtc_cli.report.compare.summary import Comparison


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
    model: ModelOption = "tiny",
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
    output: Output,
    given: frozenset[str],
) -> None:
    """Compare recipes at budgets: accuracy, cost, and whether they beat random."""
    arguments = dict(locals())
    arguments["format"] = "json" if arguments.pop("as_json") else format
    del arguments["output"]
    carry_out(CompareOptions(**arguments), output)


def carry_out(options: CompareOptions, output: Output) -> None:
    """Check, measure or read, report.

    Raises:
        VtcError: whatever is wrong with the options, the input, the recipes or the model.
        CheckError: under `--fail-if`, a recipe for which it holds.
    """
    options.check()
    from vtc_cli.report.compare.condition import check_known, failing, parse_condition

    condition = None if options.fail_if is None else parse_condition(options.fail_if)
    with tempfile.TemporaryDirectory(prefix="vtc-") as folder:
        found = _compared(options, output, Path(folder))
    _check_failures(found)
    if condition is not None:
        check_known(condition, found)
        _check_condition(failing(condition, found), options.fail_if)


def _check_condition(tripped: list[str], text: str | None) -> None:
    """Raise CheckError if the condition held for a recipe."""
    if tripped:
        raise CheckError("; ".join(tripped), where="--fail-if", allowed=f"not ({text})")


def _compared(options: CompareOptions, output: Output, folder: Path) -> Comparison:
    """Measure or read, and report; `folder` holds pictures that lay inside a table."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    from_file = options.source is not None
    rows = _read(options) if from_file else _measured(options, created, output, folder)
    from vtc_cli.report.compare.build import summarise

    found = summarise(rows, argv=sys.argv[1:], created=created)
    for text in found.warnings:
        output.warn(text)
    if options.html is not None:
        from vtc_cli.report.compare.page import write_page

        write_page(options.html, rows, found)
    _print(found, rows, options)
    return found


def _read(options: CompareOptions) -> Rows:
    """The rows of an earlier comparison, judged by another rule if one is named."""
    from vtc_cli.commands.matching import check_rules
    from vtc_cli.report.compare.rows import rows_of
    from vtc_cli.store.lines import read_lines

    assert options.source is not None
    rows = rows_of(read_lines(options.source), str(options.source))
    if options.match is not None:
        check_rules(list(rows.items.values()), options.match)
        rows.head = rows.head.model_copy(update={"match": options.match})
    return rows


def _measured(options: CompareOptions, created: str, output: Output, folder: Path) -> Rows:
    """Make every pass that is not in the file yet."""
    from vtc_cli.commands.compare_run import Comparer, check_plans, take_part, wishes_of

    entrants = take_part(options)
    everything = _items(options, folder)
    session = load_session(output, options.model, options.device, options.dtype, options.attn)
    left_out = check_plans(session, entrants, options.budgets(), everything)
    for name, reason in left_out.items():
        output.warn(f"the baseline {name} is left out: {reason}")
    wishes = wishes_of(options, session, entrants, everything)
    items = everything[: options.limit]
    with _opened(options, wishes, created) as rows, progress_bar(output) as progress:
        comparer = Comparer(session, entrants, rows, options.max_new_tokens, options.seed)
        task = progress.add_task("comparing", total=len(items))
        try:
            comparer.run(items, lambda: progress.advance(task))
        except KeyboardInterrupt:
            if options.output_file is not None and not output.quiet:
                print("the same command goes on from here", file=sys.stderr)
            raise
        return rows.only(item.id for item in items)


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


@contextmanager
def _opened(options: CompareOptions, wishes: Wishes, created: str) -> Iterator[Rows]:
    """The rows done so far, and a place for new ones: the file of `-o`, or memory.

    Raises:
        UsageError: the file is that of another comparison.
    """
    from vtc_cli.report.compare.rows import HeadLine, Rows, rows_of
    from vtc_cli.store.lines import LineFile, read_lines

    match = options.match or "normalised"
    head = HeadLine(created=created, argv=sys.argv[1:], match=match, wishes=wishes)
    path = options.output_file
    if path is None:
        yield Rows(head)
        return
    with LineFile(path) as file:
        if path.stat().st_size == 0:
            file.append(head.model_dump(mode="json"))
        rows = rows_of(read_lines(path), str(path))
        _check_same(rows.head.wishes, wishes, path)
        rows.head = rows.head.model_copy(update={"match": match})
        rows.write = file.append
        yield rows


def _check_same(known: Wishes, wishes: Wishes, path: Path) -> None:
    """Refuse to go on with another comparison.

    Raises:
        UsageError: with the first difference.
    """
    for name in type(wishes).model_fields:
        theirs, mine = getattr(known, name), getattr(wishes, name)
        if name == "source":  # the same items may be reached by another path
            theirs, mine = theirs.sha256, mine.sha256
        if theirs != mine:
            raise UsageError(
                f"the file is that of another comparison: its {name} differ",
                where=str(path),
                allowed="the same recipes, budgets, model, items and versions",
                hint="another file for -o",
            )


def _print(found: Comparison, rows: Rows, options: CompareOptions) -> None:
    """The result on stdout, in the wanted shape."""
    if options.format == "table":
        from rich.console import Console

        from vtc_cli.report.compare.table import render

        render(found, Console())
    elif options.format == "json":
        print(found.model_dump_json(indent=2))
    elif options.format == "html":
        from vtc_cli.report.compare.page import page_text

        sys.stdout.write(page_text(rows, found))
    else:
        from vtc_cli.report.compare.formats import as_csv, as_markdown

        sys.stdout.write(as_csv(found) if options.format == "csv" else as_markdown(found))


def _check_failures(found: Comparison) -> None:
    """A comparison with holes is told, then fails.

    Raises:
        VtcError: some passes failed.
    """
    if found.failures:
        first = found.failures[0]
        where: Any = f"item {first.item}, {' '.join(filter(None, (first.recipe, first.budget)))}"
        raise VtcError(f"{len(found.failures)} failed; {first.error.message}", where=where)
