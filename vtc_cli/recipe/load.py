"""Recipe files to checked recipes: every fault of a file at once, each with its line."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtc_cli.core.discover import nearest, recipe_files, stage_class, unknown_name
from vtc_cli.core.errors import RecipeError, VtcError
from vtc_cli.core.stage import Stage
from vtc_cli.recipe.parameters import (
    check_defaults,
    check_missing,
    check_values,
    check_whole,
)
from vtc_cli.recipe.schema import PHASES, RecipeFile, Reference, validate_file
from vtc_cli.recipe.text import Document, Place, parse, read_bytes

MOST_STAGES = MOST_BUDGETS = 256
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageUse:
    """A stage as a recipe uses it.

    Attributes:
        name: full name, for instance `mustdrop.spatial_merge`.
        cls: the stage class.
        values: hyper-parameters that the recipe gives, on the reference depth.
        where: file and line.
        overrides: further values by published budget.
    """

    name: str
    cls: type[Stage]
    values: Mapping[str, Any]
    where: str
    overrides: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A recipe without faults.

    Attributes:
        file: what the file says.
        path: the file.
        sha256: hash of its bytes.
        stages: all stages in the order of the data's way.
    """

    file: RecipeFile
    path: str
    sha256: str
    stages: tuple[StageUse, ...]


def recipe_path(name: str) -> Path:
    """The file of a recipe given as a path or as the name of a known recipe.

    Raises:
        UsageError: no such name, with the nearest.
    """
    if Path(name).suffix in (".yaml", ".yml") or os.sep in name:
        return Path(name)
    known = recipe_files()
    if name not in known:
        raise unknown_name("recipe", name, known)
    return known[name]


def load_recipe(name: str | Path) -> Recipe:
    """Read and check a recipe; imports the stages it names, never a model.

    Raises:
        UsageError: unknown name.
        RecipeError: with all faults of the file.
    """
    path = recipe_path(str(name))
    if not os.path.exists(path):  # unlike Path.exists, never raises over an impossible name
        raise _missing_file(path)
    LOGGER.info("recipe from %s", path)
    raw = read_bytes(path)
    document = parse(raw, str(path))
    document.check()
    _check_size(document)
    file = validate_file(document)
    stages = _check_stages(document)
    if file is not None:
        _check_default_budget(document, file)
    document.check()
    assert file is not None  # its faults were raised by check()
    return Recipe(file, str(path), hashlib.sha256(raw).hexdigest(), stages)


def _missing_file(path: Path) -> RecipeError:
    known = recipe_files()
    near = nearest(path.stem, known)
    fault = VtcError(
        "there is no such file",
        where=str(path),
        allowed=f"a file, or one of: {', '.join(known)}",
        hint=f"--recipe {near}" if near else None,
    )
    return RecipeError([fault], where=str(path))


def _check_default_budget(document: Document, file: RecipeFile) -> None:
    if file.fidelity == "official" and file.default_budget not in (None, *file.budgets):
        document.fault(
            ("default_budget",),
            f"no published settings for the default budget {file.default_budget}",
            ", ".join(map(str, file.budgets)) or "null (the recipe has no budgets)",
        )


def _check_stages(document: Document) -> tuple[StageUse, ...]:
    """Check stages and overrides over the raw data, so that other faults hide none of them."""
    data = document.data if isinstance(document.data, dict) else {}
    reference = _reference(data.get("reference"))
    uses: list[StageUse] = []
    unknown: set[str] = set()
    for phase in PHASES:
        entries = data.get(phase)
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict) and len(entry) == 1:
                name, raw = next(iter(entry.items()))
                place = (phase, index, name)
                use = _check_use(document, place, raw, reference)
                uses.extend([use] if use else [])
                unknown.update([] if use else [_short(name)])
    _check_overrides(document, data.get("budgets"), uses, unknown, reference)
    return tuple(uses)


def _check_size(document: Document) -> None:
    """Refuse more stages or budgets than a recipe may have, before each of them is looked at.

    Raises:
        RecipeError: there are more.
    """
    data = document.data if isinstance(document.data, dict) else {}
    entries = [data[name] for name in PHASES if isinstance(data.get(name), list)]
    stages, budgets = sum(map(len, entries)), data.get("budgets")
    if stages > MOST_STAGES:
        document.fault((), f"{stages} stages", f"at most {MOST_STAGES} in a recipe")
    if isinstance(budgets, dict) and len(budgets) > MOST_BUDGETS:
        place: Place = ("budgets",)
        document.fault(place, f"{len(budgets)} budgets", f"at most {MOST_BUDGETS} in a recipe")
    document.check()


def _reference(raw: Any) -> Reference:
    """The reference depths, or the usual ones while the file says something unusable."""
    try:
        return Reference.model_validate(raw if isinstance(raw, dict) else {})
    except ValueError:
        return Reference()


def _check_use(document: Document, place: Place, raw: Any, reference: Reference) -> StageUse | None:
    phase, _, name = place
    try:
        full_name, cls = stage_class(str(name))
        check_defaults(cls)
        values = check_values(document, place, cls, raw, reference)
    except VtcError as error:
        for fault in getattr(error, "faults", None) or [error]:
            origin = f" ({fault.where})" if fault.where else ""
            document.fault(place, f"{fault.found}{origin}", fault.allowed, fault.hint)
        return None
    if cls.phase != phase:
        document.fault(
            place, f"{full_name} stands under {phase}", f"{cls.phase}", f"move it to {cls.phase}:"
        )
    given = raw if isinstance(raw, dict) else {}
    check_missing(document, place, cls, given)
    if len(values) == len(given):
        check_whole(document, place, cls, values)
    return StageUse(full_name, cls, values, f"{document.path}:{document.line(place)}")


def _check_overrides(
    document: Document, budgets: Any, uses: list[StageUse], unknown: set[str], reference: Reference
) -> None:
    for budget, overrides in (budgets if isinstance(budgets, dict) else {}).items():
        for name, raw in (overrides if isinstance(overrides, dict) else {}).items():
            place: Place = ("budgets", budget, name)
            checked: dict[type[Stage], dict[str, Any]] = {}
            for use in _named(document, place, uses, unknown):
                if use.cls not in checked:  # a stage may stand there hundreds of times
                    checked[use.cls] = check_values(document, place, use.cls, raw, reference)
                values = checked[use.cls]
                check_whole(document, place, use.cls, {**use.values, **values})
                use.overrides[budget] = values


def _named(
    document: Document, place: Place, uses: list[StageUse], unknown: set[str]
) -> list[StageUse]:
    """Stages that an override names by short, module or full name; none or two is a fault."""
    name = str(place[-1])
    matching = [use for use in uses if name in _names(use)]
    names = sorted({use.name for use in matching})
    if len(names) > 1:
        document.fault(place, f"{name!r} names several stages", ", ".join(names))
        return []
    if not matching and _short(name) not in unknown:
        choices = {_short(use.name) for use in uses}
        document.fault(
            place,
            f"{name!r} is no stage of this recipe",
            ", ".join(sorted(choices)) or "the recipe has no stages",
            nearest(name, choices),
        )
    return matching


def _names(use: StageUse) -> set[str]:
    return {use.name, _short(use.name), use.name.partition(".")[0]}


def _short(name: object) -> str:
    return str(name).rpartition(".")[2]
