"""A light where a token is said to look, and which token sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from vtc_cli.core.media import Media
from vtc_cli.models.support.anyres import AnyresAdapter


def bright_token(adapter: AnyresAdapter, shown: Sequence[Media], token: int) -> int:
    """The brightest token of the same view when only the box of `token` is lit.

    All other pictures and frames are black. Brightness is that of the pixels that the tower is
    given, in the arrangement of features.
    """
    prompt = adapter.prepare(shown, "?")
    columns = prompt.layout.columns(torch.device("cpu"))
    span, frame = int(columns.span[token]), int(columns.frame[token])
    left, top, right, bottom = prompt.patch_boxes[token].clip(0)
    dark = [replace(media, frames=np.zeros_like(media.frames)) for media in shown]
    lit = dark[span].frames[frame]
    lit[round(top) : round(bottom), round(left) : round(right)] = 255
    seen = brightness(adapter, dark)
    rivals = (columns.view == columns.view[token]) & ~columns.learned
    apart = torch.where(rivals, seen - seen[rivals].min(), torch.tensor(0.0))
    assert float(apart.sort().values[-2]) < 0.75 * float(apart.max())
    return int(apart.argmax())


def brightness(adapter: AnyresAdapter, shown: Sequence[Media]) -> torch.Tensor:
    """(N0,) light in the patches of each token."""
    prompt, patches = adapter.prepare(shown, "?"), adapter.patches
    by_patch = []
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        for one in prompt.seen:
            if one.kind == kind:
                used = patches.side * patches.pixels
                pixels = one.inputs[name][0].mean(dim=1)[:, :used, :used]
                cells = pixels.unflatten(2, (patches.side, -1)).unflatten(1, (patches.side, -1))
                by_patch.append(cells.mean(dim=(2, 4)).flatten())
    return adapter.pooled(torch.cat(by_patch), prompt)
