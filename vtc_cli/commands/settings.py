"""Options from outside the command line, and which of them wins.

Flag > VTC_* > vtc.toml of the project > vtc.toml of the user > default.

What may be set follows from the declared options of `vtc run`: each but those that name the input
or the files of one run. A setting is obeyed by every command that has an option of its name and
kind.
"""

from __future__ import annotations

import inspect
import os
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import OptionInfo

from vtc_cli.commands.output import Output
from vtc_cli.core.errors import UsageError
from vtc_cli.core.files import read_bytes

# A variable that is no option: folders of methods of one's own.
VARIABLES = ("VTC_PATH",)
PREFIX = "VTC_"
FILE = "vtc.toml"
OF_ONE_RUN = "is no setting: it belongs to one run"
# Options that lists and paths do not give away: the jobs of a batch, what `format` says too, and
# what is refused with a recipe that does not read it.
NO_SETTINGS = ("batch", "json", "relevance")
# One of these on the command line takes the place of another one that is set.
ALTERNATIVES = frozenset({"frames", "fps", "keyframes"})
HELP = ("-h", "--help")
EPILOG = "Options may also stand in vtc.toml (budget = 64) or the environment (VTC_BUDGET=64)."
LARGEST_SEED = (1 << 63) - 1
MOST_BYTES = 1 << 16
MOST_DOTS = 100  # in a line: the reader of TOML needs time and memory squared for a.a.a = 1

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Shipped model, Hugging Face id or local folder; auto: tiny, for videos tiny-video.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
AttnOption = Annotated[str, typer.Option("--attn", help="Attention: sdpa or flash_attention_2.")]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Recipe file or name.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of all chance.")
]


@dataclass(frozen=True)
class Declared:
    """An option as a command declares it.

    Attributes:
        parameter: of the command's function.
        kind: the type of its value, without None.
        least: smallest value, None if there is none.
    """

    parameter: str
    kind: Any
    least: float | None

    @property
    def shape(self) -> str:
        """What a value looks like: options of one name and one shape mean the same."""
        if get_origin(self.kind) is list:
            return "list"
        return "path" if self.kind is Path else "flag" if self.kind is bool else "value"

    @property
    def allowed(self) -> str:
        """The values that it takes, in words."""
        if get_origin(self.kind) is Literal:
            return ", ".join(get_args(self.kind))
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        text = words.get(self.kind, "a text in quotes, or a number")
        return text if self.least is None else f"{text}, at least {self.least:g}"

    def value(self, given: Any) -> Any:
        """The value as the command takes it; texts of the environment are read.

        Raises:
            ValueError: it takes no such value.
        """
        from pydantic import ConfigDict, TypeAdapter

        text = isinstance(given, str)
        if self.kind is str and type(given) in (int, float):
            return str(given)
        strict = ConfigDict(strict=not text, allow_inf_nan=False)
        found = TypeAdapter(self.kind, config=strict).validate_python(given)
        if self.least is not None and found < self.least:
            raise ValueError(f"below {self.least:g}")
        return found


@dataclass(frozen=True)
class Setting:
    """A value from outside the command line; `where` is its variable, or its file and line."""

    name: str
    value: Any
    where: str


def reading_settings(function: Callable[..., None]) -> type[TyperCommand]:
    """The class of a command whose options may be set outside the command line."""

    class Command(TyperCommand):
        """A command that takes its defaults from settings first."""

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Read the settings, then the words; help needs none."""
            if not set(args) & set(HELP):
                ctx.default_map = defaults_for(function, ctx)
            return super().parse_args(ctx, args)

    return Command


def defaults_for(function: Callable[..., None], context: Any) -> dict[str, Callable[[], Any]]:
    """Defaults of a command by the names of its parameters, each read when it is needed.

    Args:
        function: the command.
        context: of the call; its `Output` learns where each default came from.

    Raises:
        UsageError: an unknown setting.
    """
    from vtc_cli.commands.run import run

    known, mine = declared(run) | declared_common(), declared(function) | declared_common()
    output = context.ensure_object(Output)
    return {
        option.parameter: partial(_default, setting, option, context, output)
        for setting in found_settings(known, output).values()
        if (option := mine.get(setting.name)) and option.shape == known[setting.name].shape
    }


def _default(setting: Setting, option: Declared, context: Any, output: Output) -> Any:
    """The value of a setting; None where the command line says otherwise.

    Raises:
        UsageError: the option takes no such value.
    """
    others = ALTERNATIVES - {option.parameter} if option.parameter in ALTERNATIVES else frozenset()
    if any(context.params.get(other) is not None for other in others):
        return None
    try:
        value = option.value(setting.value)
    except ValueError as error:
        flag = "--" + setting.name.replace("_", "-")
        raise UsageError(
            f"{setting.name} is {setting.value!r}",
            where=setting.where,
            allowed=option.allowed,
            hint=f"mend it, or overrule it with {flag}",
        ) from error
    output.settings[setting.name] = f"{setting.name} = {value} from {setting.where}"
    return value


def found_settings(
    known: Mapping[str, Declared], output: Output, start: Path | None = None
) -> dict[str, Setting]:
    """What is set: in the user's file, overruled by the project's, overruled by the environment.

    Args:
        known: options by the names of their settings.
        output: learns of variables that mean nothing.
        start: folder at or above which the project's file lies, by default the current one.

    Raises:
        UsageError: a file that cannot be read, or an unknown name with the nearest one.
    """
    found: dict[str, Setting] = {}
    for path in _files(start):
        for setting in _in_file(path):
            _check_name(setting.name, setting.name, setting.where, known)
            found[setting.name] = setting
    for variable, value in sorted(os.environ.items()):
        if not variable.startswith(PREFIX) or variable in VARIABLES or not value:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if variable != PREFIX + name.upper() or not _is_near(name, known):
            output.unknown.append(f"the variable {variable} means nothing to vtc")
            continue
        _check_name(name, variable, "the environment", known)
        found[name] = Setting(name, value, variable)
    return found


def declared(function: Callable[..., None]) -> dict[str, Declared]:
    """The options of a command by the names of their settings: `--top-p` is `top_p`."""
    hints = get_type_hints(function, include_extras=True)
    options: dict[str, Declared] = {}
    for parameter in inspect.signature(function).parameters:
        base, *notes = get_args(hints.get(parameter)) or (None,)
        for info in notes:
            if isinstance(info, OptionInfo):
                flags = [flag for flag in (info.default, *(info.param_decls or ())) if flag]
                long = [flag for flag in flags if str(flag).startswith("--")]
                name = long[0].removeprefix("--") if long else parameter
                options[name.replace("-", "_")] = Declared(parameter, _bare(base), info.min)
    return options


def declared_common() -> dict[str, Declared]:
    """The options of every command."""
    from vtc_cli.commands.output import COMMON

    return {
        name: Declared(name, get_args(annotation)[0], None)
        for name, (annotation, _) in COMMON.items()
    }


def _bare(kind: Any) -> Any:
    """A type without None."""
    if get_origin(kind) in (types.UnionType, Union):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _is_near(name: str, known: Mapping[str, Declared]) -> bool:
    """Whether a variable is a setting or was meant as one."""
    import difflib

    return bool(difflib.get_close_matches(name, known, n=1, cutoff=0.7))


def _check_name(name: str, shown: str, where: str, known: Mapping[str, Declared]) -> None:
    """Refuse what is no setting, and what is one of a single run."""
    from vtc_cli.core.discover import nearest

    settings = [key for key in known if _is_setting(key, known[key])]
    if name in settings:
        return
    near = nearest(name, settings)
    if name in known:
        flag = "--" + name.replace("_", "-")
        allowed, hint = f"{flag} on the command line", "format" if name == "json" else None
        raise UsageError(f"{shown} {OF_ONE_RUN}", where=where, allowed=allowed, hint=hint)
    if near is not None and shown != name:
        near = PREFIX + near.upper()
    raise UsageError(
        f"unknown setting {shown!r}", where=where, allowed=", ".join(sorted(settings)), hint=near
    )


def _is_setting(name: str, option: Declared) -> bool:
    """Whether an option of `run` says how to run, not what on or where to."""
    return option.shape in ("flag", "value") and name not in NO_SETTINGS


def _files(start: Path | None) -> list[Path]:
    """The user's file and the project's, those that are there."""
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = [Path(base) / "vtc" / FILE]
    try:
        here = start or Path.cwd()
    except OSError as error:  # it was removed; the arithmetic libraries do not load there either
        found = f"the current folder cannot be used: {error.strerror}"
        raise UsageError(found, allowed="a folder that exists") from error
    folders = (here, *here.parents)
    files += [path for folder in folders if os.path.exists(path := folder / FILE)][:1]
    return [path for path in files if os.path.exists(path)]


def _in_file(path: Path) -> Iterator[Setting]:
    """What a file sets, each with its line."""
    try:
        text = read_bytes(path, MOST_BYTES).decode("utf-8")
        if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
            raise RecursionError
        values = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError("nested too deeply", where=str(path), allowed="TOML") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot be read: {reason}", where=str(path), allowed="TOML") from error
    for name, value in values.items():
        lines = text[: match.start(1)] if (match := _key(name, text)) else ""
        where = f"{path}:{lines.count(chr(10)) + 1}"
        yield Setting(name, _beside(path, name, value), where)


def _key(name: str, text: str) -> re.Match[str] | None:
    return re.search(rf"""^\s*\[?["']?({re.escape(name)})\b""", text, re.MULTILINE)


def _beside(path: Path, name: str, value: Any) -> Any:
    """Relative files in a settings file are meant from its folder, not from where one stands."""
    if not isinstance(value, str):
        return value
    is_file = (name == "recipe" and value.endswith((".yaml", ".yml"))) or (
        name in ("recipe", "model") and value.startswith(("./", "../"))
    )
    return str(path.parent / value) if is_file else value
