"""Write docs/matrix.md: `python -m tests.conformance.write [--settings NAME ...]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conformance.cells import SETTINGS, Outcome, checked, recipe_names, subject, subjects

MATRIX = Path(__file__).parents[2] / "docs" / "matrix.md"
HEAD = """# Conformance: every recipe on every family

Written by `make matrix`. Each cell ran on the `narrow:` model of the family (random weights, true
depth and token geometry) with a picture or four frames of noise. A figure is the largest difference
of any logit, behind the prompt and two more tokens, between the run under the recipe and the
untouched library model from which only attention was hidden; in half precision it is a share of the
largest logit. What rounding may make follows from the rule in `tests/tolerance.py`. In every cell
that ran all layers saw all text tokens, and no hook was left behind.

In float32 every recipe ran; in bfloat16 one of each kind of stage, and these on five families in
float16 and with eager attention.

`avg`: tokens are averaged inside the decoder, which no mask can do; such stages are checked against
their definition in `tests/stages`. `anew`: positions are counted anew in each layer. `-`: refused,
with the reason at the end.
"""
Cells = Mapping[tuple[str, str, str], Outcome]


def main(settings: list[str]) -> None:
    """Run the cells of each of `settings` and write them into the page; other parts stay."""
    parts = sections(MATRIX.read_text(encoding="utf-8") if MATRIX.exists() else "")
    for name in settings:
        cells = cells_under(name)
        found = [cell for cell in cells.values() if cell.difference]
        widest = max((cell.difference or 0) / cell.allowed for cell in found)
        parts[name] = f"largest: {widest:.2f} of what rounding may make\n\n{table(cells)}\n"
        if name == next(iter(SETTINGS)):
            parts["refused"] = f"\n{refusals_text(cells)}\n"
        ordered = [key for key in (*SETTINGS, "refused") if key in parts]
        text = [f"## {key.capitalize()}\n\n{parts[key].strip()}\n" for key in ordered]
        MATRIX.write_text("\n".join([HEAD, *text]), encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Parts of an older page by their titles."""
    found = {}
    for part in page.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        found[title.strip().lower()] = text
    return found


def cells_under(settings: str) -> dict[tuple[str, str, str], Outcome]:
    """Every cell, one line of progress each."""
    cells = {}
    for family, kind in subjects(settings):
        for recipe in recipe_names(settings):
            outcome = checked(recipe, subject(family, kind, settings))
            cells[family, kind, recipe] = outcome
            print(settings, family, kind, recipe, mark(outcome), flush=True)
    return cells


def table(cells: Cells) -> str:
    """Recipes from top to bottom, families across."""
    pairs = list(dict.fromkeys((family, kind) for family, kind, _ in cells))
    recipes = list(dict.fromkeys(recipe for *_, recipe in cells))
    lines = ["| family | media | " + " | ".join(f"`{name}`" for name in recipes) + " |"]
    lines.append("|---|---|" + "---|" * len(recipes))
    for family, kind in pairs:
        row = [mark(cells[family, kind, recipe]) for recipe in recipes]
        lines.append(f"| {family} | {kind} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def mark(outcome: Outcome) -> str:
    """One cell in a few characters."""
    if outcome.refused is not None:
        return "-"
    if not outcome.text_untouched or outcome.hooks_left:
        return "BROKEN"
    if outcome.difference is None:
        return "avg" if "averaged" in outcome.note else "anew"
    return f"{outcome.difference:.0e}" if outcome.difference else "0"


def refusals_text(cells: Cells) -> str:
    """The refused cells with their reasons."""
    lines = ["| family | media | recipe | reason |", "|---|---|---|---|"]
    for (family, kind, recipe), outcome in cells.items():
        if outcome.refused is not None:
            lines.append(f"| {family} | {kind} | `{recipe}` | {outcome.refused} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
