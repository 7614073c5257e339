"""Answers about clips follow from the frames, and the tokenizer knows every word."""

from __future__ import annotations

import random
from collections import Counter

import torch

from tests.tolerance import close
from training.attention import use_plain_attention
from training.evaluate import prior
from training.packing import encode
from training.scenes import COLOUR_NAMES, SHAPES
from training.templates import PLURALS, split_words
from training.tokenizer import UNKNOWN, vocabulary
from training.video.clips import (
    FRAMES,
    Clip,
    compose_clip,
    frame_scene,
    reversed_clip,
)
from training.video.data import FRAME_TOKENS
from training.video.evaluate import exams
from training.video.model import build_video_model, build_video_tokenizer, grown
from training.video.packing import WORDS, pack_clips
from training.video.questions import ASKED, MAKERS, ClipQuestion
from training.video.step import WEIGHTS, kept_places, run_decoder
from training.video.wording import video_vocabulary
from training.vision_phase import TOWER_WIDTH


def asked(category: str, count: int) -> list[tuple[Clip, ClipQuestion]]:
    """Questions on clips, every second one in reverse, where ties may be."""
    rng, found = random.Random(1), []
    for seed in range(count):
        clip = compose_clip(seed)
        clip = reversed_clip(clip) if seed % 2 else clip
        question = MAKERS[category](clip, rng)
        if question is not None:
            found.append((clip, question))
    return found


def diary(clip: Clip) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Per colour and shape the frames in which the drawn scenes hold it, with x."""
    seen: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for frame in range(FRAMES):
        for item in frame_scene(clip, frame).items:
            seen.setdefault((item.colour, item.shape), []).append((frame, item.x))
    return seen


def named(clip: Clip, phrase: str) -> list[tuple[str, str]]:
    """What a phrase can mean: everything that has each colour and shape named in it."""
    words = {"gray" if word == "grey" else word for word in split_words(phrase)}
    return [
        (colour, shape)
        for colour, shape in diary(clip)
        if words & {*COLOUR_NAMES} <= {colour} and words & {*SHAPES} <= {shape}
    ]


def test_first_and_last_are_alone_at_their_frame() -> None:
    for clip, question in asked("order", 300):
        starts = {thing: found[0][0] for thing, found in diary(clip).items()}
        frame = min(starts.values()) if "first" in question.text else max(starts.values())
        ((colour, shape),) = [thing for thing, start in starts.items() if start == frame]
        assert question.answer in (colour, shape)


def test_directions_agree_with_the_drawn_places() -> None:
    for clip, question in asked("motion", 300):
        (thing,) = named(clip, question.text.replace("left or right", ""))
        places = [x for _, x in diary(clip)[thing]]
        way = places[-1] - places[0]
        if question.answer in ("left", "right"):
            assert (way > 0.25) if question.answer == "right" else (way < -0.25)
        else:
            assert (question.answer == "yes") == (abs(way) > 0.25)


def test_counts_equal_the_number_of_different_shapes_drawn() -> None:
    for clip, question in asked("count", 200):
        shapes = [shape for shape, plural in PLURALS.items() if plural in question.text]
        things = [thing for thing in diary(clip) if thing[1] in (shapes or SHAPES)]
        assert question.answer == str(len(things))


def test_the_needle_is_drawn_in_one_frame() -> None:
    for clip, question in asked("needle", 200):
        digits = [frame_scene(clip, frame).digit for frame in range(FRAMES)]
        assert [digit.value for digit in digits if digit] == [question.answer]


def test_before_and_after_agree_with_the_drawn_frames() -> None:
    kinds = Counter[str]()
    for clip, question in asked("before", 600):
        starts = {thing: found[0][0] for thing, found in diary(clip).items()}
        when = "before" if "before" in question.text else "after"
        first, second = question.text.split(when)
        if question.answer in ("yes", "no"):
            (one,), (two,) = named(clip, first), named(clip, second)
            earlier = starts[one] < starts[two]
            assert starts[one] != starts[two]
            assert (question.answer == "yes") == (earlier == (when == "before"))
        else:
            (thing,) = named(clip, second)
            sign = -1 if when == "before" else 1
            gaps = {other: sign * (start - starts[thing]) for other, start in starts.items()}
            nearest = min(gap for gap in gaps.values() if gap > 0)
            ((colour, shape),) = [other for other, gap in gaps.items() if gap == nearest]
            assert question.answer in (colour, f"{colour} {shape}")
        kinds[when] += 1
    assert min(kinds.values()) > 60


def test_looks_agree_with_the_shapes() -> None:
    for clip, question in asked("looks", 300):
        things = named(clip, question.text)
        if question.answer in ("yes", "no"):
            assert (question.answer == "yes") == bool(things)
        else:
            ((colour, shape),) = things
            assert question.answer in (colour, shape)


def test_the_exam_is_balanced_and_its_baseline_is_low() -> None:
    made = exams(1000)
    kinds = Counter(question.category for _, question in made)
    assert kinds == dict.fromkeys(ASKED, 200)
    assert len({clip.seed for clip, _ in made}) == 1000
    bounds = {"order": 0.2, "motion": 0.5, "count": 0.4, "needle": 0.2, "before": 0.3}
    scores = prior([(question, "") for _, question in made])
    assert {kind for kind, bound in bounds.items() if scores[kind]["accuracy"] > bound} == set()


def test_the_tokenizer_knows_every_word_and_training_encodes_as_it_does() -> None:
    tokenizer = build_video_tokenizer()
    for category in MAKERS:
        for _, question in asked(category, 60):
            ids = tokenizer(question.text)["input_ids"]
            assert UNKNOWN not in ids
            assert encode(question.marked, WORDS)[0] == ids
            answer = tokenizer(question.answer)["input_ids"]
            assert tokenizer.decode(answer) == question.answer


def test_words_of_tiny_keep_their_ids_and_rows() -> None:
    old, new = vocabulary(), video_vocabulary()
    assert {word: new[word] for word in old} == old
    assert sorted(new.values()) == list(range(len(new)))
    table = torch.randn(len(old), 8)
    assert torch.equal(grown(table, new)[: len(old)], table)
    assert grown(table, new).shape == (len(new), 8)


def test_shapes_are_kept_before_the_ground() -> None:
    marks = torch.zeros(2, FRAMES, FRAME_TOKENS, dtype=torch.uint8)
    marks[0, 3, 70:80] = 2
    places = kept_places(marks, 12)
    assert places.shape == (2, FRAMES * 12)
    assert torch.equal(places, places.sort(-1).values)
    assert set(range(3 * FRAME_TOKENS + 70, 3 * FRAME_TOKENS + 80)) <= set(places[0].tolist())
    counts = torch.bincount((places[1] // FRAME_TOKENS), minlength=FRAMES)
    assert counts.tolist() == [12] * FRAMES


def test_a_packed_block_equals_the_prompt_alone() -> None:
    """Against the stock model, its own positions and its own mask."""
    torch.manual_seed(0)
    model = build_video_model().eval()
    clip = compose_clip(3)
    batch = pack_clips([clip], 60, random.Random(0), WEIGHTS)
    places = kept_places(torch.zeros(1, FRAMES, FRAME_TOKENS), 4)
    sight = torch.randn(1, places.shape[1], TOWER_WIDTH)
    use_plain_attention(model)
    with torch.no_grad():
        together = run_decoder(model, sight, places, batch)[0][0, batch.blocks[0] == 1]
        model.set_attn_implementation("sdpa")
        embed = model.get_input_embeddings()
        ids = batch.ids[0, batch.blocks[0] == 1]
        start = build_video_tokenizer()("<bos>user:", add_special_tokens=False)["input_ids"]
        parts = embed(torch.tensor(start)), model.model.multi_modal_projector(sight[0]), embed(ids)
        text = len(start) + FRAMES * FRAME_TOKENS + torch.arange(len(ids))
        positions = torch.cat([torch.arange(len(start)), len(start) + places[0], text])
        alone = model.model.language_model(
            inputs_embeds=torch.cat(parts)[None], position_ids=positions[None]
        ).last_hidden_state[0, -len(ids) :]
    sizes = model.config.text_config
    close(together, alone, terms=sizes.intermediate_size, depth=sizes.num_hidden_layers)
