"""Settings that commands share: flag > VTC_* > vtc.toml of the project > user file > default."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from vtc_cli.core.errors import UsageError
from vtc_cli.core.files import read_bytes

LARGEST_SEED = (1 << 63) - 1
MOST_BYTES = 1 << 20
KEYS: dict[str, type] = {
    "model": str,
    "device": str,
    "dtype": str,
    "attn": str,
    "recipe": str,
    "seed": int,
}

# A command that takes one of these by this name also obeys the environment and the files.
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", envvar="VTC_MODEL", help="Shipped model, Hugging Face id or local folder."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", envvar="VTC_DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", envvar="VTC_DTYPE", help="auto, float32, bfloat16 or float16.")
]
AttnOption = Annotated[
    str, typer.Option("--attn", envvar="VTC_ATTN", help="Attention: sdpa or flash_attention_2.")
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", envvar="VTC_RECIPE", help="Recipe file or name.")
]
SeedOption = Annotated[
    int,
    typer.Option("--seed", min=0, max=LARGEST_SEED, envvar="VTC_SEED", help="Seed of all chance."),
]


def file_settings(start: Path | None = None) -> dict[str, Any]:
    """Settings of the user file, overruled by the nearest `vtc.toml` at or above `start`.

    Args:
        start: folder to begin at, by default the current one.

    Raises:
        UsageError: unreadable, an unknown key or a value of the wrong type.
    """
    settings: dict[str, Any] = {}
    if start is None:
        try:
            start = Path.cwd()
        except OSError as error:
            found = f"the current folder cannot be used: {error.strerror}"
            raise UsageError(found, allowed="a folder that exists") from error
    for path in (_user_file(), _project_file(start)):
        # os.path answers False where pathlib raises: in a folder that may not be looked into
        if path is not None and os.path.exists(path):
            settings |= _read(path)
    return settings


def _user_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "vtc" / "vtc.toml"


def _project_file(start: Path) -> Path | None:
    folders = [start, *start.parents]
    return next(
        (path for path in (folder / "vtc.toml" for folder in folders) if os.path.exists(path)), None
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(read_bytes(path, MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot be read: {reason}", where=str(path), allowed="TOML") from error
    except RecursionError as error:
        raise UsageError("nested too deeply", where=str(path), allowed="TOML") from error
    for key, value in raw.items():
        _check(path, key, value)
    return {key: _beside(path, key, value) for key, value in raw.items()}


def _check(path: Path, key: str, value: Any) -> None:
    if key not in KEYS:
        from vtc_cli.core.discover import nearest

        found, allowed = f"unknown key {key!r}", ", ".join(KEYS)
        raise UsageError(found, where=str(path), allowed=allowed, hint=nearest(key, KEYS))
    if type(value) is not KEYS[key]:
        kind = "a whole number" if KEYS[key] is int else "a text in quotes"
        raise UsageError(f"{key} is {value!r}", where=str(path), allowed=kind)


def _beside(path: Path, key: str, value: Any) -> Any:
    """Relative files in a settings file are meant from its folder, not from where one stands."""
    is_file = (key == "recipe" and value.endswith((".yaml", ".yml"))) or (
        key == "model" and value.startswith(("./", "../"))
    )
    return str(path.parent / value) if is_file else value
