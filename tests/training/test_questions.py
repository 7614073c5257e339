"""Answers follow from the scene, and the tokenizer knows every word."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from transformers import PreTrainedTokenizerFast

from training.easy_data import read_split
from training.packing import encode
from training.questions import CATEGORIES, MAKERS, Question, describe, is_right, named_things
from training.scenes import COLOUR_NAMES, SHAPES, Scene, compose
from training.templates import CELLS, PLURALS, split_words
from training.tokenizer import UNKNOWN, build_tokenizer


def questions(category: str, count: int) -> list[tuple[Scene, Question]]:
    rng = random.Random(1)
    pairs = ((scene, MAKERS[category](scene, rng)) for scene in map(compose, range(count)))
    return [(scene, question) for scene, question in pairs if question is not None]


def named_items(scene: Scene, question: Question) -> list[int]:
    """Places of the items that have every colour and shape named in a question."""
    words = {"gray" if word == "grey" else word for word in split_words(question.text)}
    return [
        index
        for index, item in enumerate(scene.items)
        if words & {*COLOUR_NAMES} <= {item.colour} and words & {*SHAPES} <= {item.shape}
    ]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_counts_equal_the_number_of_items() -> None:
    for scene, question in questions("count", 200):
        shapes = [shape for shape, plural in PLURALS.items() if plural in question.text]
        items = [item for item in scene.items if item.shape in (shapes or SHAPES)]
        assert question.answer == str(len(items))


def test_presence_agrees_with_the_items() -> None:
    for scene, question in questions("presence", 300):
        words = split_words(question.text)
        there = scene.digit is not None if "digit" in words else bool(named_items(scene, question))
        negated = "not" in words or "no" in words
        assert (question.answer == "yes") == (there != negated), question


@pytest.mark.parametrize("category", ["color", "shape", "place"])
def test_what_is_asked_for_is_named_without_ambiguity(category: str) -> None:
    for scene, question in questions(category, 200):
        if not question.mentions or "at the" in question.text or "in the c" in question.text:
            continue
        (index,) = named_items(scene, question)
        item = scene.items[index]
        assert question.answer in (item.colour, item.shape, CELLS[item.cell])


def test_relations_agree_with_the_drawn_places() -> None:
    for _, question in questions("relation", 300):
        one, two = question.mentions
        assert one is not None and two is not None
        words = split_words(question.text)
        holds = {
            "left": one.x < two.x,
            "right": one.x > two.x,
            "above": one.y < two.y,
            "below": one.y > two.y,
        }
        if question.answer in holds:
            assert holds[question.answer]
        else:
            (relation,) = [word for word in holds if word in words]
            assert (question.answer == "yes") == holds[relation]


def test_digits_are_read_and_only_where_there_are_any() -> None:
    asked = questions("digit", 200)
    assert all(scene.digit and scene.digit.value == question.answer for scene, question in asked)
    assert len(asked) == sum(compose(seed).digit is not None for seed in range(200))


def test_descriptions_name_everything_in_reading_order() -> None:
    for scene in map(compose, range(100)):
        sentence = describe(scene)
        things = {f"{item.colour} {item.shape}" for item in scene.items}
        things |= {scene.digit.value} if scene.digit else set()
        assert named_things(sentence) == things
        places = [sentence.index(f"{item.colour} {item.shape}") for item in scene.items]
        assert places == sorted(places)


def test_yes_and_no_are_balanced() -> None:
    for category in ("presence", "relation"):
        answers = Counter(question.answer for _, question in questions(category, 1000))
        assert 0.43 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.57


def test_a_description_is_right_by_what_it_names() -> None:
    question = Question(
        "describe the image.", "a red circle at the top and the digit 3.", "description"
    )
    assert is_right(question, "a red circle in the center and the digit 3.")
    assert not is_right(question, "a red circle at the top.")
    assert not is_right(question, "a red cross at the top and the digit 3.")


def test_the_tokenizer_knows_and_restores_every_word(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [pair for category in CATEGORIES for pair in questions(category, 60)]
    for _, question in pairs:
        assert UNKNOWN not in tokenizer(question.text)["input_ids"]
        answer = tokenizer(question.answer)["input_ids"]
        assert tokenizer.decode(answer) == question.answer


def test_the_tokenizer_knows_every_easy_vqa_question(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [pair for source in read_split("test") for pair in source.pairs]
    texts = sorted({text for pair in pairs for text in pair})
    assert len(pairs) == 9673
    assert all(UNKNOWN not in tokenizer(text)["input_ids"] for text in texts)


def test_training_encodes_as_the_tokenizer_does(tokenizer: PreTrainedTokenizerFast) -> None:
    for category in CATEGORIES:
        for _, question in questions(category, 30):
            assert encode(question.marked)[0] == tokenizer(question.text)["input_ids"]
