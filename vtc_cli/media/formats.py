"""Picture formats: which are read, how a file is opened, and what memory its pixels take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from vtc_cli.core.errors import MediaError
from vtc_cli.core.files import open_regular
from vtc_cli.media.size import check_size

# Formats that Pillow decodes inside this process and in memory that is known beforehand. Left out
# are those that start another program (EPS and PostScript: Ghostscript) and those of no use here.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
# No family looks at more: 16384 tokens of 32 x 32 pixels (Qwen3-VL). Twice of that on each side is
# enough for a model's own resize to read the same from; larger pictures are averaged by blocks.
MOST_LOOKED_AT = 16_777_216
MOST_KEPT = 4 * MOST_LOOKED_AT
MOST_BYTES = 980_000_000  # of decoding one picture: below 1 GB with what else a run touches

RGB_BYTES = 3  # of a pixel as it is handed on
ONE_BYTE_MODES = ("1", "L", "P")
DEEP_GREYS = ("I;16", "I;16L", "I;16B", "I;16N")
# Bytes a pixel of decoders that hold several copies, measured: libwebp two canvases and two copies
# (16), libavif its planes, up to 16 bits of each, and the same copies.
WHOLE_PICTURE_BYTES = {"WEBP": 16, "AVIF": 20}
ANIMATION_COPIES = 3  # this frame, the one before, and what lies below: Pillow's compositing
START_OF_SCAN = 0xDA
ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH, ORIENTATION = 278, 322, 323, 274  # tags of TIFF
SAMPLES, BITS = 277, 258


@contextmanager
def opened(source: Path | str) -> Iterator[ImageFile]:
    """A picture file of a format that is read, its header alone.

    The only place that opens pictures: Pillow tries whatever it was built with otherwise.

    Raises:
        OSError: it cannot be read, or is no regular file.
        PIL.UnidentifiedImageError: none of the formats.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own warnings; the bounds below are ours
        # An open file and not its name: Pillow maps files that it knows by name into memory, where
        # it forgets to turn TIFFs, and a file that another process cuts off kills this one.
        with open_regular(source) as file, Image.open(file, formats=FORMATS) as picture:
            yield picture


def reduction(width: int, height: int) -> int:
    """F: a picture is averaged over blocks of F x F pixels; 1 for any of up to 67 million."""
    return max(1, math.ceil(math.sqrt(width * height / MOST_KEPT)))


def check_picture(picture: ImageFile, factor: int, path: str | None) -> None:
    """See that an opened picture may be decoded and averaged by `factor`.

    Raises:
        MediaError: too many pixels, or more memory than a picture may take.
    """
    check_size(picture.width, picture.height, path)
    needed = bytes_needed(picture, factor)
    if needed > MOST_BYTES:
        raise _too_much_memory(picture, needed, path)


def load(picture: ImageFile, path: str | None) -> int:
    """Decode an opened picture in place.

    Returns:
        F by which its pixels are still to be averaged; a JPEG is scaled as it is decoded.

    Raises:
        MediaError: as `check_picture`.
    """
    width, height = picture.size
    factor = reduction(width, height)
    check_picture(picture, factor, path)
    if picture.format in ("JPEG", "MPO") and factor > 1:
        picture.draft(None, (width // factor, height // factor))
        factor //= max(1, round(width / picture.width))
    picture.load()
    return factor


def bytes_needed(picture: ImageFile, factor: int) -> int:
    """Bytes that decoding takes at most, with the RGB pixels that come of it."""
    area = picture.width * picture.height
    held = _pillow_bytes(picture.mode)
    if picture.format in WHOLE_PICTURE_BYTES:
        held = WHOLE_PICTURE_BYTES[picture.format]
    elif getattr(picture, "is_animated", False) and picture.format in ("GIF", "PNG"):
        held = 4 * ANIMATION_COPIES
    elif picture.format in ("JPEG", "MPO"):
        held = held / factor**2 + _coefficient_bytes(picture)
    elif picture.format == "PPM" and picture.tile and picture.tile[0][0] != "raw":
        held *= 3  # plain numbers and 16 bits: Pillow collects the bytes before it converts them
    elif picture.format == "TIFF":
        return int(area * (held + RGB_BYTES / factor**2)) + _tiff_bytes(picture, held)
    return int(area * (held + RGB_BYTES / factor**2))


def _pillow_bytes(mode: str) -> float:
    """Bytes a pixel of a decoded picture; Pillow keeps 32 bits for all but greys and palettes."""
    return 1 if mode in ONE_BYTE_MODES else 2 if mode in DEEP_GREYS else 4


def _coefficient_bytes(picture: Any) -> float:
    """Bytes a pixel of a JPEG's coefficients, which libjpeg keeps if they come in several scans."""
    layers = picture.layer
    if not picture.info.get("progressive") and _components_of_scan(picture.fp) == len(layers):
        return 0
    largest = max(layer[1] for layer in layers) * max(layer[2] for layer in layers)
    return float(2 * sum(layer[1] * layer[2] for layer in layers) / largest)


def _components_of_scan(file: Any) -> int:
    """How many components the first scan of a JPEG holds; 0 if the header breaks off before."""
    place = file.tell()
    file.seek(2)
    try:
        while len(head := file.read(4)) == 4 and head[0] == 0xFF:
            if head[1] == START_OF_SCAN:
                return int(file.read(1)[0])
            file.seek(int.from_bytes(head[2:], "big") - 2, 1)
        return 0
    finally:
        file.seek(place)


def _tiff_bytes(picture: Any, held: float) -> int:
    """Bytes beside the picture: one strip or tile, stored and decoded; a copy if it is turned."""
    tags, area = picture.tag_v2, picture.width * picture.height
    rows = min(picture.height, tags.get(ROWS_PER_STRIP, picture.height))
    part = tags.get(TILE_WIDTH, picture.width) * tags.get(TILE_LENGTH, rows)
    bits = tags.get(SAMPLES, 1) * max(tags.get(BITS, (1,)))
    compressed = bool(picture.tile) and picture.tile[0][0] != "raw"
    turned = tags.get(ORIENTATION, 1) != 1
    return int(compressed * part * bits / 8 * 2 + turned * area * held)


def _too_much_memory(picture: ImageFile, needed: int, path: str | None) -> MediaError:
    pixels = picture.width * picture.height
    most = int(MOST_BYTES / needed * pixels)
    if most <= MOST_KEPT:  # smaller pictures are kept whole
        most = int(MOST_BYTES / bytes_needed(picture, 1) * pixels)
    return MediaError(
        f"{picture.width} x {picture.height} pixels as {picture.format}: decoding takes "
        f"{needed / 1e9:.1f} GB",
        where=path,
        allowed=f"at most {MOST_BYTES / 1e9:.2f} GB, about {most // 10**6} million such pixels",
        hint="scale it down first, or save it as plain JPEG or PNG, which take less",
    )
