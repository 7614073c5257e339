"""The options of `vtc compress`, one line each, and the checked set of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from vtc_cli.commands.job import PlanOptions, parse_budget, parse_fidelity
from vtc_cli.commands.run_options import PLAN, check_writable
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import UsageError

TOKENS, DECISIONS, OVERLAY = ".safetensors", ".json", ".png"
FLAG = "--output"

PicturesArgument = Annotated[
    str, typer.Argument(metavar="MEDIA", help="A picture, a video, a folder of pictures, or -.")
]
OutputOption = Annotated[
    Path,
    typer.Option(FLAG, "-o", help="Name of the files without ending; a folder for a folder."),
]
QuestionOption = Annotated[
    str | None, typer.Option("--question", help="For stages that read it.", rich_help_panel=PLAN)
]
StageOption = Annotated[
    str | None, typer.Option("--stage", help="Stop after this stage.", rich_help_panel=PLAN)
]
Shape = Literal["table", "json"]
ShapeOption = Annotated[Shape, typer.Option("--format", "-f", help="Shape of the summary.")]


@dataclass(frozen=True, kw_only=True)
class CompressOptions(VideoOptions):
    """What the command line asks of `compress`; field names are the option names."""

    media: str
    output_stem: Path
    recipe: str
    relevance: str | None
    question: str | None
    stage: str | None
    budget: str
    fidelity: str | None
    exact_layers: bool
    model: str
    device: str
    dtype: str
    attn: str
    seed: int
    format: Shape

    def plan_options(self) -> PlanOptions:
        """What is said about the plan.

        Raises:
            UsageError: no such budget or fidelity.
        """
        budget, fidelity = parse_budget(self.budget), parse_fidelity(self.fidelity)
        return PlanOptions(budget, fidelity, self.exact_layers)

    def check_question(self) -> None:
        """Refuse a question without words.

        Raises:
            UsageError: it is empty.
        """
        if self.question is not None and not self.question.strip():
            raise UsageError("the question is empty", where="--question", allowed="some text")

    def stem(self) -> Path:
        """The name of the files of one picture or video, without ending.

        Raises:
            UsageError: files cannot be written there, or one would replace the picture itself.
        """
        named = self.output_stem
        if named.name == "" or os.path.isdir(named):
            raise UsageError(
                f"{named} is a folder",
                where=FLAG,
                allowed="the name of the files without ending, for one picture",
                hint=f"-o {named / (Path(self.media).stem or 'tokens')}",
            )
        stem = named.with_suffix("") if named.suffix == TOKENS else named
        for path in output_files(stem):
            if os.path.exists(path) and os.path.exists(self.media) and path.samefile(self.media):
                found = f"{path} is the input itself"
                raise UsageError(found, where=FLAG, allowed="another name", hint=f"-o {stem}.vtc")
            check_writable(path, FLAG)
        return stem


def output_files(stem: Path) -> tuple[Path, Path, Path]:
    """Tokens, decisions and overlay of one picture."""
    tokens, decisions, overlay = (
        stem.with_name(stem.name + ending) for ending in (TOKENS, DECISIONS, OVERLAY)
    )
    return tokens, decisions, overlay
