"""Clips of coloured shapes: composed from a seed, then drawn frame by frame as scenes of `tiny`.

Every shape has its own colour and its own lane, a band of the frame's height, so that shapes never
cover each other and "the red shape" names exactly one. A shape appears at one frame, stays or moves
along its lane to the left or to the right, and is gone after its last frame. A digit may flash: it
is to be seen in exactly one frame.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from training.scenes import (
    COLOUR_NAMES,
    SHAPES,
    Digit,
    Ground,
    Item,
    Scene,
    draw,
    draw_marks,
    make_digit,
    make_ground,
    make_shade,
)

FRAMES = 8
LANES = 4
SIDES = (96, 128, 160, 192)
LAST_ENTRY = 5
SHORTEST_STAY = 3
EDGE = 0.13
STEP = (0.3, 0.7)  # how far a moving shape goes in all, as a part of the width
STILL_SHARE = 0.25
FLASH_SHARE = 0.9
TRIES = 300


@dataclass(frozen=True)
class Mover:
    """One shape: the frame at which it appears, x at that and every later frame, and the rest.

    `way` holds x of the centre, as parts of the frame's width, for as long as the shape is there.
    """

    entry: int
    way: tuple[float, ...]
    y: float
    shape: str
    colour: str
    radius: float
    aspect: float
    upright: bool
    rgb: tuple[int, int, int]

    @property
    def leave(self) -> int:
        """The last frame at which it is to be seen."""
        return self.entry + len(self.way) - 1

    @property
    def direction(self) -> str | None:
        """`left`, `right`, or None for a shape that does not move."""
        if self.way[0] == self.way[-1]:
            return None
        return "right" if self.way[-1] > self.way[0] else "left"

    def x(self, frame: int) -> float:
        """Return where it is at a frame at which it is seen."""
        return self.way[frame - self.entry]

    def seen(self, frame: int) -> bool:
        """Say whether it is to be seen at a frame."""
        return self.entry <= frame <= self.leave


@dataclass(frozen=True)
class Clip:
    """All that a clip shows; `side` in pixels, movers in the order in which they appear."""

    seed: int
    side: int
    ground: Ground
    movers: tuple[Mover, ...]
    digit: Digit | None
    flash: int
    frames: int = FRAMES


def compose_clip(seed: int, side: int | None = None) -> Clip:
    """Make the clip that belongs to `seed`; the same arguments always give the same clip."""
    rng = random.Random(seed)
    size = side or rng.choice(SIDES)
    count = rng.randint(1, 4)
    entries = sorted(rng.sample(range(LAST_ENTRY + 1), count))
    lanes, colours = rng.sample(range(LANES), count), rng.sample(COLOUR_NAMES, count)
    movers = tuple(_mover(rng, *each) for each in zip(entries, lanes, colours, strict=True))
    ground = make_ground(rng, size, [mover.rgb for mover in movers])
    clip = Clip(seed, size, ground, movers, None, rng.randrange(FRAMES))
    return _with_flash(rng, clip) if rng.random() < FLASH_SHARE else clip


def _mover(rng: random.Random, entry: int, lane: int, colour: str) -> Mover:
    """Make one shape that appears at `entry`."""
    leave = min(FRAMES - 1, entry + rng.randint(SHORTEST_STAY, FRAMES) - 1)
    return Mover(
        entry=entry,
        way=_way(rng, leave - entry),
        y=(lane + 0.5 + rng.uniform(-0.06, 0.06)) / LANES,
        shape=rng.choice(SHAPES),
        colour=colour,
        radius=rng.uniform(0.075, 0.105),
        aspect=rng.uniform(0.5, 1.0),
        upright=rng.random() < 0.5,
        rgb=make_shade(rng, colour),
    )


def _way(rng: random.Random, steps: int) -> tuple[float, ...]:
    """Return x at every frame of a shape, in equal steps."""
    if rng.random() < STILL_SHARE:
        return (rng.uniform(EDGE, 1 - EDGE),) * (steps + 1)
    whole = rng.uniform(*STEP)
    near = rng.uniform(EDGE, 1 - EDGE - whole)
    start, end = (near, near + whole) if rng.random() < 0.5 else (near + whole, near)
    return tuple(start + (end - start) * (step / steps) for step in range(steps + 1))


def _with_flash(rng: random.Random, clip: Clip) -> Clip:
    """Add a digit at a place of its frame that no shape takes; without such a place, none."""
    items = frame_scene(clip, clip.flash).items
    for _ in range(TRIES):
        digit = make_digit(rng, rng.randrange(9), clip.ground)
        if all(_apart(digit, item) for item in items):
            return replace(clip, digit=digit)
    return clip


def _apart(digit: Digit, item: Item) -> bool:
    """Say whether the boxes of a digit and of a shape leave a gap."""
    across = 0.29 * digit.height + item.radius + 0.02
    down = 0.4 * digit.height + item.radius + 0.02
    return abs(digit.x - item.x) > across or abs(digit.y - item.y) > down


def frame_scene(clip: Clip, frame: int) -> Scene:
    """Return the scene that a frame shows, its items in the order of `clip.movers`."""
    items = tuple(_item(mover, frame) for mover in clip.movers if mover.seen(frame))
    digit = clip.digit if frame == clip.flash else None
    return Scene(clip.seed, clip.side, clip.side, clip.ground, items, digit)


def _item(mover: Mover, frame: int) -> Item:
    """Return the item that a mover is at a frame."""
    x, y = mover.x(frame), mover.y
    cell = int(y * 3) * 3 + int(x * 3)
    fixed = mover.radius, mover.aspect, mover.upright, mover.rgb
    return Item(mover.colour, mover.shape, cell, x, y, *fixed)


def draw_clip(clip: Clip) -> list[Image.Image]:
    """Draw all frames, RGB, `clip.side` pixels a side."""
    return [draw(frame_scene(clip, frame)) for frame in range(clip.frames)]


def frame_marks(clip: Clip, frame: int) -> Image.Image:
    """Draw what each pixel of a frame shows: 0 ground, 1.. movers in order, 9 the digit's box."""
    shown = [index + 1 for index, mover in enumerate(clip.movers) if mover.seen(frame)]
    table = [0, *shown, *range(len(shown) + 1, 256)]
    return draw_marks(frame_scene(clip, frame)).point(table)


def reversed_clip(clip: Clip) -> Clip:
    """Return the clip that the same frames in reverse order show."""
    turned = [
        replace(mover, entry=clip.frames - 1 - mover.leave, way=mover.way[::-1])
        for mover in clip.movers
    ]
    return replace(clip, movers=tuple(turned), flash=clip.frames - 1 - clip.flash)


def thinned_clip(clip: Clip, frames: Sequence[int]) -> Clip:
    """Return the clip that only some frames show, in their order; a shape not seen is left out."""
    movers = [_thinned(mover, frames) for mover in clip.movers]
    digit = clip.digit if clip.flash in frames else None
    return replace(
        clip,
        movers=tuple(mover for mover in movers if mover),
        digit=digit,
        flash=list(frames).index(clip.flash) if digit else 0,
        frames=len(frames),
    )


def _thinned(mover: Mover, frames: Sequence[int]) -> Mover | None:
    """Return what some frames show of a shape, None if they do not show it."""
    seen = [place for place, frame in enumerate(frames) if mover.seen(frame)]
    if not seen:
        return None
    return replace(mover, entry=seen[0], way=tuple(mover.x(frames[place]) for place in seen))
