"""Pictures and videos of another size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from vtc_cli.core.media import Media


def resized(media: Media, width: int, height: int) -> Media:
    """Every frame at `width` x `height` pixels, bicubic over the whole area that a pixel covers.

    Everything but the pixels stays, the hash of the file too: it is the same input.
    """
    if (width, height) == (media.width, media.height):
        return media
    size, method = (width, height), Image.Resampling.BICUBIC
    frames = [
        np.asarray(media.picture(frame).resize(size, method)) for frame in range(len(media.frames))
    ]
    return replace(media, frames=np.stack(frames))
