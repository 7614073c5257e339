"""Pictures: files of the common formats become upright RGB pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vtc_cli.core.errors import MediaError
from vtc_cli.core.files import sha256_of
from vtc_cli.core.media import Media
from vtc_cli.media.files import local_file, refused
from vtc_cli.media.formats import load, opened, reduction
from vtc_cli.media.size import too_many_pixels
from vtc_cli.media.turning import Turn

ALLOWED = "a picture: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF"
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
TILE_PIXELS = 1 << 20  # converted at a time: no second copy of a large picture is made
ORIENTATION = 0x0112  # tag of EXIF; its values, CIPA DC-008 4.6.5
TURNS = {
    2: Turn(left_right=True),
    3: Turn(left_right=True, up_down=True),
    4: Turn(up_down=True),
    5: Turn(swap=True),
    6: Turn(swap=True, left_right=True),
    7: Turn(swap=True, left_right=True, up_down=True),
    8: Turn(swap=True, up_down=True),
}


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
            raise MediaError("a folder", where=path, allowed="one picture file, or - for stdin")
        return image_of(target, path)


def image_of(target: Path, path: str) -> Media:
    """The picture in the file `target`; `path` names it in errors and in the result.

    Raises:
        MediaError: as `read_image`.
    """
    pixels, notes = decode_picture(target, path)
    try:
        sha256 = sha256_of(target)
    except OSError as error:
        raise refused(path, error) from error
    return Media(
        frames=pixels[None],
        timestamps=(0.0,),
        kind="image",
        path=path,
        sha256=sha256,
        warnings=tuple(notes),
    )


def decode_picture(target: Path, path: str) -> tuple[Any, list[str]]:
    """Pixels (H, W, 3) uint8 of a file, and notes of what was done to them.

    Raises:
        MediaError: no picture, a broken one or one that is too large; `path` says which.
        MemoryError: this machine has less memory than a picture may take.
    """
    try:
        with opened(target) as picture:
            notes = _animation_notes(picture)
            million = picture.width * picture.height / 1e6
            factor = reduction(picture.width, picture.height)
            pixels = upright_rgb(picture, notes, load(picture, path))
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{target.stat().st_size} bytes that are no picture",
            where=path,
            allowed=ALLOWED,
            hint="check the file; its name does not matter, its content does",
        ) from error
    except Image.DecompressionBombError as error:
        raise too_many_pixels(path, str(error)) from error
    except Exception as error:  # decoders raise whatever they like over a broken file
        if isinstance(error, OSError) and error.errno is not None:  # the system speaks
            raise refused(path, error) from error
        text = str(error) or type(error).__name__
        raise MediaError(
            f"a broken picture: {text}", where=path, allowed="a complete file"
        ) from error
    if factor > 1:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        notes.append(f"{million:.1f} million pixels, averaged {factor} x {factor} to {size}")
    return pixels, notes


def _animation_notes(picture: Image.Image) -> list[str]:
    frames = int(getattr(picture, "n_frames", 1))
    picture.seek(0)
    return [f"the first of {frames} frames is used"] if frames > 1 else []


def upright_rgb(picture: Image.Image, notes: list[str], factor: int = 1) -> Any:
    """Upright 8-bit RGB (H, W, 3) of a decoded picture, converted tile by tile.

    Args:
        picture: decoded.
        notes: what was done to the colours is appended.
        factor: F, the mean of F x F pixels becomes one; at the right and lower edge, of as many as
            there are.
    """
    deep = picture.mode in DEEP_MODES
    clear = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    notes += ["deep grey values scaled to 8 bits"] * deep + ["transparency laid on white"] * clear
    top = _top(picture) if deep else 0.0
    rows, columns = -(-picture.height // factor), -(-picture.width // factor)
    pixels = np.empty((rows, columns, 3), dtype=np.uint8)
    for left, upper, right, lower in _tiles(picture.width, picture.height, factor):
        tile = picture.crop((left, upper, right, lower))
        tile = _plain(_shallow(tile, top) if deep else tile)
        tile = tile.reduce(factor) if factor > 1 else tile
        column, row = left // factor, upper // factor
        pixels[row : row + tile.height, column : column + tile.width] = np.asarray(tile)
    turn = TURNS.get(picture.getexif().get(ORIENTATION, 1), Turn())
    return np.ascontiguousarray(turn.apply(pixels))


def _tiles(width: int, height: int, factor: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover a picture, their left and upper edges multiples of `factor`."""
    across = min(width, max(1, TILE_PIXELS // factor) * factor)
    down = max(1, TILE_PIXELS // across // factor) * factor
    for upper in range(0, height, down):
        for left in range(0, width, across):
            yield left, upper, min(width, left + across), min(height, upper + down)


def _plain(tile: Image.Image) -> Image.Image:
    """RGB of one tile, what is transparent laid on white."""
    if tile.mode in ("RGBA", "LA", "PA") or "transparency" in tile.info:
        layer = tile.convert("RGBA")
        tile = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return tile.convert("RGB")


def _shallow(deep: Image.Image, top: float) -> Image.Image:
    """A deep grey tile in 8 bits; the one grey value that counts as transparent stays so."""
    values = np.asarray(deep)
    wide = np.where(np.isfinite(values), values, 0).astype(np.float64)
    eight = np.clip(np.rint(wide * (255.0 / top)), 0, 255).astype(np.uint8)
    grey = Image.fromarray(eight)
    clear = deep.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _top(picture: Image.Image) -> float:
    """The grey value that becomes 255: of 16 bits by their range, of others by what they hold."""
    ranges = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(picture.mode)
    if ranges is None:
        return 65535.0
    tiles = _tiles(picture.width, picture.height, 1)
    held = (np.asarray(picture.crop(box)) for box in tiles)
    largest = max(float(np.where(np.isfinite(each), each, 0).max()) for each in held)
    return next((end for end in ranges if largest <= end), largest)
