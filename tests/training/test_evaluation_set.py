"""The evaluation set is what its generator makes, and its seeds are its own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from training.data import SAMPLE_SEEDS, TEST_SEEDS, TRAIN_SEEDS
from training.evaluation_set import EACH, EVALUATION_SEEDS, evaluation_items
from training.questions import CATEGORIES
from vtc_cli.media.items import read_items

FOLDER = Path(__file__).parents[2] / "samples" / "eval"


def test_the_shipped_items_are_those_of_the_generator() -> None:
    items = read_items(FOLDER / "items.jsonl")
    assert len(items) == EACH * len(CATEGORIES) == 400
    for item, made in zip(items, islice(evaluation_items(), 30), strict=False):
        assert (item.id, item.question, item.answer, item.category) == (
            made.name,
            made.question.text,
            made.question.answer,
            made.question.category,
        )
        with Image.open(item.media) as shipped:
            assert np.array_equal(np.asarray(shipped.convert("RGB")), np.asarray(made.picture))


def test_every_category_has_its_share_and_its_pictures() -> None:
    items = read_items(FOLDER / "items.jsonl")
    for category in CATEGORIES:
        assert sum(item.category == category for item in items) == EACH
    assert len({item.media for item in items}) == 400


def test_its_seeds_are_used_for_nothing_else() -> None:
    for other in (TRAIN_SEEDS, TEST_SEEDS, SAMPLE_SEEDS):
        assert EVALUATION_SEEDS.start >= other.stop or EVALUATION_SEEDS.stop <= other.start
