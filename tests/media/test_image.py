"""Every kind of picture file, made by Pillow, and everything that is none."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vtc_cli.core.errors import MediaError
from vtc_cli.media.image import read_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(picture: Image.Image, path: Path, **options: object) -> str:
    picture.save(path, **options)
    return str(path)


def corners() -> Image.Image:
    """4 x 2, red on the left half and blue on the right."""
    picture = Image.new("RGB", (4, 2), RED)
    picture.paste(BLUE, (2, 0, 4, 2))
    return picture


def test_a_plain_picture_keeps_every_pixel(tmp_path: Path) -> None:
    media = read_image(saved(corners(), tmp_path / "x.png"))
    assert media.frames.shape == (1, 2, 4, 3)
    assert media.frames[0, 0].tolist() == [list(RED)] * 2 + [list(BLUE)] * 2
    assert (media.width, media.height, media.kind, media.warnings) == (4, 2, "image", ())
    assert len(media.sha256) == 64


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "1", "YCbCr", "LAB"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    white = Image.new("RGB", (3, 3), "white")
    converted = white if mode == "LAB" else white.convert(mode)
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "LAB": "tif"}.get(mode, "png")
    media = read_image(saved(converted, tmp_path / f"x.{suffix}"))
    assert media.frames.shape == (1, 3, 3, 3)
    assert int(media.frames.min()) >= 250


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 255))
    media = read_image(saved(picture, tmp_path / "x.png"))
    assert media.frames[0, 0].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert "transparency" in media.warnings[0]


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((1, 0), 1)
    media = read_image(saved(picture, tmp_path / "x.png", transparency=0))
    assert media.frames[0, 0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    media = read_image(saved(Image.fromarray(values), tmp_path / "x.png"))
    assert media.frames[0, 0, :, 0].tolist() == [0, 128, 255]
    assert "8 bits" in media.warnings[0]


def test_float_pictures_are_scaled(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    media = read_image(saved(Image.fromarray(values), tmp_path / "x.tif"))
    assert media.frames[0, 0, :, 0].tolist() == [0, 128, 255]


def test_exif_orientation_turns_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must turn clockwise
    media = read_image(saved(corners(), tmp_path / "x.png", exif=exif))
    assert (media.width, media.height) == (2, 4)
    assert media.frames[0, 0, 0].tolist() == list(RED)
    assert media.frames[0, 3, 0].tolist() == list(BLUE)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, RED)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(
        frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options
    )
    media = read_image(path)
    assert media.frames[0, 0, 0].tolist() == list(RED)
    assert media.warnings == ("the first of 3 frames is used",)


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    media = read_image(saved(Image.new("RGB", (1, 1)), tmp_path / "x.png"))
    assert media.frames.shape == (1, 1, 1, 3)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "picture.txt"
    corners().save(path, format="PNG")
    assert read_image(str(path)).width == 4


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    corners().save(data, format="PNG")
    stdin = SimpleNamespace(buffer=io.BytesIO(data.getvalue()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_image("-").width == 4


def chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are a few zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(4)))


def truncated(suffix: str) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data, format=suffix)
    return data.getvalue()[: len(data.getvalue()) // 2]


BROKEN = {
    "empty": (b"", "no bytes"),
    "text": (b"this is no picture at all", "no picture"),
    "cut png": (truncated("PNG"), "broken picture"),
    "cut jpeg": (truncated("JPEG"), "broken picture"),
    "bomb": (png_of_size(100_000, 100_000), "pixels"),
    "above the bound": (png_of_size(15_000, 15_000), "pixels"),
    "zero size": (png_of_size(0, 7), "picture"),
    "header alone": (png_of_size(5, 5), "broken picture"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_says_where_and_why(tmp_path: Path, name: str) -> None:
    data, words = BROKEN[name]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        read_image(str(path))
    assert caught.value.where == str(path)
    assert words in caught.value.found
    assert caught.value.allowed


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_image(str(tmp_path / "none.png"))
    with pytest.raises(MediaError, match="folder"):
        read_image(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = saved(corners(), tmp_path / "x.png")
    Path(path).chmod(0)
    with pytest.raises(MediaError, match="cannot be read"):
        read_image(path)


def test_values_beyond_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    top = 2_000_000_000
    values = np.array([[0, top // 2, top]], dtype=np.int32)
    media = read_image(saved(Image.fromarray(values), tmp_path / "x.tif"))
    assert media.frames[0, 0, :, 0].tolist() == [0, 128, 255]


def test_a_value_that_is_no_number_spoils_no_other(tmp_path: Path) -> None:
    values = np.array([[np.nan, 0.5, 1.0, -np.inf]], dtype=np.float32)
    media = read_image(saved(Image.fromarray(values), tmp_path / "x.tif"))
    assert media.frames[0, 0, :, 0].tolist() == [0, 128, 255, 0]
