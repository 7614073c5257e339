"""The wording of questions about clips, and the words that they add to those of `tiny`.

Marks (`@`) are those of `training.templates`.
"""

from __future__ import annotations

import re

from training.templates import AFFIRMED, COLOR, SHAPE, split_words
from training.tokenizer import vocabulary

VIDEO_TOKEN = "<video>"
FIRST_LAST_COLOR = (
    "which color appears {end}?",
    "what color appears {end}?",
    "which color comes {end}?",
    "what is the color of the {end} shape?",
    "what color is the {end} shape in the {video}?",
    "what color does the {end} object have?",
)
FIRST_LAST_SHAPE = (
    "which shape appears {end}?",
    "what shape appears {end}?",
    "which shape comes {end} in the {video}?",
    "what is the {end} shape?",
)
DIRECTION = (
    "does the {thing}@ move left or right?",
    "does the {thing}@ move to the left or to the right?",
    "in which direction does the {thing}@ move?",
    "which direction does the {thing}@ move in?",
    "where does the {thing}@ move?",
    "is the {thing}@ moving left or right?",
)
MOVES = (
    "does the {thing}@ move?",
    "does the {thing}@ move in the {video}?",
    "is the {thing}@ moving?",
)
PASSING = (
    "how many {things} pass?",
    "how many {things} pass by?",
    "how many {things} appear?",
    "how many {things} appear in the {video}?",
    "how many {things} are there in the {video}?",
    "how many {things} does the {video} show?",
    "count the {things} in the {video}.",
    "what is the number of {things} in the {video}?",
)
NEEDLE = (
    "which digit flashes?",
    "what digit flashes?",
    "which digit flashes for one frame?",
    "which digit flashes in the {video}?",
    "what digit appears for one frame?",
    "what digit is shown?",
    "which digit do you see in the {video}?",
    "what number flashes?",
    "what number is in the {video}?",
    "read the digit in the {video}.",
)
NEXT_COLOR = (
    "which color appears just {when} the {thing}@?",
    "what color appears just {when} the {thing}@?",
    "which color comes just {when} the {thing}@?",
    "what is the color of the shape just {when} the {thing}@?",
)
NEXT_THING = (
    "what appears just {when} the {thing}@?",
    "what comes just {when} the {thing}@?",
    "what happened just {when} the {thing}@ appeared?",
    "which object appears just {when} the {thing}@?",
)
EARLIER = (
    "does the {one}@ appear {when} the {two}@?",
    "does the {one}@ come {when} the {two}@?",
    "is the {one}@ there {when} the {two}@?",
)
WHENS = ("before", "after")
ENDS = ("first", "last")
VIDEOS = ("video", "video", "clip")
_TEMPLATES = (
    *FIRST_LAST_COLOR,
    *FIRST_LAST_SHAPE,
    *DIRECTION,
    *MOVES,
    *PASSING,
    *NEEDLE,
    *NEXT_COLOR,
    *NEXT_THING,
    *EARLIER,
)
LOOKS_COLOR = COLOR
LOOKS_SHAPE = SHAPE
LOOKS_PRESENT = AFFIRMED


def video_vocabulary() -> dict[str, int]:
    """Return every word with its id: those of `tiny` keep theirs, new ones follow."""
    plain = [re.sub(r"\{\w+\}|@", " ", template) for template in _TEMPLATES]
    texts = [*plain, *WHENS, *ENDS, *VIDEOS]
    added = [word for text in texts for word in split_words(text)]
    known = vocabulary()
    new = [word for word in dict.fromkeys([VIDEO_TOKEN, *added]) if word not in known]
    return known | {word: len(known) + index for index, word in enumerate(new)}
