"""`vtc explain`: what a reported figure means, without loading any model library."""

from __future__ import annotations

import difflib
import textwrap
from typing import Annotated

import typer

from vtc_cli.core.errors import UsageError
from vtc_cli.metrics.definitions import DEFINITIONS, Definition, find


def explain(
    topic: Annotated[str, typer.Argument(help="A figure, for instance flops, kv or kl.")],
) -> None:
    """Print definition, formula, unit and source of a figure.

    Raises:
        UsageError: no figure has that name.
    """
    definition = find(topic)
    if definition is None:
        raise UsageError(
            f"nothing is called {topic!r}",
            allowed=", ".join(DEFINITIONS),
            hint=_nearest(topic),
        )
    typer.echo(_text(definition))


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
    """The command that explains the figure whose name or alias looks most like `topic`."""
    names = {
        name: item.name for item in DEFINITIONS.values() for name in (item.name, *item.aliases)
    }
    close = difflib.get_close_matches(topic.lower(), names, n=1)
    return f"vtc explain {names[close[0]]}" if close else None
