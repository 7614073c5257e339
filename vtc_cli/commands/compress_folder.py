"""A folder of pictures compressed one after the other: skips what is done, outlives bad files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vtc_cli.commands.compress_job import Compressor
from vtc_cli.commands.compress_options import FLAG
from vtc_cli.commands.edge import error_block
from vtc_cli.commands.output import Output
from vtc_cli.core.errors import (
    MediaError,
    ModelError,
    RecipeError,
    SignalError,
    UsageError,
    VtcError,
)
from vtc_cli.core.files import sha256_of
from vtc_cli.core.terminal import escaped, say
from vtc_cli.core.words import counted

# Decoders exist for more, but a broken file of these is a broken picture whatever it holds.
PICTURE_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".avif"),
)
# Faults of the command line and not of one picture: the next picture would meet them too.
OF_ALL = (UsageError, RecipeError, SignalError, ModelError)


@dataclass
class Tally:
    """What became of the files of a folder; pictures by name, errors as one line.

    `passed_over` counts files that are no pictures.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    passed_over: int = 0

    def line(self) -> str:
        """The summary in one line."""
        parts = (
            f"{len(self.done)} done",
            f"{len(self.skipped)} done before",
            f"{len(self.failed)} failed",
            counted(self.passed_over, "no picture"),
        )
        return ", ".join(parts)


def find_pictures(folder: Path) -> tuple[list[Path], int]:
    """The pictures of a folder by name, and how many other files lie there.

    What has the ending of a picture counts as one, broken or not; of other files the content
    decides. Sub-folders and what is no file at all are not looked at.

    Raises:
        MediaError: the folder cannot be read, or holds no picture.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if _is_entry(path))
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", where=str(folder)) from error
    pictures = [path for path in entries if is_picture(path)]
    if not pictures:
        found = (
            f"no picture among {counted(len(entries), 'file')}" if entries else "an empty folder"
        )
        allowed = "a folder with pictures; sub-folders are not looked at"
        raise MediaError(found, where=str(folder), allowed=allowed)
    return pictures, len(entries) - len(pictures)


def prepare_target(folder: Path, target: Path) -> None:
    """Make the folder for the files.

    Raises:
        UsageError: it is the folder of the pictures, or cannot be made or written.
    """
    allowed = "a folder for the files, not that of the pictures"
    if os.path.exists(target) and target.samefile(folder):
        found, hint = f"{target} holds the pictures", f"-o {target / 'tokens'}"
        raise UsageError(found, where=FLAG, allowed=allowed, hint=hint)
    try:
        target.mkdir(parents=True, exist_ok=True)
        probe = target / ".vtc.part"
        probe.open("ab").close()
        probe.unlink()
    except FileExistsError as error:
        raise UsageError(f"{target} is a file", where=FLAG, allowed=allowed) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{target}: {reason}", where=FLAG, allowed=allowed) from error


def compress_all(
    compressor: Compressor, pictures: list[Path], target: Path, tally: Tally, output: Output
) -> None:
    """Compress pictures into `target`; a bad one is told of on stderr and counted.

    Raises:
        VtcError: a fault of the command line, at the first picture.
    """
    tell = _teller()
    with _bar(output, len(pictures)) as advance:
        for picture in pictures:
            try:
                skipped = _compress(compressor, picture, target / picture.name)
            except OF_ALL:
                raise
            except VtcError as error:
                tell(picture, error)
                tally.failed[picture.name] = str(error)
            else:
                (tally.skipped if skipped else tally.done).append(picture.name)
            advance()


def _compress(compressor: Compressor, picture: Path, stem: Path) -> bool:
    """Compress one picture unless that was done before; whether it was."""
    from vtc_cli.media.image import read_image

    if compressor.is_done(stem, _sha256(picture)):
        return True
    compressor.compress(read_image(str(picture)), stem)
    return False


def _sha256(picture: Path) -> str:
    """Hash of the bytes, empty if they cannot be read: reading the picture will tell why."""
    try:
        return sha256_of(picture)
    except OSError:
        return ""


def _teller() -> Callable[[Path, VtcError], None]:
    """Prints an error block on stderr, and one line if the fault is that of the file before."""
    last: list[tuple[str, str | None, str | None]] = []

    def tell(picture: Path, error: VtcError) -> None:
        fault = (error.found, error.allowed, error.hint)
        if last == [fault]:
            say(f"error: {escaped(str(picture))}: the same")
            return
        last[:] = [fault]
        if str(picture) not in (error.where or ""):
            error.where = f"{picture}: {error.where}" if error.where else str(picture)
        say(error_block(error))

    return tell


def _is_entry(path: Path) -> bool:
    """A file, or a link that leads nowhere; folders, pipes and the like are passed by."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def is_picture(path: Path) -> bool:
    """Whether a file has the ending of a picture, or is one by its content."""
    if path.suffix.lower() in PICTURE_ENDINGS:
        return True
    from vtc_cli.media.formats import opened

    try:
        with opened(path):
            return True
    except Exception:  # decoders raise whatever they like over a file that is no picture
        return False


@contextmanager
def _bar(output: Output, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr with the time left; gives what moves it on by one."""
    if not output.shows_progress:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from vtc_cli.core.console import Console

    columns = (TextColumn("compressing"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, TextColumn("left"), console=Console(stderr=True)) as progress:
        task = progress.add_task("compressing", total=total)
        yield lambda: progress.advance(task)
