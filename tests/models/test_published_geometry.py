"""Random models have as many tokens as the published ones: closed forms, not the library's code.

Bounds are those of preprocessor_config.json in Qwen2.5-VL-7B, Qwen3-VL-8B, InternVL3-8B,
SmolVLM2-2.2B, Idefics3-8B, LLaVA-NeXT-7B (vicuna) and LLaVA-OneVision-7B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from vtc_cli.core.media import Media
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import family_class
from vtc_cli.models.support.qwen import QwenAdapter

SIZES = [(320, 320), (640, 480), (4000, 3000), (500, 2000), (90, 60)]  # width, height
LONG = (40, 4000)


def qwen(side: int, least: int, most: int) -> Callable[[int, int], int]:
    """Cells of `side` pixels: the rounded grid, or the largest below or smallest above a bound."""

    def tokens(width: int, height: int) -> int:
        rows, columns = round(height / side), round(width / side)
        cells = height * width / side**2
        if rows * columns > most:
            scale = math.sqrt(most / cells)
            rows, columns = (max(1, math.floor(n * scale / side)) for n in (height, width))
        elif rows * columns < least:
            scale = math.sqrt(least / cells)
            rows, columns = (math.ceil(n * scale / side) for n in (height, width))
        return rows * columns

    return tokens


def internvl(width: int, height: int) -> int:
    """256 tokens a tile of 448; the tiles, at most 12, of the nearest aspect, and a thumbnail."""
    shapes = [(x, y) for x in range(1, 13) for y in range(1, 13) if x * y <= 12]
    shapes.sort(key=lambda shape: shape[0] * shape[1])
    best, nearest = (1, 1), math.inf
    for x, y in shapes:
        off = abs(width / height - x / y)
        larger = off == nearest and width * height > 0.5 * 448**2 * x * y
        if off < nearest or larger:
            best, nearest = (x, y), off
    tiles = best[0] * best[1]
    return 256 * (tiles + (tiles > 1))


def tiles_of(tile: int, tokens_a_tile: int) -> Callable[[int, int], int]:
    """The longer side becomes 4 tiles, the shorter as many as hold it; and the whole picture."""

    def tokens(width: int, height: int) -> int:
        shorter, longer = sorted((width, height))
        scaled = int(shorter * 4 * tile / longer)
        return tokens_a_tile * (4 * max(1, math.ceil((scaled + scaled % 2) / tile)) + 1)

    return tokens


def anyres(
    side: int, patches: int, shapes: list[tuple[int, int]], most: int | None
) -> Callable[[int, int], int]:
    """An overview, and the crops without padding, each row with a newline."""

    def fit(width: int, height: int, shape: tuple[int, int]) -> tuple[int, int]:
        scale = min(shape[0] * side / width, shape[1] * side / height)
        shown = int(width * scale) * int(height * scale)
        kept = min(shown, width * height)
        return -kept, shape[0] * shape[1] * side**2 - kept

    def tokens(width: int, height: int) -> int:
        across, down = min(shapes, key=lambda shape: fit(width, height, shape))
        columns, rows = across * patches, down * patches
        if width / height > columns / rows:
            rows -= 2 * ((rows - int(round(height * columns / width, 7))) // 2)
        else:
            columns -= 2 * ((columns - int(round(width * rows / height, 7))) // 2)
        scale = math.sqrt(rows * columns / (most * patches**2)) if most else 0
        if scale > 1.1:
            rows, columns = int(rows // scale), int(columns // scale)
        return patches**2 + rows * (columns + 1)

    return tokens


FIVE = [(2, 1), (1, 2), (2, 2), (1, 3), (3, 1)]
SIX_BY_SIX = [(x, y) for x in range(1, 7) for y in range(1, 7)]
PUBLISHED: dict[str, Callable[[int, int], int]] = {
    "llava": lambda width, height: 576,
    "gemma3": lambda width, height: 256,
    "llava_next": anyres(336, 24, FIVE, None),
    "llava_onevision": anyres(384, 27, SIX_BY_SIX, 9),
    "qwen2_vl": qwen(28, 3136 // 28**2, 12845056 // 28**2),
    "qwen2_5_vl": qwen(28, 3136 // 28**2, 12845056 // 28**2),
    "qwen3_vl": qwen(32, 65536 // 32**2, 16777216 // 32**2),
    "internvl": internvl,
    "smolvlm": tiles_of(384, 81),
    "idefics3": tiles_of(364, 169),
}


@cache
def narrow(family: str) -> Adapter:
    return family_class(family).narrow(0)


def blank(width: int, height: int, frames: int = 1) -> Media:
    pixels = np.broadcast_to(np.uint8(0), (frames, height, width, 3))
    times = tuple(float(at) for at in range(frames))
    return Media(pixels, times, "video" if frames > 1 else "image", "x", "0")


@pytest.mark.parametrize("size", [*SIZES, LONG], ids=str)
@pytest.mark.parametrize("family", PUBLISHED)
def test_a_picture_has_the_published_tokens(family: str, size: tuple[int, int]) -> None:
    prompt = narrow(family).prepare(blank(*size), "?")
    assert prompt.layout.tokens == PUBLISHED[family](*size)
    assert prompt.visual_index.shape[0] == prompt.layout.tokens


# Frames, and the most tokens of one: 768, or its share of the video's.
SHARES = {
    "qwen2_vl": [(8, 768), (300, 768), (500, 460), (9000, 134)],
    "qwen2_5_vl": [(8, 768), (500, 460)],
    "qwen3_vl": [(8, 768), (32, 768), (64, 384), (6144, 4)],
}


@pytest.mark.parametrize("family", SHARES)
def test_a_frame_has_its_share_of_the_published_tokens_of_a_video(family: str) -> None:
    side = 32 if family == "qwen3_vl" else 28
    adapter = narrow(family)
    assert isinstance(adapter, QwenAdapter)
    for frames, most in SHARES[family]:
        width, height = adapter.resized(blank(1920, 1080, frames))
        assert most * 0.9 - 2 <= width * height / side**2 <= most
        if frames < 10:  # what is decided is what the model is shown
            prompt = adapter.prepare(blank(1920, 1080, frames), "?")
            assert prompt.layout.tokens == frames // 2 * width * height // side**2
