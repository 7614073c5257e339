"""The overlay of a video: strips of frames in time, one a stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.report import traces
from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.report.overlay import draw_overlay, text_width
from vtc_cli.report.strips import (
    PANEL_PIXELS,
    Strip,
    _sheet,
    draw_media,
    save_media,
    shown_frames,
)

FRAMES, SIDE = 3, 2
PIXELS = 400  # of a panel: three of them have room for the whole frame
COLOURS = ((200, 40, 40), (40, 160, 60), (40, 60, 200))


def video() -> Media:
    """A red, a green and a blue frame of 400 x 400."""
    pixels = np.zeros((FRAMES, 400, 400, 3), np.uint8)
    pixels[:] = np.array(COLOURS, np.uint8)[:, None, None, :]
    return Media(pixels, (0.0, 1.5, 3.0), "video", "x.mp4", "ab" * 32)


def boxes() -> np.ndarray:
    one = [[200.0 * x, 200.0 * y, 200.0 * (x + 1), 200.0 * (y + 1)] for y in (0, 1) for x in (0, 1)]
    return np.tile(np.array(one), (FRAMES, 1))


def trace() -> Trace:
    """All patches of frame 0 leave, frame 1 becomes one token, frame 2 stays as it is."""
    table = TokenTable.from_grid(torch.zeros(12, 4), Grid(FRAMES, SIDE, SIDE))
    pairs = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4], [4, 5, 6, 7, 8, 9, 10, 11]])
    decision = Decision.merge(torch.tensor([4, 8, 9, 10, 11]), pairs, None, 12)
    record = traces.record("x.pool", "prefill", 2, 12, table.apply(decision), decision)
    made = traces.full()
    return replace(
        made,
        layout=Layout.of(Grid(FRAMES, SIDE, SIDE)),
        records=[record],
        prompt_tokens=12 + made.text_tokens,
    )


def sheet() -> np.ndarray:
    return np.asarray(draw_media(trace(), video(), boxes()))


def panels(pixels: np.ndarray, row: int) -> list[np.ndarray]:
    """The panels of a strip, found by the place that the sheet gives them."""
    first = 24 + row * (26 + 20 + PIXELS + 20) + 26 + 20
    lefts = [24 + column * (PIXELS + 8) for column in range(FRAMES)]
    return [pixels[first : first + PIXELS, left : left + PIXELS] for left in lefts]


def test_the_first_strip_shows_the_frames_in_time() -> None:
    for panel, colour in zip(panels(sheet(), 0), COLOURS, strict=True):
        assert (panel == np.array(colour)).all()


def test_each_frame_of_a_stage_shows_what_became_of_its_own_patches() -> None:
    gone, merged, kept = panels(sheet(), 1)
    corner = gone[5, 5].tolist()
    assert len(set(corner)) == 1 and max(corner) < 90  # grey and dark
    assert (np.abs(merged[100, 100].astype(int) - COLOURS[1]) <= 2).all()
    assert (np.abs(merged[200, 200].astype(int) - COLOURS[1]) <= 2).all()  # no line inside
    assert merged[:6, 200].min(axis=1).max() > 150 > merged[:, 200].min(axis=1)[10:-10].max()
    assert (kept == np.array(COLOURS[2])).all()


def test_of_joined_frames_the_first_is_shown() -> None:
    whole = video()
    doubled = np.repeat(whole.frames, 2, axis=0)[:5]  # the last frame of the grid has one alone
    doubled[1::2] = 0
    five = replace(whole, frames=doubled, timestamps=(0.0, 1.0, 2.0, 3.0, 4.0))
    for panel, colour in zip(
        panels(np.asarray(draw_media(trace(), five, boxes())), 0), COLOURS, strict=True
    ):
        assert (panel == np.array(colour)).all()


def test_a_picture_keeps_its_panels(tmp_path: Path) -> None:
    one = traces.compressed(), traces.media(), traces.boxes()
    assert draw_media(*one).tobytes() == draw_overlay(*one).tobytes()
    save_media(tmp_path / "x.webp", trace(), video(), boxes())
    with Image.open(tmp_path / "x.webp") as drawn:
        assert drawn.format == "WEBP" and drawn.width >= 3 * PIXELS


@pytest.mark.parametrize(
    ("frames", "shown"),
    [(1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (16, [1, 3, 5, 7, 9, 11, 13, 15])],
)
def test_of_many_frames_those_in_the_middle_of_equal_parts(frames: int, shown: list[int]) -> None:
    assert shown_frames(frames) == shown


def test_many_panels_are_smaller_and_labels_keep_apart() -> None:
    """Two views of a narrow picture stand as far apart as their labels are wide."""
    tall = Image.new("RGB", (91, 640))
    strip = Strip("the picture", "2 views", ["overview", "a long label of a view"], [tall, tall])
    drawn = _sheet([strip], [])
    assert drawn.width >= 91 + text_width("a long label of a view") + 48 and drawn.height >= 640
    wide = [Image.new("RGB", (640, 480))] * 8
    eight = Strip("the video", "8 frames", [f"{n}.00 s" for n in range(8)], wide)
    assert _sheet([eight], []).width == 8 * (PANEL_PIXELS + 8) - 8 + 48


def test_never_more_than_eight_and_never_one_twice() -> None:
    for frames in range(1, 200):
        shown = shown_frames(frames)
        assert len(set(shown)) == len(shown) == min(frames, 8)
        assert shown == sorted(shown) and shown[0] >= 0 and shown[-1] < frames
