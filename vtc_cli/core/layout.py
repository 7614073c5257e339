"""Geometry of a prompt's visual tokens: rasters of pictures, frames and crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.errors import StageError

View = Literal["whole", "overview", "detail", "marker"]


@dataclass(frozen=True)
class Grid:
    """Consecutive tokens: `frames` x `rows` x `columns`, raster order.

    Attributes:
        frames: frames of a video, 1 for a picture or a crop of one.
        rows: from top to bottom.
        columns: from left to right, a line end included.
        span: which picture or video of the prompt.
        view: `whole` where a span is seen once; `overview` and `detail` where it is seen coarsely
            and in crops; `marker` for tokens that no patch stands behind.
        top: row of the view's raster in which the grid begins; crops of one view lie side by side.
        left: column of the view's raster in which the grid begins.
        line_ends: whether the last column holds learned line ends, which no patch stands behind.
    """

    frames: int
    rows: int
    columns: int
    span: int = 0
    view: View = "whole"
    top: int = 0
    left: int = 0
    line_ends: bool = False

    @property
    def tokens(self) -> int:
        """Tokens in the grid."""
        return self.frames * self.rows * self.columns

    @property
    def patch_columns(self) -> int:
        """Columns that patches stand behind."""
        if self.view == "marker":
            return 0
        return self.columns - int(self.line_ends)


class Columns(NamedTuple):
    """What the layout says of every token, N0 rows each.

    Attributes:
        position: (N0, 3) float32, t, y, x in the raster of the token's view.
        span: (N0,) int64.
        frame: (N0,) int64, frame inside the span.
        learned: (N0,) bool, line ends and markers, which no patch stands behind.
        view: (N0,) int64, number of the view in `Layout.views`.
    """

    position: Tensor
    span: Tensor
    frame: Tensor
    learned: Tensor
    view: Tensor


@dataclass(frozen=True)
class Raster:
    """One picture plane of the layout, for whoever draws tokens.

    Attributes:
        span: which picture or video.
        frame: frame inside the span.
        view: how the span is seen.
        index: (rows, columns) int64, the original token at each place, -1 where there is none.
    """

    span: int
    frame: int
    view: View
    index: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """The grids of a prompt in the order of its tokens; the grids of a span stand together."""

    grids: tuple[Grid, ...]

    @classmethod
    def of(cls, grid: Grid) -> Layout:
        """A layout of one grid."""
        return cls((grid,))

    @cached_property
    def tokens(self) -> int:
        """N0."""
        return sum(grid.tokens for grid in self.grids)

    @property
    def spans(self) -> int:
        """Pictures and videos."""
        return 1 + max((grid.span for grid in self.grids), default=-1)

    @property
    def frames(self) -> int:
        """Pictures and frames of all spans; the crops of a picture count once."""
        return sum(self.frames_of(span) for span in range(self.spans))

    @property
    def only(self) -> Grid:
        """The grid of a layout that has one beside markers.

        Raises:
            StageError: there are several.
        """
        seen = [grid for grid in self.grids if grid.view != "marker"]
        if len(seen) != 1:
            raise StageError(f"{len(seen)} grids of visual tokens", allowed="one")
        return seen[0]

    def frames_of(self, span: int) -> int:
        """Frames of span number `span`."""
        return max((grid.frames for grid in self.grids if grid.span == span), default=0)

    def tokens_of(self, span: int) -> int:
        """Tokens of span number `span`."""
        return sum(grid.tokens for grid in self.grids if grid.span == span)

    def part(self, span: int) -> Layout:
        """The grids of one span as a layout of their own."""
        return Layout(tuple(replace(grid, span=0) for grid in self.grids if grid.span == span))

    def placed(self) -> Iterator[tuple[Grid, int]]:
        """Each grid and the number of its first token."""
        start = 0
        for grid in self.grids:
            yield grid, start
            start += grid.tokens

    def columns(self, device: torch.device) -> Columns:
        """What is known of every token before anything was computed."""
        views = [(view.span, view.view) for view in self.views()]
        parts = [_columns(grid, views.index((grid.span, grid.view)), device) for grid in self.grids]
        return Columns(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def views(self) -> tuple[Grid, ...]:
        """For each view of each span a grid as large as all its grids together."""
        found: dict[tuple[int, View], Grid] = {}
        for grid in self.grids:
            known = found.get((grid.span, grid.view), replace(grid, rows=0, columns=0))
            found[grid.span, grid.view] = Grid(
                frames=max(known.frames, grid.frames),
                rows=max(known.rows, grid.top + grid.rows),
                columns=max(known.columns, grid.left + grid.patch_columns),
                span=grid.span,
                view=grid.view,
            )
        return tuple(found.values())

    def rasters(self) -> tuple[Raster, ...]:
        """Every plane that tokens with patches lie in: by span, view and frame."""
        return tuple(
            Raster(view.span, frame, view.view, index)
            for view in self.views()
            if view.columns
            for frame, index in enumerate(self._planes(view))
        )

    def equal_frames(self) -> Grid | None:
        """The picture or the frames as one grid, if all are alike and every token has a patch."""
        rasters = self.rasters() if self.spans == 1 else ()
        shapes = {raster.index.shape for raster in rasters}
        index = [number for raster in rasters for number in raster.index.ravel()]
        if len(shapes) != 1 or not index or index != list(range(self.tokens)):
            return None
        rows, columns = shapes.pop()
        return Grid(len(rasters), rows, columns)

    def _planes(self, view: Grid) -> NDArray[np.int64]:
        """(F, rows, columns) original tokens of one view of a span."""
        planes = np.full((view.frames, view.rows, view.columns), -1, dtype=np.int64)
        for grid, at in self.placed():
            if (grid.span, grid.view) != (view.span, view.view):
                continue
            own = np.arange(at, at + grid.tokens).reshape(grid.frames, grid.rows, grid.columns)
            down = slice(grid.top, grid.top + grid.rows)
            across = slice(grid.left, grid.left + grid.patch_columns)
            planes[: grid.frames, down, across] = own[:, :, : grid.patch_columns]
        return planes


def _columns(grid: Grid, view: int, device: torch.device) -> Columns:
    """What one grid says of its tokens."""
    index = torch.arange(grid.tokens, device=device)
    frame = index // (grid.rows * grid.columns)
    row, column = (index // grid.columns) % grid.rows, index % grid.columns
    position = torch.stack([frame, row + grid.top, column + grid.left], dim=1).float()
    return Columns(
        position=position,
        span=torch.full_like(index, grid.span),
        frame=frame,
        learned=column >= grid.patch_columns,
        view=torch.full_like(index, view),
    )
