"""The wording of every kind of question, and the words that they are made of.

A trailing `@` marks the word at which a question has named an item; the marks serve the
auxiliary losses of the language phase and are removed from the text that a model reads.
"""

from __future__ import annotations

import re

MARK = "@"
COLUMNS = ("left", "center", "right")
ROWS = ("top", "middle", "bottom")
CELLS = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
PLURALS = {
    "circle": "circles",
    "rectangle": "rectangles",
    "triangle": "triangles",
    "cross": "crosses",
}
COLOR = (
    "what color is the {thing}@?",
    "what is the color of the {thing}@?",
    "which color does the {thing}@ have?",
    "what color does the {thing}@ have?",
    "name the color of the {thing}@.",
)
SHAPE = (
    "what shape is {color}@?",
    "which shape is {color}@?",
    "what is the {color} shape@?",
    "what is the shape of the {color} object@?",
    "what kind of shape is the {color} object@?",
    "what shape is the {color} object@?",
)
SHAPE_PLACED = (
    "what shape is {place}@?",
    "which shape is {place}@?",
    "what shape do you see {place}@?",
)
SHAPE_ALONE = (
    "what shape is in the {picture}?",
    "what shape does the {picture} contain?",
    "what shape is present?",
    "what shape is there?",
)
COUNT = (
    "how many {things} are there?",
    "how many {things} are in the {picture}?",
    "how many {things} are there in the {picture}?",
    "how many {things} do you see?",
    "how many {things} does the {picture} contain?",
    "count the {things}.",
    "what is the number of {things}?",
)
AFFIRMED = (
    "is there {thing}@?",
    "is there {thing}@ in the {picture}?",
    "is {thing}@ present?",
    "does the {picture} contain {thing}@?",
    "do you see {thing}@?",
    "can you see {thing}@ in the {picture}?",
)
NEGATED = (
    "is there not {thing}@?",
    "is there not {thing}@ in the {picture}?",
    "does the {picture} not contain {thing}@?",
    "is no {bare}@ present?",
    "is there no {bare}@ in the {picture}?",
)
RELATIONS = ("left", "right", "above", "below")
RELATION_PHRASES = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below",),
}
RELATION = (
    "is the {one}@ {relation} the {two}@?",
    "is the {one}@ {relation} the {two}@ in the {picture}?",
)
RELATION_CHOICES = {"x": "left or right of", "y": "above or below"}
RELATION_CHOICE = (
    "is the {one}@ {choice} the {two}@?",
    "is the {one}@ {choice} the {two}@ in the {picture}?",
)
DIGIT = (
    "what digit is shown?",
    "what digit is there?",
    "which digit is in the {picture}?",
    "what digit is in the {picture}?",
    "what number is in the {picture}?",
    "which number is shown?",
    "which digit do you see?",
    "what number do you see?",
    "read the digit.",
    "what is the digit?",
)
PLACE = (
    "where is the {thing}@?",
    "where is the {thing}@ in the {picture}?",
    "where do you see the {thing}@?",
    "in which part of the {picture} is the {thing}@?",
)
DESCRIPTION = (
    "describe the {picture}.",
    "what is in the {picture}?",
    "what do you see?",
    "what do you see in the {picture}?",
    "describe the {picture} in one sentence.",
    "what does the {picture} show?",
    "describe what you see.",
    "please describe the {picture}.",
)
DETAILED = "give a detailed description of the {picture}."
SUFFIXES = (
    "answer the question using a single word or phrase.",
    "answer with one word.",
    "answer in one word.",
)
ANSWER_WORDS = "yes no and at in the a digit user assistant : , . ? ! ' \" -"
SYNONYMS = (
    "grey colour colours colors photo image picture object objects shape shapes square please"
)
_ALL = (
    *COLOR,
    *SHAPE,
    *SHAPE_PLACED,
    *SHAPE_ALONE,
    *COUNT,
    *AFFIRMED,
    *NEGATED,
    *RELATION,
    *RELATION_CHOICE,
    *DIGIT,
    *PLACE,
    *DESCRIPTION,
    DETAILED,
    *SUFFIXES,
)


def split_words(text: str) -> list[str]:
    """Split text as the tokenizer does: words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def template_words() -> list[str]:
    """Return every word that templates, places and answers use, in a fixed order."""
    plain = [re.sub(r"\{\w+\}|@", " ", template) for template in _ALL]
    phrases = [phrase for group in RELATION_PHRASES.values() for phrase in group]
    phrases += RELATION_CHOICES.values()
    texts = [*plain, *phrases, *CELLS, *ROWS, *COLUMNS, *PLURALS.values(), ANSWER_WORDS, SYNONYMS]
    return list(dict.fromkeys(word for text in texts for word in split_words(text)))
