"""The Gemma 3 adapter: loading, prompts, geometry, sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.families import family_prompt, small_family
from tests.engine.support import QUESTION, noise_media
from vtc_cli.core.errors import MediaError, ModelError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.models.gemma3 import CROPS, Gemma3Adapter
from vtc_cli.models.support.load import LoadOptions, load_model


@pytest.fixture(scope="module")
def adapter() -> Gemma3Adapter:
    return small_family("gemma3")  # type: ignore[return-value]


@pytest.fixture
def saved(adapter: Gemma3Adapter, tmp_path: Path) -> Path:
    adapter.model.save_pretrained(tmp_path)
    adapter.processor.tokenizer.save_pretrained(tmp_path)
    adapter.processor.image_processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: Gemma3Adapter, saved: Path
) -> None:
    again, facts = load_model(str(saved), LoadOptions())
    assert (facts.family, facts.weights) == ("gemma3", "pretrained")
    before, after = family_prompt(adapter), family_prompt(again)
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


@pytest.mark.parametrize(
    ("file", "words"),
    [("tokenizer.json", "no usable tokenizer"), ("preprocessor_config.json", "image processor")],
)
def test_a_missing_part_is_named(saved: Path, file: str, words: str) -> None:
    (saved / file).unlink()
    with pytest.raises(ModelError, match=words):
        load_model(str(saved), LoadOptions())


def test_the_checkpoints_own_template_is_used(saved: Path) -> None:
    template = "{{ bos_token }}Q{% for c in messages[0].content %}{{ '<start_of_image>' "
    template += "if c.type == 'image' else c.text }}{% endfor %}A"
    (saved / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    again, _ = load_model(str(saved), LoadOptions())
    prompt = family_prompt(again)
    text = again.processor.tokenizer.decode(prompt.input_ids[0])
    soft = "<image_soft_token>" * 36
    assert text == f"<s>Q\n\n<start_of_image>{soft}<end_of_image>\n\n{QUESTION}A"


def test_the_prompt_holds_the_picture_between_its_marks(adapter: Gemma3Adapter) -> None:
    prompt = family_prompt(adapter)
    text = adapter.processor.tokenizer.decode(prompt.input_ids[0])
    head = "<start_of_turn>user\n\n\n<start_of_image>"
    assert text.startswith(head)
    assert text.endswith(f"<end_of_image>\n\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n")
    first = len("<start_of_turn>user\n\n\n") + 1
    assert prompt.visual_index.tolist() == list(range(first, first + 36))
    types = adapter.sequence_arguments(prompt.input_ids)["token_type_ids"]
    assert types[0].nonzero()[:, 0].tolist() == prompt.visual_index.tolist()


def test_a_question_with_a_mark_of_the_picture_is_refused(adapter: Gemma3Adapter) -> None:
    for question in ("<start_of_image>?", "<image_soft_token>?"):
        with pytest.raises(UsageError, match=r"more than 1 times|37 placeholders"):
            adapter.prepare(noise_media(), question)


def test_a_video_is_refused(adapter: Gemma3Adapter) -> None:
    frames = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    video = Media(frames, (0.0, 1.0, 2.0), "video", "a.mp4", "0")
    with pytest.raises(MediaError, match="3 frames"):
        adapter.prepare(video, QUESTION)


def test_boxes_divide_the_picture_evenly(adapter: Gemma3Adapter) -> None:
    """90 x 70 pixels in 6 x 6 boxes of 15 x 11 2/3."""
    boxes = family_prompt(adapter).patch_boxes
    assert boxes.shape == (36, 4)
    np.testing.assert_allclose(boxes[0], [0, 0, 15, 70 / 6])
    np.testing.assert_allclose(boxes[7], [15, 70 / 6, 30, 140 / 6])
    np.testing.assert_allclose(boxes[35], [75, 350 / 6, 90, 70])


@pytest.mark.parametrize("index", [0, 14, 35])
def test_a_light_in_one_box_moves_the_pooled_rows_of_that_token_most(
    adapter: Gemma3Adapter, index: int
) -> None:
    """Read at the embedding, before any row has looked at another."""
    dark = Media(np.zeros((1, 72, 96, 3), dtype=np.uint8), (0.0,), "image", "x", "0")
    left, top, right, bottom = (
        adapter.prepare(dark, QUESTION).patch_boxes[index].round().astype(int)
    )
    pixels = dark.frames.copy()
    pixels[0, top:bottom, left:right] = 255
    embed = adapter.model.model.vision_tower.embeddings
    rows = []
    with torch.inference_mode():
        for media in (dark, replace(dark, frames=pixels)):
            values = adapter.prepare(media, QUESTION).encoder_inputs["pixel_values"]
            patches = embed(values)[0].reshape(6, 2, 6, 2, -1)
            rows.append(patches.mean(dim=(1, 3)).flatten(0, 1))
    assert int((rows[1] - rows[0]).norm(dim=1).argmax()) == index


def test_pan_and_scan_is_not_done_and_told(adapter: Gemma3Adapter) -> None:
    assert family_prompt(adapter).warnings == ()
    adapter.processor.image_processor.do_pan_and_scan = True
    try:
        prompt = family_prompt(adapter)
    finally:
        adapter.processor.image_processor.do_pan_and_scan = None
    assert prompt.warnings == (CROPS,)
    assert prompt.encoder_inputs["pixel_values"].shape[0] == 1


def test_narrow_has_the_depth_and_tokens_of_the_4b_model() -> None:
    adapter = Gemma3Adapter.narrow(0)
    shape = adapter.shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (27, 34, 4096)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (16, 0, 27)
    full = [layer for layer in range(34) if adapter.attention_window(layer) is None]
    assert full == [5, 11, 17, 23, 29]
    assert adapter.attention_window(0) == 1024
