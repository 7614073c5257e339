"""What every command shares: the options for talkativeness and the two streams."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import typer

from vtc_cli.core.errors import UsageError
from vtc_cli.core.numbers import number_fault
from vtc_cli.core.terminal import escaped, say
from vtc_cli.core.text import HALF_CHARACTER

LOGGER = logging.getLogger("vtc_cli")
PANEL = "Output"
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No notes on stderr but that weights are random.",
        rich_help_panel=PANEL,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, help="More notes on stderr.", rich_help_panel=PANEL
    ),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress bars.", rich_help_panel=PANEL)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks of errors.", rich_help_panel=PANEL)
]
COMMON: dict[str, tuple[Any, Any]] = {
    "quiet": (Quiet, False),
    "verbose": (Verbose, 0),
    "no_progress": (NoProgress, False),
    "debug": (Debug, False),
}

SHORT = {"as_json": ("--json", "json"), "as_csv": ("--csv", "csv")}  # short for --format
QUESTIONS = ("question", "then")
INJECTED = ("output", "given")  # parameters of a command that are no options


class _Escaping(logging.Formatter):
    """Log lines are words for a reader too: paths and errors stand in them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback if there is one."""
        return escaped(super().format(record), lines=True)


@dataclass
class Output:
    """How much is said on stderr; stdout carries results only.

    Attributes:
        quiet: no progress, and no warning but that of `alarm`.
        verbose: 1 logs what happens, 2 also the small steps.
        no_progress: no bars even on a terminal.
        debug: tracebacks of errors.
        settings: options from outside the command line by name, and where from in words, for -v.
        unknown: variables that look like settings and are none.
    """

    quiet: bool = False
    verbose: int = 0
    no_progress: bool = False
    debug: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    @property
    def shows_progress(self) -> bool:
        """Whether bars may be drawn on stderr."""
        return not self.quiet and not self.no_progress and sys.stderr.isatty()

    def update(self, quiet: bool, verbose: int, no_progress: bool, debug: bool) -> None:
        """Add what one place of the command line says; before and after the command both count."""
        self.quiet = self.quiet or quiet
        self.verbose = max(self.verbose, verbose)
        self.no_progress = self.no_progress or no_progress
        self.debug = self.debug or debug
        self._configure_logging()

    def warn(self, text: str) -> None:
        """A line on stderr that the reader must know, unless quiet."""
        if not self.quiet and text not in self._said:
            say(f"warning: {escaped(text)}")

    def alarm(self, text: str) -> None:
        """A warning that no option hides, said once: without it a reader would be misled."""
        if text not in self._said:
            self._said.add(text)
            say(f"warning: {escaped(text)}")

    def tell_settings(self) -> None:
        """What was read outside the command line, once it is clear how much is to be said."""
        for text in self.unknown:
            self.warn(text)
        for text in self.settings.values():
            LOGGER.info(text)

    def _configure_logging(self) -> None:
        levels = (logging.WARNING, logging.INFO, logging.DEBUG)
        LOGGER.setLevel(logging.ERROR if self.quiet else levels[min(self.verbose, 2)])
        handler = logging.StreamHandler()  # anew, for stderr may be another one by now
        handler.setFormatter(_Escaping("%(name)s: %(message)s"))
        LOGGER.handlers[:] = [handler]


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every command.

    A command that takes an `output: Output` gets one, and one that takes a `given: frozenset[str]`
    gets the names of the parameters that stand on the command line itself. The wrapper has the
    signature of `function` without these two and with the common options.
    """
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters

    @functools.wraps(function)
    def wrapper(context: typer.Context, **arguments: Any) -> None:
        output = context.ensure_object(Output)
        output.update(**{name: arguments.pop(name) for name in COMMON})
        output.tell_settings()
        given = _given(context)
        _check_shape(arguments, given)
        for name, value in arguments.items():
            _check_value(name, value)
        extra = {"output": output, "given": given}
        function(**arguments, **{name: extra[name] for name in INJECTED if name in own})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", keyword, annotation=typer.Context)]
    for name, parameter in own.items():
        if name not in INJECTED:
            parameters.append(parameter.replace(kind=keyword, annotation=hints[name]))
    for name, (annotation, default) in COMMON.items():
        parameters.append(inspect.Parameter(name, keyword, annotation=annotation, default=default))
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
    return wrapper


def _check_shape(arguments: dict[str, Any], given: frozenset[str]) -> None:
    """Refuse two shapes of one result; a short option overrules a --format that is set elsewhere.

    Raises:
        UsageError: --json beside --csv or another --format.
    """
    asked = {shape: flag for name, (flag, shape) in SHORT.items() if arguments.get(name)}
    if "format" in given:
        asked.setdefault(arguments["format"], f"--format {arguments['format']}")
    if len(asked) > 1:
        found = " beside ".join(asked.values())
        raise UsageError(found, allowed="one shape of the result", hint="leave one of them out")


def _check_value(name: str, value: Any) -> None:
    """Refuse numbers that nothing can be computed with, and questions that are no text.

    Raises:
        UsageError: such a value.
    """
    flag = "--" + name.replace("_", "-")
    if isinstance(value, int | float) and name != "seed" and (fault := number_fault(value)):
        raise UsageError(f"{flag} {value}", allowed=fault)
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if name in QUESTIONS and any(HALF_CHARACTER.search(text) for text in texts):
        raise UsageError("a question that is not UTF-8", where=name.upper(), allowed="UTF-8 text")


def _given(context: typer.Context) -> frozenset[str]:
    """Parameters that the command line names, not the environment, a file or a default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )
