"""The options of `vtc recipes solve`, one line each, and the checked set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtc_cli.commands.listing import Format
from vtc_cli.commands.run_options import check_ending, check_writable
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import UsageError

if TYPE_CHECKING:
    from vtc_cli.metrics.counted import Measure

TARGET, PROMPT, CALIBRATION = "Target", "Prompt", "Calibration"
DEFAULT_QUESTION = "what is in the picture?"
DEFAULT_LIMIT = 16
RECIPE_SUFFIXES = (".yaml", ".yml")

SolvedArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file or name.")]
AverageOption = Annotated[
    float | None,
    typer.Option(help="Visual tokens, mean over decoder layers.", rich_help_panel=TARGET),
]
FlopsOption = Annotated[
    float | None,
    typer.Option(
        help="Share of the full model's prefill FLOPs, the compression's own left out.",
        rich_help_panel=TARGET,
    ),
]
KvOption = Annotated[
    float | None,
    typer.Option(help="Share of its KV bytes behind the prompt.", rich_help_panel=TARGET),
]
VaryOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STAGE.PARAMETER",
        help="What to vary, repeatable; else what governs counts in the decoder, then all.",
        rich_help_panel=TARGET,
    ),
]
PromptMediaOption = Annotated[
    str | None,
    typer.Option(
        "--media", help="A picture or video; else a blank 336 x 336.", rich_help_panel=PROMPT
    ),
]
PromptQuestionOption = Annotated[
    str | None,
    typer.Option("--question", help=f'Else "{DEFAULT_QUESTION}".', rich_help_panel=PROMPT),
]
TextTokensOption = Annotated[
    int | None,
    typer.Option(min=0, help="Text tokens of the prompt, for a question.", rich_help_panel=PROMPT),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSONL of media, question: run over it where counts depend on data.",
        rich_help_panel=CALIBRATION,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"First N items of --calibrate, else {DEFAULT_LIMIT}.",
        rich_help_panel=CALIBRATION,
    ),
]
SolvedFileOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the solved recipe here, YAML.")
]


@dataclass(frozen=True, kw_only=True)
class SolveOptions(VideoOptions):
    """What the command line asks of a solution; field names are the option names."""

    recipe: str
    layer_average: float | None
    flops: float | None
    kv: float | None
    vary: tuple[str, ...]
    media: str | None
    question: str | None
    text_tokens: int | None
    calibrate: Path | None
    limit: int | None
    fidelity: str | None
    exact_layers: bool
    model: str
    device: str
    dtype: str
    attn: str
    seed: int
    output_file: Path | None
    format: Format

    @property
    def measure(self) -> Measure:
        """What is asked for."""
        if self.layer_average is not None:
            return "layer_average"
        return "flops" if self.flops is not None else "kv"

    @property
    def wanted(self) -> float:
        """How much of it."""
        value = {"layer_average": self.layer_average, "flops": self.flops, "kv": self.kv}
        return value[self.measure] or 0.0

    def check(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            UsageError: no target or several, one out of range, options that contradict each other,
                a recipe that cannot be written.
        """
        self._check_target()
        self._check_prompt()
        self.frame_options()
        if self.output_file is not None:
            check_writable(self.output_file, "--output")
            check_ending(self.output_file, "--output", RECIPE_SUFFIXES)

    def _check_target(self) -> None:
        asked = {"--layer-average": self.layer_average, "--flops": self.flops, "--kv": self.kv}
        given = {flag: value for flag, value in asked.items() if value is not None}
        if len(given) != 1:
            raise UsageError(
                " beside ".join(given) or "no target",
                where="vtc recipes solve",
                allowed="one of --layer-average, --flops and --kv",
                hint="vtc recipes solve fastv --layer-average 128",
            )
        (flag, value) = next(iter(given.items()))
        tokens = flag == "--layer-average"
        if not 0 < value < float("inf") or (not tokens and value > 1):
            allowed = "tokens above 0" if tokens else "a share above 0, at most 1"
            raise UsageError(f"{flag} {value:g}", allowed=allowed)

    def _check_prompt(self) -> None:
        if self.question is not None and not self.question.strip():
            raise UsageError("the question is empty", where="--question", allowed="some text")
        if self.question is not None and self.text_tokens is not None:
            raise UsageError("--text-tokens beside --question", allowed="one of them")
        own = {
            "--media": self.media,
            "--question": self.question,
            "--text-tokens": self.text_tokens,
        }
        for flag, value in own.items():
            if self.calibrate is not None and value is not None:
                raise UsageError(
                    f"{flag} beside --calibrate", allowed="the media and questions of its items"
                )
        if self.limit is not None and self.calibrate is None:
            raise UsageError("--limit without --calibrate", allowed="--limit with --calibrate")
