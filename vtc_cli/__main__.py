"""`python -m vtc_cli` and the console script `vtc`."""

from __future__ import annotations

import sys

from vtc_cli.app import run_command_line


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
