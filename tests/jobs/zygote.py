"""A process that forks children which can be killed: what is heavy is loaded once.

One JSON object a line comes in, `{"arguments": [...], "folder": ...}`: the child carries out that
command line of vtc. Out go the child's process id and, when it ended, its exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading


def preload() -> None:
    from vtc_cli.commands import batch, job  # noqa: F401
    from vtc_cli.commands.loading import load_session
    from vtc_cli.commands.output import Output
    from vtc_cli.jobs import cluster, engines, local, progress, work  # noqa: F401
    from vtc_cli.media import video  # noqa: F401

    load_session(Output(quiet=True), "tiny", "cpu")
    assert threading.active_count() == 1  # or a fork would not be sound


def child(order: dict[str, object]) -> int:
    from vtc_cli.app import run_command_line

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(str(order["folder"]))
    arguments = order["arguments"]
    assert isinstance(arguments, list)
    sys.argv[:] = ["vtc", *arguments]
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        os.dup2(os.open(f"{order['told']}.{name}", os.O_WRONLY | os.O_CREAT), stream.fileno())
    return run_command_line(arguments)


def main() -> None:
    preload()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = child(order)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
