"""`vtc recipes`: which recipes there are, what they say, and whether files are sound."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtc_cli.commands.listing import FormatOption, JsonOption, print_rows
from vtc_cli.commands.output import common_options
from vtc_cli.commands.recipes_solve import solve
from vtc_cli.commands.settings import EPILOG, reading_settings
from vtc_cli.core import terminal
from vtc_cli.core.words import counted

if TYPE_CHECKING:
    from vtc_cli.recipe.load import Recipe, StageUse

app = typer.Typer(help="List, show, check and solve recipes.", no_args_is_help=False)
PHASES = ("input", "encoder", "prefill", "decode")
Names = Annotated[list[str] | None, typer.Argument(help="Recipe files or names; none: all known.")]
Name = Annotated[str, typer.Argument(help="Recipe file or name.")]


@app.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """List, show, check and solve recipes."""
    if context.invoked_subcommand is None:
        terminal.show(context.get_help())


@app.command("list")
@common_options
def list_recipes(format: FormatOption = "table", as_json: JsonOption = False) -> None:
    """List the known recipes; imports no stage and no model."""
    from vtc_cli.core.discover import recipe_files

    rows = [_outline(name, path) for name, path in recipe_files().items()]
    columns = ("name", "phases", "budgets", "paper")
    print_rows(rows, columns, "json" if as_json else format)


@app.command()
@common_options
def show(name: Name, as_json: JsonOption = False) -> None:
    """Show a recipe with the hyper-parameters of its stages, their defaults and sources."""
    from vtc_cli.recipe.load import load_recipe

    recipe = load_recipe(name)
    if as_json:
        terminal.show(json.dumps(_as_data(recipe), indent=2, ensure_ascii=False))
    else:
        print_recipe(recipe)


@app.command()
@common_options
def validate(names: Names = None) -> None:
    """Check recipes and list all faults; exit code 2 if there is any."""
    from vtc_cli.commands.edge import error_block
    from vtc_cli.core.discover import recipe_files
    from vtc_cli.core.errors import VtcError
    from vtc_cli.recipe.load import load_recipe

    failed = False
    for name in names or list(recipe_files()):
        try:
            recipe = load_recipe(name)
        except VtcError as error:
            failed = True
            terminal.show(f"{terminal.escaped(name)}: not valid\n{error_block(error)}")
        else:
            terminal.show(f"{terminal.escaped(name)}: ok ({counted(len(recipe.stages), 'stage')})")
    if failed:
        raise typer.Exit(2)


@app.command()
@common_options
def schema() -> None:
    """Print the JSON Schema of recipe files, with every known stage."""
    from vtc_cli.recipe.json_schema import recipe_json_schema

    terminal.show(json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False))


app.command("solve", cls=reading_settings(solve), epilog=EPILOG)(common_options(solve))


def _outline(name: str, path: Path) -> dict[str, Any]:
    """What a list shows, read from the text alone so that a faulty recipe is listed too."""
    from vtc_cli.core.errors import RecipeError
    from vtc_cli.recipe.text import parse, read_bytes

    try:
        document = parse(read_bytes(path), str(path))
        document.check()
        data = document.data if isinstance(document.data, dict) else None
    except RecipeError:
        data = None
    paper = f"not valid: vtc recipes validate {path}" if data is None else data.get("paper", "")
    budgets = (data or {}).get("budgets")
    return {
        "name": name,
        "paper": paper,
        "description": (data or {}).get("description", ""),
        "phases": [phase for phase in PHASES if (data or {}).get(phase)],
        "budgets": list(budgets) if isinstance(budgets, dict) else [],
        "path": str(path),
    }


def _as_data(recipe: Recipe) -> dict[str, Any]:
    stages = [
        {
            "stage": use.name,
            "phase": use.cls.phase,
            "paper": use.cls.paper,
            "needs": sorted(use.cls.needs),
            "meets_budget": use.cls.meets_budget,
            "parameters": _parameter_rows(use),
            "budgets": use.overrides,
        }
        for use in recipe.stages
    ]
    head = recipe.file.model_dump(exclude={*PHASES, "budgets"})
    return {**head, "path": recipe.path, "sha256": recipe.sha256, "stages": stages}


def _parameter_rows(use: StageUse) -> list[dict[str, Any]]:
    from vtc_cli.recipe.parameters import parameters_of

    return [
        {
            "parameter": known.name,
            "value": use.values.get(known.name, known.default),
            "default": known.default,
            "meaning": known.doc,
            "source": known.source,
        }
        for known in parameters_of(use.cls).values()
    ]


def print_recipe(recipe: Recipe) -> None:
    """A recipe with everything its stages are set to."""
    file = recipe.file
    reference = (
        f"{file.reference.llm_layers} LLM layers, {file.reference.vision_layers} tower layers"
    )
    facts = {
        "recipe": file.name,
        "paper": file.paper,
        "about": file.description,
        "file": recipe.path,
        "reference": reference,
        "fidelity": file.fidelity or "sound",
        "budgets": ", ".join(map(str, file.budgets)),
        "default": str(file.default_budget or ""),
        **{f"source of {key}": text for key, text in file.source.items()},
    }
    width = max(map(len, facts)) + 2
    for label, text in facts.items():
        if text:
            terminal.show(f"{terminal.escaped(label):<{width}}{terminal.escaped(text)}")
    for use in recipe.stages:
        print_stage(use)


def print_stage(use: StageUse, *, whole: bool = False) -> None:
    """A stage: idea, signals, hyper-parameters with meaning and source of each default.

    Args:
        use: the stage and the values it was given.
        whole: everything the stage says of itself, its deviations from the paper included.
    """
    doc = inspect.getdoc(use.cls) or ""
    doc = doc if whole else doc.partition("\n")[0]
    budget = "; follows a budget" if use.cls.meets_budget else ""
    terminal.show(f"\n{use.cls.phase}: {use.name}{budget}\n{doc}")
    if use.cls.needs:
        terminal.show(f"needs {', '.join(sorted(use.cls.needs))}")
    rows = _parameter_rows(use)
    if rows:
        print_rows(rows, ("parameter", "value", "default", "meaning", "source"), "table")
    for budget_tokens, values in use.overrides.items():
        settings = ", ".join(f"{key} = {value}" for key, value in values.items())
        terminal.show(terminal.escaped(f"budget {budget_tokens}: {settings}"))
