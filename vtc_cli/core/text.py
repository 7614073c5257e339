"""Text that can be written as UTF-8."""

from __future__ import annotations

import re
from typing import Any

# A byte of a name or an argument that is no UTF-8 stands for itself as half a character.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def writable(text: str) -> str:
    """`text` with every half character spelled out by its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def all_writable(value: Any) -> Any:
    """The same for the texts of a list, a tuple or a mapping, which are else given as they are."""
    if isinstance(value, str):
        return writable(value) if HALF_CHARACTER.search(value) else value
    if isinstance(value, dict):
        return {all_writable(name): all_writable(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(all_writable, value))
    return value
