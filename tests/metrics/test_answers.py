"""When an answer is right, rule by rule."""

import pytest

from vtc_cli.metrics.answers import RULES, Rule, matches, number


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
    ],
)
def test_rules(rule: Rule, answer: str, expected: str, right: bool) -> None:
    assert matches(answer, expected, rule) is right


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
