"""Questions and answers about a clip, each category with several wordings.

Every maker takes a clip and a random source and returns a question, or None where the clip cannot
answer such a question without ambiguity. Every answer follows from the frames alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.questions import Question
from training.scenes import COLOUR_NAMES, SHAPES
from training.templates import PLURALS
from training.video import wording
from training.video.clips import Clip, Mover

SHAPE_SHARE = 0.3  # of the questions of what comes first or last
KIND_SHARE = 0.2  # of the counts: those of one shape
STILL_QUESTIONS = 0.2  # of the questions of motion: whether there is any


@dataclass(frozen=True)
class ClipQuestion(Question):
    """A question with the mover (None: absent) that every mark names."""

    movers: tuple[Mover | None, ...] = ()


Maker = Callable[[Clip, random.Random], ClipQuestion | None]


def _fill(rng: random.Random, wordings: tuple[str, ...], **words: str) -> str:
    """Choose a wording, put in the words and vary spelling and the closing mark."""
    words = {"video": rng.choice(wording.VIDEOS), "picture": rng.choice(wording.VIDEOS)} | words
    text = rng.choice(wordings).format(**words)
    if rng.random() < 0.15:
        text = text.replace("color", "colour")
    if rng.random() < 0.1:
        text = text.replace("gray", "grey")
    return text.rstrip("?.") if rng.random() < 0.12 else text


def name(clip: Clip, mover: Mover, rng: random.Random) -> str:
    """Return a name by which only this shape can be meant, e.g. "red shape" or "circle"."""
    names = [f"{mover.colour} shape", f"{mover.colour} {mover.shape}", f"{mover.colour} object"]
    if sum(other.shape == mover.shape for other in clip.movers) == 1:
        names.append(mover.shape)
    return rng.choice(names)


def order_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask for the colour or the shape of what appears first or last."""
    end = rng.choice(wording.ENDS)
    entries = [mover.entry for mover in clip.movers]
    frame = min(entries) if end == "first" else max(entries)
    if len(entries) < 2 or entries.count(frame) > 1:
        return None
    mover = clip.movers[entries.index(frame)]
    if rng.random() < SHAPE_SHARE:
        return ClipQuestion(_fill(rng, wording.FIRST_LAST_SHAPE, end=end), mover.shape, "order")
    return ClipQuestion(_fill(rng, wording.FIRST_LAST_COLOR, end=end), mover.colour, "order")


def motion_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask in which direction a shape moves, or whether it does."""
    if rng.random() < STILL_QUESTIONS:
        return _still_question(clip, rng)
    moving = [mover for mover in clip.movers if mover.direction]
    if not moving:
        return None
    mover = rng.choice(moving)
    text = _fill(rng, wording.DIRECTION, thing=name(clip, mover, rng))
    return ClipQuestion(text, str(mover.direction), "motion", movers=(mover,))


def _still_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask whether a shape moves; one that is seen in a single frame cannot tell."""
    moving = rng.random() < 0.5
    lasting = [mover for mover in clip.movers if mover.leave > mover.entry]
    fitting = [mover for mover in lasting if bool(mover.direction) == moving]
    if not fitting:
        return None
    mover = rng.choice(fitting)
    text = _fill(rng, wording.MOVES, thing=name(clip, mover, rng))
    return ClipQuestion(text, "yes" if moving else "no", "motion", movers=(mover,))


def count_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask for the number of all shapes or of those of one kind."""
    if rng.random() >= KIND_SHARE:
        text = _fill(rng, wording.PASSING, things=rng.choice(("shapes", "objects")))
        return ClipQuestion(text, str(len(clip.movers)), "count")
    shape = rng.choice((rng.choice(SHAPES), rng.choice(clip.movers).shape))
    count = sum(mover.shape == shape for mover in clip.movers)
    return ClipQuestion(_fill(rng, wording.PASSING, things=PLURALS[shape]), str(count), "count")


def needle_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask for the digit that is to be seen in one frame."""
    if clip.digit is None:
        return None
    return ClipQuestion(_fill(rng, wording.NEEDLE), clip.digit.value, "needle")


def neighbour(clip: Clip, mover: Mover, when: str) -> Mover | None:
    """Return the one shape that appears just before or after another, None if not exactly one."""
    if when == "before":
        frames = [other.entry for other in clip.movers if other.entry < mover.entry]
        frame = max(frames, default=None)
    else:
        frames = [other.entry for other in clip.movers if other.entry > mover.entry]
        frame = min(frames, default=None)
    there = [other for other in clip.movers if other.entry == frame]
    return there[0] if len(there) == 1 else None


def before_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask what appears just before or after a shape, or which of two is the earlier one."""
    if rng.random() < 0.3:
        return _earlier_question(clip, rng)
    mover, when = rng.choice(clip.movers), rng.choice(("before", "before", "after"))
    other = neighbour(clip, mover, when)
    if other is None:
        return None
    thing = name(clip, mover, rng)
    if rng.random() < 0.5:
        text, answer = _fill(rng, wording.NEXT_COLOR, when=when, thing=thing), other.colour
    else:
        text = _fill(rng, wording.NEXT_THING, when=when, thing=thing)
        answer = f"{other.colour} {other.shape}"
    return ClipQuestion(text, answer, "before", movers=(mover,))


def _earlier_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask whether a shape appears before or after another."""
    if len(clip.movers) < 2:
        return None
    one, two = rng.sample(clip.movers, 2)
    if one.entry == two.entry:
        return None
    when = rng.choice(wording.WHENS)
    names = {"one": name(clip, one, rng), "two": name(clip, two, rng)}
    answer = "yes" if (one.entry < two.entry) == (when == "before") else "no"
    text = _fill(rng, wording.EARLIER, when=when, **names)
    return ClipQuestion(text, answer, "before", movers=(one, two))


def looks_question(clip: Clip, rng: random.Random) -> ClipQuestion | None:
    """Ask as `tiny` is asked: colour, shape, or whether a thing is there in any frame."""
    mover, kind = rng.choice(clip.movers), rng.random()
    if kind < 0.35:
        text = _fill(rng, wording.LOOKS_SHAPE, color=mover.colour)
        return ClipQuestion(text, mover.shape, "looks", movers=(mover,))
    if kind < 0.65:
        if sum(other.shape == mover.shape for other in clip.movers) > 1:
            return None
        text = _fill(rng, wording.LOOKS_COLOR, thing=mover.shape)
        return ClipQuestion(text, mover.colour, "looks", movers=(mover,))
    there = rng.random() < 0.5
    bare = f"{mover.colour} {mover.shape}" if there else _absent(clip, mover, rng)
    text = _fill(rng, wording.LOOKS_PRESENT, thing=f"a {bare}", bare=bare)
    return ClipQuestion(text, "yes" if there else "no", "looks", movers=(mover if there else None,))


def _absent(clip: Clip, mover: Mover, rng: random.Random) -> str:
    """Name a thing that no frame shows, near to one that some show."""
    shown = {other.colour for other in clip.movers}
    if rng.random() < 0.5:
        return f"{rng.choice([c for c in COLOUR_NAMES if c not in shown])} {mover.shape}"
    return f"{mover.colour} {rng.choice([shape for shape in SHAPES if shape != mover.shape])}"


ASKED: dict[str, Maker] = {
    "order": order_question,
    "motion": motion_question,
    "count": count_question,
    "needle": needle_question,
    "before": before_question,
}
MAKERS: dict[str, Maker] = ASKED | {"looks": looks_question}
