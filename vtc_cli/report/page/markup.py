"""HTML that is escaped unless it says that it is markup."""

from __future__ import annotations

import json
from html import escape
from typing import Any

# Characters that could end a script element or a line of JavaScript; JSON may spell them so.
UNSAFE_IN_SCRIPT = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


class Html(str):
    """Text that is markup already."""


def tag(name: str, *children: str, **attributes: str | bool | None) -> Html:
    """An element; children and attribute values are escaped, children that are `Html` are not.

    Args:
        name: of the element; it gets an end tag.
        children: content in order.
        attributes: `class_` is written `class`, other underscores become hyphens; None and False
            leave the attribute out.
    """
    shown = {key: value for key, value in attributes.items() if value not in (None, False)}
    written = "".join(_attribute(key, value) for key, value in shown.items())
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children))


def script_data(name: str, value: Any) -> Html:
    """JSON inside a script element that no text in it can end.

    Raises:
        ValueError: NaN or infinity, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, spelled in UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, spelled)
    return Html(f'<script type="application/json" id="{name}">{text}</script>')


def _attribute(key: str, value: str | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
