"""Many questions behind one picture: token rows, targets and marks for the language phases.

Every picture's text row holds several question-answer blocks. A block sees the picture and
itself only, and its positions start again right behind the picture, so that a block is worth
as much as a sequence of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.data import Picture
from training.questions import MAKERS, Question
from training.scenes import COLOUR_NAMES, SHAPES, Item, Scene
from training.templates import MARK, SUFFIXES, split_words
from training.tokenizer import EOS, PAD, UNKNOWN, vocabulary

WORDS = vocabulary()
TURN = [WORDS["assistant"], WORDS[":"]]
IGNORED = -100
LONG_WEIGHT = 0.4
EASY_SHARE = 0.7
SUFFIX_SHARE = 0.04
UNKNOWN_SHARE = 0.02
SPARE_WORDS = ("the", "a", "of", "do", "does", "you", "see", "there", "are", "please", "kind")
WEIGHTS = {
    "color": 1.5,
    "shape": 1.5,
    "count": 2.0,
    "presence": 2.5,
    "relation": 5.0,
    "digit": 1.0,
    "place": 1.0,
    "description": 0.7,
}


@dataclass
class Block:
    """One encoded pair: input ids, targets (IGNORED outside the answer) and marks."""

    ids: list[int]
    targets: list[int]
    marks: list[int]
    question: Question


@dataclass
class TextBatch:
    """Rows of blocks; all tensors are (n, length).

    `mentions` has (row, place, scene, item) for every mark, and `pairs` for every question on
    two items (row, place of the second mark, place before the answer, distance in x, in y).
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    blocks: Tensor
    positions: Tensor
    kinds: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    mentions: list[tuple[int, int, Scene, Item | None]] = field(default_factory=list)
    pairs: list[tuple[int, int, int, float, float]] = field(default_factory=list)


def encode(text: str, words: dict[str, int] = WORDS) -> tuple[list[int], list[int]]:
    """Return the ids of a text and the places of its marked words."""
    ids: list[int] = []
    marks: list[int] = []
    for word in split_words(text):
        if word == MARK:
            marks.append(len(ids) - 1)
        else:
            ids.append(words.get(word, UNKNOWN))
    return ids, marks


def encode_pair(question: Question, rng: random.Random, words: dict[str, int] = WORDS) -> Block:
    """Encode a question with its answer; now and then a word is unknown or a suffix added."""
    text = question.marked
    if question.category != "description" and rng.random() < SUFFIX_SHARE:
        text = f"{text} {rng.choice(SUFFIXES)}"
    ids, marks = encode(text, words)
    spare = {WORDS[word] for word in SPARE_WORDS}
    ids = [UNKNOWN if i in spare and rng.random() < UNKNOWN_SHARE else i for i in ids]
    answer = encode(question.answer, words)[0]
    targets = [IGNORED] * (len(ids) + 1) + [*answer, EOS]
    return Block([*ids, *TURN, *answer], targets, marks, question)


def sample_question(picture: Picture, rng: random.Random, weights: dict[str, float]) -> Question:
    """Draw a question on a picture: its own, if it has any, or one made from its scene."""
    if picture.pairs and (picture.scene is None or rng.random() < EASY_SHARE):
        text, answer = rng.choice(picture.pairs)
        return Question(text, answer, "easy")
    assert picture.scene is not None
    while True:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        question = MAKERS[kind](picture.scene, rng)
        if question is not None:
            return question


def pack(
    pictures: list[Picture], length: int, rng: random.Random, weights: dict[str, float]
) -> TextBatch:
    """Fill one row of `length` tokens for each picture with as many pairs as fit."""
    shape = (len(pictures), length)
    batch = TextBatch(
        torch.full(shape, PAD),
        torch.full(shape, IGNORED),
        torch.zeros(shape),
        torch.full(shape, -1),
        torch.zeros(shape, dtype=torch.long),
    )
    for row, picture in enumerate(pictures):
        start, number = 0, 0
        while True:
            block = encode_pair(sample_question(picture, rng, weights), rng)
            if start + len(block.ids) > length:
                break
            _place(batch, row, start, number, block, picture.scene)
            start, number = start + len(block.ids), number + 1
    return batch


def _place(
    batch: TextBatch, row: int, start: int, number: int, block: Block, scene: Scene | None
) -> None:
    """Write a block into its row."""
    end, kind = start + len(block.ids), block.question.category
    batch.ids[row, start:end] = torch.tensor(block.ids)
    batch.targets[row, start:end] = torch.tensor(block.targets)
    batch.weights[row, start:end] = LONG_WEIGHT if kind == "description" else 1.0
    batch.blocks[row, start:end] = number
    batch.positions[row, start:end] = torch.arange(end - start)
    first = start + block.targets.index(next(t for t in block.targets if t != IGNORED))
    batch.kinds.setdefault(kind, []).append((row, first))
    for mark, item in zip(block.marks, block.question.mentions, strict=True):
        assert scene is not None
        batch.mentions.append((row, start + mark, scene, item))
    if len(block.marks) == 2:
        ends = [_mention_target(*mention[2:]) for mention in batch.mentions[-2:]]
        distance = (ends[0][1] - ends[1][1], ends[0][2] - ends[1][2])
        batch.pairs.append((row, start + block.marks[1], first, *distance))


def mention_targets(batch: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows and places of all marks and their targets.

    Targets are (m, 5): whether the item is there, its x and y in the padded square from -1 to
    1, its colour and its shape (the last four are -1 or 0 where the item is absent).
    """
    rows = torch.tensor([mention[0] for mention in batch.mentions])
    places = torch.tensor([mention[1] for mention in batch.mentions])
    targets = torch.tensor([_mention_target(scene, item) for _, _, scene, item in batch.mentions])
    return rows, places, targets


def _mention_target(scene: Scene, item: Item | None) -> tuple[float, float, float, float, float]:
    """Return the target of one mark."""
    if item is None:
        return 0.0, 0.0, 0.0, -1.0, -1.0
    side = max(scene.width, scene.height)
    x = (item.x - 0.5) * scene.width / side * 2
    y = (item.y - 0.5) * scene.height / side * 2
    return 1.0, x, y, float(COLOUR_NAMES.index(item.colour)), float(SHAPES.index(item.shape))
