"""The tests that compare floating point numbers, computed as other machines would compute them.

    python -m tests.portable [--levels default avx2 avx512] [--threads 1 2]

Three libraries choose their instructions when a process starts: torch's own kernels, oneDNN (half
precision, convolutions) and MKL (products of float32 matrices). Each operation is done by one of
them, so a level sets all three alike and no further pair would show anything new. A probe in the
same environment first proves what was really chosen. A level that the machine lacks is named as
skipped; a variable without effect is a failure.

The tests are those of the files that use the rule of `tests.tolerance`, but for `LEFT_OUT`: the
tests of the rule, and models of true depth, which repeat in minutes what small ones show in
seconds. One level takes some two minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
LEFT_OUT = {
    "test_tolerance.py",
    "test_analyze.py",
    "test_matrix.py",
    "test_batch_decode.py",
    "test_mustdrop_oracle.py",
}
RANKS = ("DEFAULT", "AVX2", "AVX512")  # what torch calls its levels on x86, each holds those before


@dataclass(frozen=True)
class Level:
    """Instructions that all libraries are held to.

    Attributes:
        torch: name that torch gives the level, in lower case the value of its variable.
        onednn: value of its variable, and what its log then says.
        mkl: value of its variable.
    """

    torch: str
    onednn: tuple[str, str]
    mkl: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that hold a process to this level."""
        return {
            "ATEN_CPU_CAPABILITY": self.torch.lower(),
            "ONEDNN_MAX_CPU_ISA": self.onednn[0],
            "MKL_ENABLE_INSTRUCTIONS": self.mkl,
        }


LEVELS = {
    "default": Level("DEFAULT", ("SSE41", "SSE4.1"), "SSE4_2"),
    "avx2": Level("AVX2", ("AVX2", "AVX2"), "AVX2"),
    "avx512": Level("AVX512", ("AVX512_CORE", "AVX-512"), "AVX512"),
}

PROBE = """
import torch
print("torch:", torch.backends.cpu.get_cpu_capability())
torch.conv2d(torch.ones(1, 3, 64, 64), torch.ones(64, 3, 14, 14), stride=14)
torch.ones(64, 64) @ torch.ones(64, 64)
"""


def probe(environment: Mapping[str, str]) -> dict[str, str]:
    """What each library says of its instructions in a process with these variables."""
    given = os.environ | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"} | environment
    command = [sys.executable, "-c", PROBE]
    said = subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout
    patterns = {
        "torch": r"^torch: (.*)$",
        "oneDNN": r"^onednn_verbose.*\bisa:(.*)$",
        "MKL": r"^MKL_VERBOSE oneMKL.*\(Intel\(R\) ([\w.-]+)\)",
    }
    found = {name: re.search(text, said, re.MULTILINE) for name, text in patterns.items()}
    return {name: match.group(1) if match else "unknown" for name, match in found.items()}


def faults(level: Level, said: Mapping[str, str]) -> list[str]:
    """Variables without effect. MKL obeys its own on Intel's processors only: it is shown."""
    wrong = [] if said["torch"] == level.torch else [f"torch computes as {said['torch']}"]
    if level.onednn[1] not in said["oneDNN"]:
        wrong.append(f"oneDNN computes as {said['oneDNN']}")
    return wrong


def lacks(own: str, level: Level) -> bool:
    """Whether a machine whose own level is `own` cannot compute at `level`."""
    return own not in RANKS or RANKS.index(own) < RANKS.index(level.torch)


def numeric_files() -> list[str]:
    """Files of tests that use the rule, themselves or through `tests.models.tiles`."""
    uses = re.compile(r"^from tests\.(tolerance|models\.tiles) import", re.MULTILINE)
    return [
        str(path)
        for path in sorted(TESTS.rglob("test_*.py"))
        if path.name not in LEFT_OUT and uses.search(path.read_text(encoding="utf-8"))
    ]


@dataclass(frozen=True)
class Row:
    """One process: its counts, and its largest error as a share of what is allowed."""

    level: str
    threads: int
    passed: int
    failed: int
    largest: str
    seconds: float

    def __str__(self) -> str:
        counts = f"{self.passed:>6} {self.failed:>6} {self.largest:>7} {self.seconds:>7.0f} s"
        return f"{self.level:<8} {self.threads:>7} {counts}"


def run(name: str, threads: int, files: Sequence[str]) -> Row:
    """The tests in a process of their own; what it prints is shown as it comes."""
    given = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ  # threads that spin starve those that work
    given |= LEVELS[name].environment | {"VTC_TEST_THREADS": str(threads)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    begin, shown = time.monotonic(), []
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            shown.append(line)
    text = "".join(shown)
    found = re.findall(r"\b(\d+) (passed|failed|error)", text)
    counts = {word: int(count) for count, word in found}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if process.returncode and not failed:
        failed = 1
    largest = re.search(r"^largest error: ([\d.]+)", text, re.MULTILINE)
    seconds = time.monotonic() - begin
    share = largest.group(1) if largest else "-"
    return Row(name, threads, counts.get("passed", 0), failed, share, seconds)


def main() -> int:
    """Run every level that the machine has; 1 if a test failed or a variable had no effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="+", choices=list(LEVELS), default=list(LEVELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    chosen = parser.parse_args()
    own = probe({})["torch"]
    lines, broken = [f"{'level':<8} threads passed failed largest    time"], False
    for name in chosen.levels:
        if lacks(own, LEVELS[name]):
            lines.append(f"{name:<8} skipped: this machine computes at most as {own}")
            continue
        said = probe(LEVELS[name].environment)
        lines.append(f"{name:<8} {', '.join(': '.join(each) for each in said.items())}")
        if wrong := faults(LEVELS[name], said):
            lines.append(f"{name:<8} failed: {'; '.join(wrong)}")
            broken = True
            continue
        for threads in chosen.threads:
            row = run(name, threads, numeric_files())
            lines.append(str(row))
            broken = broken or row.failed > 0
    print("", *lines, "largest: of all errors, as a share of what is allowed", sep="\n")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
