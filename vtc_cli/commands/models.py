"""`vtc models`: the model families, what each can tell a stage, and which recipes fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtc_cli.commands.listing import Format, FormatOption, JsonOption, print_rows
from vtc_cli.core.terminal import show

if TYPE_CHECKING:
    from vtc_cli.models.support.base import Adapter
    from vtc_cli.recipe.load import Recipe

HAS, HAS_NOT = "\u25cf", "\u00b7"
LETTERS = 26
COLUMN = 3  # a mark and the gap before it
FitOption = Annotated[
    str | None, typer.Option("--recipe", "-r", help="Say whether this recipe fits, and why not.")
]


def models(
    fits: FitOption = None, format: FormatOption = "table", as_json: JsonOption = False
) -> None:
    """List model families, their true sizes (shape:NAME) and the signals that they provide."""
    from vtc_cli.core.discover import sources
    from vtc_cli.models.support.load import family_class
    from vtc_cli.models.support.true_size import read_true_size, true_sizes

    shapes = {name: read_true_size(name).family for name in true_sizes()}
    recipe = None if fits is None else _recipe(fits)
    rows = [_row(family_class(name), recipe) for name in sorted(sources("models"))]
    for row in rows:
        row["shapes"] = [name for name, family in shapes.items() if family == row["family"]]
    format = "json" if as_json else format
    if recipe is None and format in ("table", "md"):
        _print_signals(rows, format)
    else:
        columns = ["family", "shapes", "signals"] if recipe is None else ["family", "fits"]
        print_rows(rows, columns, format)


def _print_signals(rows: list[dict[str, Any]], format: Format) -> None:
    """Families beside their signals: a row a signal, a column a family, named below the table."""
    from vtc_cli.core.signals import SIGNAL_NAMES

    names = list(dict.fromkeys([*SIGNAL_NAMES, *(name for row in rows for name in row["signals"])]))
    letters = [_letters(number) for number in range(len(rows))]
    families = list(zip(letters, rows, strict=True))
    marks = [
        {"signal": name, **{at: _mark(name in row["signals"]) for at, row in families}}
        for name in names
        if any(name in row["signals"] for row in rows)
    ]
    legend = [
        {"": at, "family": row["family"], "true sizes": [f"shape:{name}" for name in row["shapes"]]}
        for at, row in families
    ]
    for some in _blocks(letters, max(map(len, names)), format):
        print_rows(marks, ["signal", *some], format)
    show(f"\n{HAS} gives the signal   {HAS_NOT} does not\n")
    print_rows(legend, ["", "family", "true sizes"], format)


def _blocks(letters: list[str], names: int, format: Format) -> list[list[str]]:
    """The families that fit beside the names of the signals, block by block."""
    from vtc_cli.core.console import Console

    room = max((Console().width - names) // COLUMN, 1) if format == "table" else len(letters)
    return [letters[at : at + room] for at in range(0, len(letters), room)]


def _mark(given: bool) -> str:
    return HAS if given else HAS_NOT


def _letters(number: int) -> str:
    """`a` to `z`, then `aa`."""
    head = "" if number < LETTERS else _letters(number // LETTERS - 1)
    return head + chr(ord("a") + number % LETTERS)


def _recipe(name: str) -> Recipe:
    from vtc_cli.recipe.load import load_recipe

    return load_recipe(name)


def _row(family: type[Adapter], recipe: Recipe | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "family": family.family,
        "architectures": list(family.model_types),
        "signals": sorted(_signals(family)),
    }
    return row if recipe is None else row | _fit(family, recipe)


def _signals(family: type[Adapter]) -> frozenset[str]:
    """What a family gives itself and what the engine makes of it."""
    from vtc_cli.core.signals import with_derived

    return with_derived(family.provides)


def _fit(family: type[Adapter], recipe: Recipe) -> dict[str, Any]:
    """Whether every stage of the recipe gets its signals, in words and by stage."""
    lacking = {
        use.name: sorted(use.cls.needs - _signals(family))
        for use in recipe.stages
        if not use.cls.needs <= _signals(family)
    }
    reasons = [f"{name} needs {', '.join(signals)}" for name, signals in lacking.items()]
    return {"fits": "yes" if not lacking else f"no: {'; '.join(reasons)}", "lacking": lacking}
