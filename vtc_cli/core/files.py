"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from vtc_cli.core.errors import VtcError


def temporary_beside(path: Path) -> Path:
    """Where `path` is written before it takes its name; in the same folder, so that it can."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 with plain line ends, so that a reader never meets half a file.

    Raises:
        VtcError: no room or no right to write; an older file of that name stays as it was.
    """
    goal = path.resolve()  # a link stays a link
    part = temporary_beside(goal)
    try:
        part.write_bytes(text.encode("utf-8"))
        part.replace(goal)
    except OSError as error:
        part.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise VtcError(f"could not be written: {reason}", where=str(path)) from error
