"""When frames are taken, and which choices are refused before any file is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from vtc_cli.core.errors import MediaError, UsageError
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.sampling import (
    Frame,
    Span,
    indices_at,
    indices_between,
    keyframe_times,
    rate_times,
    span_of,
    uniform_times,
)


def test_uniform_times_are_the_centres_of_equal_slices() -> None:
    assert list(uniform_times(Span(2.0, 10.0), 4)) == [3.0, 5.0, 7.0, 9.0]
    assert list(uniform_times(Span(0.0, 3.0), 1)) == [1.5]


def test_as_many_slices_as_frames_hit_the_middle_of_each() -> None:
    times = list(uniform_times(Span(0.0, 100 / 25), 100))
    np.testing.assert_allclose(times, (np.arange(100) + 0.5) / 25, atol=1e-12)


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 7.0])
def test_a_rate_is_the_same_as_that_many_slices(fps: float) -> None:
    by_rate = list(rate_times(Span(1.0, 11.0), fps))
    np.testing.assert_allclose(by_rate, list(uniform_times(Span(1.0, 11.0), int(10 * fps))))


@pytest.mark.parametrize(
    ("length", "times"),
    [(2.4, [0.5, 1.5]), (2.5, [0.5, 1.5]), (2.6, [0.5, 1.5, 2.5]), (0.3, [0.15]), (0.6, [0.5])],
)
def test_a_last_slice_counts_if_its_centre_is_inside(length: float, times: list[float]) -> None:
    assert list(rate_times(Span(0.0, length), 1.0)) == pytest.approx(times)


def test_frames_on_screen_are_those_that_began_last() -> None:
    begins = [0.0, 0.5, 0.6, 2.0]
    assert list(indices_at(begins, [0.1, 0.55, 1.9, 1.95, 7.0])) == [0, 1, 2, 3]
    assert list(indices_at([1.0, 2.0], [0.2, 0.9, 1.5])) == [
        0
    ]  # the first stands for what is before
    assert list(indices_between(begins, 0.55, 2.0)) == [1, 2]
    assert list(indices_between(begins, 0.0, 9.0)) == [0, 1, 2, 3]
    assert list(indices_between(begins, 1.0, 1.1)) == [2]


class Plain:
    """Frames of one grey value each, one a second."""

    width = height = 64
    rate = 1.0

    def __init__(self, *greys: int) -> None:
        self.greys, self.end, self.notes = greys, float(len(greys)), list[str]()

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        for index in indices_at([float(i) for i in range(len(self.greys))], times):
            pixels = np.full((64, 64, 3), self.greys[index], dtype=np.uint8)
            yield Frame(float(index), pixels)

    def between(self, start: float, end: float) -> Iterator[Frame]:
        yield from self.shown_at([start, end])


@pytest.mark.parametrize(
    ("greys", "count", "times"),
    [
        ([9, 9, 50, 50, 60, 200, 200], 3, [0.0, 2.0, 5.0]),
        ([9, 9, 50, 50, 60, 200, 200], 4, [0.0, 2.0, 4.0, 5.0]),
        ([200, 9, 9, 190], 2, [0.0, 1.0]),  # changes of 191 and 181
        ([5, 25, 45, 65], 3, [0.0, 1.0, 2.0]),  # equal changes: the earlier
        ([7], 3, [0.0]),
    ],
)
def test_keyframes_are_the_largest_changes(
    greys: list[int], count: int, times: list[float]
) -> None:
    reader = Plain(*greys)
    assert keyframe_times(reader, Span(0.0, reader.end), count) == times


def test_keyframes_of_a_part_know_nothing_of_the_rest() -> None:
    assert keyframe_times(Plain(0, 250, 10, 30, 31, 255), Span(2.0, 5.0), 2) == [2.0, 3.0]


def test_a_small_change_of_a_few_pixels_is_seen_less_than_one_of_all() -> None:
    class Spots(Plain):
        def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
            for frame in super().shown_at(times):
                if frame.seconds == 1.0:
                    frame.pixels[:8, :8] = 255  # 1/64 of the pixels by 245
                yield frame

    assert keyframe_times(Spots(10, 10, 10, 30, 30), Span(0.0, 5.0), 2) == [0.0, 3.0]


def test_the_default_is_eight_uniform_frames() -> None:
    assert FrameOptions().count == 8
    assert FrameOptions(frames=3).count == 3
    assert FrameOptions(fps=1.0).count is None
    assert FrameOptions(frames="all").count is None


WRONG: list[dict[str, Any]] = [
    {"frames": 8, "fps": 1.0},
    {"frames": "all", "keyframes": 2},
    {"fps": 1.0, "keyframes": 2},
    {"frames": 0},
    {"frames": -1},
    {"frames": True},
    {"frames": "some"},
    {"frames": 2.0},
    {"frames": 100_001},
    {"keyframes": 0},
    {"fps": 0.0},
    {"fps": -1.0},
    {"fps": math.nan},
    {"fps": math.inf},
    {"start": -0.1},
    {"start": math.nan},
    {"start": 2.0, "end": 2.0},
    {"start": 2.0, "end": 1.0},
    {"end": 0.0},
    {"end": math.inf},
    {"reader": "opencv"},
    {"time_limit": 0.0},
    {"time_limit": math.inf},
    {"memory_limit_bytes": 1000},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_choices_that_cannot_be_carried_out_are_wrong_usage(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        FrameOptions(**values)
    assert caught.value.where
    assert caught.value.allowed


def test_a_start_behind_the_end_is_refused_and_an_end_behind_it_is_cut() -> None:
    notes: list[str] = []
    assert span_of(FrameOptions(start=1.0, end=3.0), 4.0, notes) == Span(1.0, 3.0)
    assert span_of(FrameOptions(), 4.0, notes) == Span(0.0, 4.0)
    assert notes == []
    assert span_of(FrameOptions(end=9.0), 4.0, notes) == Span(0.0, 4.0)
    assert notes == ["the video ends at 4.00 s, before the wanted end at 9 s"]
    with pytest.raises(MediaError, match=r"the video ends at 4\.00 s"):
        span_of(FrameOptions(start=4.0), 4.0, notes)
