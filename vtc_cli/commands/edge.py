"""The one place where errors become a block on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from typer import TyperException

from vtc_cli.commands.output import Output
from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import MemoryExhaustedError, UsageError, VtcError
from vtc_cli.core.memory import is_out_of_memory
from vtc_cli.core.terminal import escaped, say

INTERRUPTED = 130
# Only a stream that was open before fails with these and without a name.
STREAM_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
LABEL_WIDTH = 9


def run_guarded(call: Callable[[Output], Any]) -> int:
    """Run the command line and return its exit code; prints every error exactly once."""
    output = Output()
    try:
        result = call(output)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer's answer to a pipe that nobody reads any more
        _leave(sys.stdout)
        return 1
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        return _report(error, output)
    if result == INTERRUPTED:  # typer turns the interrupt into this code
        _give_up_broken_stdout()
        _tell("interrupted")
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
    _give_up_broken_stdout()
    known = _as_vtc_error(error)
    if output.debug:
        _tell("".join(traceback.format_exception(error)).rstrip())
    if known is None:
        text = " ".join(str(error).split()) or "no message"
        hint = "" if output.debug else "; rerun with --debug for the traceback"
        _tell(f"error: unexpected {type(error).__name__}: {text}{hint}")
        return 1
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    _tell(error_block(known, width))
    return known.exit_code


def _tell(text: str) -> None:
    """A text on stderr; the exit code stands even where nobody can read it."""
    try:
        say(text)
        sys.stderr.flush()
    except OSError:
        _leave(sys.stderr)


def _as_vtc_error(error: Exception) -> VtcError | None:
    if isinstance(error, VtcError):
        return error
    if isinstance(error, OSError):  # a disk, a right or a stream; never the user's command line
        of_stream = error.filename is None and error.errno in STREAM_FAULTS
        where = "standard output" if of_stream else str(error.filename or "") or None
        return VtcError(str(error.strerror or error), where=where)
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


def _give_up_broken_stdout() -> None:
    """See that what was printed and cannot be written is not tried again at the very end."""
    try:
        sys.stdout.flush()
    except OSError:
        _leave(sys.stdout)


def _leave(stream: TextIO) -> None:
    """Point a stream at nothing, or the interpreter complains while it shuts down."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
