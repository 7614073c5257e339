"""Down-sampling: the share of a side that a count of tokens is worth, and the picture of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.families import small_family
from tests.engine.qwen_support import SMALL, session_for
from tests.engine.support import noise_media, plan_of, small_adapter
from tests.recipe.test_resolve import plan
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.inputs import note_input, shrink
from vtc_cli.media.resizing import resized
from vtc_cli.metrics.flops import full_pass_flops, trace_flops
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.stages.average_pool import Cells
from vtc_cli.stages.downsample import Shrink

QUESTION = "what is it?"


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    """84 x 84 pixels in 36 patches of 14."""
    return small_adapter()


@pytest.mark.parametrize(
    ("tokens", "share"), [(576, 1.0), (600, 1.0), (144, 0.5), (64, 1 / 3), (1, 1 / 24)]
)
def test_a_side_keeps_the_root_of_the_share_of_tokens(tokens: int, share: float) -> None:
    assert Shrink(tokens=tokens).scale(576, None) == pytest.approx(share)
    assert Shrink().scale(576, LayerBudget(tokens, 32, ())) == pytest.approx(share)


@pytest.mark.parametrize(
    ("width", "height", "small"),
    [
        (84, 84, (28, 28)),  # the size of the model's input: 4 patches of 14 x 14 pixels
        (840, 840, (28, 28)),  # a large picture holds no more than that either
        (168, 84, (28, 14)),  # padded to a square: the model sees 84 x 42 pixels of it
        (30, 30, (28, 28)),
        (20, 20, (20, 20)),  # has fewer pixels already and never grows
    ],
)
def test_the_picture_holds_the_pixels_of_the_wanted_tokens(
    adapter: LlavaAdapter, width: int, height: int, small: tuple[int, int]
) -> None:
    media = noise_media(1, height, width)
    prompt = adapter.prepare(media, QUESTION)
    seen, records = shrink(adapter, media, prompt, plan_of_input(4))
    assert f"to {small[0]} x {small[1]} pixels" in records[0].decision.note
    assert records[0].decision.details["pixels_kept"] == small[0] * small[1] / (width * height)
    np.testing.assert_allclose(seen.patch_boxes, prompt.patch_boxes, atol=0.51 * width / small[0])
    assert (records[0].before, records[0].after, records[0].phase) == (36, 36, "input")


def plan_of_input(*counts: int) -> object:
    stages = [Shrink(tokens=count) for count in counts]
    planned = plan_of(*[Cells() for _ in stages]).encoder
    return replace(
        plan_of(),
        input=tuple(replace(p, stage=s) for p, s in zip(planned, stages, strict=True)),  # type: ignore[arg-type]
    )


def test_the_model_gets_what_pillow_makes_of_the_picture(adapter: LlavaAdapter) -> None:
    media = noise_media(1, 168, 168)
    prompt = adapter.prepare(media, QUESTION)
    seen, _ = shrink(adapter, media, prompt, plan_of_input(9))  # type: ignore[arg-type]
    small = Image.fromarray(media.frames[0]).resize((42, 42), Image.Resampling.BICUBIC)
    alone = replace(media, frames=np.asarray(small)[None])
    pixels = adapter.prepare(alone, QUESTION).encoder_inputs["pixel_values"]
    assert torch.equal(seen.encoder_inputs["pixel_values"], pixels)
    assert not torch.equal(pixels, prompt.encoder_inputs["pixel_values"])
    assert torch.equal(seen.input_ids, prompt.input_ids) and seen.question == QUESTION


def test_room_for_all_and_plans_without_input_change_nothing(adapter: LlavaAdapter) -> None:
    media = noise_media(1, 168, 168)
    prompt = adapter.prepare(media, QUESTION)
    seen, records = shrink(adapter, media, prompt, plan_of_input(36))  # type: ignore[arg-type]
    assert records[0].decision.details["pixels_kept"] == 1.0
    same = seen.encoder_inputs["pixel_values"], prompt.encoder_inputs["pixel_values"]
    assert torch.equal(*same)
    assert shrink(adapter, media, prompt, plan_of()) == (prompt, [])


def test_one_after_the_other_is_the_smaller_of_both(adapter: LlavaAdapter) -> None:
    media = noise_media(1, 168, 168)
    prompt = adapter.prepare(media, QUESTION)
    for counts in ((9, 4), (4, 9)):
        seen, records = shrink(adapter, media, prompt, plan_of_input(*counts))  # type: ignore[arg-type]
        assert len(records) == 2 and "to 28 x 28 pixels" in records[1].decision.note
        np.testing.assert_allclose(seen.patch_boxes, prompt.patch_boxes, atol=1e-9)


def test_every_frame_of_a_video_shrinks() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 30, 40, 3), dtype=np.uint8)
    media = Media(frames, (0.0, 1.0, 2.0, 3.0), "video", "noise.mp4", "0" * 64)
    small = resized(media, 20, 10)
    assert small.frames.shape == (4, 10, 20, 3) and small.timestamps == media.timestamps
    for frame in range(4):
        alone = Image.fromarray(frames[frame]).resize((20, 10), Image.Resampling.BICUBIC)
        assert np.array_equal(small.frames[frame], np.asarray(alone))


def test_tokens_of_joined_patches_count_their_pixels() -> None:
    """Gemma: 36 tokens of 168 x 168 pixels, 28 a side; 9 of them are worth 84 x 84."""
    adapter, media = small_family("gemma3"), noise_media(1, 168, 168)
    prompt = adapter.prepare(media, QUESTION)
    _, records = shrink(adapter, media, prompt, plan_of_input(9))  # type: ignore[arg-type]
    assert "168 x 168 to 84 x 84 pixels" in records[0].decision.note


def test_the_recipe_shrinks_and_pools_to_the_budget() -> None:
    planned = plan("downsample", budget=64.0)
    assert [item.name for item in planned.stages] == ["downsample.shrink", "average_pool.cells"]
    assert planned.input[0].stage.scale(576, planned.budget) == pytest.approx(1 / 3)


def test_savings_are_those_over_the_picture_as_it_was() -> None:
    kind, vision = SMALL["qwen2_vl"]
    adapter = kind.random(3, width=64, layers=6, vision=vision, tokens=(4, 40))
    media = noise_media(1, 168, 168)
    session = session_for(adapter)
    whole = adapter.prepare(media, QUESTION)
    full = session.run(whole, Plan("full"), Generation(max_new_tokens=1))
    planned = plan_of_input(9)
    small, records = shrink(adapter, media, whole, planned)  # type: ignore[arg-type]
    assert small.layout.tokens == 9 < whole.layout.tokens
    trace = session.run(small, planned, Generation(max_new_tokens=1))
    note_input(trace, whole, records)
    assert full_pass_flops(trace) == full_pass_flops(full) == trace_flops(full)
    assert trace_flops(trace).prefill < trace_flops(full).prefill
    assert token_counts(trace).original == whole.layout.tokens
    assert token_counts(trace).layer_average == small.layout.tokens
