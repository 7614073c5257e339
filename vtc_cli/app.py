"""The command line: which commands there are, and what all of them share.

Command modules import nothing heavy at their top, so that help and listings never load torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from vtc_cli import __version__
from vtc_cli.commands import analyze, compare, compress, explain, jobs, models, recipes, run
from vtc_cli.commands.edge import run_guarded
from vtc_cli.commands.output import Debug, NoProgress, Output, Quiet, Verbose, common_options
from vtc_cli.commands.settings import EPILOG, reading_settings
from vtc_cli.core.terminal import show

# One line a command: its name and its function in `commands/`.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "jobs": jobs.jobs,
    "compress": compress.compress,
    "analyze": analyze.analyze,
    "compare": compare.compare,
    "explain": explain.explain,
    "models": models.models,
}

# Those whose options may also be set outside the command line.
SETTABLE = ("run", "compress", "analyze", "compare")

# One line a group of commands: its name and its Typer app.
GROUPS: dict[str, typer.Typer] = {"recipes": recipes.app}

app = typer.Typer(
    name="vtc",
    help="Experiments with visual-token compression in vision-language models, offline.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _function in COMMANDS.items():
    _settings: dict[str, Any] = {}
    if _name in SETTABLE:
        _settings = {"cls": reading_settings(_function), "epilog": EPILOG}
    app.command(_name, **_settings)(common_options(_function))
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"vtc {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Version = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Experiments with visual-token compression in vision-language models, offline."""
    context.ensure_object(Output).update(quiet, verbose, no_progress, debug)
    if context.invoked_subcommand is None:
        show(context.get_help())


def run_command_line(arguments: list[str]) -> int:
    """Carry out a command line; the exit code."""

    def call(output: Output) -> Any:
        return app(arguments, prog_name="vtc", standalone_mode=False, obj=output)

    return run_guarded(call)
