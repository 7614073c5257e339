"""One panel of the overlay: the picture with dropped patches darkened and merged ones outlined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vtc_cli.report.marks import draw_mark

LARGEST_PIXELS = 640
SMALLEST_PIXELS = 360
PATCH_PIXELS = 10
FINE = 2  # panels are drawn at twice their size and reduced, for smooth marks
DARKNESS = 0.42
MARK_SHARE = 0.2  # radius of a mark as a share of the patch
HATCH, HATCH_GAP = 2, 4  # width of a line of padding in pixels, and one line in four widths
HATCH_LINE, HATCH_GROUND = (186, 186, 180), (232, 232, 228)
OUTLINE = (255, 255, 255)
OUTLINE_EDGE = (20, 20, 20)


@dataclass(frozen=True, eq=False)
class View:
    """What the model saw of a frame, at panel size: the frame, and padding where patches reach out.

    Attributes:
        picture: at twice the panel's size; padding is hatched.
        boxes: (rows, columns, 4) int, left, top, right, bottom of each patch in it.
        padded: whether there is padding.
    """

    picture: Image.Image
    boxes: NDArray[np.int64]
    padded: bool


def make_view(picture: Image.Image, patch_boxes: NDArray[np.float64]) -> View:
    """Scale a frame so that a patch is at least 10 px and a panel at most 640 px.

    Args:
        picture: the frame as the user gave it.
        patch_boxes: (rows, columns, 4) in pixels of `picture`; padding may lie outside.
    """
    patch = float(np.median(patch_boxes[..., 2:] - patch_boxes[..., :2]))
    left, top, right, bottom = _plane(picture, patch_boxes)
    longest = max(right - left, bottom - top)
    wanted = max(1.0, PATCH_PIXELS / patch, SMALLEST_PIXELS / longest)
    scale = FINE * min(wanted, LARGEST_PIXELS / longest)
    size, inner = _scaled(right - left, bottom - top, scale), _scaled(*picture.size, scale)
    place = (round(-left * scale), round(-top * scale))
    boxes = np.rint((patch_boxes - (left, top, left, top)) * scale).astype(np.int64)
    boxes = np.clip(boxes, 0, np.array([*size, *size]))
    shown = picture.convert("RGB").resize(inner, Image.Resampling.LANCZOS)
    padded = size != inner
    if padded:
        plane = _hatched(size)
        plane.paste(shown, place)
        shown = plane
    return View(shown, boxes, padded)


def _plane(
    picture: Image.Image, patch_boxes: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """The picture and every patch that reaches out of it by more than rounding."""
    boxes = patch_boxes[patch_boxes[..., 2] > patch_boxes[..., 0]].reshape(-1, 4)
    width, height = picture.size
    if not boxes.size:
        return 0.0, 0.0, width, height
    left, top = (min(low, 0.0) for low in boxes[:, :2].min(0).tolist())
    right, bottom = (
        max(high, side)
        for high, side in zip(boxes[:, 2:].max(0).tolist(), picture.size, strict=True)
    )
    least = max(width, height) / LARGEST_PIXELS  # a pixel of a panel
    return (
        left if left < -least else 0.0,
        top if top < -least else 0.0,
        right if right > width + least else width,
        bottom if bottom > height + least else height,
    )


def _scaled(width: float, height: float, scale: float) -> tuple[int, int]:
    return max(round(width * scale), FINE), max(round(height * scale), FINE)


def _hatched(size: tuple[int, int]) -> Image.Image:
    """Light ground with slanted lines: no part of any picture."""
    ground = Image.new("RGB", size, HATCH_GROUND)
    ground.paste(HATCH_LINE, mask=hatch_mask(*size, line=HATCH * FINE))
    return ground


def hatch_mask(width: int, height: int | None = None, line: int = HATCH) -> Image.Image:
    """Slanted lines as a mask of that size, square without `height`."""
    across, down = np.arange(width), np.arange(height or width)[:, None]
    lines = (across + down) // line % HATCH_GAP == 0
    return Image.fromarray(lines.astype(np.uint8) * 255)


def draw_panel(view: View, holder: NDArray[np.int64], dropped_at: NDArray[np.int64]) -> Image.Image:
    """The panel after one stage.

    Args:
        view: the frame.
        holder: (rows, columns) row that holds each patch, -1 if it is gone.
        dropped_at: (rows, columns) number of the stage that dropped it, -1 if it is alive.
    """
    picture = _darkened(view, holder < 0)
    canvas = ImageDraw.Draw(picture)
    for row, column in zip(*np.nonzero(dropped_at >= 0), strict=True):
        left, top, right, bottom = (int(edge) for edge in view.boxes[row, column])
        if right > left and bottom > top:
            radius = MARK_SHARE * min(right - left, bottom - top)
            centre = ((left + right) / 2, (top + bottom) / 2)
            draw_mark(canvas, int(dropped_at[row, column]), centre, radius)
    _outline(canvas, view, holder)
    return reduced(picture)


def reduced(picture: Image.Image) -> Image.Image:
    """A finely drawn panel at its own size."""
    size = (max(picture.width // FINE, 1), max(picture.height // FINE, 1))
    return picture.resize(size, Image.Resampling.BOX)


def _darkened(view: View, gone: NDArray[np.bool_]) -> Image.Image:
    """The frame with the patches in `gone` grey and dark."""
    grey = view.picture.convert("L").point(lambda value: round(value * DARKNESS) + 12)
    mask = Image.new("L", view.picture.size, 0)
    canvas = ImageDraw.Draw(mask)
    for left, top, right, bottom in view.boxes[gone].tolist():
        if right > left and bottom > top:
            canvas.rectangle((left, top, right - 1, bottom - 1), fill=255)
    return Image.composite(grey.convert("RGB"), view.picture, mask)


def _outline(canvas: ImageDraw.ImageDraw, view: View, holder: NDArray[np.int64]) -> None:
    """Lines around the union of patches that one token holds, dark below and white above."""
    lines = [line for row, column in _merged(holder) for line in _edges(view, holder, row, column)]
    for colour, width in ((OUTLINE_EDGE, 3 * FINE), (OUTLINE, 3 * FINE // 2)):
        for line in lines:
            canvas.line(line, fill=colour, width=width)


def _merged(holder: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Patches whose token holds more than one of them."""
    alive = holder[holder >= 0]
    counts = np.bincount(alive) if alive.size else np.zeros(1, dtype=np.int64)
    merged = (holder >= 0) & (counts[np.maximum(holder, 0)] > 1)
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(merged), strict=True)]


def _edges(
    view: View, holder: NDArray[np.int64], row: int, column: int
) -> list[tuple[int, int, int, int]]:
    """Sides of a patch behind which another token begins, drawn just inside the patch."""
    left, top, right, bottom = (int(edge) for edge in view.boxes[row, column])
    if right <= left or bottom <= top:
        return []
    above, below = (row - 1, column), (row + 1, column)
    before, behind = (row, column - 1), (row, column + 1)
    joined = {p: _same(holder, p, int(holder[row, column])) for p in (above, below, before, behind)}
    # A side reaches to the patch's edge where the same token goes on, so that lines close.
    left, right = left + FINE * (not joined[before]), right - FINE * (not joined[behind])
    top, bottom = top + FINE * (not joined[above]), bottom - FINE * (not joined[below])
    sides = {
        above: (left, top, right, top),
        below: (left, bottom, right, bottom),
        before: (left, top, left, bottom),
        behind: (right, top, right, bottom),
    }
    return [line for place, line in sides.items() if not joined[place]]


def _same(holder: NDArray[np.int64], place: tuple[int, int], token: int) -> bool:
    row, column = place
    inside = 0 <= row < holder.shape[0] and 0 <= column < holder.shape[1]
    return inside and int(holder[row, column]) == token
