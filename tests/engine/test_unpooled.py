"""METok in place of a family's own pooling of frames, at the published sizes of a frame.

The pooled features are worked out apart, from the library's tower and projector in numpy; what the
decoder makes of them is compared with the untouched model under masks (as in `test_metok_oracle`),
and a stage that keeps every unpooled token with the library's model whose pooling is taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.engine.families import (
    CASES,
    case_prompt,
    family_session,
    own_logits,
    shown_media,
    small_family,
)
from tests.engine.support import QUESTION, Hidden, encoded_by, masked_logits, plan_of
from tests.engine.test_metok_oracle import LAYERS, hidden_by
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.plan import Plan
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.metrics.flops import full_pass_flops, projector_flops, trace_flops
from vtc_cli.metrics.information import information_kept
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.models.llava_next_video import random_llava_next_video
from vtc_cli.models.llava_onevision import random_llava_onevision
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.counting import PromptCounts, count_plan
from vtc_cli.stages.metok import EventPool, EventPrune, ShallowCache

FRAMES, DEPTH, FORCED = 9, 6, [7, 11, 13, 17, 19, 23, 29, 31, 37, 41]
SIZES: dict[str, Any] = {"width": 64, "vision_layers": 2, "decoder_layers": DEPTH}
POOL = EventPool(cuts=2, key_events=1, key_frames=1)  # strides 2, 4 and 8 all come up


@dataclass(frozen=True)
class Family:
    """A family at its published tokens a frame: patches a side, own tokens, newlines."""

    build: Callable[..., Adapter]
    side: int
    own: int
    newlines: int
    kept: dict[int, int]


FAMILIES = {
    "llava_onevision": Family(random_llava_onevision, 27, 196, 1, {2: 169, 4: 36, 8: 9}),
    "llava_next_video": Family(random_llava_next_video, 24, 144, 0, {2: 144, 4: 36, 8: 9}),
}


@dataclass(frozen=True, kw_only=True)
class KeepUnpooled(EncoderStage):
    """Takes the place of the pooling and keeps every token."""

    before_pooling: bool = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.identity(len(tokens), tokens.features.device)


@dataclass(frozen=True, kw_only=True)
class Halve(EncoderStage):
    """Keeps the first half and what is protected, and says so in numbers."""

    before_pooling: bool = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        half = torch.arange(len(tokens)) < len(tokens) // 2
        return Decision.prune((half | tokens.protected).nonzero()[:, 0], len(tokens))

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        return counts.left(counts.tokens // 2 + counts.protected)


@dataclass(frozen=True, kw_only=True)
class Attended(EncoderStage):
    """Scores tokens by the attention that their patches receive, and keeps all."""

    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention", "vision_features"})
    before_pooling: bool = True

    @property
    def watched_layers(self) -> tuple[int, ...]:
        return (1,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        assert len(signals.vision_features()) == len(tokens)
        return Decision.identity(
            len(tokens), tokens.features.device, scores=signals.vision_received_attention(1)
        )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def adapter(family: Family) -> Adapter:
    adapter = family.build(3, **SIZES)
    adapter.decoder.config.max_position_embeddings = 32768  # unpooled clips are long
    adapter.model.generation_config.eos_token_id = None
    return adapter


@pytest.fixture(scope="module")
def prompt(adapter: Adapter) -> Prompt:
    return adapter.prepare(shown_media("video", 5, 60, 80, FRAMES), QUESTION)


@pytest.fixture(scope="module")
def projected(adapter: Adapter, prompt: Prompt) -> Tensor:
    """(F, P, d) by the library's tower and projector alone."""
    model, config = adapter.model.model, adapter.model.config
    pixels = prompt.encoder_inputs["pixel_values_videos"][0]
    with torch.inference_mode():
        states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
        rows = states[config.vision_feature_layer][:, adapter.shape.class_tokens :]
        return model.multi_modal_projector(rows)  # type: ignore[no-any-return]


def metok(**options: Any) -> Plan:
    prune = EventPrune(layers=LAYERS)
    return plan_of(POOL, prune, ShallowCache(first_layer=LAYERS[0]), **options)


def run(adapter: Adapter, prompt: Prompt, plan: Plan) -> tuple[Trace, Tensor]:
    generation = Generation(forced=tuple(FORCED))
    trace, decoded = family_session(adapter)._pass(Request(prompt, plan, generation))
    return trace, torch.stack(decoded.logits)


def numpy_average(frame: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """Means of whole stride x stride blocks; what is left at the right and below is in none."""
    whole = frame.shape[0] // stride * stride
    cut = frame[:whole, :whole].reshape(whole // stride, stride, whole // stride, stride, -1)
    return cut.mean(axis=(1, 3)).reshape(-1, frame.shape[-1])


def numpy_bilinear(frame: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """ceil(side / stride) points a side, evenly spread, each between its four neighbours."""
    side = frame.shape[0]
    count = -(-side // stride)
    place = np.clip((np.arange(count) + 0.5) * side / count - 0.5, 0, side - 1)
    low = np.floor(place).astype(int)
    high, part = np.minimum(low + 1, side - 1), place - low
    rows = frame[low] * (1 - part)[:, None, None] + frame[high] * part[:, None, None]
    points = rows[:, low] * (1 - part)[None, :, None] + rows[:, high] * part[None, :, None]
    return points.reshape(-1, frame.shape[-1])


def test_the_unpooled_prompt_is_that_of_the_patches(
    adapter: Adapter, family: Family, prompt: Prompt, projected: Tensor
) -> None:
    whole = adapter.unpooled(prompt)
    assert prompt.layout.tokens == FRAMES * family.own + family.newlines
    assert whole.layout.tokens == FRAMES * family.side**2 + family.newlines
    grid = whole.layout.only
    assert (grid.frames, grid.rows, grid.columns) == (FRAMES, family.side, family.side)
    assert len(whole.patch_boxes) == whole.layout.tokens == len(whole.visual_index)
    text = prompt.prompt_tokens - prompt.layout.tokens
    assert whole.prompt_tokens == whole.layout.tokens + text
    assert whole.pooled is prompt and adapter.unpooled(whole) is whole
    with torch.inference_mode():
        features = adapter.encode(whole).features
        own = adapter.encode(prompt).features
    rows = projected.flatten(0, 1)
    close(features[: len(rows)], rows, model=adapter)
    assert torch.equal(features[len(rows) :], own[len(own) - family.newlines :])  # the newline


def test_pooled_frames_are_those_of_numpy(
    adapter: Adapter, family: Family, prompt: Prompt, projected: Tensor
) -> None:
    stride_of = {count: stride for stride, count in family.kept.items()}
    frames = projected.double().numpy().reshape(FRAMES, family.side, family.side, -1)
    for mode, pooled in (("average", numpy_average), ("bilinear", numpy_bilinear)):
        stage = replace(POOL, pooling=mode)
        if mode == "bilinear":
            stride_of = {(-(-family.side // stride)) ** 2: stride for stride in family.kept}
        table = family_session(adapter).compress(prompt, plan_of(stage)).entering
        patches = len(table) - family.newlines
        counts = torch.bincount(table.frame[:patches], minlength=FRAMES).tolist()
        assert set(counts) == set(stride_of), counts
        expected = [pooled(frames[at], stride_of[count]) for at, count in enumerate(counts)]
        np.testing.assert_allclose(
            table.features[:patches].numpy(), np.concatenate(expected), rtol=1e-5, atol=1e-6
        )
        assert table.protected.tolist() == [False] * patches + [True] * family.newlines


@pytest.mark.parametrize("positions", ["entered", "original"])
def test_the_decoder_equals_the_masked_model(
    adapter: Adapter, prompt: Prompt, positions: Any
) -> None:
    plan = metok(positions=positions)
    trace, ours = run(adapter, prompt, plan)
    encoded, entry = encoded_by(adapter, adapter.unpooled(prompt), plan)  # type: ignore[arg-type]
    masked = masked_logits(adapter, encoded, entry, hidden_by(trace, entry), FORCED)  # type: ignore[arg-type]
    close(ours, masked, model=adapter)
    unpruned = masked_logits(adapter, encoded, entry, Hidden(), FORCED)  # type: ignore[arg-type]
    assert float((ours - unpruned).abs().max()) > 1e-2


@contextmanager
def without_pooling(model: Any) -> Iterator[None]:
    """The library's model whose frames are not pooled."""
    if hasattr(model, "apply_pooling"):
        model.apply_pooling = lambda features: features
        yield
        del model.apply_pooling
    else:
        pool, model.vision_resampler = model.vision_resampler, nn.Identity()
        yield
        model.vision_resampler = pool


def test_keeping_all_is_the_library_without_its_pooling(adapter: Adapter, prompt: Prompt) -> None:
    """Bit for bit: the library's own forward over the longer prompt."""
    _, ours = run(adapter, prompt, plan_of(KeepUnpooled()))
    with without_pooling(adapter.model.model):
        library = own_logits(adapter, adapter.unpooled(prompt), FORCED)
    assert torch.equal(ours, library)


@pytest.mark.parametrize("name", ["llava_next_video siglip layers", "llava_onevision layers"])
def test_frames_of_several_tower_layers_are_unpooled_too(name: str) -> None:
    adapter = small_family(name)
    prompt = adapter.prepare(shown_media("video", 5, 60, 80, 4), QUESTION)
    _, ours = run(adapter, prompt, plan_of(KeepUnpooled()))
    with without_pooling(adapter.model.model):
        library = own_logits(adapter, adapter.unpooled(prompt), FORCED)
    assert torch.equal(ours, library)


def test_who_does_not_ask_gets_the_family_s_own_tokens(adapter: Adapter, prompt: Prompt) -> None:
    full, logits = run(adapter, prompt, Plan("full"))
    for stage in (KeepUnpooled(before_pooling=False), replace(POOL, before_pooling=False)):
        trace, _ = run(adapter, prompt, plan_of(stage))
        assert trace.layout == full.layout == prompt.layout and trace.full_prompt is None
        assert trace.records[0].before == prompt.layout.tokens
    _, kept = run(adapter, prompt, plan_of(KeepUnpooled(before_pooling=False)))
    assert torch.equal(kept, logits) and torch.equal(logits, own_logits(adapter, prompt, FORCED))


def test_savings_are_those_over_the_pooled_model(
    adapter: Adapter, family: Family, prompt: Prompt
) -> None:
    session = family_session(adapter)
    once = Generation(max_new_tokens=1)
    full = session.run(prompt, Plan("full"), once, capture=True)
    trace = session.run(prompt, metok(positions="entered"), once, capture=True)
    assert token_counts(trace).original == full.original_tokens == prompt.layout.tokens
    assert trace.original_tokens == FRAMES * family.side**2 + family.newlines
    assert full_pass_flops(trace) == trace_flops(full) == full_pass_flops(full)
    assert trace.text_tokens == full.text_tokens
    unpooled = projector_flops(adapter.shape, FRAMES * family.side**2)
    assert trace_flops(trace).projector == unpooled
    before = {"llava_onevision": 1, "llava_next_video": 4}  # its projector reads pooled rows
    assert trace_flops(full).projector * before[adapter.family] == unpooled
    assert information_kept(trace, full) is None  # no token is made of the full model's
    # p0 V1 / (L V0) of the cache is visual, V0 the pooled model's; the newline stays in all layers
    visual = sum(trace.kv_entries) - DEPTH * trace.text_tokens
    entering = trace.visual_tokens[0]
    deep = (DEPTH - LAYERS[0]) * family.newlines
    assert visual == LAYERS[0] * entering + deep
    assert trace.kv_bytes / full.kv_bytes == pytest.approx(
        (visual + DEPTH * trace.text_tokens) / (DEPTH * full.prompt_tokens)
    )


def test_more_tokens_than_the_full_model_has_are_counted_as_they_are(
    adapter: Adapter, family: Family, prompt: Prompt
) -> None:
    plan = plan_of(replace(POOL, key_strides=(1, 1), other_strides=(1, 1)))
    counts = token_counts(run(adapter, prompt, plan)[0])
    assert counts.entering == FRAMES * family.side**2 + family.newlines > counts.original
    assert counts.layer_average == counts.entering == counts.final


def test_signals_of_the_tower_are_those_of_the_patches(
    adapter: Adapter, family: Family, prompt: Prompt
) -> None:
    """The family's own tokens have the same attention pooled by the library's functions."""
    session, scores = family_session(adapter), {}
    for before in (True, False):
        done = session.compress(prompt, plan_of(Attended(before_pooling=before)))
        scores[before] = done.trace.records[0].decision.scores
    whole = scores[True][: FRAMES * family.side**2].reshape(FRAMES, -1, 1)
    model = adapter.model.model
    if adapter.family == "llava_onevision":
        expected = model.apply_pooling(whole)
    else:
        frames = whole.reshape(FRAMES, 1, family.side, family.side)
        expected = nn.functional.avg_pool2d(frames, 2)
    own = scores[False][: FRAMES * family.own]
    close(own, expected.flatten(), model=adapter)
    assert scores[True][len(whole.flatten()) :].tolist() == [0.0] * family.newlines


def test_boxes_of_patches_tile_those_of_tokens() -> None:
    """LLaVA-NeXT-Video: a token is the mean of 2 x 2 patches, so its box holds theirs."""
    adapter = small_family("llava_next_video")
    prompt = case_prompt(adapter, CASES["llava_next_video"])
    own, whole = prompt.patch_boxes, adapter.unpooled(prompt).patch_boxes
    blocks = whole.reshape(4, 3, 2, 3, 2, 4)
    corners = [blocks[..., :2].min(axis=(2, 4)), blocks[..., 2:].max(axis=(2, 4))]
    np.testing.assert_allclose(np.concatenate(corners, axis=-1).reshape(-1, 4), own)


def test_boxes_of_unpooled_frames_by_hand() -> None:
    """3 x 3 patches of 14 pixels in 44: the last two pixels are in no patch."""
    adapter = small_family("llava_onevision")
    prompt = adapter.prepare(shown_media("video", 1, 88, 44), QUESTION)
    boxes = adapter.unpooled(prompt).patch_boxes
    assert boxes.shape == (4 * 9 + 1, 4) and not boxes[-1].any()
    np.testing.assert_allclose(boxes[0], [0, 0, 14, 28])
    np.testing.assert_allclose(boxes[9 + 5], [28, 28, 42, 56])


def test_a_picture_beside_a_video_stays_whole_and_each_meets_its_share() -> None:
    """Shares of a budget go by the tokens that the full model has of each."""
    adapter = small_family("llava_onevision")
    prompt = case_prompt(adapter, CASES["llava_onevision both"])
    own = prompt.layout
    whole = adapter.unpooled(prompt)
    assert whole.layout.tokens_of(1) == own.tokens_of(1)
    assert whole.layout.tokens_of(0) == 4 * 9 + 1 and own.tokens_of(0) == 4 * 4 + 1
    layers, budget = (1, 2, 4), 0.6 * own.tokens
    pool = EventPool(key_strides=(1, 1), other_strides=(1, 1))
    plan = plan_of(
        pool,
        EventPrune(layers=layers),
        positions="entered",
        budget=LayerBudget(budget, DEPTH, layers),
        requested=budget,
    )
    trace = family_session(adapter).run(prompt, plan, Generation(max_new_tokens=1))
    video, picture = token_counts(trace).by_span
    assert (video.original, picture.original) == (own.tokens_of(0), own.tokens_of(1))
    assert (video.entering, picture.entering) == (37, own.tokens_of(1))
    for span in (video, picture):
        assert span.requested == pytest.approx(0.6 * span.original)
        assert abs(span.layer_average - span.requested) <= 0.5  # type: ignore[operator]


def test_the_clip_may_be_shown_to_a_family_that_joins_patches_itself() -> None:
    """Nothing is unpooled there: the prompt is the same object."""
    for name in ("internvl", "smolvlm"):
        adapter = small_family(name)
        prompt = adapter.prepare(shown_media("image"), QUESTION)
        assert adapter.unpooled(prompt) is prompt


def test_arithmetic_counts_the_unpooled_tokens(adapter: Adapter, prompt: Prompt) -> None:
    plan = plan_of(Halve())
    layout = prompt.layout
    text = prompt.prompt_tokens - layout.tokens
    known = PromptCounts(layout, text, True, adapter.unpooled(prompt).layout)
    counted = count_plan(plan, known, DEPTH)
    trace, _ = run(adapter, prompt, plan)
    assert list(counted.visual_tokens) == trace.visual_tokens
    assert list(counted.kv_entries) == trace.kv_entries
