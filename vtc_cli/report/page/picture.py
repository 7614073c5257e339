"""The picture inside the page: a data URI of sensible size."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from vtc_cli.core.media import Media

LARGEST_PIXELS = 1000
LARGEST_FRAME_PIXELS = 480  # of each frame, where there are several
JPEG_QUALITY = 88


def frame_uris(media: Media, frames: int) -> list[str]:
    """One data URI for each of `frames` frames of the grid."""
    largest = LARGEST_PIXELS if frames == 1 else LARGEST_FRAME_PIXELS
    count = media.frames.shape[0]
    return [data_uri(media.picture(at * count // frames), largest) for at in range(frames)]


def data_uri(picture: Any, largest: int = LARGEST_PIXELS) -> str:
    """A Pillow picture, scaled down to `largest` pixels, as PNG or JPEG, whichever is smaller."""
    scale = min(1.0, largest / max(picture.size))
    if scale < 1.0:
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    png = _encoded(picture, "PNG", optimize=True)
    jpeg = _encoded(picture, "JPEG", quality=JPEG_QUALITY, optimize=True, subsampling=0)
    kind, content = ("png", png) if len(png) <= len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(picture: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
