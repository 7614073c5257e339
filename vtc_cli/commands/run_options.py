"""The options of `vtc run`, one line each, and the checked set of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vtc_cli.commands.listing import Format
from vtc_cli.commands.video_options import VideoOptions
from vtc_cli.core.errors import UsageError
from vtc_cli.core.files import check_output

PLAN, ANSWER, REPORT = "Recipe", "Answer", "Report"
TEMPERATURES = (1e-6, 1e6)  # logits divided by these stay finite and apart
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PAGE_SUFFIXES = (".html", ".htm")
EXAMPLE = 'vtc run picture.png "what is in the picture?"'

MediaArgument = Annotated[
    str | None, typer.Argument(metavar="MEDIA", help="A picture or a video; - reads stdin.")
]
MoreOption = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="MEDIA", help="A further picture or video; may be repeated."),
]
ThenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--then",
        metavar="QUESTION",
        help="A further question, answered on the same cache; may be repeated.",
    ),
]
QuestionArgument = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help="What to ask about it.")
]
TokensOption = Annotated[
    Path | None,
    typer.Option(help="In place of MEDIA: tokens from `vtc compress`.", rich_help_panel=PLAN),
]
BudgetOption = Annotated[
    str,
    typer.Option(
        "--budget",
        "-b",
        help="Tokens (cache entries if cache policies alone follow it), `default` or `none`.",
        rich_help_panel=PLAN,
    ),
]
FidelityOption = Annotated[
    str | None, typer.Option(help="sound or official.", rich_help_panel=PLAN)
]
ExactLayersOption = Annotated[
    bool, typer.Option("--exact-layers", help="Take layers literally.", rich_help_panel=PLAN)
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Longest answer.", rich_help_panel=ANSWER)
]
TemperatureOption = Annotated[
    float, typer.Option(min=0.0, help="0 is greedy.", rich_help_panel=ANSWER)
]
TopPOption = Annotated[
    float, typer.Option(help="Nucleus of sampling, in (0, 1].", rich_help_panel=ANSWER)
]
RepeatsOption = Annotated[
    int,
    typer.Option(min=1, help="Timed passes; above 1 a pass more warms up.", rich_help_panel=REPORT),
]
BaselineOption = Annotated[
    bool, typer.Option("--baseline", help="Run the full model beside it.", rich_help_panel=REPORT)
]
OverlayOption = Annotated[
    Path | None,
    typer.Option(help="Write a picture of kept and dropped patches.", rich_help_panel=REPORT),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(help="Write a page with the story of every patch.", rich_help_panel=REPORT),
]
OutputFileOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Also write the JSON here; a batch: its lines.",
        rich_help_panel=REPORT,
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit 3 if a stage did nothing.", rich_help_panel=REPORT)
]


@dataclass(frozen=True, kw_only=True)
class RunOptions(VideoOptions):
    """What the command line asks of a run; field names are the option names.

    With `tokens` there is no `media`, and an empty `question` stands for that of the file; `given`
    names the options that stand on the command line itself.
    """

    media: str
    question: str
    tokens: Path | None
    given: frozenset[str]
    more: tuple[str, ...]
    then: tuple[str, ...]
    recipe: str
    relevance: str | None
    budget: str
    fidelity: str | None
    exact_layers: bool
    model: str
    device: str
    dtype: str
    attn: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    repeats: int
    baseline: bool
    overlay: Path | None
    html: Path | None
    output_file: Path | None
    strict: bool
    format: Format

    def check(self) -> None:
        """Refuse what cannot work before a model is loaded.

        Raises:
            UsageError: empty question, impossible sampling, results that cannot be written.
        """
        if self.tokens is not None:
            self._check_beside_tokens()
        elif not self.question.strip():
            raise UsageError(
                "the question is empty",
                where="QUESTION",
                allowed="some text",
                hint=EXAMPLE,
            )
        self.check_answer()
        if any(not text.strip() for text in self.then):
            raise UsageError("the question is empty", where="--then", allowed="some text")
        if self.output_file is not None:
            check_writable(self.output_file, "--output")
        for flag, path, endings in (
            ("--overlay", self.overlay, PICTURE_SUFFIXES),
            ("--html", self.html, PAGE_SUFFIXES),
        ):
            if path is not None:
                check_writable(path, flag)
                check_ending(path, flag, endings)
        files = {"--output": self.output_file, "--overlay": self.overlay, "--html": self.html}
        check_apart(files, (self.media, *self.more, self.tokens, self.recipe))

    def check_answer(self) -> None:
        """Refuse a choice of frames or tokens that cannot be.

        Raises:
            UsageError: values that contradict each other or lie out of range.
        """
        self.frame_options()
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"--top-p {self.top_p:g}", allowed="above 0, at most 1")
        low, high = TEMPERATURES
        if self.temperature and not low <= self.temperature <= high:
            allowed = f"0, or from {low:g} to {high:g}"
            raise UsageError(f"--temperature {self.temperature:g}", allowed=allowed)

    def _check_beside_tokens(self) -> None:
        """Refuse what a file of tokens has settled, and what would need the picture."""
        settled = {
            "budget": "--budget",
            "fidelity": "--fidelity",
            "exact_layers": "--exact-layers",
            "relevance": "--relevance",
        }
        for name in settled.keys() & self.given:
            raise UsageError(
                f"{settled[name]} beside --tokens",
                allowed="the plan that the tokens were compressed under",
                hint=f"compress the picture again with {settled[name]}",
            )
        pictures: dict[str, object] = {"--with": self.more, "--then": self.then}
        pictures |= {"--overlay": self.overlay, "--html": self.html}
        pictures["--baseline"] = self.baseline and "baseline" in self.given
        for flag, wanted in pictures.items():
            if wanted:
                raise UsageError(
                    f"{flag} beside --tokens",
                    allowed=f"{flag} with a picture: a token file does not hold one",
                    hint=f'vtc run picture.png "what is in the picture?" {flag}',
                )


def check_apart(written: Mapping[str, Path | None], read: Iterable[str | Path | None] = ()) -> None:
    """See that each file is written once, and none over what is read.

    Args:
        written: files by the option that names them.
        read: what the command reads; names that are no files are passed over.

    Raises:
        UsageError: two options name one file, or one names an input.
    """
    found: dict[str, str] = {}
    inputs = {os.path.realpath(path) for path in read if path and os.path.isfile(path)}
    for flag, path in written.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in inputs:
            allowed = "another name: it would be written over"
            raise UsageError(f"{flag} {path} is read by this command", allowed=allowed)
        other = found.setdefault(real, flag)
        if other != flag:
            raise UsageError(f"{other} and {flag} name one file, {path}", allowed="a file each")


def check_ending(path: Path, flag: str, endings: tuple[str, ...]) -> None:
    """See that the name of `path` says what is written there.

    Raises:
        UsageError: another ending.
    """
    if path.suffix.lower() not in endings:
        raise UsageError(f"{flag} {path}", allowed=f"a file name ending in {', '.join(endings)}")


def placed(
    media: str | None, question: str | None, tokens: Path | None, batch: bool
) -> tuple[str, str]:
    """Media and question from the words of the command line.

    With `tokens` there is no media: the one word is the question, and without it that of the file
    is meant, an empty text. In a `batch` there are no words.

    Raises:
        UsageError: a word is missing, or there is one too many.
    """
    if batch:
        if media is not None:
            allowed = "--batch alone: media and questions stand in the jobs file"
            raise UsageError(f"{media} beside --batch", where="MEDIA", allowed=allowed)
        return "", ""
    if tokens is None:
        for value, name in ((media, "MEDIA"), (question, "QUESTION")):
            if value is None:
                found, hint = f"Missing argument '{name}'.", f"{EXAMPLE}, or vtc run --help"
                raise UsageError(found, where="vtc run", hint=hint)
        return media or "", question or ""
    if question is not None:
        raise UsageError(
            f"a picture {media} beside --tokens",
            where="MEDIA",
            allowed="--tokens and the question alone: the file stands for the picture",
            hint=f'vtc run --tokens {tokens} "{question}"',
        )
    if media is not None and not media.strip():
        raise UsageError("the question is empty", where="QUESTION", allowed="some text, or none")
    return "", media or ""


def check_writable(path: Path, flag: str) -> None:
    """See that `path` can be created or overwritten; an existing file stays untouched.

    Raises:
        UsageError: missing or read-only folder, or `path` is a folder.
    """
    allowed = "a file in a folder that exists and can be written"
    # os.path answers False where pathlib raises, for instance for a name that is too long.
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder", where=flag, allowed=allowed)
    if not os.path.isdir(path.parent):
        raise UsageError(
            f"the folder {path.parent} does not exist",
            where=flag,
            allowed=allowed,
            hint=f"mkdir -p {path.parent}",
        )
    try:
        check_output(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path}: {reason}", where=flag, allowed=allowed) from error
