"""Wall time of whole commands from a cold process: help, listing, and the main job on `tiny`.

Run: python benchmarks/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "vtc --help": (["--help"], 0.3),
    "vtc recipes list": (["recipes", "list"], 0.3),
    "vtc run (mustdrop, tiny)": (
        ["run", "--recipe", "mustdrop", "samples/plain.png", "what digit is there?"],
        6.0,
    ),
}


def seconds(arguments: list[str]) -> float:
    """Wall seconds of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vtc_cli", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print minimum, median and maximum of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    for name, (arguments, wanted) in COMMANDS.items():
        seconds(arguments)  # fills the file cache
        times = [seconds(arguments) for _ in range(runs)]
        middle = statistics.median(times)
        print(
            f"{name:26} {min(times):6.2f} {middle:6.2f} {max(times):6.2f} s   wanted <= {wanted} s"
        )


if __name__ == "__main__":
    main()
