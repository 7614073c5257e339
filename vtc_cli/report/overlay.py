"""The overlay: one panel a stage, showing which patches stayed, merged or left, and when."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vtc_cli.core.errors import UsageError
from vtc_cli.core.media import Media
from vtc_cli.core.terminal import escaped
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.core.words import counted
from vtc_cli.report.marks import MERGED, PADDING, draw_mark
from vtc_cli.report.panel import HATCH_LINE, draw_panel, hatch_mask, make_view, reduced

PAPER = (250, 250, 248)
INK = (28, 28, 30)
SOFT_INK = (104, 104, 110)
MARGIN = 24
GAP = 20
TITLE_HEIGHT = 46
LEGEND_LINE = 26
PANELS_A_ROW = 4
TITLE_SIZE, TEXT_SIZE = 16, 14
SWATCH = 18  # pixels of a square of the legend
Legend = tuple[int | str, str]  # number of a stage, `merged` or `padding`, and what it means
PANEL_CAPTION = tuple[str, str]


def draw_overlay(
    trace: Trace, media: Media, patch_boxes: NDArray[np.float64], frame: int = 0
) -> Image.Image:
    """Draw the picture and one panel for each encoder and prefill stage.

    Args:
        trace: the run.
        media: its picture or video.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in pixels of the
            picture; boxes of padding may lie outside.
        frame: which frame of a video.

    Raises:
        UsageError: `frame` does not exist.
    """
    rasters = trace.layout.rasters()
    if not 0 <= frame < len(rasters):
        raise UsageError(f"frame {frame}", allowed=f"0 to {len(rasters) - 1}")
    index = rasters[frame].index
    view = make_view(media.picture(rasters[frame].frame), boxes_of(patch_boxes, index))
    records = [record for record in trace.records if record.holder is not None]
    panels = [reduced(view.picture)]
    dropped_at = np.full(trace.original_tokens, -1, dtype=np.int64)
    for number, record in enumerate(records):
        holder = holder_of(record)
        dropped_at[(holder < 0) & (dropped_at < 0)] = number
        panels.append(draw_panel(view, holder[index], dropped_at[index]))
    captions = [_picture_caption(trace), *(stage_caption(trace, record) for record in records)]
    return _sheet(panels, captions, legend_lines(records, dropped_at, padded=view.padded))


def boxes_of(patch_boxes: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """(rows, columns, 4) boxes of the tokens `index` of a raster; empty where there is none."""
    return np.where((index >= 0)[..., None], patch_boxes[index], 0.0)


def holder_of(record: StageRecord) -> NDArray[np.int64]:
    """(N0,) the row that holds each original token behind a stage, -1 if it is gone."""
    assert record.holder is not None
    holder: NDArray[np.int64] = record.holder.cpu().numpy()
    return holder


def _picture_caption(trace: Trace) -> PANEL_CAPTION:
    return "the picture", counted(trace.original_tokens, "token")


def stage_caption(trace: Trace, record: StageRecord) -> PANEL_CAPTION:
    """Name of a stage, and where it acted with what it left."""
    kind = "vision layer" if record.phase == "encoder" else "decoder layer"
    place = "after the projector" if record.layer < 0 else f"{kind} {record.layer}"
    place = "the picture itself" if record.phase == "input" else place
    tokens = counted(trace.original_tokens, "token")
    return escaped(_short(record)), f"{place} · {record.after} of {tokens}"


def _short(record: StageRecord) -> str:
    return record.stage.rsplit(".", 1)[-1]


def legend_lines(
    records: list[StageRecord], dropped_at: NDArray[np.int64], *, padded: bool
) -> list[Legend]:
    """A line for each stage that dropped patches, and for merged ones and padding if there are."""
    lines: list[Legend] = []
    for number, record in enumerate(records):
        count = int((dropped_at == number).sum())
        if count:
            layer = f" at layer {record.layer}" if record.layer >= 0 else ""
            patches = counted(count, "patch", "patches")
            text = f"{patches} dropped by {escaped(_short(record))}{layer}"
            lines.append((number, text))
    if any(not record.decision.is_pruning for record in records):
        lines.append((MERGED, "outlined: patches merged into one token"))
    if padded:
        lines.append((PADDING, "hatched: padding of the model's input, no part of the picture"))
    return lines


def _sheet(
    panels: list[Image.Image],
    captions: list[PANEL_CAPTION],
    legend: list[Legend],
) -> Image.Image:
    """Panels in rows with their captions above and the legend below; captions are never shrunk."""
    rows = -(-len(panels) // PANELS_A_ROW)
    columns = -(-len(panels) // rows)
    titles = (max(text_width(a, TITLE_SIZE), text_width(b)) for a, b in captions)
    cell_width = max(panels[0].width, *map(round, titles)) + GAP
    cell_height = panels[0].height + TITLE_HEIGHT + GAP
    legend_width = round(max((text_width(text) for _, text in legend), default=0)) + 40
    width = max(columns * cell_width - GAP, legend_width) + 2 * MARGIN
    height = 2 * MARGIN + rows * cell_height + LEGEND_LINE * len(legend)
    sheet = Image.new("RGB", (width, height), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = MARGIN + number % columns * cell_width
        top = MARGIN + number // columns * cell_height
        canvas.text((left, top), caption[0], fill=INK, font=font_of(TITLE_SIZE))
        canvas.text((left, top + 21), caption[1], fill=SOFT_INK, font=font_of(TEXT_SIZE))
        sheet.paste(panel, (left, top + TITLE_HEIGHT))
    draw_legend(canvas, legend, MARGIN + rows * cell_height)
    return sheet


def draw_legend(canvas: ImageDraw.ImageDraw, legend: list[Legend], top: int) -> None:
    """Lines of marks and words from `top` on."""
    for line, (what, text) in enumerate(legend):
        middle = top + line * LEGEND_LINE + LEGEND_LINE / 2
        left, up = MARGIN, round(middle) - SWATCH // 2
        box = (left, up, left + SWATCH, up + SWATCH)
        if isinstance(what, int):
            canvas.rectangle(box, fill=(62, 62, 64))
            draw_mark(canvas, what, (left + SWATCH / 2, middle), 5)
        elif what == PADDING:
            canvas.bitmap((left, up), hatch_mask(SWATCH), fill=HATCH_LINE)
            canvas.rectangle(box, outline=SOFT_INK)
        else:
            canvas.rectangle(box, fill=(150, 160, 175), outline=INK, width=3)
            inner = (left + 1, up + 1, left + SWATCH - 1, up + SWATCH - 1)
            canvas.rectangle(inner, outline=(255, 255, 255), width=2)
        font = font_of(TEXT_SIZE)
        canvas.text((MARGIN + 28, middle), text, fill=INK, font=font, anchor="lm")


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all words, in pixels."""
    return ImageFont.load_default(size=size)


def text_width(text: str, size: int = TEXT_SIZE) -> float:
    """Pixels that a line of text takes."""
    return font_of(size).getlength(text)
