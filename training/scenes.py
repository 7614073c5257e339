"""Scenes of coloured shapes and a digit: composed from a seed, then drawn as a picture.

A scene lies on a 3x3 grid of cells, numbered 0..8 in reading order. Each item has its own
cell and its own colour, so that "the red shape" names exactly one item.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Pencil = ImageDraw.ImageDraw
GroundKind = Literal["plain", "gradient", "noise", "stripes", "checks"]

# Two anchors each: the colour that easy-VQA paints with and a softer one. A drawn colour lies
# between the two, so that one word covers a range and not a single value.
COLOURS: dict[str, tuple[Rgb, Rgb]] = {
    "black": ((0, 0, 0), (28, 28, 28)),
    "gray": ((128, 128, 128), (118, 120, 124)),
    "red": ((255, 0, 0), (222, 40, 40)),
    "blue": ((0, 0, 255), (40, 70, 220)),
    "yellow": ((255, 255, 0), (236, 208, 40)),
    "green": ((0, 255, 0), (40, 168, 60)),
    "brown": ((165, 42, 42), (126, 76, 40)),
    "teal": ((0, 128, 128), (20, 150, 150)),
}
COLOUR_NAMES = tuple(COLOURS)
SHAPES = ("circle", "rectangle", "triangle", "cross")
DIGIT_MARK = 9
COLOUR_JITTER = 10
MIN_CONTRAST = 90.0
GROUND_KINDS: tuple[GroundKind, ...] = ("plain", "gradient", "noise", "stripes", "checks")
SIZES = (96, 128, 160, 192, 256)


@dataclass(frozen=True)
class Item:
    """One shape: x, y and radius are fractions of the picture's width, height and shorter side."""

    colour: str
    shape: str
    cell: int
    x: float
    y: float
    radius: float
    aspect: float
    upright: bool
    rgb: Rgb


@dataclass(frozen=True)
class Digit:
    """One digit: x and y (its centre) and height are fractions as for `Item`."""

    value: str
    cell: int
    x: float
    y: float
    height: float
    rgb: Rgb


@dataclass(frozen=True)
class Ground:
    """What lies behind the items: two colours, a kind of pattern and its period in pixels."""

    kind: GroundKind
    first: Rgb
    second: Rgb
    angle: float
    period: float


@dataclass(frozen=True)
class Scene:
    """All that a picture shows; width and height in pixels, items in reading order."""

    seed: int
    width: int
    height: int
    ground: Ground
    items: tuple[Item, ...]
    digit: Digit | None


def compose(seed: int, size: int | None = None, square: bool | None = None) -> Scene:
    """Make the scene that belongs to `seed`; the same arguments always give the same scene."""
    rng = random.Random(seed)
    side = size or rng.choice(SIZES)
    width, height = _frame(rng, side, square)
    count = rng.randint(1, 4)
    cells = rng.sample(range(9), count + 1)
    short = min(width, height)
    stretch = (short / width, short / height)
    items = [
        _item(rng, name, cell, stretch, count == 1)
        for name, cell in zip(rng.sample(COLOUR_NAMES, count), cells, strict=False)
    ]
    ground = make_ground(rng, side, [item.rgb for item in items])
    digit = make_digit(rng, cells[-1], ground) if rng.random() < 0.5 else None
    ordered = tuple(sorted(items, key=lambda item: item.cell))
    return Scene(seed, width, height, ground, ordered, digit)


def _frame(rng: random.Random, side: int, square: bool | None) -> tuple[int, int]:
    """Return width and height in pixels: mostly square, else 4:3 or 3:4."""
    choice = rng.random()
    if square or (square is None and choice < 0.8):
        return side, side
    return (side * 4 // 3, side) if choice < 0.9 else (side, side * 4 // 3)


def _item(
    rng: random.Random, colour: str, cell: int, stretch: tuple[float, float], alone: bool
) -> Item:
    """Place one item inside its cell; a lone item may be smaller, larger and further off."""
    radius = rng.uniform(0.15, 0.5) / 3 if alone else rng.uniform(0.22, 0.42) / 3
    reach_x = max(0.0, min(0.3, 0.5 - radius * 3 * stretch[0] * 0.9))
    reach_y = max(0.0, min(0.3, 0.5 - radius * 3 * stretch[1] * 0.9))
    x = (cell % 3 + 0.5 + rng.uniform(-reach_x, reach_x)) / 3
    y = (cell // 3 + 0.5 + rng.uniform(-reach_y, reach_y)) / 3
    shape, aspect, upright = rng.choice(SHAPES), rng.uniform(0.5, 1.0), rng.random() < 0.5
    return Item(colour, shape, cell, x, y, radius, aspect, upright, make_shade(rng, colour))


def make_shade(rng: random.Random, colour: str) -> Rgb:
    """Pick one value of a named colour: between its anchors, with jitter."""
    first, second = COLOURS[colour]
    part = rng.random()
    return _rgb(
        one + (two - one) * part + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER)
        for one, two in zip(first, second, strict=True)
    )


def _rgb(values: Iterable[float]) -> Rgb:
    """Round and clip three channel values to 0..255."""
    red, green, blue = (min(255, max(0, round(value))) for value in values)
    return red, green, blue


def make_ground(rng: random.Random, side: int, inks: list[Rgb]) -> Ground:
    """Draw ground colours until every item stands out from both and from their mean."""
    kind = rng.choice(GROUND_KINDS)
    while True:
        first = _ground_colour(rng)
        second = first if kind == "plain" else _rgb(v + rng.uniform(-45, 45) for v in first)
        middle = _rgb((one + two) / 2 for one, two in zip(first, second, strict=True))
        if all(
            contrast(ink, face) >= MIN_CONTRAST for ink in inks for face in (first, middle, second)
        ):
            return Ground(
                kind, first, second, rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.15) * side
            )


def _ground_colour(rng: random.Random) -> Rgb:
    """Pick a light, dark or middle ground colour with little saturation."""
    low, high = rng.choices(((185, 255), (15, 80), (90, 190)), (0.6, 0.25, 0.15))[0]
    base = rng.uniform(low, high)
    spread = 35 if low == 185 else 22
    return _rgb(base + rng.uniform(-spread, spread) for _ in range(3))


def contrast(one: Rgb, two: Rgb) -> float:
    """Return the Euclidean distance of two colours in RGB (0..441)."""
    return float(np.linalg.norm(np.subtract(one, two)))


def make_digit(rng: random.Random, cell: int, ground: Ground) -> Digit:
    """Place one digit in its cell, light on a dark ground and dark on a light one."""
    light = sum(ground.first) + sum(ground.second) < 6 * 125
    low, high = (225, 255) if light else (0, 45)
    ink = _rgb(rng.uniform(low, high) for _ in range(3))
    x = (cell % 3 + 0.5 + rng.uniform(-0.12, 0.12)) / 3
    y = (cell // 3 + 0.5 + rng.uniform(-0.12, 0.12)) / 3
    return Digit(str(rng.randint(0, 9)), cell, x, y, rng.uniform(0.2, 0.28), ink)


def draw(scene: Scene) -> Image.Image:
    """Draw the picture of a scene in RGB, `scene.width` by `scene.height` pixels."""
    picture = Image.fromarray(_paint_ground(scene))
    pencil = ImageDraw.Draw(picture)
    for item in scene.items:
        _trace(pencil, scene, item, item.rgb)
    if scene.digit:
        _write(pencil, scene, scene.digit, scene.digit.rgb)
    return picture


def draw_marks(scene: Scene) -> Image.Image:
    """Draw which item each pixel shows: 0 ground, 1.. items in order, 9 the digit's box."""
    marks = Image.new("L", (scene.width, scene.height), 0)
    pencil = ImageDraw.Draw(marks)
    for index, item in enumerate(scene.items):
        _trace(pencil, scene, item, index + 1)
    if scene.digit:
        pencil.rectangle(_digit_box(scene, scene.digit), fill=DIGIT_MARK)
    return marks


def _paint_ground(scene: Scene) -> np.ndarray:
    """Return the ground as uint8 (height, width, 3)."""
    ground, noise = scene.ground, np.random.default_rng(scene.seed)
    rows, columns = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float32)
    along = columns * np.cos(ground.angle) + rows * np.sin(ground.angle)
    if ground.kind == "noise":
        blend = noise.random((scene.height, scene.width), dtype=np.float32)
    elif ground.kind == "stripes":
        blend = 0.5 + 0.5 * np.sin(along * (2 * np.pi / ground.period))
    elif ground.kind == "checks":
        blend = (columns // ground.period + rows // ground.period) % 2
    else:
        blend = (along - along.min()) / max(1e-6, float(along.max() - along.min()))
    first, second = (np.asarray(face, np.float32) for face in (ground.first, ground.second))
    return np.asarray(first + blend[..., None] * (second - first) + 0.5).astype(np.uint8)


def _trace(pencil: Pencil, scene: Scene, item: Item, fill: int | Rgb) -> None:
    """Draw one shape with the given fill."""
    x, y = item.x * scene.width, item.y * scene.height
    radius = item.radius * min(scene.width, scene.height)
    if item.shape == "circle":
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif item.shape == "triangle":
        corners = ((x, y - radius), (x - radius, y + radius), (x + radius, y + radius))
        pencil.polygon(corners, fill=fill)
    elif item.shape == "rectangle":
        _bar(pencil, (x, y), _rectangle_reach(item, radius), fill)
    else:
        _bar(pencil, (x, y), (radius, radius * 0.35), fill)
        _bar(pencil, (x, y), (radius * 0.35, radius), fill)


def _rectangle_reach(item: Item, radius: float) -> tuple[float, float]:
    """Return half width and half height: rectangles stand up or lie down."""
    short = radius * item.aspect
    return (short, radius) if item.upright else (radius, short)


def _bar(
    pencil: Pencil, centre: tuple[float, float], reach: tuple[float, float], fill: int | Rgb
) -> None:
    """Draw an upright rectangle from its centre and its half sides in pixels."""
    (x, y), (across, down) = centre, reach
    pencil.rectangle((x - across, y - down, x + across, y + down), fill=fill)


@lru_cache(maxsize=256)
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font at a height in pixels."""
    return ImageFont.load_default(size=pixels)


def _write(pencil: Pencil, scene: Scene, digit: Digit, fill: Rgb) -> None:
    """Write the digit, centred on its place."""
    pixels = round(digit.height * min(scene.width, scene.height))
    place = (digit.x * scene.width, digit.y * scene.height)
    pencil.text(place, digit.value, fill=fill, font=_font(pixels), anchor="mm")


def _digit_box(scene: Scene, digit: Digit) -> tuple[float, float, float, float]:
    """Return the box, in pixels, that the digit's ink fills."""
    height = digit.height * min(scene.width, scene.height)
    x, y = digit.x * scene.width, digit.y * scene.height
    return x - 0.29 * height, y - 0.4 * height, x + 0.29 * height, y + 0.4 * height
