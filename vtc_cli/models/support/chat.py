"""Chat templates of checkpoints: programs by strangers, held to a time and a length."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vtc_cli.core.errors import ModelError

SECONDS = 5.0  # the longest published templates take milliseconds
CHARACTERS = 1_000_000  # beside those of the conversation
COMPILED = "<template>"  # file name of the Python code that jinja makes of a template


def rendered(tokenizer: Any, template: str, turns: Sequence[dict[str, Any]]) -> str:
    """The conversation `turns` as `template` writes it, in the library's sandbox.

    Raises:
        ModelError: the template takes too long, writes too much or calls itself without an end.
        Exception: whatever the template raises.
    """
    try:
        with _limited():
            text = tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=True
            )
    except RecursionError as error:
        raise ModelError("the chat template calls itself without an end") from error
    if len(text) > CHARACTERS + len(str(turns)):
        raise ModelError(
            f"the chat template writes {len(text):,} characters",
            allowed=f"{CHARACTERS:,} beside the question",
            hint="check the chat template of the checkpoint",
        )
    return str(text)


@contextmanager
def _limited() -> Iterator[None]:
    """End the loops of a template that run too long.

    The sandbox bounds each loop, but not loops in loops. A trace function sees every line of the
    compiled template, in whatever thread it runs; a signal would reach the main thread only.
    """
    end = time.monotonic() + SECONDS

    def watch(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != COMPILED:
            return None
        if time.monotonic() > end:
            raise ModelError(
                f"the chat template runs for more than {SECONDS:g} seconds",
                hint="check the chat template of the checkpoint",
            )
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
