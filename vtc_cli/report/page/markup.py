"""HTML that is escaped unless it says that it is markup."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from vtc_cli.core.terminal import escaped

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
    return Html("".join(c if isinstance(c, Html) else escape(_shown(c)) for c in children))


def _shown(text: str) -> str:
    """Text without characters that turn others around or hide."""
    return escaped(text, lines=True)


def script_data(name: str, value: Any, *, shown: bool = False) -> Html:
    """JSON inside a script element that no text in it can end.

    Args:
        name: id of the element.
        value: what the page's script draws, or the result for whoever reads the page by program.
        shown: its texts are drawn, so that hidden characters in them are spelled out.

    Raises:
        ValueError: NaN or infinity, which JSON has not.
    """
    value = _all_shown(value) if shown else value
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, spelled in UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, spelled)
    return Html(f'<script type="application/json" id="{name}">{text}</script>')


def _all_shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _all_shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_all_shown(inner) for inner in value]
    return _shown(value) if isinstance(value, str) else value


def _attribute(key: str, value: str | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(_shown(str(value)))}"'
