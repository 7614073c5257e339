"""`--relevance`: a pair of encoders that scores frames in place of the model's own features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vtc_cli.commands.loading import busy
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import PLAN
from vtc_cli.core.errors import UsageError

if TYPE_CHECKING:
    from vtc_cli.core.media import Media
    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.prompt import Prompt
    from vtc_cli.models.support.relevance import Pair
    from vtc_cli.recipe.load import Recipe

SIGNAL = "frame_relevance"
RelevanceOption = Annotated[
    str | None,
    typer.Option(help="CLIP or SigLIP that scores frames by the question.", rich_help_panel=PLAN),
]


def check_read(name: str | None, recipes: Iterable[Recipe]) -> None:
    """See that some recipe reads what a pair gives.

    Raises:
        UsageError: a pair is named and none does.
    """
    recipes = list(recipes)
    if name is None or any(SIGNAL in use.cls.needs for each in recipes for use in each.stages):
        return
    named = ", ".join(recipe.file.name for recipe in recipes) or "full"
    raise UsageError(
        f"--relevance {name} with the recipe {named}, which does not read it",
        allowed=f"a recipe with a stage that reads {SIGNAL}",
        hint="leave out --relevance; `vtc recipes show NAME` tells what stages read",
    )


def load_relevance(name: str | None, session: Session, output: Output) -> Pair | None:
    """The pair `name` beside the model, on its device and in its dtype; None without a name.

    Raises:
        ModelError: it cannot be loaded.
    """
    if name is None:
        return None
    from vtc_cli.models.support.relevance import load_pair

    with busy(output, f"loading {name}"):
        return load_pair(name, session.adapter.device, session.adapter.model.dtype)


def scored(prompt: Prompt, pair: Pair | None, media: Media | Sequence[Media]) -> Prompt:
    """The prompt whose frames `pair` scores by its question; as it was without a pair."""
    if pair is None:
        return prompt
    shown = media if isinstance(media, Sequence) else (media,)
    scorers = tuple(pair.scorer(each, prompt.question) for each in shown)
    warnings = (*prompt.warnings, *pair.warnings(prompt.question))
    return replace(prompt, frame_scorers=scorers, warnings=warnings)
