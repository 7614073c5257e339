"""`vtc jobs`: a jobs file from a folder of pictures and videos."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vtc_cli.commands.output import Output
from vtc_cli.core.errors import MediaError, UsageError
from vtc_cli.core.terminal import show
from vtc_cli.core.text import HALF_CHARACTER
from vtc_cli.core.words import counted

# What has the ending of a video counts as one, broken or not: its job will tell.
VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".mxf"),
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Pictures and videos; no sub-folders.")
]
QuestionArgument = Annotated[
    str, typer.Argument(metavar="QUESTION", help="What to ask about each of them.")
]
FileOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="The jobs file; none: stdout.")
]
JobRecipeOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", "-r", help="Once for each: one job a file and recipe."),
]
JobBudgetOption = Annotated[
    str | None, typer.Option("--budget", "-b", help="Tokens, `default` or `none`.")
]


def jobs(
    folder: FolderArgument,
    question: QuestionArgument,
    output_file: FileOption = None,
    recipe: JobRecipeOption = None,
    budget: JobBudgetOption = None,
    *,
    output: Output,
) -> None:
    """Write a jobs file for `vtc run --batch`: QUESTION about each file of FOLDER.

    Without --recipe or --budget the jobs take those of `vtc run`.
    """
    from vtc_cli.commands.job import parse_budget
    from vtc_cli.core.files import write_whole

    if not question.strip():
        raise UsageError("the question is empty", where="QUESTION", allowed="some text")
    if budget is not None:
        parse_budget(budget)
    media, others = _media(folder, output_file)
    base = None if output_file is None else output_file.resolve().parent
    lines = [
        json.dumps(job, ensure_ascii=False) + "\n"
        for path in media
        for job in _jobs(path, base, question, recipe or [], budget)
    ]
    if output_file is None:
        show("".join(lines), end="")
    else:
        write_whole(output_file, "".join(lines))
        show(f"{counted(len(lines), 'job')}: {output_file}")
    if others:
        output.warn(f"left out of the folder: {counted(others, 'file')} of another kind")


def _jobs(
    path: Path, base: Path | None, question: str, recipes: list[str], budget: str | None
) -> Iterator[dict[str, str]]:
    """The jobs of one file: one, or one a recipe."""
    wanted: list[str | None] = [*recipes] or [None]
    for recipe in wanted:
        job = {"id": path.name if recipe is None else f"{path.name}:{Path(recipe).stem}"}
        job |= {"media": _seen_from(base, path), "question": question}
        if recipe is not None:
            job["recipe"] = _seen_from_if_file(base, recipe)
        if budget is not None:
            job["budget"] = budget
        yield job


def _seen_from(base: Path | None, path: Path) -> str:
    """The path as it reads from the folder of the jobs file, an absolute one as it is."""
    if base is None or path.is_absolute():
        return str(path)
    return os.path.relpath(path.resolve(), base)


def _seen_from_if_file(base: Path | None, recipe: str) -> str:
    """A recipe: a name as it is, a file as it reads from the folder of the jobs file.

    Raises:
        UsageError: no such recipe.
    """
    from vtc_cli.recipe.load import recipe_path

    is_file = Path(recipe).suffix in (".yaml", ".yml") or os.sep in recipe
    path = recipe_path(recipe)
    return _seen_from(base, path) if is_file else recipe


def _media(folder: Path, output_file: Path | None) -> tuple[list[Path], int]:
    """Pictures and videos of a folder in natural order, and how many other files lie there.

    Raises:
        MediaError: the folder cannot be read, holds nothing of the kind, or a name that is no text.
    """
    from vtc_cli.commands.compress_folder import is_picture
    from vtc_cli.media.sniff import natural

    try:
        entries = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", where=str(folder)) from error
    if output_file is not None:
        entries = [path for path in entries if path.resolve() != output_file.resolve()]
    found = [path for path in entries if path.suffix.lower() in VIDEO_ENDINGS or is_picture(path)]
    if not found:
        raise MediaError(
            f"no picture and no video among {counted(len(entries), 'file')}",
            where=str(folder),
            allowed="a folder with pictures or videos; sub-folders are not looked at",
        )
    for path in found:
        if HALF_CHARACTER.search(str(path)):
            raise MediaError(
                "a name that is not UTF-8, which no jobs file can hold",
                where=str(path),
                allowed="names in UTF-8",
                hint="rename it",
            )
    return sorted(found, key=lambda path: natural(path.name)), len(entries) - len(found)
