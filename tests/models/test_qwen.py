"""The Qwen adapters: loading, prompts, geometry, sizes, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.qwen_support import (
    CASE_NAMES,
    CASES,
    SMALL,
    Plain,
    library_inputs,
    media_of,
    noise_video,
    plain_case,
    session_for,
    small_qwen,
)
from tests.engine.support import QUESTION, noise_media, plan_of
from tests.metrics.test_flops import counted
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import MediaError, ModelError, RecipeError, SignalError, UsageError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import TowerInput
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.metrics.flops import full_flops, trace_flops
from vtc_cli.models.support.load import LoadOptions, family_class, load_model
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve


@pytest.fixture(params=CASES, ids=CASE_NAMES)
def plain(request: pytest.FixtureRequest) -> Plain:
    return plain_case(*request.param)


@pytest.mark.parametrize("family", SMALL)
def test_a_saved_checkpoint_loads_and_is_the_same_model(family: str, tmp_path: Path) -> None:
    original = small_qwen(family)
    saved = save(family, tmp_path)
    adapter, facts = load_model(str(saved), LoadOptions())
    assert (facts.family, facts.weights) == (family, "pretrained")
    for media in (noise_media(), noise_video()):
        first, again = original.prepare(media, QUESTION), adapter.prepare(media, QUESTION)
        assert torch.equal(first.input_ids, again.input_ids)
        with torch.inference_mode():
            assert torch.equal(original.encode(first).features, adapter.encode(again).features)


def save(family: str, folder: Path) -> Path:
    adapter = small_qwen(family)
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("tokenizer.json", "tokenizer"),
        ("preprocessor_config.json", "image processor"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, file: str, part: str) -> None:
    saved = save("qwen2_vl", tmp_path)
    (saved / file).unlink()
    with pytest.raises(ModelError) as caught:
        load_model(str(saved), LoadOptions())
    assert caught.value.found.startswith(f"no usable {part}")


def test_a_template_in_a_file_of_its_own_is_used(tmp_path: Path) -> None:
    saved = save("qwen2_vl", tmp_path)
    (saved / "chat_template.jinja").unlink()
    (saved / "chat_template.json").write_text(
        '{"chat_template": "<|vision_start|><|image_pad|><|vision_end|>so"}', encoding="utf-8"
    )
    adapter, _ = load_model(str(saved), LoadOptions())
    prompt = adapter.prepare(noise_media(), QUESTION)
    text = adapter.processor.tokenizer.decode(prompt.input_ids[0])
    assert text == "<|vision_start|>" + "<|image_pad|>" * prompt.layout.tokens + "<|vision_end|>so"


NARROW = {"qwen2_vl": (32, 28, 0, ()), "qwen3_vl": (27, 36, 0, ())}
NARROW |= {"qwen2_5_vl": (32, 28, 4, (7, 15, 23, 31))}


@pytest.mark.parametrize("family", NARROW)
def test_narrow_has_the_depth_of_the_published_model(family: str) -> None:
    adapter = family_class(family).narrow(0)
    shape = adapter.shape
    found = (shape.vision.layers, shape.decoder.layers, shape.window, shape.global_layers)
    assert found == NARROW[family]
    assert (shape.merged_patches, shape.class_tokens, shape.patches) == (4, 0, 0)
    if family == "qwen3_vl":
        assert tuple(adapter.model.config.vision_config.deepstack_visual_indexes) == (8, 16, 24)
    again = family_class(family).narrow(0).model
    for one, other in zip(adapter.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_prompt_is_the_chat_of_the_family() -> None:
    adapter = small_qwen("qwen2_vl")
    prompt = adapter.prepare(noise_media(), "why?")
    pads = "<|image_pad|>" * prompt.layout.tokens
    assert adapter.processor.tokenizer.decode(prompt.input_ids[0]) == (
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>why?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_frames_of_qwen3_stand_behind_their_times() -> None:
    """Five frames, half a second apart: steps at 0.25, 1.25 and 2.0 s, the last frame twice."""
    adapter = small_qwen("qwen3_vl")
    prompt = adapter.prepare(noise_video(), "why?")
    frame = "<|vision_start|>" + "<|video_pad|>" * (prompt.layout.tokens // 3) + "<|vision_end|>"
    assert adapter.processor.tokenizer.decode(prompt.input_ids[0]) == (
        f"<|im_start|>user\n<0.2 seconds>{frame}<1.2 seconds>{frame}<2.0 seconds>{frame}"
        "why?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_position_ids_are_those_of_generate_and_leave_no_state(plain: Plain) -> None:
    adapter = plain.adapter
    left = adapter.model.model.rope_deltas
    prompt = adapter.prepare(media_of(plain.prompt.kinds[0]), QUESTION)
    assert adapter.model.model.rope_deltas is left
    inputs = library_inputs(adapter, prompt)
    expected = adapter.model._prepare_position_ids_for_generation(prompt.input_ids, inputs)
    assert torch.equal(prompt.position_ids, expected)
    assert prompt.position_ids.shape == (4, 1, prompt.prompt_tokens)


def test_seconds_between_frames_reach_the_positions_of_qwen2_5() -> None:
    """Two tokens a second by default are 4 a step: frames a second apart stand twice as far."""
    adapter = small_qwen("qwen2_5_vl")
    slow = noise_video()
    fast = Media(slow.frames, tuple(t * 2 for t in slow.timestamps), "video", "x", "y")
    for media, distance in ((slow, 4), (fast, 8)):
        prompt = adapter.prepare(media, "?")
        times = prompt.position_ids[1, 0, prompt.visual_index].reshape(3, -1)[:, 0]
        assert times.diff().tolist() == [distance, distance]


@pytest.mark.parametrize("family", SMALL)
def test_boxes_by_hand(family: str) -> None:
    """A picture of whole tokens is not scaled: boxes are its cells."""
    adapter = small_qwen(family)
    side = 2 * adapter.model.config.vision_config.patch_size
    prompt = adapter.prepare(noise_media(0, 5 * side, 7 * side), "?")
    assert prompt.layout.only == Grid(1, 5, 7)
    assert prompt.patch_boxes[9].tolist() == [2 * side, side, 3 * side, 2 * side]
    video = adapter.prepare(noise_video(4, 5 * side, 7 * side), "?")
    assert video.layout.only == Grid(2, 5, 7)
    assert np.array_equal(video.patch_boxes[35:], prompt.patch_boxes)


def test_boxes_are_where_the_tokens_look(plain: Plain) -> None:
    """White in one token's box and, of a video, in one frame lights up that token and no other."""
    adapter, kind = plain.adapter, plain.prompt.kinds[0]
    grid, boxes = plain.prompt.layout.only, plain.prompt.patch_boxes
    frames = media_of(kind).frames
    for frame, index in ((0, 8), (frames.shape[0] - 1, 17)):
        left, top, right, bottom = boxes[index]
        dark = np.zeros_like(frames)
        dark[frame, round(top) : round(bottom), round(left) : round(right)] = 255
        prompt = adapter.prepare(Media(dark, (0.0,) * len(dark), kind, "x", "y"), "?")  # type: ignore[arg-type]
        pixels = next(value for name, value in prompt.encoder_inputs.items() if "pixel" in name)
        light = pixels.reshape(grid.tokens, -1).mean(dim=1)
        step = frame // 2
        assert int(light.argmax()) == step * grid.rows * grid.columns + index
        apart = light - light.min()
        assert float(apart.sort().values[-2]) < 0.5 * float(apart.max())


def test_each_frame_is_one_slice_of_its_step() -> None:
    adapter = small_qwen("qwen2_vl")
    video = noise_video(3)
    pixels = adapter.prepare(video, "?").encoder_inputs["pixel_values_videos"]
    single = [
        adapter.prepare(Media(video.frames[[at]], (0.0,), "image", "x", "y"), "?")
        for at in range(3)
    ]
    slices = pixels.reshape(2, -1, 3, 2, 196)
    for at, (step, half) in enumerate([(0, 0), (0, 1), (1, 0)]):
        alone = single[at].encoder_inputs["pixel_values"].reshape(-1, 3, 2, 196)[:, :, 0]
        assert torch.equal(slices[step, :, :, half], alone)
    assert torch.equal(slices[1, :, :, 1], slices[1, :, :, 0])  # the third frame stands alone


def test_what_the_merger_reads_is_in_the_order_of_the_tokens(plain: Plain) -> None:
    """The merger on the rows of `vision_features` gives the tokens in their places."""
    adapter, prompt = plain.adapter, plain.prompt
    look = LookAtFeatures()
    with torch.inference_mode():
        session_for(adapter).compress(prompt, plan_of(look))
        merged = adapter.projector(look.seen[0].reshape(-1, adapter.shape.vision.width))
    close(merged, look.seen[1], model=adapter)
    assert float((merged[0] - merged[1]).abs().max()) > 1e-2


@dataclass(frozen=True, kw_only=True)
class LookAtFeatures(EncoderStage):
    """Keeps what the merger read and what it gave, and changes nothing."""

    needs: ClassVar[frozenset[str]] = frozenset({"vision_features"})
    seen: list[Tensor] = field(default_factory=list)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        self.seen.extend([signals.vision_features(), tokens.features])
        return Decision.identity(len(tokens), tokens.features.device)


def test_operations_agree_with_the_librarys_counter(plain: Plain) -> None:
    adapter, prompt = plain.adapter, plain.prompt
    expected = full_flops(adapter.shape, prompt.prompt_tokens, prompt.tower)
    seen, _ = counted(lambda: adapter.encode(prompt))
    assert seen == pytest.approx(expected.vision + expected.projector, rel=0.01)
    ids, positions = prompt.input_ids % 250, prompt.position_ids
    seen, output = counted(
        lambda: adapter.model(
            input_ids=ids, position_ids=positions, use_cache=True, logits_to_keep=1
        )
    )
    assert seen == pytest.approx(expected.prefill, rel=0.01)
    cache = output.past_key_values
    seen, _ = counted(
        lambda: adapter.model(
            input_ids=ids[:, :1], position_ids=positions[..., -1:] + 1, past_key_values=cache
        )
    )
    assert seen == pytest.approx(expected.decode_step, rel=0.01)


def test_a_pass_that_keeps_all_costs_the_full_model(plain: Plain) -> None:
    adapter, prompt = plain.adapter, plain.prompt
    trace = session_for(adapter).run(prompt, plan_of(), Generation(max_new_tokens=2))
    assert trace_flops(trace) == full_flops(adapter.shape, prompt.prompt_tokens, prompt.tower)


def test_a_question_with_placeholders_is_refused() -> None:
    with pytest.raises(UsageError, match=r"placeholders|more than"):
        small_qwen("qwen2_vl").prepare(noise_media(), "what is <|image_pad|>?")
    with pytest.raises(UsageError, match=r"placeholders|more than"):
        small_qwen("qwen2_vl").prepare(noise_media(), "what is <|video_pad|>?")


def test_a_sliver_is_refused() -> None:
    with pytest.raises(MediaError, match="900 x 2"):
        small_qwen("qwen2_vl").prepare(noise_media(0, 2, 900), QUESTION)


@pytest.mark.parametrize("family", SMALL)
def test_stages_inside_the_tower_are_refused_when_planned(family: str, tmp_path: Path) -> None:
    adapter = small_qwen(family)
    options: dict[str, Any] = {"family_signals": adapter.provides, "original_tokens": 35}
    path = tmp_path / "inside.yaml"
    path.write_text(
        "name: inside\nencoder:\n  - mustdrop.spatial_merge: {vision_layer: 1}\n", encoding="utf-8"
    )
    with pytest.raises(RecipeError) as caught:
        resolve(load_recipe(str(path)), adapter.shape, **options)
    assert "joins 4 rows of its tower" in str(caught.value)
    with pytest.raises(SignalError, match="vision_cls_attention"):
        resolve(load_recipe("mustdrop"), adapter.shape, **options)


@pytest.mark.parametrize("grid", [(5, 7), (8, 4), (2, 3), (1, 9)])
def test_rows_seen_through_windows_are_those_of_the_library(grid: tuple[int, int]) -> None:
    """Windows of 4 x 4 tokens, cut at the lower and right edge: the mean length a row sees."""
    from transformers.vision_utils import get_vision_window_index

    shape = family_class("qwen2_5_vl").narrow(0).shape
    _, borders = get_vision_window_index(torch.tensor([[1, 2 * grid[0], 2 * grid[1]]]), 2, 112, 14)
    lengths = borders.diff().double()
    patches, seen = 4 * grid[0] * grid[1], TowerInput(1, *grid)
    assert shape.tower_keys(0, patches, seen) == pytest.approx(float((lengths**2).sum() / patches))
    assert shape.tower_keys(7, patches, seen) == patches
