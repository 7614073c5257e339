"""The InternVL adapter: loading, prompts, geometry, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import InternVLProcessor

from tests.engine.families import family_prompt, small_family
from tests.engine.support import QUESTION, noise_media
from tests.models.tiles import (
    alight,
    answers_as_the_plain_model,
    carried_tokens_answer_alike,
    clip,
    encodes_each_as_alone,
    lit,
    save,
    signals_of_each_are_as_alone,
    token_light,
    tokens_inside,
    words,
)
from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.shape import TowerInput
from vtc_cli.models.internvl import ONE_TILE, InternVLAdapter
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.models.support.tiles import Tile

# The library's processor wants torchvision; how it writes tiles and frames needs its marks only.
MARKS = SimpleNamespace(
    start_image_token="<img>",
    end_image_token="</img>",
    image_token="<IMG_CONTEXT>",
    image_seq_length=4,
)


@pytest.fixture(scope="module")
def adapter() -> InternVLAdapter:
    return small_family("internvl")  # type: ignore[return-value]


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: InternVLAdapter, tmp_path: Path
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path)), LoadOptions())
    assert (facts.family, facts.weights) == ("internvl", "pretrained")
    before, after = family_prompt(adapter), family_prompt(again)
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


@pytest.mark.parametrize(
    "changes", [{"vision_feature_select_strategy": "full"}, {"vision_feature_layer": [-2, -1]}]
)
def test_features_that_are_not_one_layer_without_class_row_are_refused(
    adapter: InternVLAdapter, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = save(adapter, tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match="features of layers"):
        InternVLAdapter.load(str(tmp_path))


def test_the_prompt_is_that_of_the_librarys_processor(adapter: InternVLAdapter) -> None:
    media = noise_media(0, 90, 180)
    own = InternVLProcessor.replace_image_token(MARKS, {"num_patches": [9]}, 0)  # type: ignore[arg-type]
    assert adapter.see(media).text == own
    expected = f"<|im_start|>user\n{own}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert words(adapter, media) == expected.replace("<IMG_CONTEXT>", ".")
    prompt = adapter.prepare(media, QUESTION)
    assert prompt.warnings == ()
    assert prompt.tower == (TowerInput(9, 2, 2),)
    pixels = adapter.parts.image_processor(
        images=media.picture(), crop_to_patches=True, return_tensors="pt"
    )
    assert pixels["num_patches"].tolist() == [9]
    assert torch.equal(prompt.encoder_inputs["pixel_values"], pixels["pixel_values"])


def test_frames_are_numbered_tiles_as_in_the_librarys_processor(adapter: InternVLAdapter) -> None:
    media = clip(3)
    inputs = {"pixel_values_videos": torch.zeros(1, 3, 1)}
    own = InternVLProcessor.replace_video_token(MARKS, inputs, 0)  # type: ignore[arg-type]
    assert adapter.see(media).text == own
    assert "\nFrame3: <img><IMG_CONTEXT>" in own
    expected = f"<|im_start|>user\n{own}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert words(adapter, media) == expected.replace("<IMG_CONTEXT>", ".")
    prompt = adapter.prepare(media, QUESTION)
    assert (prompt.layout.grids, prompt.tower) == ((Grid(3, 2, 2),), (TowerInput(3, 2, 2),))
    np.testing.assert_allclose(prompt.patch_boxes[5], [30, 0, 60, 20])
    single = adapter.parts.image_processor(images=media.picture(2), return_tensors="pt")
    assert torch.equal(prompt.encoder_inputs["pixel_values"][2], single["pixel_values"][0])


ARRANGEMENTS = {
    "small and square": (30, 30, 1, 1),
    "square": (100, 100, 2, 2),
    "huge": (3000, 4000, 3, 4),
    "one pixel": (1, 1, 1, 1),
    "a line": (1, 900, 1, 12),
    "a column": (900, 1, 12, 1),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_pictures_of_any_size(adapter: InternVLAdapter, name: str) -> None:
    """One tile stands alone, several are followed by the whole picture."""
    height, width, down, across = ARRANGEMENTS[name]
    prompt = adapter.prepare(noise_media(0, height, width), QUESTION)
    tiles = down * across + (down * across > 1)
    assert prompt.tower == (TowerInput(tiles, 2, 2),)
    raster = prompt.layout.rasters()[0]
    assert raster.index.shape == (2 * down, 2 * across)
    assert [one.view for one in prompt.layout.rasters()] == (
        ["detail", "overview"] if tiles > 1 else ["whole"]
    )
    boxes = prompt.patch_boxes
    assert boxes.shape == (4 * tiles, 4)
    np.testing.assert_allclose(boxes[raster.index[-1, -1], 2:], [width, height])
    with torch.inference_mode():
        features = adapter.encode(prompt).features
    assert features.shape == (4 * tiles, 64)


@pytest.mark.parametrize("index", [0, 7, 18, 31, 33])
def test_a_light_in_one_box_lights_that_token(adapter: InternVLAdapter, index: int) -> None:
    width, height = 240, 120
    boxes = adapter.prepare(noise_media(0, height, width), QUESTION).patch_boxes
    light = token_light(adapter, lit(width, height, boxes[index]))
    assert alight(light) == tokens_inside(boxes, index)


def test_a_checkpoint_of_one_tile_is_told(adapter: InternVLAdapter) -> None:
    adapter.processor.image_processor.max_patches = 1
    try:
        prompt = adapter.prepare(noise_media(0, 50, 400), QUESTION)
    finally:
        adapter.processor.image_processor.max_patches = 12
    assert prompt.warnings == (ONE_TILE,)
    assert prompt.encoder_inputs["pixel_values"].shape == (1, 3, 56, 56)
    np.testing.assert_allclose(prompt.patch_boxes[3], [200, 25, 400, 50])


def test_a_token_is_a_block_of_two_by_two_patches(adapter: InternVLAdapter) -> None:
    """The model's own shuffle of a map of patch numbers, beside the boxes of the tokens."""
    patches = torch.arange(144.0).reshape(1, 12, 12, 1)
    blocks = adapter.model.model.pixel_shuffle(patches, 0.5).reshape(36, 4)
    boxes = Tile(6, 6).boxes(120, 120)  # 10 pixels a patch
    for numbers, (left, top, right, bottom) in zip(blocks, boxes, strict=True):
        rows, columns = numbers // 12, numbers % 12
        assert (float(columns.min()) * 10, float(rows.min()) * 10) == (left, top)
        assert (float(columns.max() + 1) * 10, float(rows.max() + 1) * 10) == (right, bottom)


SHOWN: dict[str, Any] = {
    "two pictures": [noise_media(0, 90, 180), noise_media(1, 30, 30)],
    "a video": [clip(4)],
    "a picture and a video": [noise_media(0, 30, 90), clip(2)],
    "a video and a picture": [clip(2), noise_media(0, 30, 90)],
}


@pytest.mark.parametrize("name", SHOWN)
def test_several_pictures_and_videos_answer_as_the_plain_model(
    adapter: InternVLAdapter, name: str
) -> None:
    answers_as_the_plain_model(adapter, SHOWN[name])


def test_each_of_several_is_encoded_as_alone(adapter: InternVLAdapter) -> None:
    encodes_each_as_alone(adapter, SHOWN["a video and a picture"])


def test_signals_of_each_of_several_are_as_alone(adapter: InternVLAdapter) -> None:
    signals_of_each_are_as_alone(adapter, SHOWN["a video and a picture"])


def test_carried_tokens_of_a_video_answer_alike(adapter: InternVLAdapter) -> None:
    carried_tokens_answer_alike(adapter, SHOWN["a video and a picture"])


def test_narrow_has_the_depth_and_tiles_of_the_8b_model() -> None:
    adapter = InternVLAdapter.narrow(0)
    shape = adapter.shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (24, 28, 1024)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (4, 1, 24)
    most = adapter.prepare(noise_media(0, 300, 400), QUESTION)
    assert (most.layout.tokens, most.warnings) == (13 * 256, ())
