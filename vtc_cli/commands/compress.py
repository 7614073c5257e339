"""`vtc compress`: stop before decoding and keep the tokens, the decisions and a picture of them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vtc_cli.commands.compress_options import (
    CompressOptions,
    OutputOption,
    PicturesArgument,
    QuestionOption,
    ShapeOption,
    StageOption,
    output_files,
)
from vtc_cli.commands.listing import JsonOption
from vtc_cli.commands.loading import busy, load_session, model_for
from vtc_cli.commands.output import Output
from vtc_cli.commands.relevance import RelevanceOption, check_read, load_relevance
from vtc_cli.commands.run_options import BudgetOption, ExactLayersOption, FidelityOption
from vtc_cli.commands.settings import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    RecipeOption,
    SeedOption,
)
from vtc_cli.commands.video_options import (
    CHOICES,
    EndOption,
    FpsOption,
    FramesOption,
    KeyframesOption,
    ReaderOption,
    StartOption,
    TimeLimitOption,
)
from vtc_cli.core.terminal import show

if TYPE_CHECKING:
    from vtc_cli.commands.compress_job import Compressor
    from vtc_cli.commands.job import PlanOptions


def compress(
    media: PicturesArgument,
    output_stem: OutputOption,
    frames: FramesOption = None,
    fps: FpsOption = None,
    keyframes: KeyframesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    reader: ReaderOption = "auto",
    time_limit: TimeLimitOption = 120.0,
    recipe: RecipeOption = "full",
    relevance: RelevanceOption = None,
    question: QuestionOption = None,
    budget: BudgetOption = "default",
    fidelity: FidelityOption = None,
    exact_layers: ExactLayersOption = False,
    stage: StageOption = None,
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn: AttnOption = "sdpa",
    seed: SeedOption = 0,
    format: ShapeOption = "table",
    as_json: JsonOption = False,
    *,
    output: Output,
    given: frozenset[str],
) -> None:
    """Compress MEDIA under a recipe and write tokens, decisions and an overlay.

    Of a folder every picture is compressed; what is done already is left alone. With a choice of
    frames the folder is one video, a picture a frame.
    """
    arguments = dict(locals())
    arguments["format"] = "json" if arguments.pop("as_json") else format
    del arguments["output"], arguments["given"]
    options = CompressOptions(**arguments)
    options.check_question()
    options.frame_options()
    if os.path.isdir(media) and not given & CHOICES:
        _compress_folder(options, output)
    else:
        _compress_one(options, output)


def _compress_one(options: CompressOptions, output: Output) -> None:
    """Everything cheap that can fail first, then the model, then the picture or video."""
    from vtc_cli.media.video import read_media

    stem, plan = options.stem(), options.plan_options()
    media = read_media(options.media, options.frame_options())
    options = replace(options, model=model_for(options.model, (media,)))
    compressor = _compressor(options, plan, output)
    with busy(output, f"compressing {options.media}"):
        report = compressor.compress(media, stem)
    for warning in report.warnings:
        output.warn(warning)
    if options.format == "json":
        show(report.model_dump_json(indent=2, exclude={"decisions"}))
    else:
        from vtc_cli.core.console import Console
        from vtc_cli.report.compressed_table import render

        render(report, output_files(stem), Console())


def _compress_folder(options: CompressOptions, output: Output) -> None:
    """Compress every picture of a folder; exit code 1 if any failed."""
    from vtc_cli.commands.compress_folder import Tally, compress_all, find_pictures, prepare_target

    folder, target, plan = Path(options.media), options.output_stem, options.plan_options()
    options = replace(options, model=model_for(options.model, ()))  # of pictures alone
    pictures, passed_over = find_pictures(folder)
    prepare_target(folder, target)
    tally = Tally(passed_over=passed_over)
    compress_all(_compressor(options, plan, output), pictures, target, tally, output)
    if options.format == "json":
        show(json.dumps({"command": "compress", **asdict(tally)}, indent=2, ensure_ascii=False))
    else:
        show(tally.line())
    if tally.failed:
        raise typer.Exit(1)


def _compressor(options: CompressOptions, plan: PlanOptions, output: Output) -> Compressor:
    """The recipe first, for it may have faults; then the model."""
    from vtc_cli.commands.compress_job import Compressor, Wish
    from vtc_cli.recipe.load import load_recipe

    recipe = load_recipe(options.recipe)
    check_read(options.relevance, [recipe])
    wish = Wish(
        recipe,
        options.recipe,
        plan,
        options.stage,
        options.question,
        options.seed,
        options.relevance,
    )
    session = load_session(output, options.model, options.device, options.dtype, options.attn)
    return Compressor(session, wish, load_relevance(options.relevance, session, output))
