"""What a stage class must be, checked when it is discovered, before any model is loaded.

A method's author meets these faults in `vtc recipes validate`; without the checks a misspelt name
would pass silently or end in a TypeError in the middle of a run.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import fields
from types import FunctionType
from typing import Any

from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.signals import SIGNAL_NAMES
from vtc_cli.core.stage import DecodeStage, EncoderStage, InputStage, PrefillStage, Stage

PHASE_BASES = (InputStage, EncoderStage, PrefillStage, DecodeStage)
CLASS_VALUES: dict[str, type] = {"paper": str, "meets_budget": bool, "every_step": bool}
# Fields with a meaning of their own; a misspelt one would silently mean nothing.
FIELD_NAMES: dict[object, tuple[str, ...]] = {
    EncoderStage: ("vision_layer",),
    PrefillStage: ("layers",),
    DecodeStage: (),
}
DECORATOR = "@dataclass(frozen=True, kw_only=True)"
ALIKE = 0.85  # difflib's ratio from which a name is taken for a misspelling of another


@functools.cache
def class_faults(cls: type[Stage]) -> tuple[VtcError, ...]:
    """Everything that is wrong with a stage class; `where` is its file and line."""
    return tuple(_faults(cls))


def unfinished(classes: Iterable[type[Stage]]) -> list[type[Stage]]:
    """Abstract classes that are meant as stages: not named with `_` and no base of another one."""
    given = list(classes)
    return [
        cls
        for cls in given
        if inspect.isabstract(cls)
        and not cls.__name__.startswith("_")
        and not any(cls in other.__mro__[1:] for other in given)
    ]


def line_in(error: BaseException, file: str | None) -> str | None:
    """`file:line` of the last step of a traceback inside `file`, None if it never was there."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}:{error.lineno}"
    steps = traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if step.filename == file]
    return f"{file}:{lines[-1]}" if lines else None


def _faults(cls: type[Stage]) -> Iterator[VtcError]:
    bases = [base for base in PHASE_BASES if issubclass(cls, base)]
    if len(bases) != 1:
        names = " and ".join(base.__name__ for base in bases) or "Stage alone"
        allowed = ", ".join(base.__name__ for base in PHASE_BASES)
        yield _fault(cls, None, f"{cls.__name__} derives from {names}", f"one of {allowed}")
        return
    base = bases[0]
    if "__dataclass_fields__" not in vars(cls):
        found = f"{cls.__name__} is no dataclass of its own"
        yield _fault(cls, None, found, "a frozen dataclass", DECORATOR)
    yield from _lacking(cls)
    yield from _class_values(cls, base)
    yield from _needs(cls)
    for name in _public(base):
        yield from _member_fault(cls, base, name)
    yield from _misspelt(cls, base)


def _lacking(cls: type[Stage]) -> Iterator[VtcError]:
    """Methods that every stage of the phase must have."""
    for name in sorted(getattr(cls, "__abstractmethods__", ())):
        near = difflib.get_close_matches(name, _own_names(cls), n=1, cutoff=0.5)
        shape = inspect.signature(getattr(cls, name))
        yield _fault(
            cls,
            near[0] if near else None,
            f"{cls.__name__} has no method {name!r}",
            f"def {name}{shape}",
            f"rename {near[0]} to {name}" if near else None,
        )


def _class_values(cls: type[Stage], base: type[Stage]) -> Iterator[VtcError]:
    """Values of the class itself, such as `meets_budget`."""
    names = {item.name for item in fields(cls)}
    for name in ("needs", "phase", *CLASS_VALUES):
        if name in names:
            found = f"{cls.__name__}.{name} is a field, as a hyper-parameter is"
            yield _fault(cls, name, found, f"a value of the class: {name}: ClassVar[...] = ...")
    if cls.phase != base.phase:
        found = f"{cls.__name__}.phase is {cls.phase!r}"
        yield _fault(cls, "phase", found, f"{base.phase!r}, which {base.__name__} sets")
    for name, kind in CLASS_VALUES.items():
        value = getattr(cls, name, kind())
        if not isinstance(value, kind) and name not in names:
            found = f"{cls.__name__}.{name} is {_kind(value)}"
            yield _fault(cls, name, found, f"a {kind.__name__}")


def _needs(cls: type[Stage]) -> Iterator[VtcError]:
    """`needs` is a set of names that exist."""
    needs: Any = cls.needs
    names = [needs] if isinstance(needs, str) else needs
    if not isinstance(names, (frozenset, set, tuple, list)):
        yield _fault(
            cls, "needs", f"{cls.__name__}.needs is {_kind(needs)}", "a frozenset of names"
        )
        return
    if not isinstance(needs, (frozenset, set)):
        written = ", ".join(repr(name) for name in names)
        hint = f"needs: ClassVar[frozenset[str]] = frozenset({{{written}}})"
        found = f"{cls.__name__}.needs is {_kind(needs)}"
        yield _fault(cls, "needs", found, "a frozenset of names", hint)
    for name in sorted(names, key=str):
        if name not in SIGNAL_NAMES:
            near = difflib.get_close_matches(str(name), SIGNAL_NAMES, n=1, cutoff=0.5)
            found = f"{cls.__name__}.needs names {name!r}, which is no signal"
            yield _fault(cls, "needs", found, ", ".join(SIGNAL_NAMES), near[0] if near else None)


def _member_fault(cls: type[Stage], base: type[Stage], name: str) -> Iterator[VtcError]:
    """A method is one of the right arguments, a property is no method."""
    theirs, own = inspect.getattr_static(base, name), inspect.getattr_static(cls, name)
    if own is theirs or (name == "decide" and inspect.isabstract(cls)):
        return
    label = f"{cls.__name__}.{name}"
    if isinstance(theirs, property):
        if isinstance(own, FunctionType):
            yield _fault(cls, name, f"{label} is a method", "a property", "@property above it")
    elif isinstance(theirs, FunctionType):
        expected = ", ".join(inspect.signature(theirs).parameters)
        if not isinstance(own, FunctionType):
            found = f"{label} is {_kind(own)}"
            yield _fault(cls, name, found, f"a method: def {name}({expected})")
        elif inspect.iscoroutinefunction(own) or inspect.isgeneratorfunction(own):
            found = f"{label} is a coroutine or a generator"
            yield _fault(
                cls, name, found, f"a method that returns its result: def {name}({expected})"
            )
        elif not _takes(own, len(inspect.signature(theirs).parameters)):
            found = f"the arguments of {label} are {inspect.signature(own)}"
            yield _fault(cls, name, found, f"({expected})")


def _misspelt(cls: type[Stage], base: type[Stage]) -> Iterator[VtcError]:
    """Names of the class that nobody would read, but for one letter."""
    hyper_parameters = {item.name for item in fields(cls)}
    known = {*_public(base), "needs", *CLASS_VALUES}
    for name in _own_names(cls):
        read = (*FIELD_NAMES.get(base, ()), "fidelity") if name in hyper_parameters else known
        near = difflib.get_close_matches(name, read, n=1, cutoff=ALIKE)
        if name not in {*known, *read} and near:
            found = f"{cls.__name__}.{name} means nothing to vtc"
            yield _fault(cls, name, found, "another name, if it is your own", near[0])


def _takes(function: Any, count: int) -> bool:
    """Whether the function can be called with `count` positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _public(base: type[Stage]) -> list[str]:
    """What a base class offers for overriding, its fields aside."""
    taken = {item.name for item in fields(base)}
    return [name for name in dir(base) if not name.startswith("_") and name not in taken]


def _own_names(cls: type[Stage]) -> list[str]:
    """Public names that the class itself defines, hyper-parameters included."""
    return [name for name in vars(cls) if not name.startswith("_")]


def _kind(value: object) -> str:
    """A value as a fault shows it."""
    if isinstance(value, (str, int, float, tuple, list, dict, type(None))):
        return repr(value)
    return f"a {type(value).__name__}"


def _fault(
    cls: type[Stage], name: str | None, found: str, allowed: str, hint: str | None = None
) -> VtcError:
    """A fault at the line where the class, or `name` in it, stands."""
    where = inspect.getsourcefile(cls) or cls.__module__
    try:
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return UsageError(found, where=where, allowed=allowed, hint=hint)
    pattern = re.compile(rf"\s+(def\s+)?{re.escape(name)}\b" if name else r"class\b")
    offset = next((number for number, line in enumerate(lines) if pattern.match(line)), 0)
    return UsageError(found, where=f"{where}:{first + offset}", allowed=allowed, hint=hint)
