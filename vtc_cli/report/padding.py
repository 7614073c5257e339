"""Padding among kept tokens: patches of the model's input that show nothing of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vtc_cli.core.media import Media
from vtc_cli.core.trace import Trace
from vtc_cli.core.words import counted


def padding_warnings(
    trace: Trace, media: Sequence[Media], patch_boxes: NDArray[np.float64]
) -> list[str]:
    """One line if stages kept padding: its tokens count in the budget and carry no picture.

    Args:
        trace: the run; where no stage chose among tokens there is nothing to warn of.
        media: its pictures and videos.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in picture pixels.
    """
    records = [record for record in trace.records if record.holder is not None]
    if not records or len(patch_boxes) != trace.original_tokens:
        return []
    last = records[-1].holder
    assert last is not None
    holder = last.cpu().numpy()
    alive = holder >= 0
    tokens = np.unique(holder[alive])
    shown = np.unique(holder[alive & ~is_padding(trace, media, patch_boxes)])
    hidden = len(tokens) - len(shown)
    if not hidden:
        return []
    noun = "shows" if hidden == 1 else "show"
    return [f"{hidden} of {counted(len(tokens), 'kept token')} {noun} padding and no picture"]


def is_padding(
    trace: Trace, media: Sequence[Media], patch_boxes: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(N0,) whether a patch lies outside its picture; learned tokens have no patch and do not."""
    span = np.concatenate([np.full(grid.tokens, grid.span) for grid in trace.layout.grids])
    sizes = np.array([(each.width, each.height) for each in media], dtype=np.float64)[span]
    low, high = patch_boxes[:, :2], patch_boxes[:, 2:]
    least = 0.01 * (high - low)  # of a patch: what rounding leaves inside
    outside = (high <= least) | (low >= sizes - least)
    return np.asarray(outside.any(axis=1) & (high > low).all(axis=1))
