"""The overlay of a video: a strip of frames a stage, time from left to right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vtc_cli.core.files import write_whole
from vtc_cli.core.layout import Raster
from vtc_cli.core.media import Media
from vtc_cli.core.trace import Trace
from vtc_cli.core.words import counted
from vtc_cli.report.overlay import (
    GAP,
    INK,
    LEGEND_LINE,
    MARGIN,
    PAPER,
    SOFT_INK,
    TEXT_SIZE,
    TITLE_SIZE,
    Legend,
    boxes_of,
    draw_legend,
    draw_overlay,
    font_of,
    holder_of,
    legend_lines,
    stage_caption,
    text_width,
)
from vtc_cli.report.panel import LARGEST_PIXELS, draw_panel, make_view, reduced

MOST_FRAMES = 8  # in a strip; of a longer sample those in the middle of eight equal parts
STRIP_PIXELS = 1920  # of a strip of few panels; the longer side of a panel follows from it
PANEL_PIXELS = 240  # and is never below this
STRIP_TITLE = 26
PANEL_TITLE = 20
BETWEEN = 8


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of the sheet: its two titles, and for each frame a label and a panel."""

    title: str
    place: str
    labels: list[str]
    panels: list[Image.Image]


def draw_media(
    trace: Trace, media: Media | Sequence[Media], patch_boxes: NDArray[np.float64]
) -> Image.Image:
    """The overlay of a picture seen once, or strips of everything that the model saw.

    Args:
        trace: the run.
        media: its pictures and videos.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in pixels of its
            picture; boxes of padding may lie outside.
    """
    shown = (media,) if isinstance(media, Media) else tuple(media)
    if len(trace.layout.rasters()) == 1:
        return draw_overlay(trace, shown[0], patch_boxes)
    return draw_strips(trace, shown, patch_boxes)


def save_media(
    path: Path, trace: Trace, media: Media | Sequence[Media], patch_boxes: NDArray[np.float64]
) -> None:
    """Draw the overlay and write it to `path`; the ending of the name chooses the format."""
    stream = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    draw_media(trace, media, patch_boxes).save(stream, kind)
    write_whole(path, stream.getvalue())


def shown_frames(frames: int) -> list[int]:
    """Which of the frames stand in a strip: all, or those in the middle of eight equal parts."""
    count = min(frames, MOST_FRAMES)
    return [(2 * index + 1) * frames // (2 * count) for index in range(count)]


def draw_strips(
    trace: Trace, media: Sequence[Media], patch_boxes: NDArray[np.float64]
) -> Image.Image:
    """A strip of pictures and frames as they are, and one behind each encoder and prefill stage.

    Above a panel stands how many tokens still hold something of it; a token that holds patches of
    two frames counts in both. A picture that the model sees coarsely and in crops has a panel of
    each. Where a family joins neighbouring frames to one of its grid, the first of them is shown.

    Args:
        trace: the run.
        media: its pictures and videos, one frame or several a frame of the grid.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in frame pixels.
    """
    rasters = trace.layout.rasters()
    chosen = [rasters[at] for at in shown_frames(len(rasters))]
    places = [_read_frame(trace, media, raster) for raster in chosen]
    views = [
        make_view(media[raster.span].picture(at), boxes_of(patch_boxes, raster.index))
        for raster, at in zip(chosen, places, strict=True)
    ]
    records = [record for record in trace.records if record.holder is not None]
    labels = [_label(media, raster, at) for raster, at in zip(chosen, places, strict=True)]
    extent = _extent(trace, media, len(chosen))
    strips = [Strip(*extent, labels, [reduced(view.picture) for view in views])]
    dropped_at = np.full(trace.original_tokens, -1, dtype=np.int64)
    for number, record in enumerate(records):
        holder = holder_of(record)
        dropped_at[(holder < 0) & (dropped_at < 0)] = number
        panels = [
            draw_panel(view, holder[raster.index], dropped_at[raster.index])
            for view, raster in zip(views, chosen, strict=True)
        ]
        labels = [_alive(holder[raster.index]) for raster in chosen]
        strips.append(Strip(*stage_caption(trace, record), labels, panels))
    padded = any(view.padded for view in views)
    return _sheet(strips, legend_lines(records, dropped_at, padded=padded))


def _read_frame(trace: Trace, media: Sequence[Media], raster: Raster) -> int:
    """The frame of the medium that stands for a frame of the model."""
    read = int(media[raster.span].frames.shape[0])
    joined = -(-read // trace.layout.frames_of(raster.span))
    return joined * raster.frame


def _label(media: Sequence[Media], raster: Raster, frame: int) -> str:
    """Which picture, and how it is seen or when."""
    shown = media[raster.span]
    told = f"{raster.span + 1}: " if len(media) > 1 else ""
    if shown.kind == "video":
        return f"{told}{shown.timestamps[frame]:.2f} s"
    return f"{told}picture" if raster.view == "whole" else f"{told}{raster.view}"


def _extent(trace: Trace, media: Sequence[Media], shown: int) -> tuple[str, str]:
    """Title of the first strip, and how much of what there is it shows."""
    count, tokens = len(trace.layout.rasters()), trace.original_tokens
    part = "" if shown == count else f", {shown} of them shown"
    if len(media) == 1:
        title = "the video" if media[0].kind == "video" else "the picture"
        noun = "frame" if media[0].kind == "video" else "view"
        return title, f"{counted(count, noun)}{part} · {counted(tokens, 'token')}"
    return (
        f"{len(media)} pictures and videos",
        f"{count} views and frames{part} · {counted(tokens, 'token')}",
    )


def _alive(holder: NDArray[np.int64]) -> str:
    return counted(len(np.unique(holder[holder >= 0])), "token")


def _sheet(strips: list[Strip], legend: list[Legend]) -> Image.Image:
    """Strips one below the other, the legend at the bottom."""
    longest = min(max(STRIP_PIXELS // len(strips[0].panels), PANEL_PIXELS), LARGEST_PIXELS)
    small = [[_small(panel, longest) for panel in strip.panels] for strip in strips]
    labels = zip(*(strip.labels for strip in strips), strict=True)
    widths = [
        max(panel.width, *(round(text_width(label)) for label in own))
        for panel, own in zip(small[0], labels, strict=True)
    ]
    lefts = [MARGIN, *(MARGIN + end for end in accumulate(width + BETWEEN for width in widths))]
    cell_height = max(panel.height for panel in small[0])
    strip_height = STRIP_TITLE + PANEL_TITLE + cell_height + GAP
    titles = [text_width(s.title, TITLE_SIZE) + text_width(s.place) + 24 for s in strips]
    texts = max([*titles, *(text_width(text) + 40 for _, text in legend)])
    width = max(lefts[-1] - BETWEEN - MARGIN, round(texts)) + 2 * MARGIN
    height = 2 * MARGIN + len(strips) * strip_height + LEGEND_LINE * len(legend)
    sheet = Image.new("RGB", (width, height), PAPER)
    for number, (strip, panels) in enumerate(zip(strips, small, strict=True)):
        _draw_strip(sheet, strip, panels, MARGIN + number * strip_height, lefts)
    draw_legend(ImageDraw.Draw(sheet), legend, MARGIN + len(strips) * strip_height)
    return sheet


def _draw_strip(
    sheet: Image.Image, strip: Strip, panels: list[Image.Image], top: int, lefts: list[int]
) -> None:
    """Titles in one line, a label above each panel."""
    canvas = ImageDraw.Draw(sheet)
    base = top + STRIP_TITLE - 8
    canvas.text((MARGIN, base), strip.title, fill=INK, font=font_of(TITLE_SIZE), anchor="ls")
    behind = MARGIN + text_width(strip.title, TITLE_SIZE) + 16
    canvas.text((behind, base), strip.place, fill=SOFT_INK, font=font_of(TEXT_SIZE), anchor="ls")
    for left, panel, label in zip(lefts, panels, strip.labels, strict=False):
        place = (left, top + STRIP_TITLE)
        canvas.text(place, label, fill=SOFT_INK, font=font_of(TEXT_SIZE))
        sheet.paste(panel, (left, top + STRIP_TITLE + PANEL_TITLE))


def _small(panel: Image.Image, longest: int) -> Image.Image:
    """A panel whose longer side has at most that many pixels."""
    scale = min(1.0, longest / max(panel.size))
    size = (max(round(panel.width * scale), 1), max(round(panel.height * scale), 1))
    return panel.resize(size, Image.Resampling.LANCZOS)
