"""How a picture of any resolution is cut into crops, and how their patches become tokens.

The arrangement is one of patches: a gather and, where a model scales rasters down, a linear map. So
it serves for whatever a tower says of its patches as it serves for features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vtc_cli.core.layout import Grid
from vtc_cli.models.support.geometry import crossed

LEAST_SCALE = 1.1  # rasters that are larger than allowed by less are left as they are


@dataclass(frozen=True)
class Patches:
    """The patches of one input of the tower.

    Attributes:
        side: patches from left to right and from top to bottom.
        pixels: of a patch, from left to right and from top to bottom.
        crop: pixels of the input; its last ones may be in no patch.
    """

    side: int
    pixels: int
    crop: int

    @property
    def count(self) -> int:
        """P, patches of one input."""
        return self.side**2

    def edges(self, lines: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where cells start and end, in pixels of crops laid side by side.

        Args:
            lines: (n + 1,) borders of the cells in patches, fractions allowed.
        """
        first = np.floor(lines[:-1])
        last = np.ceil(lines[1:]) - 1
        return self._at(first, lines[:-1] - first), self._at(last, lines[1:] - last)

    def _at(self, patch: NDArray[np.float64], part: NDArray[np.float64]) -> NDArray[np.float64]:
        return patch // self.side * self.crop + (patch % self.side + part) * self.pixels


@dataclass(frozen=True, eq=False)
class Cut:
    """Crops of one picture and the raster that the model makes of them.

    Attributes:
        down: crops from top to bottom.
        across: crops from left to right.
        index: (rows, columns) int64, for each place of the raster without padding the patch that
            stands there, counted crop after crop.
        top: rows of padding above the raster.
        left: columns of padding before it.
        rows: of tokens.
        columns: of tokens, without line ends.
    """

    down: int
    across: int
    index: Tensor
    top: int
    left: int
    rows: int
    columns: int

    @property
    def scaled(self) -> bool:
        """Whether the raster has more patches than tokens."""
        return (self.rows, self.columns) != tuple(self.index.shape)

    @property
    def empty(self) -> bool:
        """Whether padding took every patch, as it does of slivers."""
        return self.rows * self.columns == 0

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The tokens of the raster; none where padding took all its rows.

        Where it took all columns, the model still ends each row, so line ends alone are left.
        """
        if not self.rows:
            return ()
        return (Grid(1, self.rows, self.columns + 1, view="detail", line_ends=True),)


def cut_picture(
    height: int,
    width: int,
    patches: Patches,
    resolutions: Sequence[Sequence[int]],
    most: int | None = None,
) -> Cut:
    """The cut of a picture of `height` x `width` pixels, by the library's own functions.

    Args:
        height: pixels.
        width: pixels.
        patches: of one crop.
        resolutions: (height, width) in pixels of all crops together, the ones to choose from.
        most: rasters of far more patches than this number of crops has are scaled down.
    """
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    best = select_best_resolution((height, width), [tuple(each) for each in resolutions])
    down, across, side = best[0] // patches.crop, best[1] // patches.crop, patches.side
    number = torch.arange(down * across * patches.count).view(down, across, side, side)
    joined = number.permute(0, 2, 1, 3).reshape(down * side, across * side)
    index = unpad_image(joined[None], (height, width))[0]
    rows, columns = index.shape
    scale = 0.0 if most is None else math.sqrt(rows * columns / (most * patches.count))
    if scale > LEAST_SCALE:
        rows, columns = int(rows // scale), int(columns // scale)
    top, left = (down * side - index.shape[0]) // 2, (across * side - index.shape[1]) // 2
    return Cut(down, across, index, top, left, rows, columns)


def packed(values: Tensor, cut: Cut, patches: Patches, learned: Tensor) -> Tensor:
    """Values of a picture's tokens from those of its patches, as the model packs features.

    Args:
        values: (P x (1 + crops), C), the overview first.
        cut: of the picture.
        patches: of one crop.
        learned: (C,), what stands for line ends.

    Returns:
        (N, C)
    """
    raster = values[patches.count :][cut.index.to(values.device)]
    if cut.scaled:
        raster = shrunk(raster[None], (cut.rows, cut.columns))[0]
    ends = learned.expand(raster.shape[0], 1, -1)
    return torch.cat([values[: patches.count], torch.cat([raster, ends], dim=1).flatten(0, 1)])


def pooled_frames(values: Tensor, patches: Patches, learned: Tensor) -> Tensor:
    """Values of a video's tokens from those of its patches; (F x P, C) gives (N, C)."""
    frames = values.reshape(-1, patches.side, patches.side, values.shape[-1])
    half = frame_side(patches)
    return torch.cat([shrunk(frames, (half, half)).flatten(0, 2), learned[None]])


def frame_side(patches: Patches) -> int:
    """Tokens a side of a frame: half the patches, rounded up."""
    return math.ceil(patches.side / 2)


def shrunk(rasters: Tensor, size: tuple[int, int]) -> Tensor:
    """Rasters (B, rows, columns, C) read bilinearly at `size` places."""
    channels_first = rasters.permute(0, 3, 1, 2)
    read = nn.functional.interpolate(channels_first, size, mode="bilinear")
    return read.permute(0, 2, 3, 1)


def detail_boxes(height: int, width: int, cut: Cut, patches: Patches) -> NDArray[np.float64]:
    """(rows x (columns + 1), 4) boxes in picture pixels, those of line ends empty.

    They are where the patches look: a row that is half padding lies half outside the picture, and
    between crops there may be pixels that no patch sees.
    """
    target = (cut.down * patches.crop, cut.across * patches.crop)
    tall, wide = _resized(height, width, target)
    x = patches.edges(cut.left + np.linspace(0, cut.index.shape[1], cut.columns + 1))
    y = patches.edges(cut.top + np.linspace(0, cut.index.shape[0], cut.rows + 1))
    boxes = crossed(
        _on_picture(x, (target[1] - wide) // 2, width / wide),
        _on_picture(y, (target[0] - tall) // 2, height / tall),
    ).reshape(cut.rows, cut.columns, 4)
    return np.pad(boxes, ((0, 0), (0, 1), (0, 0))).reshape(-1, 4)


def view_boxes(
    region: tuple[float, float, float, float], patches: Patches, cells: int
) -> NDArray[np.float64]:
    """(cells x cells, 4) boxes of one input of the tower that shows `region` of the picture.

    Args:
        region: left, top, right, bottom in picture pixels.
        patches: of the input.
        cells: tokens from left to right and from top to bottom.
    """
    left, top, right, bottom = region
    edges = patches.edges(np.linspace(0, patches.side, cells + 1))
    x_scale, y_scale = (right - left) / patches.crop, (bottom - top) / patches.crop
    return crossed(
        _on_picture(edges, -left / x_scale, x_scale), _on_picture(edges, -top / y_scale, y_scale)
    )


def _on_picture(
    edges: tuple[NDArray[np.float64], NDArray[np.float64]], origin: float, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges in pixels of the picture, which begins at `origin` of the crops' pixels."""
    return (edges[0] - origin) * scale, (edges[1] - origin) * scale


def _resized(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the picture inside the crops, without padding, by the library's own function."""
    from transformers.image_processing_utils import get_patch_output_size
    from transformers.image_utils import ChannelDimension

    picture: Any = np.broadcast_to(np.uint8(0), (1, height, width))
    tall, wide = get_patch_output_size(picture, target, ChannelDimension.FIRST)
    return int(tall), int(wide)
