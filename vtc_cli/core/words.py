"""Counts and numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 stage`, `2 stages`; a plural that is no `s` is given."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def fixed(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with `digits` decimals; what rounds to zero is `0.000` and never `-0.000`."""
    text = f"{value:z.{digits}f}"
    return f"+{text}" if signed and float(text) > 0 else text
