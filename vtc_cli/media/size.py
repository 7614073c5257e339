"""How large pictures and videos may be."""

from __future__ import annotations

from vtc_cli.core.errors import MediaError

MAX_PIXELS = 180_000_000  # a larger picture is taken for a decompression bomb


def check_size(width: int, height: int, path: str | None = None) -> None:
    """Refuse a picture of more than 180 million pixels.

    Raises:
        MediaError: it is larger.
    """
    if width * height > MAX_PIXELS:
        raise too_many_pixels(path, f"{width} x {height} pixels")


def too_many_pixels(path: str | None, found: str) -> MediaError:
    """One picture that is too large."""
    return MediaError(
        found,
        where=path,
        allowed=f"at most {MAX_PIXELS // 1_000_000} million pixels",
        hint="scale the picture down first; the model sees far fewer pixels anyway",
    )


def too_many_frames(frames: int, width: int, height: int, allowed_bytes: int) -> MediaError:
    """More frames than the memory limit allows."""
    size_gib = frames * width * height * 3 / (1 << 30)
    return MediaError(
        f"{frames} frames of {width} x {height}: {size_gib:.1f} GiB",
        allowed=f"at most {allowed_bytes / (1 << 30):.1f} GiB",
        hint="take fewer frames, a shorter span, or scale the video down",
    )
