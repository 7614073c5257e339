"""The LLaVA-OneVision adapter: pictures, videos and both, against the library's own parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.families import family_session, shown_media, small_family
from tests.engine.support import QUESTION, noise_media
from tests.models.lights import bright_token
from tests.tolerance import close
from vtc_cli.core.errors import ModelError, UsageError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.models.llava_onevision import LlavaOnevisionAdapter
from vtc_cli.models.support.crops import Patches, cut_picture, detail_boxes, view_boxes
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

PUBLISHED = [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)]
SIZES = [
    (1, 1),
    (5000, 1),
    (1, 5000),
    (70, 90),
    (899, 1024),
    (2000, 2000),
    (3000, 1000),
    (7, 999),
    (1080, 1920),
]
TRUE = Patches(27, 14, 384)


@pytest.fixture(scope="module")
def adapter() -> LlavaOnevisionAdapter:
    return small_family("llava_onevision")  # type: ignore[return-value]


def library_counts(patches: int) -> Any:
    """The library's processor for its arithmetic alone; it cannot be built without torchvision."""
    from transformers import LlavaOnevisionProcessor

    own: Any = object.__new__(LlavaOnevisionProcessor)
    own.num_image_tokens, own.vision_aspect_ratio = patches, "anyres_max_9"
    own.vision_feature_select_strategy, own.image_token, own.video_token = "full", "i", "v"
    own.image_processor = LlavaOnevisionAdapter.narrow(0).parts.image_processor
    return own


@pytest.mark.parametrize("size", SIZES)
def test_the_published_sizes_give_the_librarys_number_of_tokens(size: tuple[int, int]) -> None:
    own = library_counts(729)
    assert [list(each) for each in own.image_processor.image_grid_pinpoints] == PUBLISHED
    cut = cut_picture(*size, TRUE, PUBLISHED, 9)
    tokens = 729 + sum(grid.tokens for grid in cut.grids)
    assert tokens == own._get_number_of_features(*size, 384, 384)
    assert cut.scaled == (size in [(2000, 2000), (3000, 1000), (1080, 1920)])


def test_a_large_picture_by_hand() -> None:
    """36 crops of 27 x 27 are read at 81 x 81 places: the square root of 36 / 9 is 2."""
    cut = cut_picture(2304, 2304, TRUE, PUBLISHED, 9)
    assert (cut.down, cut.across, tuple(cut.index.shape)) == (6, 6, (162, 162))
    assert cut.grids == (Grid(1, 81, 82, view="detail", line_ends=True),)


def test_a_video_and_several_pictures_have_the_librarys_number_of_tokens() -> None:
    own = library_counts(729)
    adapter = LlavaOnevisionAdapter.narrow(0)
    prompt = adapter.prepare(shown_media("video", frames=3), "?")
    text = own.replace_video_token({"pixel_values_videos": torch.zeros(1, 3, 1)}, 0)
    assert prompt.layout.tokens == len(text) == 3 * 196 + 1
    assert prompt.layout.only == Grid(3, 14, 14)
    two = adapter.prepare([noise_media(), noise_media(1, 30, 90)], "?")
    counts = {"batch_num_images": torch.tensor([2])}
    lengths = [len(own.replace_image_token(counts, number)) for number in (0, 1)]
    assert [two.layout.tokens_of(span) for span in (0, 1)] == lengths == [730, 730]


def test_pixels_are_those_of_the_librarys_processors(adapter: LlavaOnevisionAdapter) -> None:
    """One picture is cut, two are not; the overview of a frame is the frame of a video."""
    images = adapter.parts.image_processor
    first, second = noise_media(0, 140, 120), noise_media(1, 30, 90)
    one = adapter.prepare(first, "?").encoder_inputs
    own = images(images=first.picture(), return_tensors="pt")
    assert torch.equal(one["pixel_values"], own["pixel_values"])
    assert one["pixel_values"].shape[1] == 10
    assert "batch_num_images" not in one
    two = adapter.prepare([first, second], "?").encoder_inputs
    own = images(images=[[first.picture(), second.picture()]], return_tensors="pt")
    for name in ("pixel_values", "image_sizes", "batch_num_images"):
        assert torch.equal(two[name], own[name])
    video = shown_media("video", 7, 140, 120)
    frames = adapter.prepare(video, "?").encoder_inputs["pixel_values_videos"]
    alone = images(images=video.picture(2), return_tensors="pt")["pixel_values"][0, 0]
    assert frames.shape == (1, 4, 3, 44, 44)
    assert torch.equal(frames[0, 2], alone)


def test_the_prompt_holds_pictures_and_videos_in_their_order(
    adapter: LlavaOnevisionAdapter,
) -> None:
    prompt = adapter.prepare([shown_media("video"), noise_media(0, 70, 90)], QUESTION)
    text = adapter.parts.tokenizer.decode(prompt.input_ids[0])
    image = prompt.layout.tokens_of(1)
    visuals = "<video>" * 17 + "\n" + "<image>" * image
    assert text == f"<|im_start|>user {visuals}\n{QUESTION}<|im_end|><|im_start|>assistant\n"
    assert prompt.kinds == ("video", "image")
    learned = prompt.layout.columns(torch.device("cpu")).learned
    assert bool(learned[16]) and int(learned.sum()) == 1 + prompt.layout.grids[-1].rows


def test_a_template_that_writes_pictures_first_keeps_the_order_of_the_user(
    adapter: LlavaOnevisionAdapter,
) -> None:
    """As the published template does."""
    template = (
        "{% for m in messages %}{% for c in m['content'] if c['type'] == 'image' %}<image>"
        "{% endfor %}{% for c in m['content'] if c['type'] == 'video' %}<video>{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{% endfor %}"
    )
    other = LlavaOnevisionAdapter(adapter.model, replace(adapter.processor))
    object.__setattr__(other.processor, "chat_template", template)
    shown = [shown_media("video"), noise_media(0, 70, 90)]
    prompt = other.prepare(shown, QUESTION)
    text = adapter.parts.tokenizer.decode(prompt.input_ids[0])
    image = prompt.layout.tokens_of(1)
    assert text == "<video>" * 17 + "<image>" * image + QUESTION
    with pytest.raises(UsageError, match="more than 2"):
        other.prepare(shown, "what is <image>?")


def test_the_tower_gives_each_span_what_it_gives_it_alone(adapter: LlavaOnevisionAdapter) -> None:
    """Videos of different lengths, with the model's newline behind each, and a picture between."""
    shown = [shown_media("video", 0, frames=2), noise_media(3, 140, 120), shown_media("video", 9)]
    prompt = adapter.prepare(shown, "?")
    with torch.inference_mode():
        together = adapter.encode(prompt).features
        alone = [adapter.encode(adapter.prepare(media, "?")).features for media in shown]
        parts = [adapter.encode(adapter.part(prompt, span)).features for span in range(3)]
    assert [len(each) for each in alone] == [9, 9 + 6 * 6, 17]
    close(together, torch.cat(alone), model=adapter)
    close(together, torch.cat(parts), model=adapter)
    newline = adapter.model.model.image_newline.detach()
    assert torch.equal(together[8], newline)
    assert torch.equal(together[-1], newline)


def test_a_part_of_several_pictures_is_not_cut(adapter: LlavaOnevisionAdapter) -> None:
    prompt = adapter.prepare([noise_media(0, 70, 90), noise_media(1, 90, 30)], "?")
    with torch.inference_mode():
        together = adapter.encode(prompt).features
        parts = [adapter.encode(adapter.part(prompt, span)).features for span in (0, 1)]
    assert [len(part) for part in parts] == [10, 10]
    close(together, torch.cat(parts), model=adapter)


PICTURE = [Media(np.zeros((1, 140, 120, 3), dtype=np.uint8), (0.0,), "image", "x", "0")]
VIDEO = [shown_media("video", 0, 60, 90)]
TWO = [noise_media(0, 60, 90), noise_media(1, 90, 40)]
LIGHTS = [(PICTURE, token) for token in (0, 4, 8, 9, 9 + 2 * 6 + 3, 9 + 5 * 6 + 4)]
LIGHTS += [(VIDEO, 1), (VIDEO, 14), (TWO, 3), (TWO, 10 + 4)]


@pytest.mark.parametrize(("shown", "token"), LIGHTS)
def test_boxes_are_where_the_tokens_look(
    adapter: LlavaOnevisionAdapter, shown: list[Media], token: int
) -> None:
    assert bright_token(adapter, shown, token) == token


def test_boxes_by_hand() -> None:
    """27 patches of 14 pixels see 378 of 384: of a picture of 384 the last 6 are in no patch."""
    boxes = view_boxes((0, 0, 384, 384), TRUE, 27).reshape(27, 27, 4)
    assert boxes[2, 3].tolist() == [42, 28, 56, 42]
    assert boxes[-1, -1].tolist() == [364, 364, 378, 378]
    halves = view_boxes((0, 0, 768, 384), TRUE, 14).reshape(14, 14, 4)
    np.testing.assert_allclose(halves[0, 1], [2 * 27, 0, 4 * 27, 27])
    cut = cut_picture(384, 768, TRUE, PUBLISHED, 9)
    detail = detail_boxes(384, 768, cut, TRUE).reshape(27, 55, 4)
    assert detail[0, 27].tolist() == [384, 0, 398, 14]  # the second crop begins at 384
    large = cut_picture(2304, 2304, TRUE, PUBLISHED, 9)
    read = detail_boxes(2304, 2304, large, TRUE).reshape(81, 82, 4)
    assert read[0, 13].tolist() == [26 * 14, 0, 384 + 14, 28]  # over the seam of two crops


@pytest.mark.parametrize("case", ["image", "video"])
@pytest.mark.parametrize("recipe", ["fastv", "random", "uniform", "tokencarve"])
def test_learned_tokens_stay_under_a_budget(
    adapter: LlavaOnevisionAdapter, recipe: str, case: str
) -> None:
    shown = noise_media(0, 140, 120) if case == "image" else shown_media("video")
    budget = 22 if case == "image" else 8
    prompt = adapter.prepare(shown, QUESTION)
    plan = resolve(
        load_recipe(recipe),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=budget,
    )
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=1))
    learned = prompt.layout.columns(torch.device("cpu")).learned.nonzero()[:, 0].tolist()
    assert learned == ([14, 20, 26, 32, 38, 44] if case == "image" else [16])
    assert trace.visual_tokens[-1] <= budget
    assert set(learned) <= set(trace.records[-1].anchor.tolist())


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1)])
def test_slivers_and_single_pixels_are_answered(
    adapter: LlavaOnevisionAdapter, size: tuple[int, int]
) -> None:
    for shown in ([noise_media(0, *size)], [noise_media(0, *size), shown_media("video", 0, *size)]):
        prompt = adapter.prepare(shown, QUESTION)
        trace = family_session(adapter).run(prompt, Plan("full"), Generation(max_new_tokens=1))
        assert trace.first_logits is not None and bool(trace.first_logits.isfinite().all())


def save(adapter: LlavaOnevisionAdapter, folder: Path) -> Path:
    adapter.model.save_pretrained(folder)
    adapter.parts.tokenizer.save_pretrained(folder)
    adapter.parts.image_processor.save_pretrained(folder)
    return folder


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: LlavaOnevisionAdapter, tmp_path: Path
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path)), LoadOptions())
    assert (facts.family, facts.weights) == ("llava_onevision", "pretrained")
    shown = [noise_media(0, 140, 120), shown_media("video")]
    before, after = (each.prepare(shown, QUESTION) for each in (adapter, again))
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


def test_frames_have_settings_of_their_own_where_a_checkpoint_has_them(
    adapter: LlavaOnevisionAdapter, tmp_path: Path
) -> None:
    save(adapter, tmp_path)
    own = {"image_mean": [0.1, 0.2, 0.3], "size": {"height": 44, "width": 44}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(own))
    again = LlavaOnevisionAdapter.load(str(tmp_path))
    assert list(again.processor.frame_processor.image_mean) == [0.1, 0.2, 0.3]
    own["size"] = {"height": 40, "width": 40}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(own))
    with pytest.raises(ModelError, match="4 of 40 x 40"):
        LlavaOnevisionAdapter.load(str(tmp_path)).prepare(shown_media("video"), "?")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="no usable image processor"):
        LlavaOnevisionAdapter.load(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_select_strategy": "default"}, "'default'"),
        ({"vision_aspect_ratio": "square"}, "'square'"),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "clip"),
    ],
)
def test_what_the_adapter_would_get_wrong_is_refused(
    adapter: LlavaOnevisionAdapter, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = save(adapter, tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path), LoadOptions())


def test_narrow_has_the_depth_and_tokens_of_the_7b_model() -> None:
    shape = LlavaOnevisionAdapter.narrow(0).shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (26, 28, 729)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (1, 0, 26)
