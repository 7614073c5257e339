"""Hooks that are always removed again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn

PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
PostHook = Callable[[nn.Module, tuple[Any, ...], Any], None]


class HookSet:
    """A context in which hooks are registered; leaving it, by whatever way, removes them all."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def __enter__(self) -> HookSet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def before(self, module: nn.Module, hook: PreHook) -> None:
        """Call `hook(module, args, kwargs)` before each forward of `module`."""
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, module: nn.Module, hook: PostHook) -> None:
        """Call `hook(module, args, output)` after each forward of `module`."""
        self._handles.append(module.register_forward_hook(hook))
