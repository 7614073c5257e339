"""METok over several frames, all three phases at once, against the mask oracle.

The small LLaVA takes each frame as a picture of its own. The engine's pooled features enter the
untouched model through its public arguments; from there on the oracle only masks. Prefill and ten
decode steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.support import (
    QUESTION,
    STEPS,
    Hidden,
    encoded_by,
    masked_logits,
    noise_media,
    plain_logits,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.errors import SignalError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.relevance import SOURCE, own_relevance
from vtc_cli.engine.sequence import Entry
from vtc_cli.metrics.layers import layer_observer
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt, Seen
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve
from vtc_cli.stages.metok import EventPool, EventPrune, ShallowCache

FRAMES, SIDE, DEPTH = 9, 6, 6
PER_FRAME = SIDE * SIDE
LAYERS = (2, 3, 4)
POOL = EventPool(key_frames=1)


class FramesAdapter(LlavaAdapter):
    """Every frame of a media goes through the tower as a picture."""

    takes = frozenset({"image", "video"})

    def see(self, media: Media) -> Seen:
        pictures = [replace(media, frames=frame[None], kind="image") for frame in media.frames]
        parts = [super(FramesAdapter, self).see(picture) for picture in pictures]
        first, count = parts[0], len(parts)
        return replace(
            first,
            grids=(replace(first.grids[0], frames=count),),
            tower=(replace(first.tower[0], count=count),),
            inputs={"pixel_values": torch.cat([part.inputs["pixel_values"] for part in parts])},
            boxes=np.tile(first.boxes, (count, 1)),
            text=first.text * count,
        )


@pytest.fixture(scope="module")
def adapter() -> FramesAdapter:
    small = small_adapter()
    return FramesAdapter(small.model, small.processor)


def clip(frames: int) -> Media:
    media = noise_media(1)
    pixels = np.concatenate([noise_media(seed).frames for seed in range(frames)])
    return replace(media, frames=pixels, kind="video", timestamps=tuple(map(float, range(frames))))


@pytest.fixture(scope="module")
def prompt(adapter: FramesAdapter) -> Prompt:
    return adapter.prepare(clip(FRAMES), QUESTION)


@pytest.fixture(scope="module")
def forced(adapter: FramesAdapter, prompt: Prompt) -> list[int]:
    full, _ = session_of(adapter)._pass(
        Request(prompt, Plan("full"), Generation(max_new_tokens=STEPS))
    )
    return full.answer_ids


def metok(last_keep: float = 0.0, **options: Any) -> Plan:
    prune = EventPrune(layers=LAYERS, last_keep=last_keep)
    return plan_of(POOL, prune, ShallowCache(first_layer=LAYERS[0]), **options)


def run(
    adapter: FramesAdapter, prompt: Prompt, plan: Plan, forced: list[int]
) -> tuple[Trace, Tensor]:
    trace, decoded = session_of(adapter)._pass(
        Request(prompt, plan, Generation(forced=tuple(forced)))
    )
    return trace, torch.stack(decoded.logits)


def hidden_by(trace: Trace, entry: Entry) -> Hidden:
    """In the prefill what each layer no longer has; while decoding what no layer has at the end."""
    anchors = entry.sequence.table.anchor.tolist()
    place = dict(zip(anchors, entry.sequence.visual.tolist(), strict=True))

    def columns(alive: Tensor) -> Tensor:
        flags = torch.zeros(int(entry.input_ids.shape[1]), dtype=torch.bool)
        flags[entry.sequence.visual] = True
        flags[[place[int(anchor)] for anchor in alive]] = False
        return flags

    alive, hidden = entry.sequence.table.anchor, Hidden()
    at = {record.layer: record.anchor for record in trace.records if record.phase == "prefill"}
    for layer in range(DEPTH):
        alive = at.get(layer, alive)
        hidden.prefill[layer] = columns(alive)
    for layer in range(DEPTH):
        seen = columns(alive) if layer >= LAYERS[0] else hidden.prefill[layer]
        hidden.decode[layer] = seen.expand(STEPS, 2, -1)
    return hidden


PLANS = {
    "as published": metok(positions="entered"),
    "original positions": metok(),
    "some tokens stay": metok(0.4, positions="entered"),
    "budget": metok(positions="entered", budget=LayerBudget(17.0, DEPTH, LAYERS), requested=17.0),
}


@pytest.mark.parametrize("name", PLANS)
def test_all_three_phases_equal_the_masked_model(
    adapter: FramesAdapter, prompt: Prompt, forced: list[int], name: str
) -> None:
    plan = PLANS[name]
    trace, ours = run(adapter, prompt, plan, forced)
    encoded, entry = encoded_by(adapter, prompt, plan)
    masked = masked_logits(adapter, encoded, entry, hidden_by(trace, entry), forced)
    close(ours, masked, model=adapter)
    unpruned = masked_logits(adapter, encoded, entry, Hidden(), forced)
    assert float((ours - unpruned).abs().max()) > 1e-2
    if name == "budget":
        assert abs(sum(trace.visual_tokens) / DEPTH - 17.0) <= 0.5


def test_the_frames_adapter_is_the_library_s_own_model(
    adapter: FramesAdapter, prompt: Prompt, forced: list[int]
) -> None:
    _, ours = run(adapter, prompt, Plan("full"), forced)
    assert torch.equal(ours, plain_logits(adapter, prompt, forced))


def test_the_cache_holds_the_video_in_the_first_layers_only(
    adapter: FramesAdapter, prompt: Prompt, forced: list[int]
) -> None:
    trace, _ = run(adapter, prompt, PLANS["as published"], forced)
    text, entering = trace.text_tokens, trace.visual_tokens[0]
    assert trace.kv_entries == [text + entering] * 2 + [text] * 4
    assert trace.final_kv_entries == [text + entering + STEPS - 1] * 2 + [text + STEPS - 1] * 4
    visual = sum(trace.kv_entries) - DEPTH * text
    assert visual / (DEPTH * FRAMES * PER_FRAME) == pytest.approx(
        2 * entering / (FRAMES * PER_FRAME) / DEPTH  # p0 V1 / (L V0)
    )
    itemsize, head_dim, heads = 4, 16, 2
    assert trace.kv_bytes == sum(2 * heads * head_dim * itemsize * int(n) for n in trace.kv_entries)


def test_counts_fall_and_text_stays(
    adapter: FramesAdapter, prompt: Prompt, forced: list[int]
) -> None:
    trace, _ = run(adapter, prompt, PLANS["as published"], forced)
    counts = trace.visual_tokens
    assert counts == sorted(counts, reverse=True) and counts[4:] == [0, 0]
    assert counts[0] > counts[2] > counts[3] > 0
    assert trace.sequence_tokens == [trace.text_tokens + count for count in counts]
    for record in trace.records:
        assert record.anchor.tolist() == sorted(record.anchor.tolist())
    assert trace.records[0].decision.note.endswith(f"relevance from {SOURCE}")


def test_positions_are_counted_once_behind_the_pooling(
    adapter: FramesAdapter, prompt: Prompt
) -> None:
    plan = PLANS["as published"]
    encoded, entry = encoded_by(adapter, prompt, plan)
    text = prompt.prompt_tokens - FRAMES * PER_FRAME
    count = text + len(encoded.table)
    assert entry.position_ids[0].tolist() == list(range(count))
    assert int(entry.next_position) == count  # s + V1 + T
    _, kept = encoded_by(adapter, prompt, PLANS["original positions"])
    visual = kept.position_ids[0, kept.sequence.visual]
    assert torch.equal(visual, prompt.visual_index[encoded.table.anchor])
    assert int(kept.next_position) == prompt.prompt_tokens


def test_several_axes_of_positions_are_not_counted_anew(
    adapter: FramesAdapter, prompt: Prompt
) -> None:
    from vtc_cli.engine.session import _counts_anew

    axes = replace(prompt, position_ids=prompt.position_ids.expand(3, 1, -1))
    entered, anew = metok(positions="entered"), metok(positions="renumbered")
    assert _counts_anew(entered, prompt) and not _counts_anew(entered, axes)
    assert _counts_anew(anew, prompt) and _counts_anew(anew, axes)
    assert not _counts_anew(metok(), prompt)


def test_events_and_keys_travel_to_the_decoder(adapter: FramesAdapter, prompt: Prompt) -> None:
    encoded, _ = encoded_by(adapter, prompt, PLANS["as published"])
    table = encoded.table
    assert table.segment.unique().tolist() == [0, 1, 2, 3, 4]
    assert len(table.segment[table.key].unique()) == 3
    for event in range(5):
        frames = table.frame[table.segment == event].unique().tolist()
        assert frames == list(range(frames[0], frames[-1] + 1))
    per_frame = torch.bincount(table.frame, minlength=FRAMES).tolist()
    assert set(per_frame) <= {9, 1}


def test_layers_without_a_visual_token_can_be_looked_at(
    adapter: FramesAdapter, prompt: Prompt
) -> None:
    trace = session_of(adapter).run(
        prompt,
        PLANS["as published"],
        Generation(max_new_tokens=2),
        observer=layer_observer("hidden"),
    )
    last = trace.observed[-1]
    assert (last.tokens, last.ranks, last.attention_entropy) == (0, None, None)
    assert last.attention_mass == 0.0
    assert trace.observed[3].tokens > 0 and trace.observed[3].attention_entropy > 0


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_short_clips_run_under_the_shipped_recipe(adapter: FramesAdapter, frames: int) -> None:
    prompt = adapter.prepare(clip(frames), QUESTION)
    plan = resolve(
        load_recipe("metok"),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=frames * PER_FRAME,
    )
    assert plan.positions == "entered"
    assert plan.prefill[0].stage.layers == (1, 2, 4)
    assert plan.decode[0].stage.first_layer == 1
    trace = session_of(adapter).run(prompt, plan, Generation(max_new_tokens=3))
    details = trace.records[0].decision.details
    assert frames == 1 or details["events"] == frames
    assert (
        trace.kv_entries == [trace.text_tokens + trace.visual_tokens[0]] + [trace.text_tokens] * 5
    )


def test_a_prompt_that_ends_with_the_video_is_told_so(
    adapter: FramesAdapter, prompt: Prompt
) -> None:
    """No text: all frames are equally relevant, and no row can rank what lies before it."""
    end = int(prompt.visual_index[-1]) + 1
    bare = replace(
        prompt, input_ids=prompt.input_ids[:, :end], position_ids=prompt.position_ids[:, :end]
    )
    encoded, _ = encoded_by(adapter, bare, metok())
    assert encoded.table.segment[encoded.table.key].unique().tolist() == [0, 1, 2]
    with pytest.raises(SignalError, match="no text follows the visual tokens"):
        session_of(adapter).run(bare, metok(), Generation(max_new_tokens=1))


def test_the_question_moves_what_is_key(adapter: FramesAdapter) -> None:
    media = clip(20)
    chosen = set()
    for question in ("zzzz", "what is on the left?", "AB 12", "how many?"):
        encoded, _ = encoded_by(adapter, adapter.prepare(media, question), PLANS["as published"])
        chosen.add(tuple(encoded.table.anchor.tolist()))
    assert len(chosen) > 1


# relevance


def test_the_text_vector_is_the_largest_of_its_chunks() -> None:
    """Three chunks of 64, 64 and 2 tokens, in numpy."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(12, 5)).astype(np.float32)
    frame = np.array([0, 0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 3])
    text = generator.normal(size=(130, 5)).astype(np.float32)
    words = np.max([text[:64].mean(0), text[64:128].mean(0), text[128:].mean(0)], axis=0)
    expected = np.zeros(4)
    for number in (0, 2, 3):  # no row of frame 1 is left
        mean = features[frame == number].mean(0)
        expected[number] = mean @ words / np.linalg.norm(mean) / np.linalg.norm(words)
    produced = own_relevance(*map(torch.from_numpy, (features, frame)), 4, torch.from_numpy(text))
    close(produced.value, expected, terms=64)
    assert produced.source == SOURCE and produced.flops > 0


def test_an_empty_text_makes_all_frames_equal() -> None:
    features, frame = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    assert own_relevance(features, frame, 3, torch.zeros(0, 4)).value.tolist() == [0.0, 0.0, 0.0]
