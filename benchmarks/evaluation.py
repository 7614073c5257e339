"""The table of all shipped methods: docs/eval.md, and docs/compare.md where it has a place for it.

Run: python -m benchmarks.evaluation [--limit 80] [--budget 192,128,64]

Every pass is kept in build/eval.jsonl, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from vtc_cli.app import run_command_line
from vtc_cli.commands.compare_run import BASELINES
from vtc_cli.core.discover import resource_folder
from vtc_cli.core.files import write_whole
from vtc_cli.recipe.load import load_recipe
from vtc_cli.report.compare.columns import against_text, share_text
from vtc_cli.report.compare.summary import Arm, Comparison

ROOT = Path(__file__).resolve().parents[1]
ITEMS = Path("samples/eval/items.jsonl")
TITLE = "# Comparison"
FOR_CLIPS = ("metok",)  # over a single picture its pooling has nothing to pool
PLACE = re.compile(r"(<!-- eval: begin -->\n).*?(<!-- eval: end -->)", re.DOTALL)
HEAD = (
    "`make eval` wrote this page: every shipped method that meets a budget, at each budget beside "
    "the full model and the baselines, whatever the outcome; methods for clips are left out, for "
    "the items are pictures. Policies that only cut the cache count its entries and stand beside "
    "baselines whose cache is as large (`as h2o 64`). Accuracies depend on the seed and the "
    "versions only; times are those of one machine under its load of that hour."
)


def methods() -> list[str]:
    """Shipped recipes that meet a budget, without baselines and what is made for clips."""
    names = [path.stem for path in sorted(resource_folder("recipes").glob("*.yaml"))]
    left_out = (*BASELINES, *FOR_CLIPS)
    return [name for name in names if name not in left_out and _meets_budgets(name)]


def _meets_budgets(name: str) -> bool:
    recipe = load_recipe(name)
    sound = recipe.file.fidelity != "official"
    return sound and any(use.cls.meets_budget for use in recipe.stages)


def compared(arguments: list[str]) -> str:
    """What `vtc compare` prints.

    Raises:
        SystemExit: with its exit code, if it fails.
    """
    printed = StringIO()
    with redirect_stdout(printed):
        code = run_command_line(["compare", *arguments])
    if code:
        sys.exit(code)
    return printed.getvalue()


def page(table: str, command: str) -> str:
    """The page around the tables."""
    return f"{TITLE}\n\n{HEAD}\n\n```console\n$ vtc {command}\n```\n\n{table}"


def short_table(found: Comparison) -> str:
    """A row a method: its accuracy at each budget, beside random and down-sampling there.

    Baselines come first; of those that stand beside cut caches there are none here, for their
    accuracy is in the differences.
    """
    budgets = list(dict.fromkeys(arm.budget for arm in found.arms if arm.kind == "recipe"))
    arms = {(arm.recipe, arm.budget): arm for arm in found.arms}
    names = list(dict.fromkeys(arm.recipe for arm in found.arms if arm.kind == "recipe"))
    titles = [title for budget in budgets for title in (budget, "to random", "to small")]
    lines = [["", *titles], ["---", *("---:" for _ in titles)]]
    lines += [["full model", *_cells(arms["full", ""], len(budgets))]]
    for name in (*BASELINES, *sorted(names, key=lambda name: _cuts_cache(name, found))):
        mine = [arms.get((name, budget)) for budget in budgets]
        shown = f"{name} (cache)" if _cuts_cache(name, found) else name
        lines += [[shown, *(cell for arm in mine for cell in _cells(arm, 1))]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(arm: Arm | None, times: int) -> list[str]:
    """Accuracy and the two differences, as often as it is shown."""
    if arm is None:
        return ["-", "", ""] * times
    rivals = [arm.against.get(name) for name in ("random", "downsample")]
    differences = [against_text(rival).strip().replace("*", "\\*") for rival in rivals]
    return [share_text(arm.accuracy), *differences] * times


def _cuts_cache(name: str, found: Comparison) -> bool:
    arms = [arm for arm in found.arms if arm.recipe == name and arm.kind == "recipe"]
    return any(arm.tokens.cache_equivalent is not None for arm in arms)


def main(arguments: list[str] | None = None) -> None:
    """Compare, then write the page and the short table of docs/compare.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--budget", default="192,128,64")
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "eval.jsonl")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "eval.md")
    parser.add_argument("--short", type=Path, default=ROOT / "docs" / "compare.md")
    options = parser.parse_args(arguments)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    told = ["--recipe", ",".join(methods()), "--budget", options.budget, "--data", str(ITEMS)]
    told += [] if options.limit is None else ["--limit", str(options.limit)]
    kept = ["--seed", "0", "--model", "tiny", "-o", str(options.rows), "--format", "md"]
    table = compared([*told, *kept])
    write_whole(options.page, page(table, " ".join(["compare", *told])))
    text = options.short.read_text(encoding="utf-8")
    again = compared(["--from", str(options.rows), "--json", "-q"])
    short = short_table(Comparison.model_validate_json(again))
    filled = PLACE.sub(lambda place: place[1] + short + place[2], text)
    if filled != text:
        write_whole(options.short, filled)
    print(f"{options.page} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
