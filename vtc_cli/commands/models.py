"""`vtc models`: the model families, what each can tell a stage, and which recipes fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtc_cli.commands.listing import FormatOption, JsonOption, print_rows

if TYPE_CHECKING:
    from vtc_cli.models.support.base import Adapter
    from vtc_cli.recipe.load import Recipe

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
    columns = ["family", "shapes", "signals"] if recipe is None else ["family", "fits"]
    print_rows(rows, columns, "json" if as_json else format)


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
