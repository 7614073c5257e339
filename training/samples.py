"""Makes the sample pictures and their questions: `python -m training.samples`."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image

from training.data import SAMPLE_SEEDS
from training.questions import CATEGORIES, MAKERS, Question
from training.scenes import Scene, compose, draw

FOLDER = Path(__file__).parent.parent / "samples"
SIDE = 320
# Drawn larger and then reduced, so that edges are smooth.
SCALE = 3
# Name, offset in the range of sample seeds, square or not.
SAMPLES = (
    ("plain", 246, True),
    ("gradient", 162, True),
    ("stripes", 554, True),
    ("checks", 634, True),
    ("dark", 60, True),
    ("grain", 447, True),
    ("wide", 322, False),
)


def sample_scene(offset: int, square: bool) -> Scene:
    """Return the scene of a sample, in its large drawing size."""
    return compose(SAMPLE_SEEDS[offset], SIDE * SCALE, square or None)


def sample_picture(offset: int, square: bool) -> Image.Image:
    """Return the picture of a sample: 320 pixels high, smooth edges."""
    scene = sample_scene(offset, square)
    size = (scene.width // SCALE, scene.height // SCALE)
    return draw(scene).resize(size, Image.Resampling.LANCZOS)


def sample_questions(offset: int, square: bool) -> list[Question]:
    """Return one question of every category on a sample."""
    rng, scene = random.Random(SAMPLE_SEEDS[offset]), sample_scene(offset, square)
    made = (MAKERS[category](scene, rng) for category in CATEGORIES)
    return [question for question in made if question is not None]


def main() -> None:
    """Write the pictures and questions.jsonl."""
    lines = []
    for name, offset, square in SAMPLES:
        sample_picture(offset, square).save(FOLDER / f"{name}.png", optimize=True)
        for question in sample_questions(offset, square):
            line = {
                "media": f"{name}.png",
                "question": question.text,
                "answer": question.answer,
                "category": question.category,
            }
            lines.append(json.dumps(line))
    (FOLDER / "questions.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
