"""Pictures made smaller before the library's image processors see them, to bound memory.

A processor holds 14 bytes a pixel, of the picture as it is padded or stretched. Ordinary pictures
go to it as they are.

Deviation: a picture of more than 33.5 million pixels is averaged over blocks of F x F pixels before
the model's own resize, which still reads from more pixels than it makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from vtc_cli.core.media import Media

MOST_PIXELS = 1 << 25  # that a processor is given, or makes on its way
KEPT_LENGTHS = 4  # shorter sides of a sliver that are left of its longer one; a crop shows one


def averaged(media: Media, most: int = MOST_PIXELS) -> Media:
    """Every frame averaged over blocks, so that it has at most `most` pixels."""
    factor = block_side(media.width * media.height, most)
    if factor == 1:
        return media
    frames = (media.picture(index).reduce(factor) for index in range(len(media.frames)))
    return replace(media, frames=np.stack([np.asarray(frame) for frame in frames]))


def block_side(pixels: int, most: int = MOST_PIXELS) -> int:
    """F, the side of blocks whose means are at most `most` of so many pixels."""
    return max(1, math.ceil(math.sqrt(pixels / most)))


def fitted(picture: Image.Image, processor: Any) -> Image.Image:
    """A picture that a CLIP-like processor can pad, or resize and crop, within bounds.

    Deviation: of a sliver whose shorter side would be stretched to the input's, the middle of the
    longer side is cut out first, within a pixel of where the processor would.

    Args:
        picture: of any sides.
        processor: image processor with the library's usual fields.
    """
    if getattr(processor, "do_pad", False):
        return squared(picture, [int(mean * 255) for mean in processor.image_mean])
    shorter, longer = sorted(picture.size)
    cropped = getattr(processor, "do_center_crop", False)
    edge = processor.size.get("shortest_edge") if cropped else None
    if not edge or edge**2 * longer / shorter <= MOST_PIXELS:
        return picture
    kept = shorter * KEPT_LENGTHS
    start = (longer - kept) // 2
    tall = picture.height == longer
    box = (0, start, shorter, start + kept) if tall else (start, 0, start + kept, shorter)
    return picture.crop(box)


def squared(picture: Image.Image, background: Sequence[int]) -> Image.Image:
    """The means over blocks of the picture padded to a square, without the square itself.

    A picture whose square has at most 33.5 million pixels comes back as it is: the processor pads
    it. Of others the blocks are those of the padded picture, so that a line of one pixel keeps its
    share of a block.

    Args:
        picture: of any sides.
        background: RGB of the padding, which is put evenly at both sides, less in front.
    """
    side = max(picture.size)
    factor = block_side(side**2)
    if factor == 1:
        return picture
    blocks = -(-side // factor)
    tall = picture.height == side
    lines = np.asarray(picture.reduce((1, factor) if tall else (factor, 1)))
    lines = lines if tall else lines.swapaxes(0, 1)  # the side to be padded is axis 1
    narrow = lines.shape[1]
    block = ((side - narrow) // 2 + np.arange(narrow)) // factor
    first = np.flatnonzero(np.diff(block, prepend=-1))
    own = np.diff(first, append=narrow)[:, None]
    whole = np.minimum(factor, side - block[first] * factor)[:, None]
    colour = np.asarray(background)
    sums = np.add.reduceat(lines, first, axis=1, dtype=np.uint32)
    means = np.rint((sums + colour * (whole - own)) / whole)
    plane = np.empty((blocks, blocks, 3), dtype=np.uint8)
    plane[...] = colour
    plane[:, block[first]] = means
    return Image.fromarray(plane if tall else np.ascontiguousarray(plane.swapaxes(0, 1)))
