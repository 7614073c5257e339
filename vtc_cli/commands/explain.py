"""`vtc explain`: what a figure means, what a stage does, what a recipe says."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from vtc_cli.core.errors import UsageError
from vtc_cli.core.terminal import show
from vtc_cli.metrics.definitions import DEFINITIONS, Definition, find


def explain(
    topic: Annotated[str, typer.Argument(help="A figure (flops, kv, kl), a stage or a recipe.")],
) -> None:
    """Print the definition of a figure, or what a stage or a recipe does."""
    definition = find(topic)
    if definition is not None:
        show(_text(definition))
    elif not _explain_stages(topic) and not _explain_recipe(topic):
        from vtc_cli.core.discover import sources

        raise UsageError(
            f"nothing is called {topic!r}",
            allowed=", ".join([*DEFINITIONS, *sources("stages")]) + ", a stage or a recipe",
            hint=_nearest(topic),
        )


def _explain_stages(topic: str) -> bool:
    """Print the stage, or all stages of the method, of that name; False if there is none."""
    from vtc_cli.core.discover import sources

    module = topic.partition(".")[0]
    if module not in sources("stages"):
        return False
    from vtc_cli.commands.recipes import print_stage
    from vtc_cli.core.discover import stage_class, stages_of
    from vtc_cli.recipe.load import StageUse

    chosen = stages_of(module) if topic == module else dict([stage_class(topic)])
    for name, cls in chosen.items():
        print_stage(StageUse(name, cls, {}, ""), whole=True)
    return True


def _explain_recipe(topic: str) -> bool:
    """Print the recipe of that name; False if there is none."""
    from vtc_cli.core.discover import recipe_files

    if topic not in recipe_files():
        return False
    from vtc_cli.commands.recipes import print_recipe
    from vtc_cli.recipe.load import load_recipe

    print_recipe(load_recipe(topic))
    return True


def _text(definition: Definition) -> str:
    """The definition as labelled paragraphs."""
    formula = definition.formula.replace("\n", "\n           ")
    rows = [("formula", formula), ("unit", definition.unit), ("source", definition.source)]
    rows.append(("fields", definition.fields))
    labelled = "\n".join(f"  {label:<9}{text}" for label, text in rows)
    return f"{definition.name}\n\n  {_wrapped(definition.meaning)}\n\n{labelled}"


def _wrapped(text: str) -> str:
    return "\n  ".join(textwrap.wrap(text, width=78))


def _nearest(topic: str) -> str | None:
    """The command that explains what looks most like `topic`."""
    from vtc_cli.core.discover import nearest, recipe_files, sources

    names = {
        name: item.name for item in DEFINITIONS.values() for name in (item.name, *item.aliases)
    }
    names |= {name: name for name in (*sources("stages"), *recipe_files())}
    near = nearest(topic.lower(), names)
    return f"vtc explain {names[near]}" if near else None
