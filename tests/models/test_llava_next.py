"""The LLaVA-NeXT adapter: the library's own prompts, geometry, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.families import family_session, small_family
from tests.engine.support import QUESTION, noise_media
from tests.models.lights import bright_token
from vtc_cli.core.errors import ModelError
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.models.llava_next import LlavaNextAdapter
from vtc_cli.models.support.crops import Patches, cut_picture, detail_boxes
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SIZES = [
    (1, 1),
    (5000, 1),
    (1, 5000),
    (70, 90),
    (480, 640),
    (640, 480),
    (1000, 1000),
    (333, 1000),
    (7, 333),
    (2000, 90),
]


@pytest.fixture(scope="module")
def adapter() -> LlavaNextAdapter:
    return small_family("llava_next")  # type: ignore[return-value]


def library_processor(adapter: LlavaNextAdapter) -> Any:
    from transformers import LlavaNextProcessor

    return LlavaNextProcessor(
        image_processor=adapter.parts.image_processor,
        tokenizer=adapter.parts.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


@pytest.mark.parametrize("sizes", [[size] for size in SIZES] + [[(70, 90), (30, 80)]], ids=str)
def test_a_prompt_is_that_of_the_librarys_processor(
    adapter: LlavaNextAdapter, sizes: list[tuple[int, int]]
) -> None:
    shown = [noise_media(number, *size) for number, size in enumerate(sizes)]
    prompt = adapter.prepare(shown, QUESTION)
    visuals = "\n".join("<image>" for _ in shown)
    own = library_processor(adapter)(
        images=[media.picture() for media in shown],
        text=f"USER: {visuals}\n{QUESTION} ASSISTANT:",
        return_tensors="pt",
    )
    assert torch.equal(prompt.input_ids, own["input_ids"])
    assert torch.equal(prompt.encoder_inputs["pixel_values"], own["pixel_values"])
    assert torch.equal(prompt.encoder_inputs["image_sizes"], own["image_sizes"])
    assert prompt.patch_boxes.shape == (prompt.layout.tokens, 4)


@pytest.mark.parametrize("size", SIZES)
def test_the_published_sizes_give_the_librarys_number_of_tokens(size: tuple[int, int]) -> None:
    from transformers import LlavaNextProcessor

    own: Any = object.__new__(LlavaNextProcessor)
    own.patch_size, own.num_additional_image_tokens = 14, 0
    own.image_processor = LlavaNextAdapter.narrow(0).parts.image_processor
    assert [list(each) for each in own.image_processor.image_grid_pinpoints] == PUBLISHED
    cut = cut_picture(*size, Patches(24, 14, 336), PUBLISHED)
    tokens = 576 + sum(grid.tokens for grid in cut.grids)
    assert tokens == own._get_number_of_features(*size, 336, 336)


def test_the_largest_picture_by_hand() -> None:
    cut = cut_picture(1000, 1000, Patches(24, 14, 336), PUBLISHED)
    assert (cut.down, cut.across, cut.rows, cut.columns, cut.scaled) == (2, 2, 48, 48, False)
    assert cut.index[0, 24] == 576  # the second crop begins in the middle of the first row
    assert cut.index[24, 0] == 2 * 576


def test_boxes_by_hand() -> None:
    """1000 x 500 in crops of 1008 x 336: 672 x 336 pixels of picture, 168 of padding at each end.

    Two crops side by side would waste nothing, so those are taken instead: no padding at all.
    """
    patches = Patches(24, 14, 336)
    cut = cut_picture(500, 1000, patches, PUBLISHED)
    assert (cut.down, cut.across, cut.rows, cut.columns) == (1, 2, 24, 48)
    boxes = detail_boxes(500, 1000, cut, patches).reshape(24, 49, 4)
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 1000 / 48, 500 / 24])
    np.testing.assert_allclose(boxes[-1, -2], [1000 - 1000 / 48, 500 - 500 / 24, 1000, 500])
    assert not boxes[:, -1].any()
    only_wide = cut_picture(500, 1000, patches, [[336, 1008]])
    assert (only_wide.left, only_wide.columns) == (12, 48)
    moved = detail_boxes(500, 1000, only_wide, patches).reshape(24, 49, 4)
    np.testing.assert_allclose(moved, boxes, atol=1e-9)


@pytest.mark.parametrize("size", [(480, 640), (1000, 333), (899, 1024), (50, 60)])
def test_boxes_of_crops_cover_the_picture_but_for_less_than_a_patch(size: tuple[int, int]) -> None:
    patches = Patches(24, 14, 336)
    cut = cut_picture(*size, patches, PUBLISHED)
    boxes = detail_boxes(*size, cut, patches).reshape(cut.rows, cut.columns + 1, 4)[:, :-1]
    wide, tall = boxes[0, 0, 2] - boxes[0, 0, 0], boxes[0, 0, 3] - boxes[0, 0, 1]
    edges = boxes[0, 0, 0], boxes[0, 0, 1], size[1] - boxes[-1, -1, 2], size[0] - boxes[-1, -1, 3]
    for edge, patch in zip(edges, (wide, tall, wide, tall), strict=True):
        assert abs(edge) < patch
    np.testing.assert_allclose(boxes[:, 1:, 0], boxes[:, :-1, 2])
    np.testing.assert_allclose(boxes[1:, :, 1], boxes[:-1, :, 3])


@pytest.mark.parametrize("token", [0, 4, 8, 9, 14, 15 + 8, 9 + 3 * 7 + 5])
def test_boxes_are_where_the_tokens_look(adapter: LlavaNextAdapter, token: int) -> None:
    assert bright_token(adapter, [noise_media(0, 70, 90)], token) == token


@pytest.mark.parametrize("recipe", ["fastv", "random", "uniform", "tokencarve"])
def test_line_ends_stay_under_a_budget(adapter: LlavaNextAdapter, recipe: str) -> None:
    prompt = adapter.prepare(noise_media(), QUESTION)
    plan = resolve(
        load_recipe(recipe),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=20,
    )
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=1))
    learned = prompt.layout.columns(torch.device("cpu")).learned.nonzero()[:, 0].tolist()
    assert learned == [15, 22, 29, 36]
    assert trace.visual_tokens[-1] <= 20
    assert set(learned) <= set(trace.records[-1].anchor.tolist())


def test_a_picture_too_thin_for_its_crops_is_an_overview_and_told() -> None:
    adapter = small_family("llava_next", image_size=28, resolutions=[[28, 56], [56, 28]])
    for size, shape in (((1, 90), None), ((90, 1), (2, 1)), ((60, 90), (2, 5))):
        prompt = adapter.prepare(noise_media(0, *size), QUESTION)
        _, *detail = prompt.layout.grids
        assert [(grid.rows, grid.columns) for grid in detail] == ([shape] if shape else [])
        assert any("so thin" in text for text in prompt.warnings) == (1 in size)
        with torch.inference_mode():
            features = adapter.encode(prompt).features
        assert len(features) == prompt.layout.tokens == len(prompt.patch_boxes)
        if size == (90, 1):  # padding took the patches and left the line ends
            newline = adapter.model.model.image_newline.detach()
            assert torch.equal(features[4:], newline.expand(2, -1))
            assert not prompt.patch_boxes[4:].any()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_slivers_and_single_pixels_are_answered(
    adapter: LlavaNextAdapter, size: tuple[int, int]
) -> None:
    prompt = adapter.prepare(noise_media(0, *size), QUESTION)
    trace = family_session(adapter).run(prompt, Plan("full"), Generation(max_new_tokens=1))
    assert trace.first_logits is not None and bool(trace.first_logits.isfinite().all())


def save(adapter: LlavaNextAdapter, folder: Path) -> Path:
    adapter.model.save_pretrained(folder)
    adapter.parts.tokenizer.save_pretrained(folder)
    adapter.parts.image_processor.save_pretrained(folder)
    return folder


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    adapter: LlavaNextAdapter, tmp_path: Path
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path)), LoadOptions())
    assert (facts.family, facts.weights) == ("llava_next", "pretrained")
    before, after = (each.prepare(noise_media(), QUESTION) for each in (adapter, again))
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="no usable image processor"):
        load_model(str(tmp_path), LoadOptions())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_select_strategy": "full"}, "'full'"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip.*'default'"),
        ({"vision_config": {"model_type": "pixtral"}}, "pixtral"),
    ],
)
def test_what_the_adapter_would_get_wrong_is_refused(
    adapter: LlavaNextAdapter, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = save(adapter, tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path), LoadOptions())


def test_a_processor_of_other_resolutions_than_the_models_is_refused() -> None:
    other = small_family("llava_next")
    other.parts.image_processor.image_grid_pinpoints = [[42, 42]]
    with pytest.raises(ModelError, match="2 of 42 x 42"):
        other.prepare(noise_media(), QUESTION)


def test_narrow_has_the_depth_and_tokens_of_the_7b_model() -> None:
    adapter = LlavaNextAdapter.narrow(0)
    shape = adapter.shape
    assert (shape.vision.layers, shape.decoder.layers, shape.patches) == (24, 32, 576)
    assert (shape.merged_patches, shape.class_tokens, shape.feature_layers) == (1, 1, 23)
    assert [list(each) for each in adapter.model.config.image_grid_pinpoints] == PUBLISHED
