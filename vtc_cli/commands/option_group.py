"""Options that a command takes together, as one argument that holds them all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints


def option_group(
    name: str, group: type[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `group`, a dataclass whose fields all have defaults.

    The command itself takes one keyword argument `name` in their place.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [
            item for item in inspect.signature(function).parameters.values() if item.name != name
        ]
        mine = _parameters(group)

        @functools.wraps(function)
        def wrapper(**arguments: Any) -> None:
            values = {item.name: arguments.pop(item.name) for item in mine}
            function(**arguments, **{name: group(**values)})

        keyword = inspect.Parameter.KEYWORD_ONLY
        taken = [item.replace(kind=keyword, annotation=hints[item.name]) for item in own]
        signature = inspect.Signature([*taken, *mine])
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {item.name: item.annotation for item in (*taken, *mine)}
        return wrapper

    return decorate


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    assert all(item.default is not MISSING for item in fields(group))
    return [
        inspect.Parameter(item.name, keyword, annotation=hints[item.name], default=item.default)
        for item in fields(group)
    ]
