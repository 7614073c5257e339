r"""Text on its way to a terminal: characters that steer it or deceive the reader are spelled out.

File names, answers and recipes come from anywhere. An escape sequence in one of them could clear
the screen or rewrite a verdict, and a bidirectional override could turn a name around. Every word
for a reader passes `show` (stdout) or `say` (stderr), or the tables of `core.console`, which spell
such characters out as `\x1b` or `\u202e`; data for a program pass `emit`.
"""

from __future__ import annotations

import re
import sys
from typing import IO

# Control characters (C0, DEL, C1), line separators, bidirectional controls, lone surrogates (bytes
# of a file name that are no UTF-8), and characters without a width. A joiner between two letters
# beyond ASCII shapes them, as in Persian, Hindi and emoji; anywhere else it only hides.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\uffff\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<![^\x00-\x7f\u200b-\u200f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200b-\u200f])"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str, *, lines: bool = False) -> str:
    r"""The text with every character spelled out that a terminal obeys or does not show.

    Characters below U+007F are written `\xNN`, others `\uNNNN`, beyond U+FFFF as two surrogates:
    so that JSON, which holds none of the former unescaped, stays the same JSON.

    Args:
        text: from anywhere.
        lines: line ends and tabs are the text's own and stay.
    """
    return _HIDDEN.sub(lambda match: _spelled(match[0], lines), text)


def _spelled(character: str, lines: bool) -> str:
    if character in _SHORT:
        return character if lines and character != "\r" else _SHORT[character]
    code = ord(character)
    if code < 0x7F:
        return f"\\x{code:02x}"
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def show(text: str, end: str = "\n", file: IO[str] | None = None) -> None:
    """Words for a reader, or JSON, on stdout or another stream."""
    print(escaped(text, lines=True), end=end, file=file, flush=not end)


def say(text: str) -> None:
    """Words for a reader on stderr."""
    print(escaped(text, lines=True), file=sys.stderr)


def emit(text: str, file: IO[str] | None = None) -> None:
    """Data on stdout: byte for byte in a pipe or a file, spelled out where a terminal shows it."""
    stream = file or sys.stdout
    stream.write(escaped(text, lines=True) if stream.isatty() else text)
    stream.flush()
