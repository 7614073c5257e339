"""The LLaVA-NeXT-Video adapter: loading, prompts, geometry, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.families import family_media, family_prompt, small_family
from tests.engine.support import QUESTION, noise_media
from vtc_cli.core.errors import MediaError, ModelError
from vtc_cli.core.media import Media
from vtc_cli.models.llava_next_video import LlavaNextVideoAdapter
from vtc_cli.models.support.load import LoadOptions, load_model

FAMILY = "llava_next_video"


@pytest.fixture(scope="module")
def adapter() -> LlavaNextVideoAdapter:
    return small_family(FAMILY)  # type: ignore[return-value]


def save(
    adapter: LlavaNextVideoAdapter, folder: Path, file: str = "video_preprocessor_config.json"
) -> Path:
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    (folder / "preprocessor_config.json").rename(folder / file)
    return folder


@pytest.mark.parametrize("file", ["video_preprocessor_config.json", "preprocessor_config.json"])
def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: LlavaNextVideoAdapter, tmp_path: Path, file: str
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path, file)), LoadOptions())
    assert (facts.family, facts.weights) == (FAMILY, "pretrained")
    before, after = family_prompt(adapter), family_prompt(again)
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


def test_settings_for_frames_stand_before_those_for_pictures(
    adapter: LlavaNextVideoAdapter, tmp_path: Path
) -> None:
    save(adapter, tmp_path, "preprocessor_config.json")
    settings = {"video_processor": {"image_mean": [0.1, 0.2, 0.3], "do_sample_frames": False}}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    again = LlavaNextVideoAdapter.load(str(tmp_path))
    assert list(again.processor.image_processor.image_mean) == [0.1, 0.2, 0.3]


def test_no_processor_for_frames_is_named(adapter: LlavaNextVideoAdapter, tmp_path: Path) -> None:
    save(adapter, tmp_path, "other.json")
    with pytest.raises(ModelError, match="no usable image processor"):
        load_model(str(tmp_path), LoadOptions())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_select_strategy": "full"}, "'full'"),
        ({"spatial_pool_stride": 4}, "pooled by 4"),
        ({"spatial_pool_mode": "conv"}, "conv pooling"),
    ],
)
def test_what_the_adapter_would_get_wrong_is_refused(
    adapter: LlavaNextVideoAdapter, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = save(adapter, tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path), LoadOptions())


def test_the_prompt_holds_all_frames_in_a_row(adapter: LlavaNextVideoAdapter) -> None:
    prompt = family_prompt(adapter)
    text = adapter.processor.tokenizer.decode(prompt.input_ids[0])
    assert text == "USER: " + "<video>" * 36 + f"\n{QUESTION} ASSISTANT:"
    assert prompt.visual_index.tolist() == list(range(6, 42))
    assert (prompt.layout.only.frames, prompt.layout.only.rows, prompt.layout.only.columns) == (
        4,
        3,
        3,
    )


def test_a_picture_is_refused(adapter: LlavaNextVideoAdapter) -> None:
    with pytest.raises(MediaError, match="a picture"):
        adapter.prepare(noise_media(), QUESTION)


def test_boxes_are_those_of_the_centre_crop_in_every_frame(adapter: LlavaNextVideoAdapter) -> None:
    """200 x 100 pixels: the crop is the middle 100 x 100, in boxes of 33 1/3."""
    boxes = adapter.prepare(family_media(FAMILY, 0, 100, 200), QUESTION).patch_boxes
    assert boxes.shape == (36, 4)
    np.testing.assert_allclose(boxes[0], [50, 0, 50 + 100 / 3, 100 / 3])
    np.testing.assert_allclose(boxes[9 + 5], [50 + 200 / 3, 100 / 3, 150, 200 / 3])


@pytest.mark.parametrize(("frame", "token"), [(0, 0), (1, 5), (3, 7)])
def test_a_light_in_one_box_of_one_frame_is_in_the_patches_of_that_token(
    adapter: LlavaNextVideoAdapter, frame: int, token: int
) -> None:
    pixels = np.zeros((4, 90, 120, 3), dtype=np.uint8)
    dark = Media(pixels, (0.0, 1.0, 2.0, 3.0), "video", "x", "0")
    boxes = adapter.prepare(dark, QUESTION).patch_boxes
    left, top, right, bottom = boxes[frame * 9 + token].round().astype(int)
    pixels[frame, top:bottom, left:right] = 255
    values = adapter.prepare(dark, QUESTION).encoder_inputs["pixel_values_videos"][0]
    places = values.mean(dim=1).reshape(4, 3, 28, 3, 28).mean(dim=(2, 4)).flatten()
    assert int(places.argmax()) == frame * 9 + token


def test_only_the_tokens_of_a_changed_frame_change(adapter: LlavaNextVideoAdapter) -> None:
    media = family_media(FAMILY)
    frames = media.frames.copy()
    frames[2] = 255 - frames[2]
    other = Media(frames, media.timestamps, "video", "x", "0")
    with torch.inference_mode():
        one, two = (
            adapter.encode(adapter.prepare(item, QUESTION)).features for item in (media, other)
        )
    moved = ((one - two).abs().amax(dim=1) > 1e-4).nonzero()[:, 0]
    assert moved.tolist() == list(range(18, 27))


def test_frames_of_another_size_than_the_towers_are_refused(adapter: LlavaNextVideoAdapter) -> None:
    crop = adapter.processor.image_processor.crop_size
    adapter.processor.image_processor.crop_size = {"height": 70, "width": 70}
    try:
        with pytest.raises(ModelError, match="70 x 70"):
            family_prompt(adapter)
    finally:
        adapter.processor.image_processor.crop_size = crop


def test_narrow_has_the_depth_and_tokens_of_the_7b_model() -> None:
    shape = LlavaNextVideoAdapter.narrow(0).shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (24, 32, 576)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (4, 1, 23)
