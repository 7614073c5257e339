"""Discovery by file name: a file in `stages/` or `models/` is registered by lying there.

Nothing is imported to list names, so help texts stay quick; a module is imported when it is used.
Besides the package, entry points (`vtc.stages`, `vtc.models`) and the folders of `VTC_PATH` count.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from vtc_cli.core.errors import MethodError, UsageError, VtcError

if TYPE_CHECKING:
    from vtc_cli.core.stage import Stage

Kind = Literal["stages", "models"]
EXTENSION_PARTS = ("stages", "models", "recipes")
Resource = Literal["recipes", "samples"]
PACKAGE = Path(__file__).resolve().parent.parent
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a module comes from and how to import it."""

    name: str
    origin: str
    load: Callable[[], ModuleType]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that `name` was most likely meant to be, None if nothing is close."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)), None)


def unknown_name(what: str, name: str, names: Iterable[str], where: str | None = None) -> VtcError:
    """A fault that shows the nearest name and the whole list."""
    known = sorted(names)
    return UsageError(
        f"no {what} is called {name!r}",
        where=where,
        allowed=", ".join(known) or f"there is no {what} at all",
        hint=nearest(name, known),
    )


def extension_folders() -> list[Path]:
    """Folders of `VTC_PATH`, each once.

    Raises:
        UsageError: an entry is not a folder, or holds nothing that would be looked at.
    """
    folders: dict[Path, None] = {}
    for entry in filter(None, os.environ.get("VTC_PATH", "").split(os.pathsep)):
        folder = Path(entry).expanduser().resolve()
        if not folder.is_dir():
            raise UsageError(f"{entry} is not a folder", where="VTC_PATH", allowed="folders only")
        if not any((folder / part).is_dir() for part in EXTENSION_PARTS):
            raise UsageError(
                f"{entry} holds nothing for vtc",
                where="VTC_PATH",
                allowed=f"a folder with one of {', '.join(f'{part}/' for part in EXTENSION_PARTS)}",
                hint=str(folder.parent) if folder.name in EXTENSION_PARTS else None,
            )
        folders[folder] = None
    return list(folders)


def sources(kind: Kind) -> dict[str, Source]:
    """Every module of `kind` by name, without importing any.

    Raises:
        UsageError: two owners of one name.
    """
    found: dict[str, Source] = {}
    for source in _all_sources(kind):
        other = found.setdefault(source.name, source)
        if other is not source:
            raise _two_owners(kind, source.name, other.origin, source.origin)
    return dict(sorted(found.items()))


def load_module(kind: Kind, name: str) -> ModuleType:
    """Import module `name` of `kind`.

    Raises:
        UsageError: there is no such module.
        VtcError: the module cannot be imported.
    """
    known = sources(kind)
    if name not in known:
        raise unknown_name(kind.removesuffix("s"), name, known)
    LOGGER.debug("%s %s from %s", kind.removesuffix("s"), name, known[name].origin)
    try:
        return known[name].load()
    except VtcError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_imported(known[name], error) from error


def _not_imported(source: Source, error: BaseException) -> VtcError:
    from vtc_cli.core.contract import line_in

    text = " ".join(str(error).split())
    return VtcError(
        f"importing failed: {type(error).__name__}: {text}",
        where=line_in(error, source.origin) or source.origin,
        hint="@dataclass(frozen=True, kw_only=True)" if "frozen" in text else None,
    )


def stages_of(module_name: str) -> dict[str, type[Stage]]:
    """Concrete stages that a stage module defines itself, by recipe name `<module>.<stage>`.

    Raises:
        VtcError: the module cannot be imported or defines no stage.
        MethodError: a stage class has faults; all of them.
    """
    from vtc_cli.core.contract import class_faults, unfinished
    from vtc_cli.core.stage import Stage

    module = load_module("stages", module_name)
    values = dict.fromkeys(value for value in vars(module).values() if inspect.isclass(value))
    mine = [v for v in values if issubclass(v, Stage) and v.__module__ == module.__name__]
    own = [cls for cls in mine if not inspect.isabstract(cls)]
    stages = {f"{module_name}.{cls.short_name()}": cls for cls in own}
    faults = [fault for cls in (*own, *unfinished(mine)) for fault in class_faults(cls)]
    origin = sources("stages")[module_name].origin
    if len(stages) < len(own):
        names = ", ".join(cls.__name__ for cls in own)
        faults.append(UsageError(f"two of the classes {names} have one name in recipes"))
    if faults:
        raise MethodError(faults, where=origin)
    if not own:
        raise VtcError(
            "the module defines no concrete stage",
            where=origin,
            allowed="at least one subclass of EncoderStage, PrefillStage or DecodeStage",
        )
    return stages


def stage_class(name: str) -> tuple[str, type[Stage]]:
    """The full recipe name and the class of stage `name`; `<module>` alone if it has one stage.

    Raises:
        UsageError: unknown, with the nearest name.
    """
    module_name, _, short = name.partition(".")
    if module_name not in (known := sources("stages")):
        raise _unknown_stage(name, _near_stages(module_name, known), known)
    stages = stages_of(module_name)
    if not short and len(stages) == 1:
        return next(iter(stages.items()))
    if name not in stages:
        raise _unknown_stage(name, stages, stages)
    return name, stages[name]


def all_stages() -> dict[str, type[Stage]]:
    """Every stage by full name; imports all stage modules."""
    return {name: cls for module in sources("stages") for name, cls in stages_of(module).items()}


def resource_folder(name: Resource) -> Path:
    """The shipped folder of that name: in the wheel inside the package, else in the checkout.

    Raises:
        VtcError: neither is there, the installation is broken.
    """
    candidates = (PACKAGE / "_data" / name, PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise VtcError(f"the shipped folder {name} is missing", where=str(candidates[0]))


def assets_folder() -> Path:
    """Weights and tables that always lie inside the package."""
    return PACKAGE / "assets"


def recipe_files() -> dict[str, Path]:
    """Shipped recipes and those of `VTC_PATH`, by file name without suffix.

    Raises:
        UsageError: two files of one name.
    """
    folders = [resource_folder("recipes"), *(path / "recipes" for path in extension_folders())]
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        other = found.setdefault(path.stem, path)
        if other != path:
            raise _two_owners("recipes", path.stem, str(other), str(path))
    return dict(sorted(found.items()))


def _near_stages(module_name: str, known: Iterable[str]) -> Mapping[str, object]:
    """The stages of the module most likely meant; none if that one has faults of its own."""
    suggestion = nearest(module_name, known)
    try:
        return stages_of(suggestion) if suggestion else {}
    except VtcError:
        return {}


def _unknown_stage(name: str, near: Mapping[str, object], listed: Iterable[str]) -> VtcError:
    fault = unknown_name("stage", name, listed)
    fault.hint = nearest(name, near) or next(iter(near), None) or fault.hint
    return fault


def _two_owners(kind: str, name: str, first: str, second: str) -> UsageError:
    return UsageError(
        f"{kind} has two owners of the name {name!r}: {first} and {second}",
        where=name,
        hint="rename one of them",
    )


def _all_sources(kind: Kind) -> Iterator[Source]:
    for path in _modules_in(PACKAGE / kind):
        dotted = f"vtc_cli.{kind}.{path.stem}"
        yield Source(path.stem, str(path), partial(importlib.import_module, dotted))
    for entry in _entries(f"vtc.{kind}", tuple(sys.path)):
        yield Source(
            entry.name, f"entry point {entry.value}", partial(importlib.import_module, entry.module)
        )
    for folder in extension_folders():
        for path in _modules_in(folder / kind):
            yield Source(path.stem, str(path), partial(_import_file, kind, path))


@cache
def _entries(group: str, search: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of installed packages; a recipe asks anew for each of its stages.

    Args:
        group: their group.
        search: where packages are looked for, so that another `sys.path` is read anew.
    """
    return tuple(entry_points(group=group))


def _modules_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]


def _import_file(kind: Kind, path: Path) -> ModuleType:
    """Import a file that belongs to no package, once; dataclasses need it in `sys.modules`."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"vtc_extension_{digest}.{kind}.{path.stem}".replace(".", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise VtcError("not a Python module", where=str(path))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
