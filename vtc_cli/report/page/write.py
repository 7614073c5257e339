"""Assemble the page and write it: styles, script, picture and data, all in one file."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from vtc_cli.core.files import write_whole
from vtc_cli.core.media import Media
from vtc_cli.core.trace import Trace
from vtc_cli.report.page.data import page_data
from vtc_cli.report.page.head import head, question_of
from vtc_cli.report.page.markup import Html, joined, script_data, tag
from vtc_cli.report.page.picture import frame_uris
from vtc_cli.report.page.tables import figure_table, stage_table
from vtc_cli.report.result import Result

# In the order in which they use each other; together they are one module.
SCRIPTS = ("data.js", "story.js", "drawing.js", "panels.js", "grid.js", "curves.js", "main.js")
NOT_TIMED = "The run stopped before the answer, so no operations, memory or times are reported."


def write_page(
    path: Path,
    result: BaseModel,
    trace: Trace,
    media: Media,
    patch_boxes: NDArray[np.float64],
) -> None:
    """Write the page to `path`, as a whole or not at all.

    Args:
        path: an HTML file.
        result: what the command reports and the page embeds. A `Result` gives answer, figures and
            the full model's curves; of another model `command`, `created`, `input` and `warnings`
            are shown where it has them.
        trace: the run; parts that it did not measure are left out and the page says so.
        media: its picture or video.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in picture pixels.

    Raises:
        UsageError: the first stage of the trace did not begin with the whole picture.
        VtcError: the file cannot be written.
    """
    write_whole(path, page_text(result, trace, media, patch_boxes))


def page_text(
    result: BaseModel, trace: Trace, media: Media, patch_boxes: NDArray[np.float64]
) -> str:
    """The page as `write_page` writes it."""
    document = json.loads(result.model_dump_json())  # what is no number becomes null
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    return Template(_asset("page.html")).substitute(
        title=joined(f"vtc: {question_of(result)}"),
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        head=head(result, trace),
        pictures=_pictures(media, trace.layout.frames),
        stages=stage_table(trace),
        figures=_figures(result),
        foot=_foot(result, trace),
        data=script_data(
            "page-data",
            page_data(trace, media, patch_boxes, document.get("baseline")),
            shown=True,
        ),
        result=script_data("result", document),
    )


def _pictures(media: Media, frames: int) -> Html:
    """Every frame once; the panels refer to it."""
    size = {"width": str(media.width), "height": str(media.height)}
    images = [
        tag("image", id=f"frame-{number}", href=uri, preserveAspectRatio="none", **size)
        for number, uri in enumerate(frame_uris(media, frames))
    ]
    return joined(*images)


def _figures(result: BaseModel) -> Html:
    if isinstance(result, Result):
        return figure_table(result)
    return tag("p", NOT_TIMED, class_="note")


def _foot(result: BaseModel, trace: Trace) -> Html:
    """What made the page, for whoever wants to make it again."""
    known: dict[str, Any] = {key: value for key, value in trace.environment.items() if value}
    versions = " · ".join(f"{key} {value}" for key, value in known.items())
    argv = getattr(result, "argv", None)
    command = tag("p", tag("code", shlex.join(["vtc", *argv]))) if argv else Html()
    return joined(command, tag("p", versions))


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """The name under which a content security policy allows an inline style or script."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
