"""Cached pixels are those that the shipped processor makes."""

from __future__ import annotations

import pytest
from transformers import AutoProcessor

from tests.tolerance import close
from training.data import Normalizer, easy_row, scene_row, stack
from training.easy_data import read_split
from training.export import SHIPPED
from training.scenes import compose, draw


@pytest.mark.parametrize("seed", [1, 6, 8, 20])
def test_cached_pixels_equal_the_shipped_processors(seed: int) -> None:
    processor = AutoProcessor.from_pretrained(SHIPPED)
    direct = processor.image_processor(draw(compose(seed)), return_tensors="pt")["pixel_values"]
    cached = Normalizer()(stack([scene_row(seed)]).pixels)
    assert direct.shape == (1, 3, 96, 96)
    close(cached, direct)


def test_easy_pictures_are_understood_from_their_questions() -> None:
    sources = read_split("train")[:60]
    rows = [easy_row(source) for source in sources]
    known = [row for row in rows if row[3].scene]
    assert len(known) > 45
    for _, classes, marks, picture in known:
        assert picture.scene is not None
        assert (classes > 0).sum() == (marks > 0).sum() > 0
