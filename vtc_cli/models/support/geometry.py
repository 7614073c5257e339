"""Where a patch of the model's input lies in the picture that the user gave."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def patch_boxes(
    processor: Any, width: int, height: int, rows: int, columns: int
) -> NDArray[np.float64]:
    """Boxes of the patches of a CLIP-style image processor (pad, resize, centre crop).

    Args:
        processor: image processor with the library's usual fields.
        width: picture pixels.
        height: picture pixels.
        rows: patches from top to bottom of the model's input.
        columns: patches from left to right.

    Returns:
        (rows x columns, 4) left, top, right, bottom in picture pixels; patches of padding lie
        outside the picture.
    """
    left, top, right, bottom = visible_region(processor, width, height)
    x = np.linspace(left, right, columns + 1)
    y = np.linspace(top, bottom, rows + 1)
    return _cells(x, y)


def stretched_boxes(
    width: float, height: float, frames: int, rows: int, columns: int
) -> NDArray[np.float64]:
    """Boxes of the cells of a grid that covers the whole picture, whatever its sides.

    Args:
        width: picture pixels.
        height: picture pixels.
        frames: frames or temporal steps, each with the same boxes.
        rows: cells from top to bottom.
        columns: cells from left to right.

    Returns:
        (frames x rows x columns, 4) left, top, right, bottom in picture pixels.
    """
    frame = _cells(np.linspace(0.0, width, columns + 1), np.linspace(0.0, height, rows + 1))
    return np.tile(frame, (frames, 1))


def _cells(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes between neighbouring lines, row by row."""
    return crossed((x[:-1], x[1:]), (y[:-1], y[1:]))


def crossed(
    x: tuple[NDArray[np.float64], NDArray[np.float64]],
    y: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """(rows x columns, 4) boxes of every row and column, from where each starts and ends."""
    lefts, tops = np.meshgrid(x[0], y[0])
    rights, bottoms = np.meshgrid(x[1], y[1])
    return np.stack([lefts, tops, rights, bottoms], axis=-1).reshape(-1, 4)


def visible_region(processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of the picture plane that becomes the model's input."""
    side = max(width, height)
    padded = bool(getattr(processor, "do_pad", False))
    plane_width, plane_height = (side, side) if padded else (width, height)
    shift_x, shift_y = (plane_width - width) / 2, (plane_height - height) / 2
    resized_width, resized_height = _resized(processor, plane_width, plane_height)
    view_width, view_height = float(resized_width), float(resized_height)
    if getattr(processor, "do_center_crop", False):
        view_width = float(processor.crop_size["width"])
        view_height = float(processor.crop_size["height"])
    scale_x, scale_y = plane_width / resized_width, plane_height / resized_height
    half_x, half_y = view_width * scale_x / 2, view_height * scale_y / 2
    middle_x, middle_y = plane_width / 2 - shift_x, plane_height / 2 - shift_y
    return middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y


def _resized(processor: Any, width: int, height: int) -> tuple[float, float]:
    """Pixels after the processor's resize."""
    if not getattr(processor, "do_resize", True):
        return width, height
    size = processor.size
    shortest = size.get("shortest_edge") if hasattr(size, "get") else size["shortest_edge"]
    if shortest:
        scale = shortest / min(width, height)
        return width * scale, height * scale
    return float(size["width"]), float(size["height"])
