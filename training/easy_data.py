"""The easy-VQA pictures and questions, read as scenes of one shape."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import easy_vqa
import numpy as np
from PIL import Image

from training.scenes import COLOUR_NAMES, SHAPES
from vtc_cli.media.formats import opened

Split = Literal["train", "test"]
SEGMENT_DISTANCE = 60.0


@dataclass
class EasyPicture:
    """One easy-VQA picture: its file, its (question, answer) pairs and what they reveal."""

    path: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    colour: str | None = None
    shape: str | None = None

    def load(self) -> Image.Image:
        """Return the picture in RGB (64 x 64 pixels)."""
        with opened(self.path) as picture:
            return picture.convert("RGB")


def read_split(split: Split) -> list[EasyPicture]:
    """Read a whole split; colour and shape stay None where no question tells them."""
    train = split == "train"
    questions = easy_vqa.get_train_questions() if train else easy_vqa.get_test_questions()
    paths = easy_vqa.get_train_image_paths() if train else easy_vqa.get_test_image_paths()
    pairs: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, index in zip(*questions, strict=True):
        pairs[index].append((question, answer))
    return [_picture(paths[index], pairs[index]) for index in sorted(pairs)]


def _picture(path: str, pairs: list[tuple[str, str]]) -> EasyPicture:
    """Collect what the questions of one picture say about it."""
    picture = EasyPicture(path, pairs)
    for fact in (fact for question, answer in pairs for fact in _facts(question, answer)):
        picture.colour = fact if fact in COLOUR_NAMES else picture.colour
        picture.shape = fact if fact in SHAPES else picture.shape
    return picture


def _facts(question: str, answer: str) -> list[str]:
    """Return the words of a question and its answer that are true of the picture."""
    words = question.rstrip("?").split()
    negated = "not" in words or "no" in words
    if answer in ("yes", "no") and (answer == "yes") == negated:
        return []
    return [answer, *words]


def segment(picture: Image.Image) -> Image.Image:
    """Mark the shape's pixels with 1: those far in colour from the commonest colour."""
    pixels = np.asarray(picture, np.int64)
    values, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    distance = np.linalg.norm(pixels - values[counts.argmax()], axis=-1)
    return Image.fromarray((distance > SEGMENT_DISTANCE).astype(np.uint8))
