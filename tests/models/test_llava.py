"""The LLaVA adapter: loading, prompts, geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.support import QUESTION, noise_media, small_adapter
from vtc_cli.core.errors import ModelError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.load import LoadOptions, load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    adapter = small_adapter()
    adapter.model.save_pretrained(folder)
    adapter.processor.save_pretrained(folder)
    return folder


def test_a_saved_checkpoint_loads_and_is_the_same_model(saved: Path) -> None:
    adapter, facts = load_model(str(saved), LoadOptions())
    assert (facts.family, facts.weights, facts.dtype) == ("llava", "pretrained", "float32")
    original = small_adapter()
    prompt = original.prepare(noise_media(), QUESTION)
    again = adapter.prepare(noise_media(), QUESTION)
    assert torch.equal(prompt.input_ids, again.input_ids)
    with torch.inference_mode():
        assert torch.equal(original.encode(prompt).features, adapter.encode(again).features)


def test_dtype_is_taken(saved: Path) -> None:
    adapter, facts = load_model(str(saved), LoadOptions(dtype="bfloat16"))
    assert adapter.model.dtype == torch.bfloat16
    assert facts.dtype == "bfloat16"


def test_narrow_has_the_depth_and_tokens_of_the_7b_model() -> None:
    shape = LlavaAdapter.narrow(0).shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (24, 32, 576)
    assert (shape.feature_layers, shape.class_tokens) == (23, 1)


def test_narrow_is_the_same_model_every_time() -> None:
    first, second = LlavaAdapter.narrow(0).model, LlavaAdapter.narrow(0).model
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_prompt_without_a_template_is_that_of_the_paper() -> None:
    adapter = small_adapter()
    prompt = adapter.prepare(noise_media(), "why?")
    text = adapter.processor.tokenizer.decode(prompt.input_ids[0])
    assert text.startswith("USER: <image>")
    assert text.endswith("\nwhy? ASSISTANT:")
    assert prompt.visual_index.tolist() == list(range(6, 42))


def test_a_question_with_a_placeholder_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 1 times"):
        small_adapter().prepare(noise_media(), "what is <image>?")


def test_a_tower_that_sees_pictures_of_any_size_is_refused(saved: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((saved / "config.json").read_text())
    config["vision_config"] = {"model_type": "pixtral", "image_size": 84}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="pixtral"):
        load_model(str(tmp_path), LoadOptions())


GEOMETRIES = {
    "padded wide": ({"do_pad": True}, 160, 90),
    "padded tall": ({"do_pad": True}, 70, 120),
    "stretched": ({"do_pad": False}, 160, 90),
    "cropped wide": (
        {"do_pad": False, "size": {"shortest_edge": 84}, "do_center_crop": True},
        200,
        100,
    ),
    "cropped tall": (
        {"do_pad": False, "size": {"shortest_edge": 96}, "do_center_crop": True},
        100,
        150,
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_patch_boxes_are_where_the_processor_looks(name: str) -> None:
    """A white box painted into one patch's box must light up that patch and no other."""
    options, width, height = GEOMETRIES[name]
    adapter = small_adapter()
    image = adapter.processor.image_processor
    image.crop_size = {"height": 84, "width": 84}
    for key, value in options.items():
        setattr(image, key, value)
    boxes = adapter.prepare(noise_media(0, height, width), QUESTION).patch_boxes
    for index in (14, 21, 9):
        left, top, right, bottom = np.maximum(boxes[index], 0)
        pixels = np.full((1, height, width, 3), (122, 116, 104), dtype=np.uint8)  # as the padding
        pixels[0, round(top) : round(bottom), round(left) : round(right)] = 255
        media = Media(pixels, (0.0,), "image", "x", "y")
        seen = adapter.prepare(media, QUESTION).encoder_inputs["pixel_values"][0].mean(0)
        patches = seen.reshape(6, 14, 6, 14).mean(dim=(1, 3)).flatten()
        ranked = patches.argsort(descending=True)
        assert int(ranked[0]) == index
        floor = patches.median()
        assert patches[index] - floor > 4 * (patches[ranked[1]] - floor).abs()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LoadOptions(device="cuda:7"), "not on this machine"),
        (LoadOptions(device="abacus"), "no device"),
        (LoadOptions(dtype="float8"), "no dtype"),
        (LoadOptions(attention="paged"), "no attention"),
    ],
)
def test_impossible_options_are_refused(options: LoadOptions, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model("narrow:llava", options)
