"""Tables and lines for a reader: rich without its markup, and with hidden characters spelled out.

Only this module takes `Console` and `Text` from rich, so that no name, answer or error reaches the
terminal another way (`tests/core/test_terminal.py` holds this).
"""

from __future__ import annotations

from typing import Any

import rich.console
import rich.text

from vtc_cli.core.terminal import escaped


class Text(rich.text.Text):
    """Text whose hidden characters are spelled out when it is made.

    Args:
        text: from anywhere.
        style: as rich names it.
        lines: line ends and tabs are the text's own and stay, as in an answer.
    """

    def __init__(self, text: str = "", style: Any = "", *, lines: bool = False, **more: Any):
        super().__init__(escaped(text, lines=lines), style, **more)

    def append(self, text: Any, style: Any = None) -> Text:
        """Add text at the end; a plain string is spelled out first."""
        super().append(escaped(text) if isinstance(text, str) else text, style)
        return self


class Console(rich.console.Console):
    """A console that takes strings as they are: no markup, no emoji codes, no highlighting.

    Away from a terminal, lines are not filled up with spaces to the width of a table.
    """

    def __init__(self, *, stderr: bool = False, **more: Any):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **more)

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """A string as text; `[red]` and `:smile:` in it are no commands."""
        known = {key: options.get(key) for key in ("justify", "overflow")}
        return Text(text, options.get("style") or "", lines=True, **known)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and away from a terminal cut what would only fill a line."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        lines = captured.get().split("\n")
        self.file.write("\n".join(line.rstrip(" ") for line in lines))
        self.file.flush()
