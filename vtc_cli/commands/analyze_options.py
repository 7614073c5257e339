"""The options of `vtc analyze`, one line each, and the checked set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from vtc_cli.commands.listing import Format
from vtc_cli.commands.run_options import check_apart, check_writable
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import UsageError

Curve = Literal["layers", "tokens", "heads"]
Rank = Literal["effective", "numerical", "stable", "energy", "nuclear"]
MatrixName = Literal["layer_output", "attention_output"]
Rule = Literal["normalised", "exact", "numeric", "multiple_choice", "contains"]
CURVE, REPORT = "Curve", "Report"
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
DEFAULT_TAU = 1e-5

OptionalMedia = Annotated[
    str | None, typer.Argument(metavar="MEDIA", help="A picture or a video; - reads stdin.")
]
OptionalQuestion = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help="What to ask about it.")
]
CurveOption = Annotated[
    Curve, typer.Option(help="What runs along the x axis.", rich_help_panel=CURVE)
]
RecipesOption = Annotated[
    list[str],
    typer.Option(
        "--recipe", "-r", help="Beside the full model, repeatable.", rich_help_panel=CURVE
    ),
]
SelectOption = Annotated[
    list[str],
    typer.Option(
        help="tokencarve, attention, random or uniform; repeatable, for tokens.",
        rich_help_panel=CURVE,
    ),
]
PointsOption = Annotated[
    str | None,
    typer.Option(help="Token counts of the sweep: 576,192,64.", rich_help_panel=CURVE),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="JSONL of media, question, answer: the sweep over all.", rich_help_panel=CURVE
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="First N items of --data.", rich_help_panel=CURVE)
]
MatchOption = Annotated[
    Rule, typer.Option(help="When an answer of --data is right.", rich_help_panel=CURVE)
]
MatrixOption = Annotated[MatrixName, typer.Option(help="Whose ranks.", rich_help_panel=CURVE)]
TauOption = Annotated[
    float, typer.Option(help="Threshold of the numerical rank.", rich_help_panel=CURVE)
]
RankOption = Annotated[
    Rank, typer.Option(help="Rank of the terminal plot.", rich_help_panel=REPORT)
]
PlotOption = Annotated[
    Path | None, typer.Option(help="Also draw a PNG, SVG or PDF.", rich_help_panel=REPORT)
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Short for --format csv.")]


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(VideoOptions):
    """What the command line asks of an analysis; field names are the option names.

    `given` names the options that stand on the command line itself.
    """

    media: str | None
    question: str | None
    curve: Curve
    recipes: list[str]
    relevance: str | None
    budget: str
    fidelity: str | None
    exact_layers: bool
    select: list[str]
    points: str | None
    data: Path | None
    limit: int | None
    match: Rule
    matrix: MatrixName
    tau: float
    rank: Rank
    model: str
    device: str
    dtype: str
    attn: str
    max_new_tokens: int
    seed: int
    plot: Path | None
    output_file: Path | None
    format: Format
    given: frozenset[str]

    def check(self) -> None:
        """Refuse what cannot work before a model is loaded.

        Raises:
            UsageError: input missing or twice, options of another curve, results that cannot be
                written.
        """
        self._check_input()
        self._check_curve()
        self.counts()
        self.frame_options()
        if not 0 < self.tau < 1:
            raise UsageError(f"--tau {self.tau:g}", allowed="above 0 and below 1", hint="1e-5")
        for flag, path in (("--output", self.output_file), ("--plot", self.plot)):
            if path is not None:
                check_writable(path, flag)
        files = {"--output": self.output_file, "--plot": self.plot}
        check_apart(files, (self.media, self.data, *self.recipes))
        if self.plot is not None and self.plot.suffix.lower() not in PLOT_SUFFIXES:
            raise UsageError(
                f"--plot {self.plot}",
                allowed=f"a file name ending in {', '.join(PLOT_SUFFIXES)}",
            )

    def counts(self) -> list[int] | None:
        """The token counts of `--points`, largest first; None if the ladder is wanted.

        Raises:
            UsageError: anything but whole numbers from 1 on.
        """
        if self.points is None:
            return None
        try:
            counts = sorted({int(part) for part in self.points.split(",")}, reverse=True)
        except ValueError:
            counts = [0]
        if counts[-1] < 1:
            raise UsageError(
                f"--points {self.points}",
                allowed="whole numbers of tokens from 1 on, with commas",
                hint="--points 576,192,128,64",
            )
        return counts

    def _check_input(self) -> None:
        if self.data is not None and self.media is not None:
            raise UsageError(
                f"{self.media} beside --data {self.data}", allowed="one input, or --data"
            )
        if self.data is None and not self.media:
            raise UsageError(
                "no input, so there are no visual tokens to analyze",
                where="MEDIA",
                allowed="a picture or a video, or --data with --curve tokens",
                hint='vtc analyze picture.png "what is in the picture?"',
            )

    def _check_curve(self) -> None:
        """Options that the chosen curve would not obey are refused."""
        sweep_only = {"points": "--points", "select": "--select", "data": "--data"}
        layers_only = {
            "recipes": "--recipe",
            "budget": "--budget",
            "fidelity": "--fidelity",
            "exact_layers": "--exact-layers",
            "relevance": "--relevance",
        }
        foreign = layers_only if self.curve == "tokens" else sweep_only
        given = [flag for name, flag in foreign.items() if name in self.given]
        if given:
            curve = "layers or heads" if self.curve == "tokens" else "tokens"
            raise UsageError(
                f"{given[0]} with --curve {self.curve}", allowed=f"{given[0]} with --curve {curve}"
            )
        if self.limit is not None and self.data is None:
            raise UsageError("--limit without --data", allowed="--limit with --data")
