"""Scenes follow from their seed, and what they say agrees with what their pixels show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.data import SAMPLE_SEEDS, TEST_SEEDS, TRAIN_SEEDS, grid_marks, scene_classes
from training.scenes import COLOURS, DIGIT_MARK, Item, Scene, compose, contrast, draw, draw_marks

SEEDS = range(40)


def median_colour(picture: np.ndarray, marks: np.ndarray, mark: int) -> np.ndarray:
    return np.asarray(np.median(picture[marks == mark], axis=0))


def nearest_name(pixel: np.ndarray) -> str:
    """The named colour whose line between anchors passes nearest to a pixel."""

    def distance(name: str) -> float:
        first, second = (np.array(anchor, float) for anchor in COLOURS[name])
        points = first + np.linspace(0, 1, 21)[:, None] * (second - first)
        return float(np.linalg.norm(points - pixel, axis=1).min())

    return min(COLOURS, key=distance)


def filled_part(marks: np.ndarray, mark: int) -> float:
    """The part of its bounding box that an item fills."""
    rows, columns = np.nonzero(marks == mark)
    return len(rows) / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))


@pytest.mark.parametrize("seed", [0, 7, 10_000_003])
def test_the_same_seed_gives_the_same_scene_and_pixels(seed: int) -> None:
    one, two = compose(seed), compose(seed)
    assert one == two
    assert np.array_equal(np.asarray(draw(one)), np.asarray(draw(two)))


def test_different_seeds_give_different_scenes() -> None:
    assert len({compose(seed).items for seed in SEEDS}) == len(SEEDS)


def test_train_test_and_sample_seeds_are_disjoint() -> None:
    ranges = sorted((TRAIN_SEEDS, TEST_SEEDS, SAMPLE_SEEDS), key=lambda seeds: seeds.start)
    assert all(one.stop <= two.start for one, two in itertools.pairwise(ranges))


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_show_the_named_colours(seed: int) -> None:
    scene = compose(seed)
    picture, marks = np.asarray(draw(scene)), np.asarray(draw_marks(scene))
    for index, item in enumerate(scene.items):
        assert nearest_name(median_colour(picture, marks, index + 1)) == item.colour


def test_filled_parts_tell_the_shapes() -> None:
    bounds = {
        "rectangle": (0.97, 1.0),
        "circle": (0.7, 0.88),
        "triangle": (0.4, 0.68),
        "cross": (0.5, 0.68),
    }
    for seed in SEEDS:
        scene = compose(seed, 256)
        marks = np.asarray(draw_marks(scene))
        for index, item in enumerate(scene.items):
            low, high = bounds[item.shape]
            assert low <= filled_part(marks, index + 1) <= high, (seed, item)


def centre_cell(scene: Scene, item: Item) -> int:
    marks = np.asarray(draw_marks(scene))
    rows, columns = np.nonzero(marks == scene.items.index(item) + 1)
    row = (rows.min() + rows.max() + 1) / 2 / scene.height
    column = (columns.min() + columns.max() + 1) / 2 / scene.width
    return int(row * 3) * 3 + int(column * 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_items_lie_in_their_cells_in_reading_order(seed: int) -> None:
    scene = compose(seed)
    cells = [centre_cell(scene, item) for item in scene.items]
    assert cells == [item.cell for item in scene.items] == sorted(set(cells))


@pytest.mark.parametrize("seed", SEEDS)
def test_items_stand_out_from_the_ground(seed: int) -> None:
    scene = compose(seed)
    for item in scene.items:
        assert contrast(item.rgb, scene.ground.first) >= 90
        assert contrast(item.rgb, scene.ground.second) >= 90


def test_patch_marks_and_classes_cover_every_item() -> None:
    for seed in SEEDS:
        scene = compose(seed)
        marks = grid_marks(draw_marks(scene))
        expected = {index + 1 for index in range(len(scene.items))}
        expected |= {DIGIT_MARK} if scene.digit else set()
        assert set(np.unique(marks)) - {0} == expected == set(scene_classes(scene))


def test_some_scenes_are_not_square_and_half_show_a_digit() -> None:
    scenes = [compose(seed) for seed in range(400)]
    assert 40 < sum(scene.width != scene.height for scene in scenes) < 120
    assert 160 < sum(scene.digit is not None for scene in scenes) < 240
