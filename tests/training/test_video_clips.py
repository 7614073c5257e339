"""Clips follow from their seed, and what they say agrees with what their pixels show."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from training.data import SAMPLE_SEEDS as PICTURE_SAMPLES
from training.data import TEST_SEEDS as PICTURE_TEST
from training.data import TRAIN_SEEDS as PICTURE_TRAIN
from training.evaluation_set import EVALUATION_SEEDS
from training.scenes import COLOURS, DIGIT_MARK
from training.video.clips import (
    FRAMES,
    Clip,
    compose_clip,
    draw_clip,
    frame_marks,
    reversed_clip,
    thinned_clip,
)
from training.video.data import SAMPLE_SEEDS, TEST_SEEDS, TRAIN_SEEDS, token_marks

SEEDS = range(30)


@dataclass
class Sight:
    """What the pixels of a clip show of one colour: by frame, the middle of the patch."""

    frames: list[int]
    columns: list[float]


def nearest_name(pixel: np.ndarray) -> str:
    def distance(name: str) -> float:
        first, second = (np.array(anchor, float) for anchor in COLOURS[name])
        points = first + np.linspace(0, 1, 21)[:, None] * (second - first)
        return float(np.linalg.norm(points - pixel, axis=1).min())

    return min(COLOURS, key=distance)


def sight_of(frames: np.ndarray, rgb: tuple[int, int, int]) -> Sight:
    """Where pixels of exactly this value are: more than a few of them in a frame."""
    found = Sight([], [])
    for number, frame in enumerate(frames):
        columns = np.nonzero((frame == np.array(rgb)).all(-1))[1]
        if len(columns) > 20:
            found.frames.append(number)
            found.columns.append(float(columns.min() + columns.max()) / 2)
    return found


def pixels(clip: Clip) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in draw_clip(clip)])


@pytest.mark.parametrize("seed", [0, 7, TEST_SEEDS.start])
def test_the_same_seed_gives_the_same_clip_and_pixels(seed: int) -> None:
    one, two = compose_clip(seed), compose_clip(seed)
    assert one == two
    assert np.array_equal(pixels(one), pixels(two))


def test_different_seeds_give_different_clips() -> None:
    assert len({compose_clip(seed).movers for seed in SEEDS}) == len(SEEDS)


def test_no_two_ranges_of_seeds_overlap() -> None:
    pictures = PICTURE_TRAIN, PICTURE_TEST, PICTURE_SAMPLES, EVALUATION_SEEDS
    ranges = sorted(
        (TRAIN_SEEDS, TEST_SEEDS, SAMPLE_SEEDS, *pictures), key=lambda seeds: seeds.start
    )
    assert all(one.stop <= two.start for one, two in itertools.pairwise(ranges))


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_show_every_shape_when_and_where_the_clip_says(seed: int) -> None:
    clip = compose_clip(seed)
    frames = pixels(clip)
    for mover in clip.movers:
        sight = sight_of(frames, mover.rgb)
        assert nearest_name(np.array(mover.rgb, float)) == mover.colour
        assert sight.frames == list(range(mover.entry, mover.leave + 1))
        way = (sight.columns[-1] - sight.columns[0]) / clip.side
        seen = None if abs(way) < 0.02 else "right" if way > 0 else "left"
        assert seen == mover.direction
        assert seen is None or abs(way) > 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_the_digit_is_in_one_frame_and_covers_no_shape(seed: int) -> None:
    clip = compose_clip(seed)
    if clip.digit is None:
        return
    bare = replace(clip, digit=None)
    ink = (pixels(clip) != pixels(bare)).any(-1)
    assert np.nonzero(ink.any((1, 2)))[0].tolist() == [clip.flash]
    marks = np.asarray(frame_marks(bare, clip.flash))
    assert ink[clip.flash].sum() > 20
    assert not (ink[clip.flash] & (marks > 0)).any()


def test_the_ground_stands_still() -> None:
    for seed in SEEDS:
        clip = compose_clip(seed)
        frames = pixels(clip)
        marks = np.stack([np.asarray(frame_marks(clip, frame)) for frame in range(FRAMES)])
        bare = (marks == 0).all(0)
        assert (frames[:, bare] == frames[0, bare]).mean() > 0.999


def test_shapes_appear_at_different_frames_in_order_and_never_overlap() -> None:
    for seed in range(200):
        clip = compose_clip(seed)
        entries = [mover.entry for mover in clip.movers]
        assert entries == sorted(set(entries))
        assert all(mover.leave - mover.entry >= 2 for mover in clip.movers)
        rows = sorted((mover.y - mover.radius, mover.y + mover.radius) for mover in clip.movers)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(rows))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reversed_clip_says_what_the_reversed_frames_show(seed: int) -> None:
    clip = compose_clip(seed)
    turned = reversed_clip(clip)
    assert np.array_equal(pixels(turned), pixels(clip)[::-1])
    assert reversed_clip(turned) == clip


def test_marks_of_tokens_name_what_is_there() -> None:
    for seed in SEEDS:
        clip = compose_clip(seed)
        for frame in range(FRAMES):
            expected = {n + 1 for n, mover in enumerate(clip.movers) if mover.seen(frame)}
            if clip.digit and frame == clip.flash:
                expected.add(DIGIT_MARK)
            assert set(token_marks(clip, frame).tolist()) - {0} == expected


def test_numbers_of_shapes_ways_and_digits_are_balanced() -> None:
    clips = [compose_clip(seed) for seed in range(2000)]
    for count in range(1, 5):
        assert 0.21 < np.mean([len(clip.movers) == count for clip in clips]) < 0.29
    movers = [mover for clip in clips for mover in clip.movers]
    ways = [mover.direction for mover in movers]
    assert 0.45 < ways.count("left") / (ways.count("left") + ways.count("right")) < 0.55
    digits = [clip.digit.value for clip in clips if clip.digit]
    assert len(digits) > 1600
    assert all(0.07 < digits.count(str(value)) / len(digits) < 0.13 for value in range(10))
    flashes = [clip.flash for clip in clips]
    assert all(0.09 < flashes.count(frame) / len(flashes) < 0.16 for frame in range(FRAMES))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_some_frames_show_what_the_thinned_clip_says(count: int) -> None:
    rng = random.Random(2)
    for seed in SEEDS:
        clip = compose_clip(seed)
        frames = sorted(rng.sample(range(FRAMES), count))
        thin = thinned_clip(clip, frames)
        assert np.array_equal(pixels(thin), pixels(clip)[frames])
        assert all(mover.way for mover in thin.movers)
