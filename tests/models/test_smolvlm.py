"""The SmolVLM and Idefics3 adapters: loading, prompts, geometry, several pictures, videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Idefics3Processor, SmolVLMProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.video_utils import VideoMetadata

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
from vtc_cli.core.errors import MediaError, ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.shape import TowerInput
from vtc_cli.models.smolvlm import SmolVLMAdapter, narrow_tower
from vtc_cli.models.support.load import LoadOptions, family_class, load_model
from vtc_cli.models.support.number_words import number_words
from vtc_cli.models.support.tiles import Tile

FAMILIES = ("smolvlm", "idefics3")


@pytest.fixture(scope="module", params=FAMILIES)
def adapter(request: pytest.FixtureRequest) -> SmolVLMAdapter:
    return small_family(request.param)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def smol() -> SmolVLMAdapter:
    return small_family("smolvlm")  # type: ignore[return-value]


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: SmolVLMAdapter, tmp_path: Path
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path)), LoadOptions())
    assert (facts.family, facts.weights) == (adapter.family, "pretrained")
    before, after = family_prompt(adapter), family_prompt(again)
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


@pytest.mark.parametrize(
    ("file", "words"),
    [("tokenizer.json", "no usable tokenizer"), ("preprocessor_config.json", "image processor")],
)
def test_a_missing_part_is_named(
    adapter: SmolVLMAdapter, tmp_path: Path, file: str, words: str
) -> None:
    (save(adapter, tmp_path) / file).unlink()
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path), LoadOptions())


def test_tiles_that_the_shuffle_does_not_divide_are_refused(
    smol: SmolVLMAdapter, tmp_path: Path
) -> None:
    save(smol, tmp_path)
    smol.processor.image_processor.max_image_size = {"longest_edge": 70}  # five patches of 14
    try:
        smol.processor.image_processor.save_pretrained(tmp_path)
    finally:
        smol.processor.image_processor.max_image_size = {"longest_edge": 56}
    with pytest.raises(ModelError, match="tiles of 5 patches a side, joined by 2"):
        load_model(str(tmp_path), LoadOptions())


def test_prompt_and_pixels_are_those_of_the_librarys_processor() -> None:
    """Two pictures of other sides, one in two rows of tiles, one in four."""
    adapter = small_family("idefics3")
    parts = adapter.parts
    processor = Idefics3Processor(parts.image_processor, parts.tokenizer, image_seq_len=4)
    shown = [noise_media(0, 45, 90), noise_media(1, 80, 80)]
    prompt = adapter.prepare(shown, QUESTION)
    text = parts.chat(adapter.fallback, prompt.seen, QUESTION)
    assert text.count("<image>") == 2
    own = processor(text=text, images=[[one.picture() for one in shown]], return_tensors="pt")
    assert torch.equal(prompt.input_ids, own["input_ids"])
    assert set(prompt.encoder_inputs) == {"pixel_values", "pixel_attention_mask"}
    for name, value in prompt.encoder_inputs.items():
        assert torch.equal(value, own[name])
    assert prompt.tower == (TowerInput(9, 2, 2), TowerInput(17, 2, 2))


@pytest.mark.parametrize(("height", "width"), [(45, 90), (90, 20), (7, 7)])
def test_the_text_around_tiles_is_the_librarys(
    smol: SmolVLMAdapter, height: int, width: int
) -> None:
    media = noise_media(0, height, width)
    done = smol.parts.image_processor(images=[[media.picture()]], return_row_col_info=True)
    expected = processing_smolvlm.get_image_prompt_string(
        done["rows"][0][0],
        done["cols"][0][0],
        4,
        "<fake_token_around_image>",
        "<image>",
        "<global-img>",
    )
    assert smol.see(media).text == expected
    text = f"<|im_start|>User:{expected}{QUESTION}<end_of_utterance>\nAssistant:"
    assert words(smol, media) == text.replace("<image>", ".")


def test_frames_of_a_video_stand_behind_their_times_as_in_the_librarys_processor(
    smol: SmolVLMAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that turns numbers into words is not installed: its place is taken for 3."""
    media = clip(3, seconds=31.5)
    monkeypatch.setattr(processing_smolvlm, "num2words", {3: "three"}.__getitem__)
    marks = {
        "image_seq_len": 4,
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
    }
    metadata = VideoMetadata(3, fps=2.0, frames_indices=[0, 63, 126])
    inputs = {"pixel_values": torch.zeros(1, 3), "video_metadata": [metadata]}
    own = SmolVLMProcessor.replace_video_token(SimpleNamespace(**marks), inputs, 0)  # type: ignore[arg-type]
    assert smol.see(media).text == own
    assert "three frames from a 0:01:03 [H:MM:SS]" in own
    assert "\nFrame from 00:31:<fake" in own
    chat = f"<|im_start|>User: {own}{QUESTION}<end_of_utterance>\nAssistant:"
    assert words(smol, media) == chat.replace("<image>", ".")


def test_the_turns_of_a_video_are_the_librarys_whatever_the_checkpoint_says(
    smol: SmolVLMAdapter,
) -> None:
    parts = replace(smol.processor, chat_template="no room for a video")
    other = SmolVLMAdapter(smol.model, parts)
    video, picture = other.see(clip()), other.see(noise_media())
    question = {"type": "text", "text": QUESTION}
    for seen in ([video], [video, picture], [picture, video]):
        content = [*({"type": one.kind} for one in seen), question]
        library = smol.parts.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=processing_smolvlm.DEFAULT_CHAT_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
        assert other.parts.chat(other.fallback, seen, QUESTION) == library
    assert other.parts.chat(other.fallback, [picture], QUESTION) == "no room for a video"


def test_a_video_is_one_tile_a_frame(smol: SmolVLMAdapter) -> None:
    media = clip(3)
    prompt = smol.prepare(media, QUESTION)
    assert prompt.layout.grids == (Grid(3, 2, 2),)
    assert prompt.tower == (TowerInput(3, 2, 2),)
    np.testing.assert_allclose(prompt.patch_boxes[:4], prompt.patch_boxes[8:])
    np.testing.assert_allclose(prompt.patch_boxes[5], [30, 0, 60, 20])
    single = smol.parts.image_processor(
        images=[[media.picture(2)]], do_image_splitting=False, return_tensors="pt"
    )
    assert torch.equal(prompt.encoder_inputs["pixel_values"][0, 2], single["pixel_values"][0, 0])


def test_a_video_is_refused_by_idefics3() -> None:
    with pytest.raises(MediaError, match="3 frames"):
        small_family("idefics3").prepare(clip(), QUESTION)


def test_tiles_of_a_picture_form_one_raster(adapter: SmolVLMAdapter) -> None:
    layout = family_prompt(adapter).layout
    places = [(grid.view, grid.top, grid.left) for grid in layout.grids]
    details = [("detail", top, left) for top in (0, 2) for left in (0, 2, 4, 6)]
    assert places == [*details, ("overview", 0, 0)]
    detail, overview = layout.rasters()
    assert (detail.view, detail.index.shape) == ("detail", (4, 8))
    assert detail.index[:2].tolist() == [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]
    assert overview.index.tolist() == [[32, 33], [34, 35]]


@pytest.mark.parametrize("index", [0, 7, 18, 31, 33])
def test_a_light_in_one_box_lights_that_token(adapter: SmolVLMAdapter, index: int) -> None:
    """Of the tiles and, where the box is one of the whole picture, of that."""
    width, height = 240, 120
    boxes = adapter.prepare(noise_media(0, height, width), QUESTION).patch_boxes
    light = token_light(adapter, lit(width, height, boxes[index]))
    assert alight(light) == tokens_inside(boxes, index)


def test_a_token_is_a_block_of_patches(adapter: SmolVLMAdapter) -> None:
    """The model's own shuffle of a map of patch numbers, beside the boxes of the tokens."""
    numbers = torch.arange(144.0).reshape(1, 144, 1)  # a tile of 12 x 12 patches
    blocks = adapter.model.model.connector.pixel_shuffle(numbers, 2).reshape(36, 4)
    boxes = Tile(6, 6).boxes(120, 120)  # 10 pixels a patch
    for block, box in zip(blocks, boxes, strict=True):
        rows, columns = block // 12, block % 12
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose([float(corner) * 10 for corner in corners], box)


def test_what_fills_no_patch_of_a_tile_is_in_no_box() -> None:
    """384 pixels are 27 patches of 14 and 6 pixels more, which the tower drops in every tile."""
    adapter = SmolVLMAdapter.random(0, width=32, layers=1, vision=narrow_tower(384), scale=3)
    boxes = adapter.prepare(noise_media(0, 768, 1536), QUESTION).patch_boxes
    assert boxes.shape == (9 * 81, 4)
    np.testing.assert_allclose(boxes[0], [0, 0, 42, 42])
    np.testing.assert_allclose(boxes[80], [336, 336, 378, 378])
    np.testing.assert_allclose(boxes[81], [384, 0, 426, 42])
    np.testing.assert_allclose(boxes[-1], np.array([336 * 4, 336 * 2, 378 * 4, 378 * 2]))


SIZES = {
    "one pixel": (1, 1, 17),
    "a line": (1, 900, 5),
    "a column": (900, 1, 5),
    "huge": (3000, 4000, 13),
    "tall": (400, 100, 5),
}


@pytest.mark.parametrize("name", SIZES)
def test_pictures_of_any_size(adapter: SmolVLMAdapter, name: str) -> None:
    height, width, tiles = SIZES[name]
    prompt = adapter.prepare(noise_media(0, height, width), QUESTION)
    assert prompt.layout.tokens == 4 * tiles == len(prompt.patch_boxes)
    assert prompt.tower == (TowerInput(tiles, 2, 2),)
    with torch.inference_mode():
        features = adapter.encode(prompt).features
    assert features.shape == (4 * tiles, 64)
    assert bool(features.isfinite().all())
    boxes = prompt.patch_boxes
    assert boxes.min() >= 0
    np.testing.assert_allclose(boxes[-1, 2:], [width, height])


def test_a_picture_that_is_not_split_is_seen_whole(smol: SmolVLMAdapter) -> None:
    smol.processor.image_processor.do_image_splitting = False
    try:
        seen = smol.see(noise_media())
    finally:
        smol.processor.image_processor.do_image_splitting = True
    assert seen.grids == (Grid(1, 2, 2),)
    assert "row_1" not in seen.text


SHOWN: dict[str, Any] = {
    "two pictures": [noise_media(0, 45, 90), noise_media(1, 60, 60)],
    "a video": [clip(4)],
    "a picture and a video": [noise_media(0, 30, 90), clip(2)],
    "a video and a picture": [clip(2), noise_media(0, 30, 90)],
}


@pytest.mark.parametrize("name", SHOWN)
def test_several_pictures_and_videos_answer_as_the_plain_model(
    smol: SmolVLMAdapter, name: str
) -> None:
    answers_as_the_plain_model(smol, SHOWN[name])


def test_each_of_several_is_encoded_as_alone(smol: SmolVLMAdapter) -> None:
    encodes_each_as_alone(smol, SHOWN["a video and a picture"])


def test_signals_of_each_of_several_are_as_alone(smol: SmolVLMAdapter) -> None:
    signals_of_each_are_as_alone(smol, SHOWN["a video and a picture"])


def test_carried_tokens_of_a_video_answer_alike(smol: SmolVLMAdapter) -> None:
    carried_tokens_answer_alike(smol, SHOWN["a video and a picture"])


NARROW = {"smolvlm": (27, 24, 9, 17 * 81), "idefics3": (27, 32, 4, 17 * 169)}


@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_has_the_depth_and_tiles_of_the_published_model(family: str) -> None:
    adapter = family_class(family).narrow(0)
    shape, square = adapter.shape, adapter.prepare(noise_media(0, 50, 50), QUESTION)
    found = (shape.vision.layers, shape.decoder.layers, shape.merged_patches, square.layout.tokens)
    assert found == NARROW[family]
    assert square.warnings == ()


def test_numbers_in_words() -> None:
    expected = {
        0: "zero",
        8: "eight",
        12: "twelve",
        16: "sixteen",
        20: "twenty",
        64: "sixty-four",
        100: "one hundred",
        101: "one hundred and one",
        250: "two hundred and fifty",
        1000: "one thousand",
        1001: "one thousand and one",
        1234: "one thousand, two hundred and thirty-four",
    }
    assert {number: number_words(number) for number in expected} == expected
