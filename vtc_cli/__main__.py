"""`python -m vtc_cli` and the console script `vtc`."""

from __future__ import annotations

import os
import sys

from vtc_cli.app import run_command_line


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Waiting threads sleep instead of spinning: with one other job on two cores, spinning made a
    # forward pass of `tiny` a hundred times slower. It must be set before torch loads its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
