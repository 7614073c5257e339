"""The picture inside the page: a data URI of sensible size."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from vtc_cli.core.media import Media

LARGEST_PIXELS = 1000
LARGEST_FRAME_PIXELS = 480  # of each frame, where there are several
LARGEST_BYTES = 600_000  # of all frames together; grain and noise hardly pack
QUALITIES = (90, 80, 65)


def frame_uris(media: Media, frames: int) -> list[str]:
    """One data URI for each of `frames` frames of the grid."""
    pixels = LARGEST_PIXELS if frames == 1 else LARGEST_FRAME_PIXELS
    room, count = LARGEST_BYTES // frames, media.frames.shape[0]
    return [data_uri(media.picture(at * count // frames), pixels, room) for at in range(frames)]


def data_uri(picture: Any, pixels: int = LARGEST_PIXELS, room_bytes: int = LARGEST_BYTES) -> str:
    """A Pillow picture as PNG or JPEG, whichever is smaller.

    It is scaled down to `pixels` on its longer side, and further only if even a coarse JPEG of it
    needs more than `room_bytes`.
    """
    picture = _scaled(picture, min(1.0, pixels / max(picture.size)))
    packed = [("png", _encoded(picture, "PNG", optimize=True))]
    for quality in QUALITIES:
        packed.append(("jpeg", _encoded(picture, "JPEG", quality=quality)))
        kind, content = min(packed, key=lambda one: len(one[1]))
        if len(content) <= room_bytes or max(picture.size) == 1:
            return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return data_uri(picture, max(picture.size) * 3 // 4, room_bytes)


def _scaled(picture: Any, scale: float) -> Any:
    if scale == 1.0:
        return picture
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _encoded(picture: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
