"""Caches of preprocessed pictures with dense labels, and the split of seeds.

Pixels come from the very image processor that ships with the checkpoint, so training and use
see the same numbers. A cache holds uint8 pixels (before rescaling), and per picture the scene
that it shows, which makes every label and question.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from training.easy_data import EasyPicture, read_split, segment
from training.scenes import (
    COLOUR_NAMES,
    DIGIT_MARK,
    SHAPES,
    Ground,
    Item,
    Scene,
    compose,
    draw,
    draw_marks,
)

SIDE = 96
GRID = 24
OUT = Path(__file__).parent / "out"
TRAIN_SEEDS = range(0, 1_000_000)
TEST_SEEDS = range(10_000_000, 11_000_000)
SAMPLE_SEEDS = range(20_000_000, 21_000_000)
DIGIT_CLASS = 1 + len(COLOUR_NAMES) * len(SHAPES)
CLASSES = DIGIT_CLASS + 10


def image_processor() -> LlavaImageProcessorPil:
    """Return the shipped image processor: pad to square, resize to 96x96, normalize."""
    return LlavaImageProcessorPil(
        do_pad=True,
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        crop_size={"height": SIDE, "width": SIDE},
    )


@dataclass
class Picture:
    """One training picture: its scene (None if unknown) and its own questions, if any."""

    scene: Scene | None
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass
class Cache:
    """Pixels uint8 (n, 3, 96, 96), patch classes uint8 (n, 24, 24) and patch items alike."""

    pixels: torch.Tensor
    classes: torch.Tensor
    marks: torch.Tensor
    pictures: list[Picture]

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, keep: Sequence[int]) -> Cache:
        """Return the cache of the pictures at the given places."""
        index = torch.as_tensor(keep)
        pictures = [self.pictures[place] for place in keep]
        return Cache(self.pixels[index], self.classes[index], self.marks[index], pictures)


class Normalizer:
    """Turns cached uint8 pixels into the model's input, as the image processor would."""

    def __init__(self) -> None:
        processor = image_processor()
        self.mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(processor.image_std).view(1, 3, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 (n, 3, side, side) from uint8 of that shape."""
        return (pixels.float() / 255 - self.mean) / self.deviation


def patch_class(item: Item) -> int:
    """Return the class of a patch that shows the item: 1 + colour * 4 + shape."""
    return 1 + COLOUR_NAMES.index(item.colour) * len(SHAPES) + SHAPES.index(item.shape)


def scene_classes(scene: Scene) -> dict[int, int]:
    """Return the class of every mark (see `draw_marks`) of a scene."""
    classes = {index + 1: patch_class(item) for index, item in enumerate(scene.items)}
    if scene.digit:
        classes[DIGIT_MARK] = DIGIT_CLASS + int(scene.digit.value)
    return classes


def grid_marks(marks: Image.Image) -> np.ndarray:
    """Sample marks on the 24x24 patches of the picture after padding: uint8 (24, 24)."""
    side = max(marks.size)
    padded = Image.new("L", (side, side), 0)
    padded.paste(marks, ((side - marks.width) // 2, (side - marks.height) // 2))
    return np.asarray(padded.resize((GRID, GRID), Image.Resampling.NEAREST))


Row = tuple[np.ndarray, np.ndarray, np.ndarray, Picture]


def _shrink(picture: Image.Image) -> np.ndarray:
    """Pad and resize as the image processor does, but keep uint8: (3, 96, 96)."""
    batch = image_processor()(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(batch["pixel_values"][0]).round().astype(np.uint8)


def _row(picture: Image.Image, marks: np.ndarray, entry: Picture) -> Row:
    """Make one cache row out of a picture, its patch marks and its entry."""
    classes = np.zeros_like(marks)
    for mark, value in scene_classes(entry.scene).items() if entry.scene else ():
        classes[marks == mark] = value
    return _shrink(picture), classes, marks, entry


def scene_row(seed: int) -> Row:
    """Make the cache row of a generated scene."""
    scene = compose(seed)
    return _row(draw(scene), grid_marks(draw_marks(scene)), Picture(scene))


def easy_row(source: EasyPicture) -> Row:
    """Make the cache row of an easy-VQA picture."""
    picture = source.load()
    marks = segment(picture)
    return _row(picture, grid_marks(marks), Picture(easy_scene(source, marks), tuple(source.pairs)))


def easy_scene(source: EasyPicture, marks: Image.Image) -> Scene | None:
    """Describe an easy-VQA picture as a scene, if its questions tell colour and shape."""
    rows, columns = np.nonzero(np.asarray(marks))
    if source.colour is None or source.shape is None or not len(rows):
        return None
    x, y = (columns.mean() + 0.5) / marks.width, (rows.mean() + 0.5) / marks.height
    cell = min(2, int(y * 3)) * 3 + min(2, int(x * 3))
    radius = max(np.ptp(rows), np.ptp(columns)) / 2 / marks.width
    item = Item(source.colour, source.shape, cell, x, y, radius, 1.0, False, (0, 0, 0))
    ground = Ground("plain", (255, 255, 255), (255, 255, 255), 0.0, 1.0)
    return Scene(-1, marks.width, marks.height, ground, (item,), None)


def stack(rows: list[Row]) -> Cache:
    """Join rows into a cache."""
    pixels, classes, marks, pictures = zip(*rows, strict=True)
    tensors = [torch.from_numpy(np.stack(part)) for part in (pixels, classes, marks)]
    return Cache(tensors[0], tensors[1], tensors[2], list(pictures))


def build(seeds: range, with_easy: bool) -> Cache:
    """Draw and preprocess all scenes of a range of seeds, on two processes."""
    with Pool(2) as pool:
        rows = pool.map(scene_row, seeds, chunksize=200)
        if with_easy:
            rows += pool.map(easy_row, read_split("train"), chunksize=200)
    return stack(rows)


def load_training(scenes: int) -> Cache:
    """Return the training cache, built once and kept as a file under `out`."""
    path = OUT / f"train-{scenes}.pickle"
    if not path.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        cache = build(TRAIN_SEEDS[:scenes], with_easy=True)
        path.write_bytes(pickle.dumps(cache, protocol=5))
    cache = pickle.loads(path.read_bytes())
    assert isinstance(cache, Cache)
    return cache
