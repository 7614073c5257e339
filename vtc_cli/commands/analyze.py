"""`vtc analyze`: how much the tokens hold, layer by layer, count by count, head by head."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vtc_cli.commands.analyze_options import (
    DEFAULT_TAU,
    AnalyzeOptions,
    CsvOption,
    CurveOption,
    DataOption,
    LimitOption,
    MatchOption,
    MatrixOption,
    OptionalMedia,
    OptionalQuestion,
    PlotOption,
    PointsOption,
    RankOption,
    RecipesOption,
    SelectOption,
    TauOption,
)
from vtc_cli.commands.listing import FormatOption, JsonOption, print_rows
from vtc_cli.commands.loading import progress_bar, warn_of_noise
from vtc_cli.commands.output import Output
from vtc_cli.commands.relevance import RelevanceOption
from vtc_cli.commands.run_options import (
    BudgetOption,
    ExactLayersOption,
    FidelityOption,
    MaxTokensOption,
    OutputFileOption,
)
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
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
from vtc_cli.core.files import write_whole
from vtc_cli.core.terminal import show

if TYPE_CHECKING:
    from vtc_cli.report.analysis import Analysis


def analyze(
    media: OptionalMedia = None,
    question: OptionalQuestion = None,
    curve: CurveOption = "layers",
    frames: FramesOption = None,
    fps: FpsOption = None,
    keyframes: KeyframesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    reader: ReaderOption = "auto",
    time_limit: TimeLimitOption = 120.0,
    recipes: RecipesOption = [],  # noqa: B006 - typer wants a list, and nobody changes it
    relevance: RelevanceOption = None,
    budget: BudgetOption = "default",
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    select: SelectOption = [],  # noqa: B006
    points: PointsOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    match: MatchOption = "normalised",
    matrix: MatrixOption = "layer_output",
    tau: TauOption = DEFAULT_TAU,
    rank: RankOption = "effective",
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn: AttnOption = "sdpa",
    max_new_tokens: MaxTokensOption = 64,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    output_file: OutputFileOption = None,
    format: FormatOption = "table",
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    *,
    output: Output,
    given: frozenset[str],
) -> None:
    """Draw how rank, attention and information run over layers, token counts or heads."""
    arguments = dict(locals())
    short = {"json": arguments.pop("as_json"), "csv": arguments.pop("as_csv")}
    arguments["format"] = next((name for name, asked in short.items() if asked), format)
    del arguments["output"]
    carry_out(AnalyzeOptions(**arguments), output)


def carry_out(options: AnalyzeOptions, output: Output) -> None:
    """Check, measure, draw.

    Raises:
        VtcError: whatever is wrong with the options, the input, the recipes or the model.
    """
    options.check()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    from vtc_cli.commands.analysis import measure

    with progress_bar(output) as progress:
        analysis = measure(options, sys.argv[1:], created, progress)
    if output.quiet and analysis.model.weights == "random":
        warn_of_noise(output)
    for text in analysis.warnings:
        output.warn(text)
    if options.output_file is not None:
        text = analysis.model_dump_json(indent=2) + "\n"
        write_whole(options.output_file, text)
    if options.plot is not None:
        from vtc_cli.report.figure import save_figure

        save_figure(options.plot, analysis)
    _print(analysis, options)


def _print(analysis: Analysis, options: AnalyzeOptions) -> None:
    """The result on stdout, in the wanted shape."""
    if options.format == "table":
        from vtc_cli.core.console import Console
        from vtc_cli.report.analysis_table import render_analysis

        render_analysis(analysis, Console(), options.rank)
    elif options.format in ("json", "jsonl"):
        show(analysis.model_dump_json(indent=2 if options.format == "json" else None))
    else:
        from vtc_cli.report.analysis_formats import rows

        found = rows(analysis)
        print_rows(found, list(found[0]), options.format)
