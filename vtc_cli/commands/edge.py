"""The one place where errors become a block on stderr and an exit code."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

from typer import TyperException

from vtc_cli.commands.output import Output
from vtc_cli.core.errors import MemoryExhaustedError, UsageError, VtcError
from vtc_cli.core.terminal import escaped, say

INTERRUPTED = 130
LABEL_WIDTH = 9
CPU_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")


def run_guarded(call: Callable[[Output], Any]) -> int:
    """Run the command line and return its exit code; prints every error exactly once."""
    output = Output()
    try:
        result = call(output)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()
        return 1
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        return _report(error, output)
    if result == INTERRUPTED:  # typer turns the interrupt into this code
        say("interrupted")
    return result if isinstance(result, int) else 0


def error_block(error: VtcError, width: int | None = None) -> str:
    """The text of an error: title, then where, found, allowed and try, aligned.

    Args:
        error: all faults of an error that has several are listed.
        width: columns to wrap at, None for no wrapping.
    """
    faults: list[VtcError] = getattr(error, "faults", [])
    title = f"error: {error.title}"
    if faults:
        title += f": {error.found} in {escaped(str(error.where))}"
    blocks = [_rows(fault, width) for fault in faults or [error]]
    return "\n".join([title, "\n\n".join(blocks)])


def _rows(error: VtcError, width: int | None) -> str:
    lines = []
    for label, text in error.rows():
        head = f"  {label:<{LABEL_WIDTH}}"
        body = [escaped(text)]
        if width:
            body = textwrap.wrap(
                body[0], width - len(head), break_long_words=False, break_on_hyphens=False
            )
        lines.append(head + f"\n{' ' * len(head)}".join(body))
    return "\n".join(lines)


def _report(error: Exception, output: Output) -> int:
    known = _as_vtc_error(error)
    if output.debug:
        say("".join(traceback.format_exception(error)).rstrip())
    if known is None:
        text = " ".join(str(error).split()) or "no message"
        hint = "" if output.debug else "; rerun with --debug for the traceback"
        say(f"error: unexpected {type(error).__name__}: {text}{hint}")
        return 1
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    say(error_block(known, width))
    return known.exit_code


def _as_vtc_error(error: Exception) -> VtcError | None:
    if isinstance(error, VtcError):
        return error
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "vtc"
        return UsageError(error.format_message(), where=command, hint=f"{command} --help")
    if _is_out_of_memory(error):
        text = str(error).partition("\n")[0] or "an allocation failed"
        return MemoryExhaustedError(text, hint="a smaller --dtype or model, or another --device")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise torch's errors by name, for torch may not even be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(part in text for part in CPU_OUT_OF_MEMORY)


def _leave_pipe() -> None:
    """Point stdout at nothing, or the interpreter complains while it shuts down."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
