"""Pictures: bytes of any common format become upright RGB pixels."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vtc_cli.core.errors import MediaError
from vtc_cli.core.media import Media
from vtc_cli.media.files import local_file, picture_bytes
from vtc_cli.media.size import check_size, too_many_pixels

ALLOWED = "a picture: PNG, JPEG, WebP, GIF, BMP, TIFF, ..."
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I", "F")


def read_image(path: str) -> Media:
    """Read one picture.

    Orientation is applied, transparency is laid on white, deep greys are scaled to 8 bits, and of
    an animation the first frame is taken; what was done stands in `Media.warnings`.

    Args:
        path: a file, or `-` for standard input.

    Raises:
        MediaError: missing, empty, truncated, too large or no picture at all.
    """
    with local_file(path) as target:
        if target.is_dir():
            allowed = "one picture file, or - for stdin"
            raise MediaError("a folder", where=path, allowed=allowed)
        return image_of(picture_bytes(target, path), path)


def image_of(data: bytes, path: str) -> Media:
    """One picture from the bytes of a file; `path` names it in errors and in the result.

    Raises:
        MediaError: as `read_image`.
    """
    if not data:
        raise MediaError("no bytes at all", where=path, allowed=ALLOWED)
    pixels, notes = decode_picture(data, path)
    return Media(
        frames=pixels[None],
        timestamps=(0.0,),
        kind="image",
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        warnings=tuple(notes),
    )


def decode_picture(data: bytes, path: str) -> tuple[Any, list[str]]:
    """Pixels (H, W, 3) uint8 of the bytes of a file, and notes of what was done to them.

    Raises:
        MediaError: no picture, a broken one or one that is too large; `path` says which.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warnings; the bound below is ours
            with Image.open(io.BytesIO(data)) as picture:
                check_size(picture.width, picture.height, path)
                notes = _animation_notes(picture)
                picture.load()
                return upright_rgb(picture, notes), notes
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{len(data)} bytes that are no picture",
            where=path,
            allowed=ALLOWED,
            hint="check the file; its name does not matter, its content does",
        ) from error
    except Image.DecompressionBombError as error:
        raise too_many_pixels(path, str(error)) from error
    except Exception as error:  # decoders raise whatever they like over a broken file
        text = str(error) or type(error).__name__
        raise MediaError(
            f"a broken picture: {text}", where=path, allowed="a complete file"
        ) from error


def _animation_notes(picture: Image.Image) -> list[str]:
    frames = int(getattr(picture, "n_frames", 1))
    picture.seek(0)
    return [f"the first of {frames} frames is used"] if frames > 1 else []


def upright_rgb(picture: Image.Image, notes: list[str]) -> Any:
    """Upright 8-bit RGB (H, W, 3); appends to `notes` what was done to the colours."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in DEEP_MODES:
        notes.append("deep grey values scaled to 8 bits")
        upright = _shallow(upright)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        notes.append("transparency laid on white")
        layer = upright.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(ground, layer)
    return np.asarray(upright.convert("RGB"), dtype=np.uint8).copy()


def _shallow(deep: Image.Image) -> Image.Image:
    """A deep grey picture in 8 bits; the one grey value that counts as transparent stays so."""
    values = np.asarray(deep)
    grey = Image.fromarray(_eight_bits(values, deep.mode))
    clear = deep.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _eight_bits(values: Any, mode: str) -> Any:
    """Grey values of any depth as uint8: 16-bit by its range, others by what they hold."""
    wide = np.where(np.isfinite(values), values, 0).astype(np.float64)
    largest = float(wide.max())
    ranges = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(mode, (65535.0,))
    top = next((end for end in ranges if largest <= end), largest)
    return np.clip(np.rint(wide * (255.0 / top)), 0, 255).astype(np.uint8)
