"""Makes the evaluation set in the box, `samples/eval`: `python -m training.evaluation_set`.

400 questions, 50 of every category, each on a picture of its own, from a range of seeds that is
used for nothing else. No item is chosen by how any model answers it. The categories take turns, so
that the first items of the file, too, are of all kinds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.questions import CATEGORIES, MAKERS, Question
from training.scenes import compose, draw

FOLDER = Path(__file__).parent.parent / "samples" / "eval"
EVALUATION_SEEDS = range(30_000_000, 31_000_000)
EACH = 50  # questions of a category


@dataclass(frozen=True)
class EvaluationItem:
    """One question and its picture."""

    name: str
    picture: Image.Image
    question: Question


def evaluation_items() -> list[EvaluationItem]:
    """Return the items in the order of the file: one of each category, then the next of each."""
    made = list(_by_category())
    return sorted(made, key=lambda item: item.name.rpartition("-")[2])


def _by_category() -> Iterator[EvaluationItem]:
    """Yield category after category; a scene without a question of that kind is passed over."""
    rng, seeds = random.Random(EVALUATION_SEEDS.start), iter(EVALUATION_SEEDS)
    for category in CATEGORIES:
        left = EACH
        while left:
            scene = compose(next(seeds))
            question = MAKERS[category](scene, rng)
            if question is not None:
                left -= 1
                yield EvaluationItem(f"{category}-{EACH - left:02d}", draw(scene), question)


def main() -> None:
    """Write the pictures and items.jsonl."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = []
    for item in evaluation_items():
        item.picture.save(FOLDER / f"{item.name}.webp", lossless=True, quality=100, method=6)
        line = {
            "id": item.name,
            "media": f"{item.name}.webp",
            "question": item.question.text,
            "answer": item.question.answer,
            "category": item.question.category,
        }
        lines.append(json.dumps(line))
    (FOLDER / "items.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
