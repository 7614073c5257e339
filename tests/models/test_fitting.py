"""Large pictures and slivers: what the processors are given instead, against the processors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.models.test_published_geometry import narrow
from vtc_cli.core.errors import MediaError
from vtc_cli.core.media import Media
from vtc_cli.models.support import fitting
from vtc_cli.models.support.fitting import averaged, fitted, squared
from vtc_cli.models.support.qwen import QwenAdapter

GREY = [122, 116, 104]  # the means of CLIP in 8 bits


def noise(width: int, height: int) -> Any:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture_of(pixels: Any) -> Media:
    return Media(pixels[None], (0.0,), "image", "x", "0")


@pytest.mark.parametrize("size", [(1, 100), (100, 1), (37, 100), (100, 63), (99, 98), (60, 60)])
def test_a_square_by_blocks_is_the_padded_square_averaged(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(fitting, "MOST_PIXELS", 30**2)
    monkeypatch.setattr(fitting.block_side, "__defaults__", (30**2,))
    pixels, side = noise(*size), max(size)
    plane = np.empty((side, side, 3), dtype=np.uint8)
    plane[...] = GREY
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    plane[top : top + size[1], left : left + size[0]] = pixels
    factor = -(-side // 30)
    expected = np.asarray(Image.fromarray(plane).reduce(factor), dtype=int)
    found = np.asarray(squared(Image.fromarray(pixels), GREY), dtype=int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1  # rounded once a side and not once


def test_pictures_within_the_bound_are_left_alone() -> None:
    clip = SimpleNamespace(do_pad=False, do_center_crop=True, size={"shortest_edge": 336})
    for width, height in ((4000, 3000), (290, 1), (2, 590)):
        media = picture_of(np.broadcast_to(np.uint8(9), (height, width, 3)))
        assert averaged(media) is media
        picture = media.picture()
        assert squared(picture, GREY) is picture
        assert fitted(picture, clip) is picture


def test_the_middle_of_a_sliver_is_what_the_crop_shows() -> None:
    """Values grow along the sliver, so that what a crop shows tells where it was cut."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, do_normalize=False)
    line = np.repeat(np.linspace(0, 255, 2000).astype(np.uint8), 4)
    pixels = np.repeat(np.repeat(line[None, :, None], 4, axis=0), 3, axis=2)
    picture = Image.fromarray(pixels)
    bound = 32**2 * picture.width / picture.height
    whole = processor(images=picture)["pixel_values"][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "MOST_PIXELS", bound - 1)
        part = fitted(picture, processor)
    assert part.size == (4 * fitting.KEPT_LENGTHS, 4)
    cut = processor(images=part)["pixel_values"][0]
    np.testing.assert_allclose(np.asarray(cut), np.asarray(whole), atol=1.01 / 255)


EXTREMES = [(1, 100_000), (100_000, 1), (3, 20_000)]
FAMILIES = ("llava", "llava_next", "llava_onevision", "internvl", "smolvlm", "idefics3", "gemma3")


@pytest.mark.parametrize("size", EXTREMES, ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, "qwen2_5_vl"])
def test_extreme_sides_are_answered_or_refused(family: str, size: tuple[int, int]) -> None:
    media = picture_of(np.zeros((size[1], size[0], 3), dtype=np.uint8))
    if family == "qwen2_5_vl":
        with pytest.raises(MediaError, match="aspect ratio"):
            narrow(family).prepare(media, "?")
        return
    prompt = narrow(family).prepare(media, "?")
    assert prompt.layout.tokens == len(prompt.patch_boxes)


@pytest.mark.parametrize("size", EXTREMES[:2], ids=str)
@pytest.mark.parametrize("family", ["llava_next_video", "llava_onevision", "internvl", "smolvlm"])
def test_frames_of_extreme_sides_are_answered(family: str, size: tuple[int, int]) -> None:
    frames = np.zeros((2, size[1], size[0], 3), dtype=np.uint8)
    prompt = narrow(family).prepare(Media(frames, (0.0, 1.0), "video", "x", "0"), "?")
    assert prompt.layout.tokens > 0


def test_boxes_of_an_averaged_picture_are_in_its_own_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = narrow("gemma3")
    media = picture_of(noise(500, 300))
    whole = adapter.prepare(media, "?").patch_boxes
    monkeypatch.setattr(type(adapter), "most_pixels", 250 * 150)
    np.testing.assert_allclose(adapter.prepare(media, "?").patch_boxes, whole)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_patches_by_strips_are_those_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    adapter = narrow(family)
    assert isinstance(adapter, QwenAdapter)
    monkeypatch.setattr("vtc_cli.models.support.qwen.STRIP_PIXELS", 20_000)
    pixels = noise(413, 307)
    media = picture_of(pixels)
    processor = adapter.parts.image_processor
    whole = processor(images=media.picture(), return_tensors="np")
    if kind == "video":
        media = Media(np.stack([pixels, pixels]), (0.0, 1.0), "video", "x", "0")
    seen = adapter.see(media)
    name = "pixel_values" if kind == "image" else "pixel_values_videos"
    assert seen.inputs[f"{kind}_grid_thw"].tolist() == whole["image_grid_thw"].tolist()
    np.testing.assert_array_equal(seen.inputs[name].numpy(), whole["pixel_values"])
