"""The evaluation set is what its generator makes, and its seeds are its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.data import SAMPLE_SEEDS, TEST_SEEDS, TRAIN_SEEDS
from training.evaluation_set import EACH, EVALUATION_SEEDS, evaluation_items
from training.questions import CATEGORIES, Question, is_right
from vtc_cli.media.items import read_items
from vtc_cli.metrics.answers import matches

FOLDER = Path(__file__).parents[2] / "samples" / "eval"


def test_the_shipped_items_are_those_of_the_generator() -> None:
    items = read_items(FOLDER / "items.jsonl")
    assert len(items) == EACH * len(CATEGORIES) == 400
    for item, made in zip(items, evaluation_items(), strict=True):
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
    for start in range(0, 400, len(CATEGORIES)):  # the first few items are of all kinds as well
        assert [item.category for item in items[start : start + len(CATEGORIES)]] == [*CATEGORIES]
    assert len({item.media for item in items}) == 400


def test_the_normalised_rule_judges_as_training_does() -> None:
    """The same verdict on every pair of answers of a category, descriptions apart.

    A description is right for training if it names the right things, and for the rule if it says
    the same words: what the rule calls right, training calls right too.
    """
    items = read_items(FOLDER / "items.jsonl")
    for category in CATEGORIES:
        answers = sorted({item.answer or "" for item in items if item.category == category})
        for expected in answers:
            question = Question("", expected, category)
            for answer in answers:
                for spelled in (answer, f"{answer}.", answer.upper()):
                    mine = matches(spelled, expected, "normalised")
                    theirs = is_right(question, spelled)
                    assert mine == theirs or (category == "description" and theirs)


def test_its_seeds_are_used_for_nothing_else() -> None:
    for other in (TRAIN_SEEDS, TEST_SEEDS, SAMPLE_SEEDS):
        assert EVALUATION_SEEDS.start >= other.stop or EVALUATION_SEEDS.stop <= other.start
