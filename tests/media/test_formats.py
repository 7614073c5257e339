"""Which files are opened as pictures, what they may cost, and what is done to large ones."""

from __future__ import annotations

import io
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from vtc_cli.core.errors import MediaError
from vtc_cli.media import formats
from vtc_cli.media.image import read_image
from vtc_cli.media.video import read_media

ROOT = Path(__file__).parents[2]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["a.png", "a.eps", "a"])
def test_postscript_is_no_picture_and_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def start(*words: object, **options: object) -> None:
        raise AssertionError(f"a program was started: {words}")

    monkeypatch.setattr(subprocess, "check_call", start)
    monkeypatch.setattr(shutil, "which", lambda *words, **options: "/usr/bin/gs")
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(MediaError, match="no picture"):
        read_image(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["TGA", "PCX", "ICO", "PSD", "XBM", "JPEG2000", "SGI"])
def test_other_formats_are_no_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    if kind == "PSD":
        path.write_bytes(b"8BPS\0\1" + bytes(40))
    else:
        picture = Image.new("1" if kind == "XBM" else "RGB", (16, 16))
        picture.save(path, format=kind)
    with pytest.raises(MediaError, match="no picture"):
        read_image(str(path))


def test_pictures_are_opened_in_one_place() -> None:
    sources = [*(ROOT / "vtc_cli").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    places = [path.name for path in sources if "Image.open(" in path.read_text(encoding="utf-8")]
    assert places == ["formats.py"]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "F", "I"])
@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8])
def test_tiles_give_the_pixels_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, turn: int
) -> None:
    """Against Pillow on the whole picture at once; tiles of 7 pixels have edges everywhere."""
    monkeypatch.setattr("vtc_cli.media.image.TILE_PIXELS", 7)
    noise = np.random.default_rng(turn).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    whole = Image.fromarray(noise if mode in ("RGBA", "LA") else noise[..., :3])
    if mode in ("I;16", "I", "F"):
        deep = noise[..., 0].astype(np.float32) * 256
        kind: Any = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        picture = Image.fromarray(deep.astype(kind))
        grey = np.rint(deep * (255 / 65535)).astype(np.uint8)
        expected = Image.fromarray(grey).convert("RGB")
    else:
        picture = whole.convert(mode)
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        expected = Image.alpha_composite(white, clear).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = turn
    picture.save(tmp_path / "x.tif", exif=exif)
    expected.getexif()[0x0112] = turn
    found = read_image(str(tmp_path / "x.tif")).frames[0]
    np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(expected)))


def shrinking_above(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(formats, "MOST_KEPT", pixels)


def smooth(width: int, height: int) -> Image.Image:
    """Colours that change slowly: one and a half waves over the picture."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(9 * x / width), np.cos(9 * y / height), np.sin(9 * (x / width + y / height))]
    return Image.fromarray(np.rint(127 + 127 * np.stack(waves, axis=2)).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_large_picture_is_averaged_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    picture = smooth(801, 603)
    picture.save(tmp_path / f"x.{suffix}", quality=95)
    path = str(tmp_path / f"x.{suffix}")
    whole = read_image(path)
    shrinking_above(monkeypatch, 401 * 302)
    media = read_image(path)
    assert (media.width, media.height) == (401, 302)
    assert media.warnings == ("0.5 million pixels, averaged 2 x 2 to 401 x 302",)
    assert media.sha256 == whole.sha256
    blocks = whole.frames[0, :602, :800].reshape(301, 2, 400, 2, 3).mean(axis=(1, 3))
    off = np.abs(media.frames[0, :301, :400] - blocks)
    assert off.max() <= (0.5 if suffix == "png" else 4)  # a JPEG is scaled among its frequencies
    # What a model then makes of it: its own resize of the averaged picture and of the whole one.
    small, large = (
        np.asarray(each.picture().resize((336, 252), Image.Resampling.BICUBIC), dtype=float)
        for each in (media, whole)
    )
    # Odd sides end in half a block, which moves edges by up to a pixel: 9 x 127 / 603 = 1.9 levels
    # of this picture; and each path rounds twice.
    assert np.abs(small - large).max() <= 2 * 1.9 + 2


def test_a_picture_at_the_bound_is_kept_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth(60, 40).save(tmp_path / "x.png")
    shrinking_above(monkeypatch, 60 * 40)
    media = read_image(str(tmp_path / "x.png"))
    assert (media.width, media.height, media.warnings) == (60, 40, ())


SIDE = 13370


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def blank_png(path: Path, colour: int, bits: int, channels: int, side: int = SIDE) -> Path:
    """A PNG of one value: one row is packed as a block of its own, which is repeated."""
    row = b"\0" + b"\x55" * -(-side * channels * bits // 8)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(row) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(side):
        check = zlib.adler32(row, check)
    data = b"\x78\x01" + block * side + packer.flush() + struct.pack(">I", check)
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    parts = [chunk(b"IHDR", header), palette, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


GROWTH = """
import resource, sys
from vtc_cli.media.video import read_media
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
read_media(sys.argv[2])
before = peak()
media = read_media(sys.argv[1])
print(peak() - before, *media.frames.shape[1:3])
"""
UNIT = 1 if sys.platform == "darwin" else 1024


@pytest.mark.parametrize(
    ("colour", "bits", "channels"), [(6, 8, 4), (0, 16, 1)], ids=["RGBA", "16-bit grey"]
)
def test_the_largest_picture_takes_less_than_a_gigabyte(
    tmp_path: Path, colour: int, bits: int, channels: int
) -> None:
    path = blank_png(tmp_path / "x.png", colour, bits, channels)
    words = [sys.executable, "-c", GROWTH.replace("UNIT", str(UNIT)), str(path)]
    done = subprocess.run(
        [*words, str(ROOT / "samples" / "plain.png")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    growth, height, width = map(int, done.stdout.split())
    assert (height, width) == (SIDE // 2, SIDE // 2)
    assert growth < 1e9


def header_of(kind: str, side: int, **options: Any) -> Any:
    """An opened small picture that says it is `side` x `side`."""
    data = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), (64, 64)).save(data, format=kind, **options)
    picture = Image.open(data, formats=formats.FORMATS)
    picture._size = (side, side)
    return picture


NEEDED = [
    ("PNG", {}, 4 + 3 / 4),
    ("PNG", {"mode": "1"}, 1 + 3 / 4),
    ("JPEG", {}, 4 / 4 + 3 / 4),
    ("JPEG", {"progressive": True}, 4 / 4 + 3 / 4 + 2 * 1.5),  # 4:2:0
    ("JPEG", {"progressive": True, "subsampling": 0}, 4 / 4 + 3 / 4 + 2 * 3),
    ("JPEG", {"mode": "L", "progressive": True}, 1 / 4 + 3 / 4 + 2),
    ("WEBP", {}, 16 + 3 / 4),
]


@pytest.mark.parametrize(("kind", "options", "bytes_a_pixel"), NEEDED)
def test_what_a_decoder_holds_is_known_before(
    kind: str, options: dict[str, Any], bytes_a_pixel: float
) -> None:
    with header_of(kind, SIDE, **options) as picture:
        assert formats.bytes_needed(picture, 2) == pytest.approx(bytes_a_pixel * SIDE**2)


def test_what_takes_more_is_refused_with_what_would_do() -> None:
    with header_of("WEBP", SIDE) as picture, pytest.raises(MediaError) as caught:
        formats.check_picture(picture, 2, "x.webp")
    assert caught.value.exit_code == 2
    assert (caught.value.where, "3.0 GB" in caught.value.found) == ("x.webp", True)
    assert "about 51 million" in str(caught.value.allowed)
    with header_of("WEBP", 7100) as picture:
        formats.check_picture(picture, 1, None)


def test_a_line_of_a_hundred_thousand_pixels_is_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (1, 100_000), "red").save(tmp_path / "x.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_media(str(tmp_path / "x.png")).frames.shape == (1, 100_000, 1, 3)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * UNIT < 50e6
