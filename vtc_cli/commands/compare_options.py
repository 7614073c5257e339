"""The options of `vtc compare`, one line each, and the checked set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from vtc_cli.commands.analyze_options import Rule
from vtc_cli.commands.run_options import PAGE_SUFFIXES, check_apart, check_ending, check_writable
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import UsageError

Shape = Literal["table", "json", "csv", "md", "html"]
COMPARE, REPORT = "Comparison", "Report"

OptionalMedia = Annotated[
    str | None, typer.Argument(metavar="MEDIA", help="A picture or a video, without --data.")
]
OptionalQuestion = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help="What to ask about it.")
]
RecipesOption = Annotated[
    list[str],
    typer.Option(
        "--recipe", "-r", help="Files or names, with commas; repeatable.", rich_help_panel=COMPARE
    ),
]
BudgetsOption = Annotated[
    str,
    typer.Option(
        "--budget", "-b", help="192,128,64 or `default` or `none`.", rich_help_panel=COMPARE
    ),
]
NoBaselinesOption = Annotated[
    bool,
    typer.Option("--no-baselines", help="Leave out random and its like.", rich_help_panel=COMPARE),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="JSONL, CSV, Parquet, a saved dataset or its id, or easy-vqa.",
        rich_help_panel=COMPARE,
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="Columns of a table: media=image,answer=label.", rich_help_panel=COMPARE),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="First N items of --data.", rich_help_panel=COMPARE)
]
MatchOption = Annotated[
    Rule | None,
    typer.Option(help="When an answer is right; normalised.", rich_help_panel=COMPARE),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", help="Report a file of -o again, without a model.", rich_help_panel=COMPARE
    ),
]
RowsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Keep every pass here; the same command goes on from it.",
        rich_help_panel=REPORT,
    ),
]
PageOption = Annotated[
    Path | None,
    typer.Option("--html", help="Also write a page with every item.", rich_help_panel=REPORT),
]
FailIfOption = Annotated[
    str | None,
    typer.Option(help='Exit 3 if so: "accuracy_drop > 1".', rich_help_panel=REPORT),
]
ShapeOption = Annotated[
    Shape, typer.Option("--format", "-f", help="Shape of the result.", rich_help_panel=REPORT)
]


@dataclass(frozen=True, kw_only=True)
class CompareOptions(VideoOptions):
    """What the command line asks of a comparison; field names are the option names.

    `given` names the options that stand on the command line itself.
    """

    media: str | None
    question: str | None
    recipes: list[str]
    budget: str
    no_baselines: bool
    fidelity: str | None
    exact_layers: bool
    data: str | None
    columns: str | None
    limit: int | None
    match: Rule | None
    source: Path | None
    model: str
    device: str
    dtype: str
    attn: str
    max_new_tokens: int
    seed: int
    output_file: Path | None
    html: Path | None
    fail_if: str | None
    format: Shape
    given: frozenset[str]

    def check(self) -> None:
        """Refuse what cannot work before a model is loaded.

        Raises:
            UsageError: input missing or twice, options that would not be obeyed, results that
                cannot be written.
        """
        self.frame_options()
        if self.source is None:
            self._check_input()
        else:
            self._check_beside_file()
        files = {"--output": self.output_file, "--html": self.html}
        check_apart(files, (self.media, self.data, self.source, *self.recipe_names()))
        if self.html is not None:
            check_ending(self.html, "--html", PAGE_SUFFIXES)
        for flag, path in (("--output", self.output_file), ("--html", self.html)):
            if path is not None:
                check_writable(path, flag)

    def recipe_names(self) -> list[str]:
        """The wanted recipes, each once; the full model is always there."""
        names = [name.strip() for text in self.recipes for name in text.split(",")]
        return [name for name in dict.fromkeys(names) if name and name != "full"]

    def budgets(self) -> list[str]:
        """The wanted budgets, each once and spelled in one way.

        Raises:
            UsageError: one is neither a number of tokens nor `default` nor `none`.
        """
        from vtc_cli.commands.job import parse_budget

        texts = [text.strip() for text in self.budget.split(",") if text.strip()]
        parsed = [(text, parse_budget(text)) for text in texts]
        spelled = [f"{value:g}" if isinstance(value, float) else text for text, value in parsed]
        if not spelled:
            raise UsageError(f"--budget {self.budget!r}", allowed="192,128,64")
        return list(dict.fromkeys(spelled))

    def _check_input(self) -> None:
        if not self.recipe_names():
            raise UsageError(
                "no recipe to compare", where="--recipe", allowed="names or files", hint=EXAMPLE
            )
        if self.data is not None and self.media is not None:
            found = f"{self.media} beside --data {self.data}"
            raise UsageError(found, allowed="one input, or --data")
        if self.data is None and not (self.media and (self.question or "").strip()):
            lacking = "QUESTION" if self.media else "MEDIA"
            raise UsageError(
                f"no {lacking.lower()}",
                where=lacking,
                allowed="a picture and a question, or --data FILE",
                hint=EXAMPLE,
            )
        over_data = {"--limit": self.limit, "--columns": self.columns, "--match": self.match}
        for flag, value in over_data.items():
            if self.data is None and value is not None:
                raise UsageError(f"{flag} without --data", allowed=f"{flag} with --data")
        self.budgets()

    def _check_beside_file(self) -> None:
        """Only what shapes the report may stand beside `--from`."""
        reporting = {"source", "match", "html", "fail_if", "format", "as_json"}
        general = {"quiet", "verbose", "no_progress", "debug"}
        foreign = sorted(self.given - reporting - general)
        if foreign:
            raise UsageError(
                f"{foreign[0].replace('_', '-')} beside --from",
                allowed="--match, --format, --html and --fail-if: the passes are made already",
            )


EXAMPLE = 'vtc compare picture.png "what is in the picture?" --recipe fastv,mustdrop --budget 64'
