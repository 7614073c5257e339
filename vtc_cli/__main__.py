"""`python -m vtc_cli` and the console script `vtc`."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Waiting threads sleep instead of spinning: with one other job on two cores, spinning made a
    # forward pass of `tiny` a hundred times slower. It must be set before torch loads its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _fill_streams()
    _use_utf8()
    from vtc_cli.app import run_command_line

    sys.exit(run_command_line(sys.argv[1:]))


def _fill_streams() -> None:
    """Put something in the place of standard streams that are closed.

    Otherwise the next file that is opened takes the place, and notes are written into it. In place
    of stdout stands what cannot be written, so that a result does not vanish without a word.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _use_utf8() -> None:
    """File names, questions and results are UTF-8, whatever the locale says.

    What a name or an argument is decoded with is settled when the interpreter starts, so under
    another encoding it is started once more.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # for the processes that are started here too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main()
