"""Pixels of the overlay: dropped, kept, merged, clipped, scaled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report import traces
from vtc_cli.core.errors import UsageError
from vtc_cli.report.marks import PALETTE
from vtc_cli.report.overlay import draw_overlay, text_width
from vtc_cli.report.padding import is_padding, padding_warnings
from vtc_cli.report.panel import (
    FINE,
    HATCH_GROUND,
    HATCH_LINE,
    OUTLINE,
    OUTLINE_EDGE,
    draw_panel,
    make_view,
)
from vtc_cli.report.strips import save_media

PURPLE = (120, 40, 160)


def panel(holder: np.ndarray, dropped_at: np.ndarray) -> np.ndarray:
    """A panel of a plain purple picture with 4 x 4 patches of 160 px, as pixels."""
    x = np.arange(5) * 100.0
    boxes = np.array([[[a, b, a + 100, b + 100] for a in x[:4]] for b in x[:4]])
    view = make_view(Image.new("RGB", (400, 400), PURPLE), boxes)
    return np.asarray(draw_panel(view, holder, dropped_at))


def test_kept_and_dropped_patches() -> None:
    """A kept patch keeps its colour; a dropped one is grey, dark and marked with its stage."""
    holder, dropped_at = np.arange(16).reshape(4, 4), np.full((4, 4), -1)
    holder[1, 2], dropped_at[1, 2] = -1, 3
    pixels = panel(holder, dropped_at)
    assert tuple(pixels[150, 150]) == PURPLE
    assert len(set(pixels[105, 205].tolist())) == 1 and pixels[105, 205].max() < 80
    assert tuple(pixels[150, 250]) == PALETTE[3]


def test_merged_window_is_outlined_as_one() -> None:
    """Lines run around the union of the window and not inside it."""
    holder = np.arange(16).reshape(4, 4)
    holder[1:3, 1:3] = 5
    pixels = panel(holder, np.full((4, 4), -1))
    assert tuple(pixels[150, 150]) == PURPLE and tuple(pixels[150, 200]) == PURPLE
    ring = {tuple(pixel) for pixel in pixels[150, 98:106]}
    assert OUTLINE in ring and OUTLINE_EDGE in ring
    assert {tuple(pixel) for pixel in pixels[50, 0:400]} == {PURPLE}


def test_panels_scale_within_bounds() -> None:
    """Small pictures grow until a patch has 10 px, large ones shrink to 640 px."""
    small = make_view(Image.new("RGB", (48, 48)), traces.boxes(48, 48, 0).reshape(24, 24, 4))
    patch = small.boxes[0, 0]
    assert (patch[2] - patch[0]) / FINE >= 10
    large = make_view(
        Image.new("RGB", (4000, 3000)), traces.boxes(4000, 3000, 0).reshape(24, 24, 4)
    )
    assert max(large.picture.size) / FINE == 640


def test_sheet_has_a_panel_a_stage(tmp_path: Path) -> None:
    """The picture and four stages in two rows; padding above and below the picture is hatched."""
    sheet = draw_overlay(traces.compressed(), traces.media(), traces.boxes())
    assert sheet.width > 3 * 360 and sheet.height > 2 * 270
    colours = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert PALETTE[2] in colours and PALETTE[3] in colours and OUTLINE in colours
    assert PALETTE[0] not in colours  # the merge dropped nothing
    assert HATCH_LINE in colours
    save_media(tmp_path / "o.png", traces.compressed(), traces.media(), traces.boxes())
    with Image.open(tmp_path / "o.png") as saved:
        assert saved.size == sheet.size


def test_padding_is_part_of_a_panel_and_kept_padding_is_seen() -> None:
    """A tall picture padded at its sides: kept patches of padding are light, dropped ones dark."""
    x = np.arange(5) * 100.0 - 100
    boxes = np.array([[[a, b, a + 100, b + 100] for a in x[:4]] for b in np.arange(4) * 100.0])
    view = make_view(Image.new("RGB", (200, 400), PURPLE), boxes)
    assert view.padded and view.picture.size == (800, 800)
    holder, dropped_at = np.arange(16).reshape(4, 4), np.full((4, 4), -1)
    holder[0, 0], dropped_at[0, 0] = -1, 0
    pixels = np.asarray(draw_panel(view, holder, dropped_at))
    assert {tuple(p) for p in pixels[150, 102:298]} == {PURPLE}
    kept = {tuple(p) for p in pixels[150, 2:98]}
    assert {HATCH_LINE, HATCH_GROUND} <= kept and min(map(min, kept)) >= min(HATCH_LINE)
    assert pixels[5, 5].max() < 130
    plain = make_view(Image.new("RGB", (200, 400), PURPLE), boxes[:, 1:3])
    assert not plain.padded and plain.picture.size == (400, 800)


def test_captions_of_a_narrow_picture_do_not_overlap() -> None:
    """Panels of 91 px stand as far apart as their captions are wide."""
    media = replace(traces.media(), frames=np.zeros((1, 1400, 200, 3), np.uint8))
    boxes = traces.boxes(200, 1400, 0)
    sheet = draw_overlay(traces.compressed(), media, boxes)  # five panels in two rows
    assert sheet.width >= 3 * text_width("decoder layer 6 · 31 of 576 tokens")


def test_kept_padding_is_counted() -> None:
    """40 px above and below of 320: 3 of 24 rows each, 144 patches; counted by hand."""
    trace, media, boxes = traces.compressed(), traces.media(), traces.boxes()
    outside = is_padding(trace, [media], boxes)
    assert outside.sum() == 6 * 24 and outside[:72].all() and outside[-72:].all()
    kept = [record for record in trace.records if record.holder is not None][-1].anchor.tolist()
    hidden = sum(anchor < 72 or anchor >= 504 for anchor in kept)
    found = padding_warnings(trace, [media], boxes)
    assert found == [f"{hidden} of {len(kept)} kept tokens show padding and no picture"]
    assert padding_warnings(trace, [media], traces.boxes(320, 240, 0)) == []
    assert padding_warnings(traces.full(), [media], boxes) == []


def test_frame_must_exist() -> None:
    """A frame behind the last is a fault of the caller."""
    with pytest.raises(UsageError):
        draw_overlay(traces.compressed(), traces.media(), traces.boxes(), frame=1)
