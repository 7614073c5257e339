"""LLaVA checkpoints with a SigLIP tower, with [CLS] kept, and with features of several layers.

That they answer as the library does, and as the masked model when tokens leave, is shown beside the
other families in `tests/engine`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaProcessor

from tests.engine.families import KINDS, family_session, shown_media, small_family
from tests.engine.support import QUESTION, TowerPrune, noise_media, plan_of
from tests.models.tiles import save
from tests.tolerance import close
from vtc_cli.core.errors import RecipeError, SignalError
from vtc_cli.core.layout import Grid
from vtc_cli.engine.decode import Generation
from vtc_cli.metrics.flops import trace_flops
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

# Tokens of a picture of 36 patches, and whether the tower has [CLS].
LLAVA = {
    "llava siglip": (36, False),
    "llava first patch off": (35, False),
    "llava class kept": (37, True),
    "llava layers": (36, True),
    "llava class kept layers": (37, True),
}
ONE = Generation(max_new_tokens=1)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def adapter(kind: str) -> Adapter:
    return small_family(kind)


def resolved(adapter: Adapter, recipe: str, tokens: int) -> Any:
    return resolve(
        load_recipe(recipe),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=tokens,
        budget=20,
    )


def test_a_saved_checkpoint_loads_and_is_the_same_model(
    kind: str, adapter: Adapter, tmp_path: Path
) -> None:
    again, facts = load_model(str(save(adapter, tmp_path)), LoadOptions())
    assert facts.family == adapter.family
    assert again.provides == adapter.provides
    media = shown_media("video" if "video" in kind else "image")
    before, after = (each.prepare(media, QUESTION) for each in (adapter, again))
    assert torch.equal(before.input_ids, after.input_ids)
    with torch.inference_mode():
        assert torch.equal(adapter.encode(before).features, again.encode(after).features)


@pytest.mark.parametrize("name", LLAVA)
def test_the_prompt_is_that_of_the_librarys_processor(name: str) -> None:
    adapter = small_family(name)
    tokens, has_class = LLAVA[name]
    config = adapter.model.config
    own = LlavaProcessor(
        image_processor=adapter.parts.image_processor,
        tokenizer=adapter.parts.tokenizer,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(has_class),
        image_token="<image>",
    )
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    made = own(text=text, images=noise_media().picture(), return_tensors="pt")
    prompt = adapter.prepare(noise_media(), QUESTION)
    assert torch.equal(prompt.input_ids, made["input_ids"])
    assert torch.equal(prompt.encoder_inputs["pixel_values"], made["pixel_values"])
    assert prompt.layout.tokens == tokens == prompt.patch_boxes.shape[0]


@pytest.mark.parametrize("name", LLAVA)
def test_only_a_tower_with_a_class_row_gives_its_attention(name: str) -> None:
    adapter = small_family(name)
    tokens, has_class = LLAVA[name]
    assert ("vision_cls_attention" in adapter.provides) == has_class
    if has_class:
        plan = resolved(adapter, "fastervlm", tokens)
        prompt = adapter.prepare(noise_media(), QUESTION)
        trace = family_session(adapter).run(prompt, plan, ONE)
        assert trace.visual_tokens == [20] * 6
        kept = set(trace.records[-1].anchor.tolist())
        assert (0 in kept) or "class kept" not in name  # [CLS] is never dropped
    else:
        with pytest.raises((RecipeError, SignalError), match=r"tower|vision_cls_attention"):
            resolved(adapter, "mustdrop", tokens)


@pytest.mark.parametrize("name", LLAVA)
def test_recipes_that_fit_meet_their_budget(name: str) -> None:
    adapter = small_family(name)
    prompt = adapter.prepare(noise_media(), QUESTION)
    for recipe in ("fastv", "divprune", "uniform"):
        plan = resolved(adapter, recipe, prompt.layout.tokens)
        trace = family_session(adapter).run(prompt, plan, ONE)
        assert abs(sum(trace.visual_tokens) / 6 - 20) <= 0.5, recipe


def test_boxes_and_places_are_those_of_the_patches() -> None:
    plain, kept, off = (
        small_family(name).prepare(noise_media(), QUESTION)
        for name in ("llava siglip", "llava class kept", "llava first patch off")
    )
    assert plain.layout.grids == (Grid(1, 6, 6),)
    assert kept.layout.grids == (Grid(1, 1, 1, view="marker"), Grid(1, 6, 6))
    np.testing.assert_array_equal(kept.patch_boxes[1:], plain.patch_boxes)
    assert not kept.patch_boxes[0].any()
    np.testing.assert_array_equal(off.patch_boxes, plain.patch_boxes[1:])
    cpu = torch.device("cpu")
    whole = plain.layout.columns(cpu)
    assert torch.equal(off.layout.columns(cpu).position, whole.position[1:])
    assert torch.equal(kept.layout.columns(cpu).position[1:], whole.position)
    assert kept.layout.columns(cpu).learned.tolist() == [True] + [False] * 36


@pytest.mark.parametrize("name", LLAVA)
def test_the_projector_is_counted_over_the_rows_that_it_reads(name: str) -> None:
    adapter = small_family(name)
    prompt = adapter.prepare(noise_media(), QUESTION)
    trace = family_session(adapter).run(prompt, plan_of(), ONE)
    projector = adapter.projector
    weights = projector.linear_1.weight.numel() + projector.linear_2.weight.numel()
    assert trace_flops(trace).projector == 2 * LLAVA[name][0] * weights


@torch.inference_mode()
def test_dropping_patches_inside_a_siglip_tower_equals_the_masked_tower() -> None:
    adapter = small_family("llava siglip")
    prompt = adapter.prepare(noise_media(), QUESTION)
    trace = family_session(adapter).run(prompt, plan_of(TowerPrune()), ONE, capture=True)
    assert trace.tower[0].rows == [36, 36, 27, 27]
    stays = torch.arange(36) % 4 != 1
    tower = adapter.model.model.vision_tower
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros(1, 1, 36, 36).masked_fill(~stays, lowest)

    def hide(module: Any, args: Any, kwargs: Any) -> Any:
        return args[:1], kwargs | {"attention_mask": mask}

    handles = [
        block.register_forward_pre_hook(hide, with_kwargs=True)
        for block in adapter.tower_layers[2:]
    ]
    pixels = prompt.encoder_inputs["pixel_values"]
    states = tower(pixels, output_hidden_states=True).hidden_states[-1]
    for handle in handles:
        handle.remove()
    by_hand = adapter.projector(states[0, stays])
    assert trace.captured is not None
    ours = trace.captured["features"]
    close(ours, by_hand, model=adapter)
