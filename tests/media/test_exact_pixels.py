"""Exact pixels of every mode, and paths that the system itself refuses."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vtc_cli.app import run_command_line
from vtc_cli.core.errors import MediaError
from vtc_cli.media.image import read_image

WHITE = [255, 255, 255]
ON_WHITE = "transparency laid on white"
DEEP = "deep grey values scaled to 8 bits"


def two_pixels(mode: str, first: object, second: object) -> Image.Image:
    picture = Image.new(mode, (2, 1), first)
    picture.putpixel((1, 0), second)
    return picture


def palette() -> Image.Image:
    picture = two_pixels("P", 0, 1)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    return picture


PLAIN = {
    "RGB": (two_pixels("RGB", (1, 2, 3), (250, 0, 9)), "png", [[1, 2, 3], [250, 0, 9]]),
    "L": (two_pixels("L", 7, 200), "png", [[7] * 3, [200] * 3]),
    "1": (two_pixels("1", 0, 1), "png", [[0] * 3, WHITE]),
    "P": (palette(), "png", [[10, 20, 30], [200, 0, 0]]),
    "CMYK": (two_pixels("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "tif", [[255, 0, 0], [0] * 3]),
}
CLEAR = {
    "RGBA": (two_pixels("RGBA", (255, 0, 0, 128), (0, 0, 9, 255)), [[255, 127, 127], [0, 0, 9]]),
    "LA": (two_pixels("LA", (0, 0), (100, 255)), [WHITE, [100] * 3]),
}


@pytest.mark.parametrize("mode", PLAIN)
def test_opaque_pixels_keep_their_values(tmp_path: Path, mode: str) -> None:
    picture, suffix, pixels = PLAIN[mode]
    path = tmp_path / f"x.{suffix}"
    picture.save(path)
    media = read_image(str(path))
    assert media.frames[0, 0].tolist() == pixels
    assert media.warnings == ()


@pytest.mark.parametrize("mode", CLEAR)
def test_clear_pixels_are_mixed_with_white(tmp_path: Path, mode: str) -> None:
    picture, pixels = CLEAR[mode]
    picture.save(tmp_path / "x.png")
    media = read_image(str(tmp_path / "x.png"))
    assert media.frames[0, 0].tolist() == pixels
    assert media.warnings == (ON_WHITE,)


def test_thirty_two_bit_integers_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.int32)).save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as picture:
        assert picture.mode == "I"
    media = read_image(str(tmp_path / "x.tif"))
    assert media.frames[0, 0, :, 0].tolist() == [0, 128, 255]
    assert media.warnings == (DEEP,)


def test_a_camera_s_jpeg_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 16), (255, 0, 0))
    picture.paste((0, 0, 255), (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.jpg", exif=exif, quality=95)
    media = read_image(str(tmp_path / "x.jpg"))
    assert (media.width, media.height) == (16, 32)
    assert int(media.frames[0, 2, 2, 0]) > 240 > 15 > int(media.frames[0, 2, 2, 2])
    assert int(media.frames[0, 29, 2, 2]) > 240 > 15 > int(media.frames[0, 29, 2, 0])


def chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def grey_png_with_a_clear_value(bits: int, row: bytes, width: int, clear: int) -> bytes:
    """A grey PNG whose tRNS chunk declares one value transparent; Pillow writes none such."""
    header = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", clear))]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("bits", "row", "clear", "pixels", "notes"),
    [
        (8, bytes([7, 9, 0]), 7, [255, 9, 0], (ON_WHITE,)),
        (16, struct.pack(">HHH", 5, 32768, 0), 5, [255, 128, 0], (DEEP, ON_WHITE)),
    ],
)
def test_a_grey_value_declared_clear_becomes_white(
    tmp_path: Path, bits: int, row: bytes, clear: int, pixels: list[int], notes: tuple[str, ...]
) -> None:
    (tmp_path / "x.png").write_bytes(grey_png_with_a_clear_value(bits, row, 3, clear))
    media = read_image(str(tmp_path / "x.png"))
    assert media.frames[0, 0, :, 0].tolist() == pixels
    assert media.warnings == notes


PATHS = ["x" * 5000, "a\0b.png", "~no-such-user-at-all/x.png", "{file}/x.png"]


@pytest.mark.parametrize("name", PATHS, ids=["too long", "nul", "no home", "below a file"])
def test_a_path_that_the_system_refuses_is_unusable_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    path = name.format(file=tmp_path / "file")
    with pytest.raises(MediaError) as caught:
        read_image(path)
    assert caught.value.where == path
    assert "cannot be read" in caught.value.found


def test_a_question_in_the_place_of_the_picture_is_unusable_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command_line(["run", "what is in the picture? " * 300, "x.png"]) == 2
    assert capsys.readouterr().err.startswith("error: unusable input")


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_bad_bytes_on_standard_input_say_so(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with pytest.raises(MediaError) as caught:
        read_image("-")
    assert caught.value.where == "-"
