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
from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import MemoryExhaustedError, UsageError, VtcError
from vtc_cli.core.memory import is_out_of_memory

INTERRUPTED = 130
LABEL_WIDTH = 9


def run_guarded(call: Callable[[Output], Any]) -> int:
    """Run the command line and return its exit code; prints every error exactly once."""
    output = Output()
    try:
        result = call(output)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer's answer to a pipe that nobody reads any more
        _leave_pipe()
        return 1
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        return _report(error, output)
    if result == INTERRUPTED:  # typer turns the interrupt into this code
        print("interrupted", file=sys.stderr)
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
        title += f": {error.found} in {error.where}"
    blocks = [_rows(fault, width) for fault in faults or [error]]
    return "\n".join([title, "\n\n".join(blocks)])


def _rows(error: VtcError, width: int | None) -> str:
    lines = []
    for label, text in error.rows():
        head = f"  {label:<{LABEL_WIDTH}}"
        body = [text]
        if width:
            body = textwrap.wrap(
                text, width - len(head), break_long_words=False, break_on_hyphens=False
            )
        lines.append(head + f"\n{' ' * len(head)}".join(body))
    return "\n".join(lines)


def _report(error: Exception, output: Output) -> int:
    known = _as_vtc_error(error)
    if output.debug:
        traceback.print_exception(error)
    if known is None:
        text = " ".join(str(error).split()) or "no message"
        hint = "" if output.debug else "; rerun with --debug for the traceback"
        print(f"error: unexpected {type(error).__name__}: {text}{hint}", file=sys.stderr)
        return 1
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    print(error_block(known, width), file=sys.stderr)
    return known.exit_code


def _as_vtc_error(error: Exception) -> VtcError | None:
    if isinstance(error, VtcError):
        return error
    if isinstance(error, TyperException):
        return _wrong_words(error)
    if is_out_of_memory(error):
        text = str(error).partition("\n")[0] or "an allocation failed"
        return MemoryExhaustedError(text, hint="a smaller --dtype or model, or another --device")
    return None


def _wrong_words(error: TyperException) -> UsageError:
    """What the parser of the command line objects to, with what was meant instead."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "vtc"
    found, help_text = error.format_message().replace("Value error, ", ""), f"{command} --help"
    name, is_choice, names = found.partition(" is not one of ")
    if is_choice:
        known = [each.strip("'. ") for each in names.split(",")]
        near = nearest(name.rpartition(" ")[2].strip("'"), known)
        return UsageError(name, where=command, allowed=", ".join(known), hint=near or help_text)
    option = getattr(error, "option_name", None)
    if context is None or option is None:
        return UsageError(found, where=command, hint=help_text)
    commands = getattr(context.find_root().command, "commands", {})
    owners = [f"vtc {name}" for name, item in commands.items() if _has(item, option)]
    allowed = f"{option} is an option of {', '.join(owners)}" if owners else None
    if any(
        item.name == "question" and not item.opts[0].startswith("-")
        for item in context.command.params
    ):
        help_text += "; a question that begins with - stands behind --"
    return UsageError(found, where=command, allowed=allowed, hint=help_text)


def _has(command: Any, option: str) -> bool:
    return any(option in item.opts for item in command.params)


def _leave_pipe() -> None:
    """Point stdout at nothing, or the interpreter complains while it shuts down."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
