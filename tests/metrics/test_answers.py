"""When an answer is right, rule by rule."""

import pytest

from vtc_cli.metrics.answers import RULES, Rule, matches, normalised, nothing_to_compare, number


@pytest.mark.parametrize(
    ("rule", "answer", "expected", "right"),
    [
        ("exact", " red ", "red", True),
        ("exact", "Red", "red", False),
        ("normalised", "The Red, Circle.", "red circle", True),
        ("normalised", "three", "3", True),
        ("normalised", "thirty", "3", False),
        ("normalised", "1,000", "1000", True),
        ("normalised", "it's", "its", True),
        ("normalised", "\uff32\uff25\uff24", "red", True),
        ("normalised", "circle red", "red circle", False),
        ("normalised", "top-left", "top left", True),
        ("numeric", "There are 12 of them", "12", True),
        ("numeric", "about three", "3.0", True),
        ("numeric", "-4", "4", False),
        ("numeric", "1,250.5 km", "1250.5", True),
        ("numeric", "none", "0", False),
        ("multiple_choice", "(B) a dog", "B", True),
        ("multiple_choice", "The answer is c.", "C", True),
        ("multiple_choice", "A dog", "B", False),
        ("multiple_choice", "answer: D", "d", True),
        ("multiple_choice", "I'm not sure", "I", False),
        ("multiple_choice", "42", "A", False),
        ("contains", "I see a red circle there", "red circle", True),
        ("contains", "a red and a circle", "red circle", False),
        ("contains", "bored", "red", False),
        ("contains", "anything", "", False),
        # Nothing but an article is compared as it stands, and silence is never right.
        ("normalised", "", "A", False),
        ("normalised", "the", "A", False),
        ("normalised", "a.", "A", True),
        ("normalised", "", "?", False),
        ("normalised", "+", "+", True),
        ("normalised", "", "", False),
        ("exact", "", " ", False),
        ("contains", "", "?", False),
        ("normalised", "-4", "4", False),
        ("normalised", "\u22124", "-4", True),
        ("normalised", "B-4", "b 4", True),
        ("normalised", "12km", "12 km", True),
        ("normalised", "Twenty-one", "21", True),
        ("normalised", "thirty", "30", True),
        ("normalised", "twenties", "20s", False),
        ("normalised", "someone", "some1", False),
        ("contains", "the twenty one birds", "20", False),
        ("contains", "the twenty one birds", "21 birds", True),
        ("numeric", "twenty-one", "20", False),
        ("numeric", "forty two", "42", True),
        ("numeric", "1,2 and 3", "12", False),
        ("numeric", "\u22125", "5", False),
        ("numeric", "3-4", "3", True),
        ("numeric", "2e-7", "1e-7", False),
        ("numeric", "1e999", "1e998", False),
        ("numeric", "0", "-0.0", True),
        ("numeric", "five", "red", False),
        ("numeric", "", "red", False),
        ("multiple_choice", "a cat", "A", False),
        ("multiple_choice", "A dog", "A", False),
        ("multiple_choice", "a", "A", True),
        ("multiple_choice", "**A**", "(a)", True),
        ("multiple_choice", "B dog", "B", True),
        ("multiple_choice", "b) dog", "B", True),
        ("multiple_choice", "C: red", "c", True),
        ("multiple_choice", "The correct answer is (C)", "C", True),
        ("multiple_choice", "the answer is option B", "B", True),
        ("multiple_choice", "the answer is a dog", "A", False),
        ("multiple_choice", "I think it is (b)", "B", True),
        ("multiple_choice", "choose (a) or (b)", "A", False),
        ("multiple_choice", "choose (a) or (b)", "B", False),
        ("multiple_choice", "I think so", "I", False),
        ("multiple_choice", "", "", False),
    ],
)
def test_rules(rule: Rule, answer: str, expected: str, right: bool) -> None:
    assert matches(answer, expected, rule) is right


@pytest.mark.parametrize("value", range(100))
def test_numbers_below_a_hundred_are_read_as_words(value: int) -> None:
    """Words by a table of its own: tens and units written out."""
    ones = (
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
        *("eighteen", "nineteen"),
    )
    tens = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    high, low = divmod(value, 10)
    word = ones[value] if value < 20 else tens[high - 2] + (f"-{ones[low]}" if low else "")
    for text in (word, word.replace("-", " "), word.capitalize(), f"the {word} birds"):
        assert number(text) == value
    assert normalised(word) == [str(value)]


@pytest.mark.parametrize("rule", RULES)
def test_an_answer_equals_itself_and_not_silence(rule: Rule) -> None:
    same = {"numeric": "7", "multiple_choice": "B"}.get(rule, "red circle")
    assert matches(same, same, rule)
    assert not matches("", same, rule)


def test_the_first_number_counts_in_any_spelling() -> None:
    assert (number("two of 5"), number("5 of two"), number("1e3"), number("no")) == (
        2,
        5,
        1000,
        None,
    )


@pytest.mark.parametrize(
    ("expected", "rule", "lacking"),
    [
        ("red", "numeric", "no number"),
        ("three shapes", "numeric", None),
        ("a dog", "multiple_choice", "no letter of a choice"),
        ("B", "multiple_choice", None),
        ("red", "exact", None),
    ],
)
def test_answers_that_no_rule_could_match_are_known(
    expected: str, rule: Rule, lacking: str | None
) -> None:
    assert nothing_to_compare(expected, rule) == lacking
    if lacking:
        assert not matches(expected, expected, rule)
