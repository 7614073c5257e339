"""When an answer is right: five rules, from the letter to the spirit.

All of them are blind to meaning: "not red" contains "red", and a synonym is wrong.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

Rule = Literal["normalised", "exact", "numeric", "multiple_choice", "contains"]

ARTICLES = {"a", "an", "the"}
UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
VALUES = {word: value for value, word in enumerate(UNITS)} | {
    word: 10 * (place + 2) for place, word in enumerate(TENS)
}
SPELLED = re.compile(
    rf"\b(?:({'|'.join(TENS)})(?:[\s-]+({'|'.join(UNITS[1:10])}))?|({'|'.join(UNITS)}))\b"
)
NUMBER = (
    r"(?<![\w.])[-+]?"  # a sign counts in front of a number, not in 3-4 or B-4
    r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
)
WORD = re.compile(rf"{NUMBER}|[^\W_]+")
APOSTROPHES = str.maketrans({"'": None, "\u2019": None, "\u2212": "-"})  # and the minus sign
NUMERIC_TOLERANCE = 1e-6  # relative: two spellings of one number
LETTER = r"([A-Z](?!\w)|[a-z](?=[).\]:,]|\W*$))(?!['\u2019])"  # a small one must end something
CHOICES = (
    re.compile(r"^\W*([A-Za-z])\W*$"),
    re.compile(r"^\W*([A-Za-z])[).\]:,](?:\s|$)"),
    re.compile(rf"\b(?i:answer|option|choice)\b\W*(?i:is\b|:)?\W*(?i:option|choice)?\W*{LETTER}"),
    re.compile(r"^\W*([B-HJ-Z])\s"),  # "A dog" and "I see" open with words
)
BRACKETED = re.compile(r"\(([A-Za-z])\)")


def matches(answer: str, expected: str, rule: Rule = "normalised") -> bool:
    """Whether `answer` is right.

    Args:
        answer: what the model said.
        expected: what is right; one in which the rule finds nothing to compare is never matched.
        rule: `exact` compares the texts without outer spaces; `normalised` without case,
            punctuation, articles and spelling of numbers below a hundred, as the VQA evaluation
            does; `numeric` the first number of each; `multiple_choice` the letter that each
            chooses; `contains` looks for the normalised words of `expected` in a row.
    """
    return RULES[rule](answer, expected)


def nothing_to_compare(expected: str, rule: Rule) -> str | None:
    """Why no answer can ever be right: what `rule` looks for in `expected` and does not find."""
    if rule == "numeric" and number(expected) is None:
        return "no number"
    if rule == "multiple_choice" and choice(expected) is None:
        return "no letter of a choice"
    return None


def normalised(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, numbers below a hundred as digits.

    Articles stay where there is nothing else, for "A" may be a choice; so do signs, as in "+".
    """
    words = _words(text)
    told = [word for word in words if word not in ARTICLES]
    return told or words or unicodedata.normalize("NFKC", text).casefold().split()


def number(text: str) -> float | None:
    """The first number in a text, as digits or as a word below a hundred; None without one."""
    found = (word for word in _words(text) if re.fullmatch(NUMBER, word))
    return next((float(word) for word in found), None)


def choice(text: str) -> str | None:
    """The letter that an answer chooses, as a capital; None where it is not plain which.

    It stands alone, opens the text ("b) red", "C dog"), is named ("the answer is c.") or is the
    only one in round brackets. "A dog" is no choice: it cannot be told from an article.
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    for pattern in CHOICES:
        if match := pattern.search(plain):
            return match.group(1).upper()
    bracketed = {letter.upper() for letter in BRACKETED.findall(plain)}
    return bracketed.pop() if len(bracketed) == 1 else None


def _words(text: str) -> list[str]:
    """Words and numbers in order: 1,000 is 1000, twenty-one is 21, a minus stays."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(APOSTROPHES)
    found = WORD.finditer(SPELLED.sub(_digits, plain))
    return [match.group().replace(",", "").removeprefix("+") for match in found]


def _digits(spelled: re.Match[str]) -> str:
    return str(sum(VALUES[part] for part in spelled.groups() if part))


def _exact(answer: str, expected: str) -> bool:
    return bool(expected.strip()) and answer.strip() == expected.strip()


def _normalised(answer: str, expected: str) -> bool:
    wanted = normalised(expected)
    return bool(wanted) and normalised(answer) == wanted


def _numeric(answer: str, expected: str) -> bool:
    mine, theirs = number(answer), number(expected)
    if mine is None or theirs is None or not math.isfinite(mine):
        return False
    return math.isclose(mine, theirs, rel_tol=NUMERIC_TOLERANCE)


def _multiple_choice(answer: str, expected: str) -> bool:
    wanted = choice(expected)
    return wanted is not None and choice(answer) == wanted


def _contains(answer: str, expected: str) -> bool:
    words, wanted = normalised(answer), normalised(expected)
    places = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[i : i + len(wanted)] == wanted for i in places)


RULES: Mapping[Rule, Callable[[str, str], bool]] = {
    "exact": _exact,
    "normalised": _normalised,
    "numeric": _numeric,
    "multiple_choice": _multiple_choice,
    "contains": _contains,
}
