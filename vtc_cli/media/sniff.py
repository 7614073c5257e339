"""What a file or folder is, told by its content and never by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from PIL import UnidentifiedImageError

from vtc_cli.core.errors import MediaError
from vtc_cli.core.files import open_regular
from vtc_cli.core.words import counted
from vtc_cli.media.files import refused
from vtc_cli.media.formats import opened
from vtc_cli.media.job import Content

# Formats whose frames follow each other in time; pages of a TIFF and views of an MPO do not.
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# Stills of telephones in video clothes: a video reader would show one tile of the picture.
STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")


def content_of(target: Path, path: str) -> Content:
    """Look at a file or folder.

    Args:
        target: where it lies.
        path: what the user called it, for errors.

    Raises:
        MediaError: a folder without pictures, or something that cannot be read.
    """
    try:
        if target.is_dir():
            return _folder(target, path)
        with open_regular(target) as file:
            head = file.read(16)
        picture = _picture_kind(target)
    except OSError as error:
        raise refused(path, error) from error
    if picture is None and head[4:8] == b"ftyp" and head[8:12] in STILL_BRANDS:
        return Content("picture")  # which the picture reader then refuses
    return Content(picture or "video")


def _folder(target: Path, path: str) -> Content:
    files = [entry for entry in target.iterdir() if entry.is_file() and entry.name[0] != "."]
    pictures = [entry.name for entry in files if _picture_kind(entry)]
    if not pictures:
        raise MediaError(
            f"a folder with {counted(len(files), 'file')} and no picture",
            where=path,
            allowed="a folder of pictures, one a frame",
            hint="name a video file itself; sub-folders are not looked at",
        )
    return Content("folder", tuple(sorted(pictures, key=natural)), len(files) - len(pictures))


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key under which numbers in names count as numbers."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], name


def _picture_kind(target: Path) -> Literal["picture", "animation"] | None:
    """Whether Pillow knows the file, by its header alone."""
    try:
        with opened(target) as picture:
            moving = picture.format in ANIMATED and getattr(picture, "is_animated", False)
            return "animation" if moving else "picture"
    except UnidentifiedImageError:
        return None
    except Exception as error:  # a header that Pillow knows and cannot bear: its reader says why
        if isinstance(error, OSError) and error.errno is not None:  # the system speaks
            raise
        return "picture"
