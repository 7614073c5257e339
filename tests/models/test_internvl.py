"""The InternVL adapter: loading, prompts, geometry, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.families import family_prompt, small_family
from tests.engine.support import QUESTION, noise_media
from vtc_cli.core.errors import MediaError, ModelError
from vtc_cli.core.media import Media
from vtc_cli.models.internvl import ONE_TILE, InternVLAdapter
from vtc_cli.models.support.load import LoadOptions, load_model


@pytest.fixture(scope="module")
def adapter() -> InternVLAdapter:
    return small_family("internvl")  # type: ignore[return-value]


def save(adapter: InternVLAdapter, folder: Path) -> Path:
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    return folder


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
    save(adapter, tmp_path)
    with pytest.raises(ModelError, match="features of layers"):
        InternVLAdapter.load(str(tmp_path), **changes)


def test_the_prompt_holds_one_tile_between_its_marks(adapter: InternVLAdapter) -> None:
    prompt = family_prompt(adapter)
    text = adapter.processor.tokenizer.decode(prompt.input_ids[0])
    head = "<|im_start|>user\n"
    tile = "<img>" + "<IMG_CONTEXT>" * 36 + "</img>"
    assert text == f"{head}{tile}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.visual_index.tolist() == list(range(len(head) + 1, len(head) + 37))
    assert prompt.warnings == (ONE_TILE,)


def test_a_wide_picture_is_still_one_tile(adapter: InternVLAdapter) -> None:
    adapter.processor.image_processor.crop_to_patches = True
    try:
        prompt = adapter.prepare(noise_media(0, 50, 400), QUESTION)
    finally:
        adapter.processor.image_processor.crop_to_patches = False
    assert prompt.encoder_inputs["pixel_values"].shape == (1, 3, 168, 168)
    np.testing.assert_allclose(prompt.patch_boxes[7], [400 / 6, 50 / 6, 800 / 6, 100 / 6])


def test_a_token_is_a_block_of_two_by_two_patches(adapter: InternVLAdapter) -> None:
    """The model's own shuffle of a map of patch numbers, beside the boxes of the tokens."""
    patches = torch.arange(144.0).reshape(1, 12, 12, 1)
    blocks = adapter.model.model.pixel_shuffle(patches, 0.5).reshape(36, 4)
    boxes = adapter.prepare(noise_media(0, 120, 120), QUESTION).patch_boxes  # 10 pixels a patch
    for numbers, (left, top, right, bottom) in zip(blocks, boxes, strict=True):
        rows, columns = numbers // 12, numbers % 12
        assert (float(columns.min()) * 10, float(rows.min()) * 10) == (left, top)
        assert (float(columns.max() + 1) * 10, float(rows.max() + 1) * 10) == (right, bottom)


def test_a_video_is_refused(adapter: InternVLAdapter) -> None:
    video = Media(np.zeros((2, 9, 9, 3), dtype=np.uint8), (0.0, 1.0), "video", "a.mp4", "0")
    with pytest.raises(MediaError, match="2 frames"):
        adapter.prepare(video, QUESTION)


def test_narrow_has_the_depth_and_tokens_of_the_8b_model() -> None:
    shape = InternVLAdapter.narrow(0).shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (24, 28, 1024)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (4, 1, 24)
