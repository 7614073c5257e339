"""What starting costs: real processes, the modules they load, the time they take."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.comparisons import judged

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "numpy", "PIL", "decord"}
WRAPPER = """
import json, sys
sys.argv[0] = "vtc"
from vtc_cli.app import run_command_line
code = run_command_line(sys.argv[1:])
roots = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(roots), file=sys.stderr)
sys.exit(code)
"""


def loaded_by(arguments: list[str]) -> set[str]:
    """Top names of all modules that a command line has loaded when it ends."""
    finished = subprocess.run(
        [sys.executable, "-c", WRAPPER, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout
    return set(json.loads(finished.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["recipes", "list"], ["run", "--help"], ["explain", "flops"]],
    ids=" ".join,
)
def test_a_light_command_loads_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded_by(arguments)
    assert "vtc_cli" in modules
    assert modules & HEAVY == set()


def test_the_wrapper_sees_what_is_loaded() -> None:
    """`recipes show` reads the stages of the recipe, and stages compute with torch."""
    modules = loaded_by(["recipes", "show", "mustdrop"])
    assert "torch" in modules
    assert "transformers" not in modules


def test_listing_recipes_takes_less_than_two_seconds_of_a_core() -> None:
    """Time of the processor, for the cores may be shared; the quickest of three."""
    taken = []
    for _ in range(3):
        begin = processor_seconds()
        subprocess.run(
            [sys.executable, "-m", "vtc_cli", "recipes", "list"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        taken.append(processor_seconds() - begin)
    assert min(taken) < 2.0


def processor_seconds() -> float:
    """Spent by the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_reporting_a_comparison_again_loads_no_model_library(tmp_path: Path) -> None:
    rows = judged({("full", ""): [True], ("r", "4"): [True]}, ["r"], ["4"], [])
    lines = [rows.head, *rows.items.values(), *rows.passes.values()]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line.model_dump_json()}\n" for line in lines), encoding="utf-8")
    modules = loaded_by(["compare", "--from", str(path)])
    assert modules & {"torch", "transformers"} == set()
