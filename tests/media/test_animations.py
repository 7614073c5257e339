"""Animated pictures and folders of pictures as videos: times, order, sizes, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.media.clips import HEIGHT, WIDTH, numbered, numbers
from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.video import read_media, read_video

DURATIONS_MS = [100, 400, 50, 250, 200]
BEGINS = [0.0, 0.1, 0.5, 0.55, 0.8]
KINDS = {
    "gif": {},
    "webp": {"lossless": True},
    "png": {},
    "avif": {"quality": 90},
}


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(numbered(index)) for index in range(count)]


def animation(path: Path, count: int = 5, **options: Any) -> str:
    first, *others = pictures(count)
    options = {"duration": DURATIONS_MS[:count], **options}
    first.save(path, save_all=True, append_images=others, **options)
    return str(path)


@pytest.mark.parametrize("suffix", KINDS)
def test_each_frame_of_an_animation_has_its_own_duration(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    path = animation(tmp_path / f"x.{suffix}", **KINDS[suffix])
    whole = read_media(path, FrameOptions(frames="all"))
    assert (whole.kind, whole.width, whole.height) == ("video", WIDTH, HEIGHT)
    assert numbers(whole) == [0, 1, 2, 3, 4]
    assert whole.timestamps == pytest.approx(BEGINS)
    assert whole.warnings == ()
    # Centres of fifths of the second: 0.1, 0.3, 0.5, 0.7, 0.9; frame 1 is on screen at two of them.
    some = read_video(path, FrameOptions(frames=5))
    assert numbers(some) == [1, 2, 3, 4]
    assert some.warnings == ("asked for 5 frames, took 4: no others are on screen then",)
    assert numbers(read_video(path, FrameOptions(frames="all", start=0.51, end=0.7))) == [2, 3]


def test_lossless_frames_keep_every_pixel(tmp_path: Path) -> None:
    media = read_video(animation(tmp_path / "x.webp", lossless=True), FrameOptions(frames="all"))
    for index, frame in enumerate(media.frames):
        np.testing.assert_array_equal(frame, numbered(index))


def test_the_picture_for_viewers_that_cannot_move_it_is_no_frame(tmp_path: Path) -> None:
    path = animation(tmp_path / "x.png", default_image=True, duration=100)
    media = read_video(path, FrameOptions(frames="all"))
    assert numbers(media) == [1, 2, 3, 4]
    assert media.timestamps == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert media.warnings == ()


def test_a_frame_without_a_duration_is_shown_for_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = animation(tmp_path / "x.gif", 3, duration=[200, 0, 300])
    media = read_video(path, FrameOptions(frames="all"))
    assert media.timestamps == pytest.approx([0.0, 0.2, 0.3])
    assert media.warnings == ("1 frame without a duration: 0.1 s is taken",)


def test_an_animation_that_breaks_off_gives_what_is_there(tmp_path: Path) -> None:
    path = Path(animation(tmp_path / "x.gif"))
    path.write_bytes(path.read_bytes()[:-900])
    media = read_video(str(path), FrameOptions(frames="all"))
    assert numbers(media) == list(range(len(media.frames)))
    assert 1 <= len(media.frames) < 5
    assert any("breaks off after" in warning for warning in media.warnings)


def test_a_still_gif_is_a_picture(tmp_path: Path) -> None:
    path = str(tmp_path / "x.gif")
    pictures(1)[0].save(path)
    assert read_media(path).kind == "image"
    with pytest.raises(MediaError, match="a still picture"):
        read_video(path)


def folder(path: Path, names: list[str]) -> str:
    path.mkdir()
    for name, picture in zip(names, pictures(len(names)), strict=True):
        picture.save(path / name)
    return str(path)


def test_a_folder_is_one_picture_a_second_in_natural_order(tmp_path: Path) -> None:
    path = folder(tmp_path / "a b", ["f1.png", "f2.bmp", "f9.png", "f10.png", "F11.png"])
    (tmp_path / "a b" / "notes.txt").write_text("no picture")
    (tmp_path / "a b" / ".hidden.png").write_text("no picture")
    media = read_media(path, FrameOptions(frames="all"))
    assert numbers(media) == [0, 1, 2, 3, 4]
    assert media.timestamps == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert media.warnings == (
        "1 file of the folder is no picture and was left out",
        "pictures of a folder have no times: one a second is assumed",
    )
    assert numbers(read_media(path, FrameOptions(frames=2))) == [1, 3]


def test_the_hash_of_a_folder_is_that_of_its_list(tmp_path: Path) -> None:
    import hashlib

    path = folder(tmp_path / "x", ["1.png", "2.png"])
    lines = [
        f"{hashlib.sha256((tmp_path / 'x' / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("1.png", "2.png")
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert read_media(path).sha256 == expected


@pytest.mark.parametrize(
    ("spoil", "found", "hint"),
    [
        (lambda p: Image.new("RGB", (30, 40)).save(p), "30 x 40 pixels", "scale the pictures"),
        (
            lambda p: p.write_bytes(p.read_bytes()[:90]),
            "a broken picture",
            "take it out of the folder",
        ),
    ],
    ids=["size", "broken"],
)
def test_one_bad_picture_of_a_folder_is_named(
    tmp_path: Path, spoil: Any, found: str, hint: str
) -> None:
    path = folder(tmp_path / "x", ["1.png", "2.png", "3.png"])
    spoil(tmp_path / "x" / "2.png")
    with pytest.raises(MediaError, match=found) as caught:
        read_media(path)
    assert caught.value.where == str(tmp_path / "x" / "2.png")
    assert caught.value.allowed
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("names", [[], ["a.txt", "b.mp4"]])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("words")
    with pytest.raises(MediaError, match=f"a folder with {len(names)} files") as caught:
        read_media(str(tmp_path))
    assert caught.value.where == str(tmp_path)
    assert caught.value.allowed == "a folder of pictures, one a frame"
    assert caught.value.hint
