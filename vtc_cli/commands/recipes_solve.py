"""`vtc recipes solve`: the hyper-parameters under which a recipe meets a budget on a model."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vtc_cli.commands.listing import FormatOption, JsonOption, print_rows
from vtc_cli.commands.loading import model_for_items
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import ExactLayersOption, FidelityOption
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    SeedOption,
)
from vtc_cli.commands.solve_options import (
    AverageOption,
    CalibrateOption,
    FlopsOption,
    KvOption,
    LimitOption,
    PromptMediaOption,
    PromptQuestionOption,
    SolvedArgument,
    SolvedFileOption,
    SolveOptions,
    TextTokensOption,
    VaryOption,
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
from vtc_cli.core.errors import UsageError
from vtc_cli.core.files import write_whole
from vtc_cli.core.terminal import show

if TYPE_CHECKING:
    from vtc_cli.report.solution import Solution


def solve(
    recipe: SolvedArgument,
    layer_average: AverageOption = None,
    flops: FlopsOption = None,
    kv: KvOption = None,
    vary: VaryOption = None,
    media: PromptMediaOption = None,
    question: PromptQuestionOption = None,
    text_tokens: TextTokensOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    keyframes: KeyframesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    reader: ReaderOption = "auto",
    time_limit: TimeLimitOption = 120.0,
    calibrate: CalibrateOption = None,
    limit: LimitOption = None,
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn: AttnOption = "sdpa",
    seed: SeedOption = 0,
    output_file: SolvedFileOption = None,
    format: FormatOption = "table",
    as_json: JsonOption = False,
    *,
    output: Output,
) -> None:
    """Find the hyper-parameters that meet a budget, or say that none do and why.

    Counts that follow from numbers need no run, and a shape:NAME model then needs no weights. Where
    counts depend on the data, --calibrate runs the recipe over a few items.
    """
    arguments = dict(locals())
    del arguments["output"]
    arguments["vary"] = tuple(vary or ())
    if arguments.pop("as_json"):
        arguments["format"] = "json"
    carry_out(SolveOptions(**arguments), output)


def carry_out(options: SolveOptions, output: Output) -> None:
    """Check, solve, write, print.

    Raises:
        VtcError: whatever is wrong with the options, the recipe, the model or the items.
        BudgetError: no setting meets the target, or arithmetic is not enough.
    """
    options.check()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    solution = _solved(options, created, output)
    for text in solution.warnings:
        output.warn(text)
    if options.output_file is not None:
        write_whole(options.output_file, solution.solved_recipe)
    _print(solution, options)


def _solved(options: SolveOptions, created: str, output: Output) -> Solution:
    """The solution, by the way that the options name."""
    from vtc_cli.commands.job import parse_fidelity
    from vtc_cli.recipe.load import load_recipe

    recipe = load_recipe(options.recipe)
    _check_apart(options, recipe.path)
    parse_fidelity(options.fidelity)
    options = replace(options, model=_model(options))
    if options.calibrate is None:
        from vtc_cli.commands.solving import sizing_adapter, solve_by_arithmetic

        adapter = sizing_adapter(options, output)
        return solve_by_arithmetic(options, recipe, adapter, sys.argv[1:], created)
    from vtc_cli.commands.calibrating import solve_by_calibration

    return solve_by_calibration(options, recipe, sys.argv[1:], created, output)


def _model(options: SolveOptions) -> str:
    """The model asked for, or the shipped one for the inputs."""
    from vtc_cli.media.items import read_items

    paths = [options.media] if options.media else []
    if options.calibrate is not None:
        paths = [item.media for item in read_items(options.calibrate)]
    return model_for_items(options.model, paths, options.frame_options())


def _check_apart(options: SolveOptions, path: str) -> None:
    """See that the solved recipe does not replace the one that is solved.

    Raises:
        UsageError: it would.
    """
    target = options.output_file
    if target is not None and os.path.exists(target) and target.samefile(path):
        raise UsageError(
            f"{target} is the recipe itself", where="--output", allowed="another file name"
        )


def _print(solution: Solution, options: SolveOptions) -> None:
    """The solution on stdout, in the wanted shape."""
    if options.format in ("json", "jsonl"):
        show(solution.model_dump_json(indent=2 if options.format == "json" else None))
        return
    from vtc_cli.report.solution_table import COLUMNS, measure_rows, render_solution

    if options.format == "table":
        from vtc_cli.core.console import Console

        render_solution(solution, Console())
    else:
        print_rows(measure_rows(solution), COLUMNS, options.format)
