"""A recipe as YAML text that is read back as the same recipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from vtc_cli.recipe.load import Recipe, StageUse
from vtc_cli.recipe.schema import PHASES, Reference

WIDTH = 100
OMITTED = ("budgets", "default_budget")  # settings of other budgets than the one solved for


def solved_text(
    recipe: Recipe,
    name: str,
    solved_for: str,
    *,
    notes: Sequence[str] = (),
    fidelity: str | None = None,
    reference: Reference | None = None,
) -> str:
    """The text of `recipe` under another name, without budgets.

    Args:
        recipe: with the hyper-parameters to be written.
        name: of the new recipe.
        solved_for: what its hyper-parameters were solved for, written under `source`.
        notes: comments at its head.
        fidelity: overrules that of the recipe.
        reference: depths that the layers belong to, if not those of the recipe.
    """
    file = recipe.file
    head = file.model_dump(exclude={*PHASES, *OMITTED, "source"}, exclude_none=True)
    head |= {"name": name, "reference": (reference or file.reference).model_dump()}
    if fidelity is not None:
        head["fidelity"] = fidelity
    stages = {
        phase: [_entry(use) for use in recipe.stages if use.cls.phase == phase] for phase in PHASES
    }
    source = {key: text for key, text in file.source.items() if key != "budgets"}
    data = {
        **{key: value for key, value in head.items() if value != ""},
        **{phase: entries for phase, entries in stages.items() if entries},
    }
    told = {"source": {**source, "solved": solved_for}}
    lines = [line for note in notes for line in textwrap.wrap(note, WIDTH - 2)]
    comments = "".join(f"# {line}\n" for line in lines)
    return comments + _dumped(data, flow=None) + _dumped(told, flow=False)


def _dumped(data: dict[str, Any], flow: bool | None) -> str:
    """YAML; with `flow` None lists and mappings of plain values stand on one line."""
    text: str = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=flow
    )
    return text


def _entry(use: StageUse) -> dict[str, Any]:
    """A stage with the hyper-parameters that the recipe gives it."""
    return {use.name: {name: _plain(value) for name, value in use.values.items()}}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
