"""When an answer is right: five rules, from the letter to the spirit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

Rule = Literal["normalised", "exact", "numeric", "multiple_choice", "contains"]

ARTICLES = {"a", "an", "the"}
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen", "twenty"),
)
DIGITS = {word: str(value) for value, word in enumerate(NUMBERS)}
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
NUMERIC_TOLERANCE = 1e-6  # relative: two spellings of one number
CHOICE = re.compile(
    r"^\W*(?:(?:the )?(?:answer|option|choice)\W*(?:is\W*)?)?([a-z])\b(?!['\u2019])", re.IGNORECASE
)


def matches(answer: str, expected: str, rule: Rule = "normalised") -> bool:
    """Whether `answer` is right.

    Args:
        answer: what the model said.
        expected: what is right.
        rule: `exact` compares the texts without outer spaces; `normalised` without case,
            punctuation, articles and spelling of small numbers, as the VQA evaluation does;
            `numeric` the first number of each; `multiple_choice` the letter that the answer opens
            with; `contains` looks for the normalised words of `expected` in a row.
    """
    return RULES[rule](answer, expected)


def normalised(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, numbers up to twenty as digits."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)  # 1,000 is one number
    words = re.findall(r"\d+\.\d+|[^\W_]+", plain.replace("'", "").replace("\u2019", ""))
    return [DIGITS.get(word, word) for word in words if word not in ARTICLES]


def number(text: str) -> float | None:
    """The first number in a text, as digits or as a word up to twenty; None without one."""
    found = [(match.start(), match.group().replace(",", "")) for match in NUMBER.finditer(text)]
    words = [
        (match.start(), DIGITS[match.group().casefold()])
        for match in re.finditer(r"[A-Za-z]+", text)
        if match.group().casefold() in DIGITS
    ]
    places = sorted(found + words)
    return float(places[0][1]) if places else None


def _exact(answer: str, expected: str) -> bool:
    return answer.strip() == expected.strip()


def _normalised(answer: str, expected: str) -> bool:
    return normalised(answer) == normalised(expected)


def _numeric(answer: str, expected: str) -> bool:
    mine, theirs = number(answer), number(expected)
    if mine is None or theirs is None:
        return False
    return abs(mine - theirs) <= NUMERIC_TOLERANCE * max(abs(theirs), 1.0)


def _multiple_choice(answer: str, expected: str) -> bool:
    mine, theirs = CHOICE.match(answer.strip()), CHOICE.match(expected.strip())
    if mine is None or theirs is None:
        return False
    return mine.group(1).casefold() == theirs.group(1).casefold()


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
