"""`shape:<name>`: random weights at the true size of a published model, from a shipped config.

Latency, FLOPs and KV bytes do not depend on what weights hold, so they can be measured without a
download. The weights are made where they are used and in the dtype they are used in: there is never
a second copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vtc_cli.core.discover import assets_folder
from vtc_cli.core.errors import ModelError

Build = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class TrueSize:
    """A shipped configuration.

    Attributes:
        family: adapter that handles it.
        source: the model whose sizes these are.
        config: fields of the library's configuration class.
    """

    family: str
    source: str
    config: Mapping[str, Any]


def true_sizes(folder: Path | None = None) -> dict[str, Path]:
    """Files of shipped configurations by name."""
    return {
        path.stem: path for path in sorted((folder or assets_folder() / "shapes").glob("*.json"))
    }


def read_true_size(name: str, folder: Path | None = None) -> TrueSize:
    """The configuration called `name`.

    Raises:
        ModelError: there is none of that name.
    """
    known = true_sizes(folder)
    if name not in known:
        from vtc_cli.core.discover import nearest

        near = nearest(name, known)
        raise ModelError(
            f"no shape {name}",
            allowed=", ".join(known),
            hint=None if near is None else f"--model shape:{near}",
        )
    return TrueSize(**json.loads(known[name].read_text(encoding="utf-8")))


def builder(device: torch.device, dtype: torch.dtype, seed: int) -> Build:
    """A function that makes a random model of a class and a configuration on `device`.

    Weights keep the library's own initial scale.
    """

    def build(kind: Any, config: Any) -> Any:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _default_dtype(dtype), device:
            torch.manual_seed(seed)
            return kind(config).eval()

    return build


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
