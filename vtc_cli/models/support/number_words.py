"""Numbers in English words, as the prompts of some models write them."""

from __future__ import annotations

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
BELOW_TWENTY = (*ONES, *TEENS, "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number_words(number: int) -> str:
    """The words of 0 to 999999: twenty-one, one hundred and one, one thousand, two hundred."""
    if number < 20:
        return BELOW_TWENTY[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{BELOW_TWENTY[ones]}" if ones else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    count, rest = divmod(number, size)
    words = f"{number_words(count)} {name}"
    if not rest:
        return words
    return f"{words}{' and ' if rest < 100 else ', '}{number_words(rest)}"
