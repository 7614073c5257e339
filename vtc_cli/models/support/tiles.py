"""Pictures that are cut into tiles: grids, boxes, and frames of videos as pictures of one tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.layout import Grid
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.geometry import stretched_boxes
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt


class TiledAdapter(Adapter):
    """A family whose tower sees tiles of a picture, each as a picture of its own.

    The model knows pictures only: frames of a video take their way, one tile a frame.
    """

    takes: ClassVar[frozenset[Kind]] = frozenset({"image", "video"})

    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and projector over all tiles and frames as pictures."""
        seen = tuple(replace(one, kind="image") for one in prompt.seen)
        return super().encode(replace(prompt, seen=seen))

    def carry(self, features: Tensor, kinds: tuple[Kind, ...]) -> EncoderOutput:
        """Objects of the library around `features` (N, d): those of pictures."""
        pictures: tuple[Kind, ...] = tuple("image" for _ in kinds)
        return super().carry(features, pictures)


@dataclass(frozen=True)
class Tile:
    """What the tower makes of one tile.

    Attributes:
        rows: of visual tokens.
        columns: of visual tokens.
        covered: share of the tile's height and width that patches cover from its top left on; a
            rest that fills no patch is not seen.
    """

    rows: int
    columns: int
    covered: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, pixels: Tensor, patch: Sequence[int], side: int) -> Tile:
        """The tile of `pixels` (..., H, W) under patches that are joined `side` x `side`.

        Args:
            pixels: what the tower is given.
            patch: height and width of a patch in pixels.
            side: patches of a token along each side.
        """
        height, width = pixels.shape[-2:]
        down, across = patch[0] * side, patch[1] * side
        rows, columns = height // down, width // across
        return cls(rows, columns, (rows * down / height, columns * across / width))

    @property
    def tokens(self) -> int:
        """Visual tokens of a tile."""
        return self.rows * self.columns

    def grids(self, down: int, across: int) -> tuple[Grid, ...]:
        """Grids of a picture of `down` x `across` tiles, row by row, then the whole picture.

        A picture of one tile is seen once.
        """
        if down * across <= 1:
            return (Grid(1, self.rows, self.columns),)
        details = [
            Grid(1, self.rows, self.columns, view="detail", top=row, left=column)
            for row in range(0, down * self.rows, self.rows)
            for column in range(0, across * self.columns, self.columns)
        ]
        return (*details, Grid(1, self.rows, self.columns, view="overview"))

    def boxes(self, width: int, height: int, down: int = 1, across: int = 1) -> NDArray[np.float64]:
        """(n, 4) boxes of the tokens of `grids(down, across)` in pixels of the picture.

        Tiles divide the picture evenly, whatever its sides: it was stretched to whole tiles.
        """
        tall, wide = height / down, width / across
        details = [
            self._cells(wide, tall) + np.array([column, row, column, row])
            for row in tall * np.arange(down)
            for column in wide * np.arange(across)
        ]
        whole = [self._cells(width, height)] if len(details) > 1 else []
        return np.concatenate([*details, *whole])

    def _cells(self, width: float, height: float) -> NDArray[np.float64]:
        """(rows x columns, 4) boxes of one tile that covers `width` x `height` pixels."""
        down, across = self.covered
        return stretched_boxes(width * across, height * down, 1, self.rows, self.columns)
